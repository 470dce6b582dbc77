"""`copycat` and `python -m copycat`. Most of the start is the import, so that is inside of it."""

import sys


def main() -> None:
    """Run the command of `sys.argv`."""
    try:
        from copycat.cli.main import main as run  # noqa: PLC0415  (Ctrl-C may come meanwhile)
    except ImportError as cause:
        # A fresh clone has neither the dependencies nor the extension; a traceback would hide it.
        sys.exit(
            f"error[not-installed]: {cause}\n"
            "  hint: run `make build` in a clone, and then `.venv/bin/copycat`"
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
