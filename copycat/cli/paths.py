"""Paths of the command line: each is made absolute when it is read, before anything runs.

An --app may change the working directory when it is imported.
"""

from __future__ import annotations

import os
from typing import Any

import click

from copycat.paths import absolute_path

__all__ = ["PathOption"]


class PathOption(click.Path):
    """`click.Path` whose value is absolute; `~` is the user's home also behind a `=`."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        return super().convert(absolute_path(value), param, ctx)
