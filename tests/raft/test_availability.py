"""C38: which members a leader hears, and when it writes that down."""

from __future__ import annotations

from copycat.raft.availability import (
    HOLD_MS_MAX,
    QUIET_MS,
    HeardMembers,
    StatusRow,
    next_row,
    status_to_write,
)
from copycat.raft.progress import Progress
from copycat.types import MemberId, MemberStatus

B, C = MemberId(2), MemberId(3)
AVAILABLE, UNAVAILABLE = MemberStatus.AVAILABLE, MemberStatus.UNAVAILABLE


def rounds(heard: HeardMembers, progress: dict[MemberId, Progress], *times_ms: int) -> None:
    for now_ms in times_ms:
        heard.on_round(now_ms, progress, 0)


def test_c38_three_rounds_without_an_answer_are_news_and_so_is_the_next_answer() -> None:
    heard = HeardMembers()
    progress = {B: Progress(1, 0), C: Progress(1, 0)}
    for now_ms in (100, 200, 300):
        rounds(heard, progress, now_ms)
        progress[B].last_contact_ms = now_ms + 10
        assert (heard.status(B), heard.status(C)) == (None, None), "a new leader says nothing"
    rounds(heard, progress, 400)
    assert (heard.status(B), heard.status(C)) == (AVAILABLE, UNAVAILABLE)
    progress[C].last_contact_ms = 450
    rounds(heard, progress, 500)
    assert (heard.status(B), heard.status(C)) == (None, AVAILABLE)


def test_c38_a_leader_that_stood_still_holds_its_own_silence_against_nobody() -> None:
    heard = HeardMembers()
    progress = {B: Progress(1, 0)}
    for now_ms in range(100, 600, 100):
        heard.on_round(now_ms, progress, 0)
        progress[B].last_contact_ms = now_ms + 10
    heard.on_round(90_000, progress, 0)
    assert heard.status(B) is AVAILABLE
    heard.on_round(90_100, progress, 0)
    assert heard.silent_rounds(B) == 1


def test_c38_the_hold_time_doubles_up_to_a_minute_and_is_forgotten_after_ten_minutes() -> None:
    row = next_row(None, UNAVAILABLE, 1000, 750)
    holds = [row.hold_ms]
    for time_ms in range(2000, 12_000, 1000):
        row = next_row(next_row(row, AVAILABLE, time_ms, 750), UNAVAILABLE, time_ms, 750)
        holds.append(row.hold_ms)
    assert holds == [750, 1500, 3000, 6000, 12_000, 24_000, 48_000] + 4 * [HOLD_MS_MAX]
    assert next_row(row, AVAILABLE, 12_000, 750).hold_ms == HOLD_MS_MAX
    assert next_row(row, UNAVAILABLE, row.time_ms + QUIET_MS - 1, 750).hold_ms == HOLD_MS_MAX
    assert next_row(row, UNAVAILABLE, row.time_ms + QUIET_MS, 750).hold_ms == 750


def test_c38_only_what_differs_is_written_and_the_good_news_wait() -> None:
    assert status_to_write(AVAILABLE, None, 0) is None
    assert status_to_write(UNAVAILABLE, None, 0) is UNAVAILABLE
    row = StatusRow(UNAVAILABLE, 1000, 750)
    assert status_to_write(UNAVAILABLE, row, 9000) is None
    assert status_to_write(None, row, 9000) is None
    assert status_to_write(AVAILABLE, row, 1749) is None
    assert status_to_write(AVAILABLE, row, 1750) is AVAILABLE
    assert status_to_write(UNAVAILABLE, StatusRow(AVAILABLE, 1000, 750), 1001) is UNAVAILABLE
