"""A member's directory: its lock, whose it is, its hard state and its log, opened in order.

A first start makes the hard state, then the log, then the identity (F27): a directory without
an identity never held a promise. Every refusal leaves the directory as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Self

from copycat.errors import CorruptLogError
from copycat.log._native import HardState, NativeLog, open_hard_state, open_log
from copycat.log.hard_state import HARD_STATE_FILES, FrozenHardState, HardStateCopy, best_copy
from copycat.log.identity import Identity, check_identity, read_identity, write_identity
from copycat.log.interface import HardStateStore
from copycat.types import MemberId

if TYPE_CHECKING:
    from copycat.log._native import Env

__all__ = ["MemberDirectory"]

_NOBODY = MemberId(0)


class MemberDirectory:
    """What one member keeps on disk, open and locked until `close`."""

    def __init__(
        self,
        path: str,
        *,
        identity: Identity,
        hard_state: HardStateStore,
        log: NativeLog,
        made_now: bool,
        held: ExitStack,
    ) -> None:
        self.path = path
        self.identity = identity
        self.hard_state = hard_state
        self.log = log
        unused = hard_state.current_term == 0 and log.last_index == 0
        self.fresh = made_now or unused
        """True when this directory never held a promise (C16): made now, or never used."""
        self._held = held
        self._floor = log.last_entry.term

    @classmethod
    def open(
        cls,
        env: Env,
        path: str,
        *,
        cluster_name: str,
        address: str,
        members: tuple[str, ...],
        member: MemberId,
        incarnation_source: Callable[[], int],
        max_segment_size: int = 32 << 20,
        max_entries_per_segment: int = 1 << 20,
        min_free_space: int = 0,
        read_only: bool = False,
    ) -> Self:
        """Open `path`, or make it on a first start.

        `members` are the founding addresses, in any order; `incarnation_source` gives 128
        random bits and is asked on a first start only. Errors: DirectoryInUseError,
        WrongDirectoryError (F7), FormatVersionError, CorruptLogError (F2, F3, F6, F27),
        DiskError, DiskFullError. With `read_only` nothing is made, locked or repaired.
        """
        expected = Identity(
            cluster_name=cluster_name, address=address, members=members, member=member
        )
        opened_log = partial(
            open_log,
            env,
            f"{path}/log",
            max_segment_size=max_segment_size,
            max_entries_per_segment=max_entries_per_segment,
            min_free_space=min_free_space,
        )
        with ExitStack() as held:
            if not read_only:
                env.make_directory(path)
                held.callback(env.lock(f"{path}/lock").close)
            found, missing = read_identity(env, path)
            hard_state: HardStateStore
            if found is None:
                _check_unused(env, path, opened_log, read_only=read_only)
                identity = expected.with_incarnation(incarnation_source())
                hard_state = _first_hard_state(env, path)
                log = _kept(held, opened_log())
                write_identity(env, path, identity)
            else:
                identity = found
                check_identity(identity, expected, path)
                copy = _readable_hard_state(env, path)
                log = _kept(held, opened_log(read_only=read_only))
                hard_state = FrozenHardState(copy) if read_only else _rewritten(env, path)
                write_identity(env, path, identity, () if read_only else missing)
            return cls(
                path,
                identity=identity,
                hard_state=hard_state,
                log=log,
                made_now=found is None,
                held=held.pop_all(),
            )

    @property
    def current_term(self) -> int:
        """The hard state's term, or the last entry's where that is later (C9)."""
        return max(self.hard_state.current_term, self._floor)

    @property
    def voted_for(self) -> MemberId:
        """The vote, if it is of `current_term`: the floor of the log clears it (C9)."""
        return _NOBODY if self._floor > self.hard_state.current_term else self.hard_state.voted_for

    def close(self) -> None:
        """Close the log with its mark of a clean stop, then let go of the lock."""
        self._held.close()


def _rewritten(env: Env, path: str) -> HardState:
    """C7 asks for it after an unclean stop. Done at every start, it also covers one that failed
    between the log's recovery and here, and was then closed cleanly."""
    hard_state = open_hard_state(env, path, create=False)
    hard_state.rewrite()
    return hard_state


def _kept(held: ExitStack, log: NativeLog) -> NativeLog:
    held.callback(log.close)
    return log


def _readable_hard_state(env: Env, path: str) -> HardStateCopy:
    """F6, before anything is changed: CorruptLogError when both copies are bad or missing."""
    copy = best_copy(env, path)
    if copy is None:
        raise CorruptLogError(
            f"{path}: an identity, but neither of {' and '.join(HARD_STATE_FILES)}: "
            "without its vote this member could vote twice in one term (F6)",
            path=f"{path}/{HARD_STATE_FILES[0]}",
        )
    return copy


def _check_unused(
    env: Env, path: str, opened_log: Callable[..., NativeLog], *, read_only: bool
) -> None:
    """F27: without an identity there may be no entry and no vote; CorruptLogError."""
    if read_only:
        raise CorruptLogError(f"{path}: no identity: no member was ever started here", path=path)
    if env.exists(f"{path}/log/manifest") or _has_segments(env, f"{path}/log"):
        log = opened_log(read_only=True)
        last_index = log.last_index
        log.close()
        if last_index:
            raise CorruptLogError(
                f"{path}: a log of {last_index} entries, but no identity: it is not known whose",
                path=f"{path}/log",
                index=last_index,
            )
    try:
        copy = best_copy(env, path)
    except CorruptLogError:
        return  # half-made: _first_hard_state starts over
    if copy is not None and copy.current_term:
        raise CorruptLogError(
            f"{path}: a hard state of term {copy.current_term}, but no identity",
            path=f"{path}/{HARD_STATE_FILES[0]}",
        )


def _has_segments(env: Env, path: str) -> bool:
    return env.exists(path) and any(name.endswith(".log") for name in env.list(path))


def _first_hard_state(env: Env, path: str) -> HardState:
    try:
        best_copy(env, path)
    except CorruptLogError:
        for name in HARD_STATE_FILES:
            if env.exists(f"{path}/{name}"):
                env.remove(f"{path}/{name}")
    return open_hard_state(env, path, create=True)
