"""Reading the hard state without repairing it: for checks before a start, and for inspection.

A member that runs uses the native `HardState`; this reads the same 48 bytes a second way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from copycat.errors import ConfigurationError, CorruptLogError
from copycat.storage._native import crc32c
from copycat.storage.disk_format import FORMAT_VERSION
from copycat.storage.unreadable import unreadable_is_corrupt
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.storage._native import Env
    from copycat.storage.interface import SaveTicket

__all__ = ["HARD_STATE_FILES", "FrozenHardState", "HardStateCopy", "best_copy", "read_copy"]

HARD_STATE_FILES = ("hard-state-a", "hard-state-b")

_BLOCK = struct.Struct("<8sIIQQ16s")
_MAGIC = b"COPYHST\0"
_CRC_END = 16


class HardStateCopy(NamedTuple):
    """One readable file: what must survive a crash besides the log."""

    generation: int
    current_term: int
    voted_for: MemberId


class FrozenHardState:
    """A `HardStateStore` of a directory opened read-only: every save is refused."""

    def __init__(self, copy: HardStateCopy) -> None:
        self.current_term = copy.current_term
        self.voted_for = copy.voted_for

    def begin_save(self, term: int, voted_for: MemberId) -> SaveTicket:
        """ConfigurationError."""
        self._refuse(f"term {term}")

    def end_save(self, ticket: SaveTicket) -> None:
        """ConfigurationError."""
        self._refuse("a vote")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(f"cannot save {what}: the directory was opened read-only")


def read_copy(env: Env, path: str) -> HardStateCopy:
    """One file; CorruptLogError when it cannot be read as a hard state, or not at all."""
    with unreadable_is_corrupt():
        data = env.read_file(path)
    if len(data) != _BLOCK.size:
        raise CorruptLogError(
            f"{path}: {len(data)} bytes, not the {_BLOCK.size} of a hard state", path=path
        )
    magic, version, crc, generation, term, voted_for = _BLOCK.unpack(data)
    if magic != _MAGIC or version != FORMAT_VERSION or crc != crc32c(data[_CRC_END:]):
        raise CorruptLogError(f"{path}: its checksum does not fit", path=path, offset=0)
    return HardStateCopy(generation, term, MemberId(int.from_bytes(voted_for, "little")))


def best_copy(env: Env, directory: str) -> HardStateCopy | None:
    """The newest readable copy (F5); None when there is no file at all.

    CorruptLogError when files are there and none is readable (F6).
    """
    copies: list[HardStateCopy] = []
    causes: list[CorruptLogError] = []
    for name in HARD_STATE_FILES:
        path = f"{directory}/{name}"
        if not env.exists(path):
            continue
        try:
            copies.append(read_copy(env, path))
        except CorruptLogError as error:
            causes.append(error)
    if not copies and causes:
        raise CorruptLogError(
            f"{directory}: no readable hard state: " + "; ".join(map(str, causes)),
            path=causes[0].path,
        ) from causes[0]
    return max(copies, default=None)
