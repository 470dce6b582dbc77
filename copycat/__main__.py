"""`python -m copycat`: the same as the `copycat` command."""

import sys

try:
    from copycat.cli.main import main
except ImportError as cause:
    # A fresh clone has neither the dependencies nor the extension; a traceback would hide that.
    sys.exit(
        f"error[not-installed]: {cause}\n"
        "  hint: run `make build` in a clone, and then `.venv/bin/copycat`"
    )

if __name__ == "__main__":
    main()
