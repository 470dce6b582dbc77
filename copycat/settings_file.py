"""One table of a settings file in TOML, as keyword arguments; all problems in one error."""

from __future__ import annotations

import tomllib
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from copycat.errors import ConfigurationError
from copycat.sizes import parse_size

__all__ = ["read_table"]


def read_table(
    path: str, table: str, names: AbstractSet[str], sizes: AbstractSet[str]
) -> dict[str, Any]:
    """The settings of `[table]`. names: which there are; sizes: which may be text as "32MiB".

    ConfigurationError: the file cannot be read or is not TOML, has another table or no such
    table, a key that is not in `names`, or a text that is not a size.
    """
    document = _parsed(path)
    problems, hints = [], []
    for key in document:
        if key != table:
            problems.append(f"[{key}] is not a table of this file")
            hints.append(f"write the settings below [{table}]")
    settings = document.get(table)
    if not isinstance(settings, dict):
        problems.append(f"there is no table [{table}]")
        settings = {}
    for key, value in settings.items():
        if key not in names:
            problems.append(f"unknown key {table}.{key}")
            hints += [f"did you mean {table}.{near}?" for near in get_close_matches(key, names, 1)]
        elif key in sizes and isinstance(value, str):
            try:
                settings[key] = parse_size(value)
            except ConfigurationError as cause:
                problems.append(f"{table}.{key}: {cause}")
                hints.append(cause.hint or "")
    if problems:
        hint = "\n".join(dict.fromkeys(hints)) or None
        raise ConfigurationError(f"{path}: {'; '.join(problems)}", hint=hint)
    return settings


def _parsed(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigurationError(f"{path} cannot be read: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigurationError(f"{path} is not TOML: {cause}") from cause
