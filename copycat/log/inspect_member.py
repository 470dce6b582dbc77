"""What a member keeps beside its log, read and checked: vote, identity and snapshots.

What is missing counts as what is rotten: a start refuses both (F3, F6, F7, F17).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from copycat.errors import StorageError
from copycat.log.hard_state import HARD_STATE_FILES, read_copy
from copycat.log.inspect_walk import Damage, damage_of
from copycat.log.weak import read_weak

if TYPE_CHECKING:
    from copycat.log._native import Env

__all__ = [
    "SnapshotCheck",
    "is_members",
    "log_damage",
    "member_damage",
    "reach_damage",
    "snapshots_of",
]

_SEGMENT = re.compile(r"\d+-\d+\.log")
_SNAPSHOT = re.compile(r"(\d+)-(\d+)\.snap")


class SnapshotCheck(NamedTuple):
    """One snapshot file. Sizes in bytes; the middle three are 0 when it is damaged."""

    path: str
    last_index: int
    """Of the last entry that it covers."""
    term: int
    time_ms: int
    raw_nbytes: int
    nbytes: int
    damage: Damage | None


def log_damage(env: Env, path: str, directory: str) -> Damage | None:
    """What is wrong when `directory` has no manifest; None when there is one.

    path: the directory that was named; `directory` is the log's in it. FileNotFoundError when
    no log was ever there, or it was in memory.
    """
    manifest = f"{directory}/manifest"
    if env.exists(manifest):
        return None
    if any(_SEGMENT.fullmatch(name) for name in env.list(directory)):
        return Damage(manifest, -1, 0, "there are segments, but no manifest", "F3")
    weak = read_weak(env, path)
    if not _has_identity(env, path) or (weak is not None and weak.was_in_memory):
        raise FileNotFoundError(f"{manifest}: no such file")
    what = "an identity, but no log: what this member acknowledged is lost"
    return Damage(f"{path}/log", -1, 0, what, "F3")


def member_damage(env: Env, path: str, last_index: int) -> list[Damage]:
    """What is missing or unreadable of vote and identity (F5, F6, F7); none in a bare log's.

    last_index: of its log. A first start that was cut off is no damage: its identity is written
    last, and nothing was promised before (F27).
    """
    from copycat.log.identity import IDENTITY_FILES, Identity  # noqa: PLC0415 - msgspec

    if not is_members(env, path):
        return []
    votes: list[int] = []
    found: list[Damage] = []
    begun = _has_identity(env, path)
    for names, both in ((HARD_STATE_FILES, "F6"), (IDENTITY_FILES, "F7")):
        bad: list[Damage] = []
        missing: list[Damage] = []
        for name in names:
            file = f"{path}/{name}"
            try:
                if names is HARD_STATE_FILES:
                    votes.append(read_copy(env, file).current_term)
                else:
                    Identity.decode(env.read_file(file), file)
            except FileNotFoundError:
                missing.append(Damage(file, -1, 0, "this copy is missing", "F5"))
            except StorageError as error:
                bad.append(damage_of(error, file, row="F5"))
        if names is IDENTITY_FILES:
            begun = begun or last_index > 0 or max(votes, default=0) > 0
        if len(missing) == len(names) and begun:
            found.append(Damage(f"{path}/{names[0]}", -1, 0, "both copies are missing", both))
        elif len(missing) + len(bad) < len(names):
            found += bad + (missing if begun else [])
        else:
            found += [one._replace(row=both) for one in bad]
    return found


def is_members(env: Env, path: str) -> bool:
    """Whether `path` is a member's: a log that is bare has its lock and its files in one place."""
    if any(env.exists(f"{path}/{name}") for name in HARD_STATE_FILES):
        return True
    return _has_identity(env, path) or (env.exists(f"{path}/log") and env.exists(f"{path}/lock"))


def _has_identity(env: Env, path: str) -> bool:
    from copycat.log.identity import IDENTITY_FILES  # noqa: PLC0415 - msgspec

    return any(env.exists(f"{path}/{name}") for name in IDENTITY_FILES)


def reach_damage(
    env: Env, path: str, first_index: int, snapshots: tuple[SnapshotCheck, ...]
) -> Damage | None:
    """A member's log that begins above 1 is of use behind a snapshot only (F17); else None.

    first_index: of the log; 0 without any.
    """
    if first_index <= 1 or not _has_identity(env, path):
        return None
    if any(one.damage is None and one.last_index >= first_index - 1 for one in snapshots):
        return None
    what = f"the log begins at {first_index:,}, and no snapshot covers what was before it"
    return Damage(f"{path}/snapshots", -1, 0, what, "F17")


def snapshots_of(env: Env, path: str) -> tuple[SnapshotCheck, ...]:
    """Every snapshot that is published in the member's directory `path`, oldest first."""
    directory = f"{path}/snapshots"
    while env.exists(directory):
        names = [match for name in env.list(directory) if (match := _SNAPSHOT.fullmatch(name))]
        found = [
            _snapshot(env, f"{directory}/{match[0]}", int(match[1]), int(match[2]))
            for match in names
        ]
        whole = [one for one in found if one is not None]
        if len(whole) == len(names):
            return tuple(sorted(whole, key=lambda one: (one.last_index, one.term)))
        # one was discarded meanwhile, since a newer one has come: that is to be seen
    return ()


def _snapshot(env: Env, path: str, index: int, term: int) -> SnapshotCheck | None:
    """None when it was discarded meanwhile."""
    from copycat.log import snapshot_file  # noqa: PLC0415 - lz4

    try:
        found = snapshot_file.verify(env, path)
    except FileNotFoundError:
        return None
    except StorageError as error:
        bad = damage_of(error, path, index, "F17")
        return SnapshotCheck(path, index, term, 0, 0, 0, bad)
    damage = None
    if found.entry != (term, index):
        damage = Damage(path, 0, index, f"it holds the snapshot of {found.entry}", "F17")
    return SnapshotCheck(path, index, term, found.time_ms, found.raw_nbytes, found.nbytes, damage)
