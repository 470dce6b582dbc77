"""Which functions a plain call does not run: `async def` and generators only return an object."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from copycat.errors import ConfigurationError

__all__ = ["call", "check_callback", "needs_more_than_a_call"]


def needs_more_than_a_call(function: object) -> str:
    """What kind of function it is when a call runs nothing of it; "" for a plain one.

    An object with such a `__call__` counts, and what `functools.partial` makes of one.
    """
    for one in (function, getattr(type(function), "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(one):
            return "async def"
        if inspect.isgeneratorfunction(one):
            return "a generator"
        if inspect.isasyncgenfunction(one):
            return "an async generator"
    return ""


def check_callback(what: str, callback: object, takes: str, *, awaited: bool) -> None:
    """ConfigurationError for what cannot be called, and for a function whose code a call does
    not run. what: the method that was called.  awaited: `async def` is fine."""
    if not callable(callback):
        raise ConfigurationError(
            f"{what}({callback!r}): it cannot be called",
            hint=f"give a function that takes {takes}",
        )
    kind = needs_more_than_a_call(callback)
    if not kind or (awaited and kind == "async def"):
        return
    raise ConfigurationError(
        f"{what}({callback!r}): it is {kind}, and a call of it would run nothing",
        hint="give a plain function: `def` without `async` and without `yield`",
    )


def call(callback: Callable[[], None]) -> None:
    """Call `callback`: what another loop is given to do."""
    callback()
