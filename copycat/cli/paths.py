"""Paths of the command line, which become absolute when they are parsed.

The module that --app names may change the working directory when it is imported.
"""

from __future__ import annotations

import os
from typing import Any

import click

from copycat.paths import absolute_path

__all__ = ["PathOption"]


class PathOption(click.Path):
    """A `click.Path` whose value is absolute; `~` is the user's home directory."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        return super().convert(absolute_path(value), param, ctx)
