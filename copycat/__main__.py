"""`copycat` and `python -m copycat`. Most of the start is the import, so that is inside of it."""

import os
import signal
import sys


def main() -> None:
    """Run the command of `sys.argv`."""
    if sys.argv[1:2] == ["serve"]:
        _end_cleanly_by_signals()
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


def _end_cleanly_by_signals() -> None:
    """A signal before the member has started ends the process at once with exit code 0.

    Nothing is open yet.

    `copycat.cli.serve` takes the signals over once the application is imported. Not by an
    exception: an application's import may catch any.
    """
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
