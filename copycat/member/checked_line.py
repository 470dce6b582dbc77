"""Small files of one line: a checksum, then JSON of names and integers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from copycat.storage._native import crc32c

if TYPE_CHECKING:
    from copycat.storage._native import Env

__all__ = ["encode_line", "read_line"]


def encode_line(values: Mapping[str, int]) -> bytes:
    """The whole file."""
    text = json.dumps(values, sort_keys=True).encode()
    return b"%08x %b\n" % (crc32c(text), text)


def read_line(env: Env, path: str) -> dict[str, int] | None:
    """What a file says; None if it is not whole. DiskError."""
    checksum, _, text = env.read_file(path).rstrip(b"\n").partition(b" ")
    if not text or checksum != b"%08x" % crc32c(text):
        return None
    values: dict[str, int] = json.loads(text)
    return values
