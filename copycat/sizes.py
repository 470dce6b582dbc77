"""Sizes as people write them in a settings file and on the command line: `32MiB`."""

from __future__ import annotations

import re
from fractions import Fraction

from copycat.errors import ConfigurationError

__all__ = ["binary_size", "parse_size"]

_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?) *(KiB|MiB|GiB|TiB|B|)", re.ASCII)
_SHIFTS = {"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


def parse_size(text: str) -> int:
    """Bytes of `32MiB`, `1.5 GiB` or `4096`. ConfigurationError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(
            f"{text!r} is not a size", hint="write bytes, or 32MiB (also KiB, GiB, TiB)"
        )
    return int(Fraction(match[1]) * (1 << _SHIFTS[match[2]]))


def binary_size(nbytes: int) -> str:
    """`32MiB`, as a settings file has it; exact."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes and nbytes % (1 << shift) == 0:
            return f"{nbytes >> shift}{unit}"
    return str(nbytes)
