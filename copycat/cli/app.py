"""The state machine that `--app module:Class` names. Only ever by the operator, never by data."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

from copycat.errors import ConfigurationError
from copycat.machine.machine import StateMachine

__all__ = ["machine_class"]


def machine_class(app: str) -> type[StateMachine]:
    """The class; modules of the working directory are found too. ConfigurationError."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = pkgutil.resolve_name(app)
    except (ImportError, AttributeError, ValueError) as cause:
        raise ConfigurationError(f"--app {app}: {cause}") from cause
    if not (isinstance(found, type) and issubclass(found, StateMachine)):
        raise ConfigurationError(f"--app {app} is not a StateMachine class: {found!r}")
    return found
