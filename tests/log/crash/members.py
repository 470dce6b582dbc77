"""Workloads over a member's whole directory: its identity, its hard state and its log (F27)."""

from __future__ import annotations

from copycat.member.directory import MemberDirectory
from copycat.storage._native import FaultEnv
from copycat.types import MemberId
from tests.log.crash.workloads import Workload
from tests.log.oracle import EntryRow, Oracle
from tests.log.test_directory import open_member

__all__ = ["MEMBER_WORKLOADS", "member_recovered"]

MEMBER = "/disk/member"


def voted(directory: MemberDirectory, oracle: Oracle, term: int, vote: int) -> None:
    oracle.saving = (term, MemberId(vote))
    ticket = directory.hard_state.begin_save(*oracle.saving)
    ticket.run()
    directory.hard_state.end_save(ticket)
    oracle.saved = oracle.saving


def first_start(env: FaultEnv, oracle: Oracle) -> None:
    directory = open_member(env, MEMBER)
    voted(directory, oracle, 1, directory.identity.member)
    oracle.append(directory.native, 10, 20, term=1)
    oracle.sync(directory.native)


def member_restarts(env: FaultEnv, oracle: Oracle) -> None:
    """A vote and some entries in each life; the first ends cleanly, the second by a kill."""
    for term in (1, 2, 3):
        directory = open_member(env, MEMBER)
        oracle.adopt(directory.native)
        voted(directory, oracle, term, 5 + term)
        oracle.append(directory.native, 10, 700, term=term)
        oracle.sync(directory.native)
        oracle.append(directory.native, 30, term=term)
        if term == 1:
            directory.close()
            oracle.synced(oracle.last_index)
        else:
            env.crash_process()


MEMBER_WORKLOADS: tuple[Workload, ...] = (first_start, member_restarts)


def member_recovered(env: FaultEnv, oracle: Oracle) -> list[EntryRow]:
    directory = open_member(env, MEMBER)
    if directory.fresh:
        assert oracle.saved[0] == 0, "a directory that promised something is not fresh"
    else:
        oracle.check_hard_state(directory.current_term, directory.voted_for)
    return oracle.check(directory.native)
