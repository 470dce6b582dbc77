"""Imports the state machine that `--app module:Class` names; data never names a module."""

from __future__ import annotations

import pkgutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from copycat.errors import ConfigurationError, CopycatError
from copycat.machine.machine import StateMachine
from copycat.tracebacks import shortened

__all__ = ["machine_class", "new_machine"]


def machine_class(app: str) -> type[StateMachine]:
    """Import the class. Its module may be in the working directory.

    ConfigurationError when that fails, whatever the module raises, `SystemExit` included.
    """
    with suppress(FileNotFoundError):  # the working directory was deleted
        sys.path.insert(0, str(Path.cwd()))
    try:
        machine = pkgutil.resolve_name(app)
    except (Exception, SystemExit) as cause:
        raise _refused(app, cause) from cause
    if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
        raise ConfigurationError(
            f"--app {app} is not a StateMachine class: {machine!r}",
            hint="write module:Class, where Class derives from copycat.StateMachine",
        )
    return machine


def new_machine(app: str, machine: type[StateMachine]) -> StateMachine:
    """Make a machine. ConfigurationError when the class cannot be called without arguments."""
    try:
        return machine()
    except (Exception, SystemExit) as cause:
        raise _refused(app, cause) from cause


def _refused(app: str, cause: BaseException) -> ConfigurationError:
    where = traceback.extract_tb(cause.__traceback__)[-1]
    is_theirs = where.filename not in {__file__, pkgutil.__file__} and "<" not in where.filename
    return ConfigurationError(
        f"--app {app}: {type(cause).__name__}: {' '.join(shortened(str(cause)).split())}",
        state=f"raised in {where.filename}, line {where.lineno}" if is_theirs else None,
        hint=(cause.hint if isinstance(cause, CopycatError) else None)
        or "write module:Class; this directory is searched for the module first",
    )
