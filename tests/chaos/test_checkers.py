"""The laws of a run hold for a good history, and name what is lost, doubled, stale or invented."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.checkers import (
    HistoryError,
    LoggedEntry,
    MemberLog,
    MergedLog,
    check_applied,
    check_errors,
    check_logged,
    check_order,
    check_results,
    merge_logs,
)
from tests.chaos.history import History, history_of, longest_silence_s
from tests.chaos.machine import NOTE_KEYS

ORDER = [11, 12, 14, 15]
"""Token 13 was never sent, 15 is of a command without an answer, 16 did not take effect."""


def lines(**changes: Any) -> list[list[Any]]:
    """What two workers wrote down. changes: other answers, by token or "get"."""
    return [
        ["ask", 1, 1, "c1.1", "put", 7, [11], 100],
        ["ok", 1, 1, 200, changes.get("put")],
        ["ask", 2, 1, "c2.1", "append", 7, [12], 150],
        ["ok", 2, 1, 260, changes.get("append", 1)],
        ["ask", 1, 2, "c1.1", "append", 7, [13], 300],
        ["unsent", 1, 2, 400, "no-leader"],
        ["ask", 1, 3, "c1.1", "cas", 7, [11, 14], 500],
        ["ok", 1, 3, 600, changes.get("cas", True)],
        ["ask", 2, 2, "c2.1", "put", 7, [15], 550],
        ["unknown", 2, 2, 700, "timeout"],
        ["ask", 2, 3, "c2.2", "append", 7, [16], 800],
        ["ask", 1, 4, "q1", "get", 7, [], 900],
        ["ok", 1, 4, 950, changes.get("get", 15)],
        ["ask", 2, 4, "q2", "items", 7, [], 960],
        ["ok", 2, 4, 970, changes.get("items", [12])],
        ["ask", 1, 5, "q1", "get", 7, [], 980],
        ["unsent", 1, 5, 990, "timeout"],
    ]


def history(**changes: Any) -> History:
    return history_of(lines(**changes))


def log_of(order: list[int], member: str = "n1") -> MemberLog:
    """A log with a first entry that is no command."""
    entries = {1: LoggedEntry(b"no-op", 0)}
    entries |= {at: LoggedEntry(b"%d" % token, token) for at, token in enumerate(order, 2)}
    return MemberLog(member, len(order) + 1, entries)


def test_a_good_run_is_judged_good() -> None:
    good = history()
    assert len(good.acknowledged()) == 3
    assert [one.arguments for one in good.unknown()] == [(15,), (16,)]
    assert (good.unsent, good.failed_queries) == ({13}, 1)
    assert good.codes == {"no-leader": 1, "timeout": 2}
    assert longest_silence_s(good.operations) == (600 - 260) / 1e6
    order = check_applied(good, {"n1": ORDER, "n2": list(ORDER)})
    check_logged(good, order, merge_logs([log_of([*ORDER, 16]), log_of([11], "n2")]))
    assert [one.index for one in good.operations] == [2, 3, 4, 5, 6, 0, 0]
    check_results(good, order)
    check_errors(good)
    assert check_order(good.operations) == 0


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ([11, 14, 15], "acknowledged and lost: token 12$"),
        ([11, 12, 14, 15, 12], "applied twice: token 12$"),
        ([11, 12, 13, 14, 15], "never sent by its client: token 13$"),
        ([11, 12, 14, 15, 99], "nobody asked for it: token 99$"),
    ],
)
def test_what_was_applied_is_compared_with_what_was_asked(order: list[int], problem: str) -> None:
    with pytest.raises(HistoryError, match=problem):
        check_applied(history(), {"n1": order, "n2": order})


@pytest.mark.parametrize("other", [[11, 14, 12, 15], [11, 12], [11, 12, 14, 15, 16]])
def test_members_that_applied_different_commands_are_named(other: list[int]) -> None:
    with pytest.raises(HistoryError, match="n1 and n3 applied different commands"):
        check_applied(history(), {"n1": ORDER, "n2": ORDER, "n3": other})


@pytest.mark.parametrize(
    ("logged", "problem"),
    [
        ([11, 14, 15], "in no log: token 12$"),
        ([11, 12, 14, 15, 14], "in the log twice: token 14$"),
        ([11, 12, 13, 14, 15], "in the log, and never sent: token 13$"),
        ([12, 11, 14, 15], "applied in another order than logged: entry 3 before entry 2"),
    ],
)
def test_the_log_is_compared_with_what_was_acknowledged(logged: list[int], problem: str) -> None:
    with pytest.raises(HistoryError, match=problem):
        check_logged(history(), ORDER, merge_logs([log_of(logged)]))


def test_a_note_is_looked_for_in_the_log() -> None:
    """The machine does not keep the tokens of notes."""
    good = history_of([["ask", 1, 1, "c1.1", "put", NOTE_KEYS, [21], 1], ["ok", 1, 1, 2, None]])
    assert check_applied(good, {"n1": []}) == []
    check_logged(good, [], MergedLog({5: 21}, 0))
    check_logged(good, [], MergedLog({}, 1))  # it may be one that was compacted everywhere
    with pytest.raises(HistoryError, match="in no log: token 21"):
        check_logged(good, [], MergedLog({}, 0))


def test_logs_that_disagree_are_named() -> None:
    other = log_of([11, 12, 99], "n2")
    with pytest.raises(HistoryError, match=r"entry 4 of n2 is b'99', and that of n1 is b'14'"):
        merge_logs([log_of(ORDER), other])
    not_committed = other._replace(commit_index=3)
    assert merge_logs([log_of(ORDER), not_committed]).tokens == dict(enumerate(ORDER, 2))


def test_entries_that_no_log_has_are_counted() -> None:
    late = log_of(ORDER)
    late = late._replace(entries={4: late.entries[4], 5: late.entries[5]})
    assert merge_logs([late]).missing == 3
    assert merge_logs([late, log_of([11], "n2")]).missing == 1


@pytest.mark.parametrize("change", [{"put": 3}, {"append": 2}, {"cas": False}])
def test_an_answer_that_no_execution_gives_is_caught(change: dict[str, object]) -> None:
    with pytest.raises(HistoryError, match="answered wrongly"):
        check_results(history(**change), ORDER)


@pytest.mark.parametrize(
    "change", [{"get": 11}, {"get": None}, {"items": []}, {"items": [12, 12]}]
)
def test_a_stale_or_doubled_read_is_caught(change: dict[str, object]) -> None:
    with pytest.raises(HistoryError, match="no order of these operations is linear"):
        check_order(history(**change).operations)


def test_an_order_of_the_log_against_real_time_is_caught() -> None:
    one = history()
    check_logged(one, [11, 14, 12], merge_logs([log_of([11, 14, 12])]))
    with pytest.raises(HistoryError, match="stands before one that had returned"):
        check_order(one.operations)


def test_an_error_that_no_fault_explains_is_named() -> None:
    other = [
        *lines(),
        ["ask", 3, 1, "q3", "get", 7, [], 1],
        ["unsent", 3, 1, 2, "wrong-member-type"],
    ]
    with pytest.raises(HistoryError, match=r"explains: 1 wrong-member-type$"):
        check_errors(history_of(other))
