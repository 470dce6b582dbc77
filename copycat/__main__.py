"""`python -m copycat`: the same as the `copycat` command."""

from copycat.cli.main import main

if __name__ == "__main__":
    main()
