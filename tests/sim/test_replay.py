"""Seeds that clean: how many, what they do, and that their replays would tell (I20, I23)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from copycat.errors import InvariantError
from copycat.replica.compaction import CompactionRunner
from copycat.sim import runner
from copycat.sim.checkers.replay import CommittedLog
from copycat.sim.cluster import Cluster
from copycat.sim.draws import draw_options
from copycat.sim.model import encode
from copycat.sim.runner import SeedFailed, run_seed
from copycat.types import Compaction, EntryKind, Run

SEED = 11
"""A small one: three members, cleaned logs, restarts that replay them."""


def test_three_seeds_in_ten_clean_and_most_of_those_have_a_member_away() -> None:
    drawn = [draw_options(seed) for seed in range(200)]
    cleaning = [one for one in drawn if one.workload.is_keyed]
    away = [one for one in cleaning if "away" in one.faults]
    assert 50 <= len(cleaning) <= 80
    assert len(away) >= len(cleaning) // 2
    assert any(one.limits.snapshot_threshold for one in cleaning)
    assert any(one.disk.rewrite_fault for one in cleaning)
    assert all("clean" in one.faults for one in cleaning)


def test_a_cleaned_log_is_replayed_and_compared() -> None:
    marks = run_seed(SEED).marks
    assert marks["entry cleaned"] > 100
    assert marks["replay over gaps"]
    assert marks["replay from the first entry"] == draw_options(SEED).members


def test_i20_a_replay_with_another_history_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    read = CommittedLog.read

    def other(committed_log: CommittedLog, first: int, end: int) -> Iterator[list[Run]]:
        for runs in read(committed_log, first, end):
            yield [_with_another_token(run) for run in runs]

    monkeypatch.setattr(CommittedLog, "read", other)
    with pytest.raises(SeedFailed, match="I20: two members differ after the same entry"):
        run_seed(SEED)


def _with_another_token(run: Run) -> Run:
    if run.kind != EntryKind.COMMAND:
        return run
    return run._replace(payloads=[encode("append", 0, (run.first_index,)), *run.payloads[1:]])


def test_i23_a_log_with_other_gaps_than_were_made_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    check = runner._check_equal

    def tampered(cluster: Cluster) -> None:
        cluster.disk_models[0].gaps.since[cluster.disk_models[0].last_index] = 0
        check(cluster)

    monkeypatch.setattr(runner, "_check_equal", tampered)
    with pytest.raises(SeedFailed, match="I23: a log with other gaps"):
        run_seed(SEED)


def test_i25_what_was_released_and_stays_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompactionRunner, "applied", lambda *_: None)
    with pytest.raises(SeedFailed, match="I25: a compaction left"):
        run_seed(SEED)


@pytest.mark.parametrize("trimmed_to", [9, 10, 1])
def test_i25_what_a_snapshot_took_meanwhile_is_not_left(
    monkeypatch: pytest.MonkeyPatch, trimmed_to: int
) -> None:
    """A snapshot is admitted during the last compaction, and the log loses its front."""
    log = SimpleNamespace(first_index=1)

    def compact(_: Compaction, done: Callable[[object], None]) -> None:
        log.first_index = trimmed_to
        done("report")

    host: Any = SimpleNamespace(
        number=0,
        replica=SimpleNamespace(compact=compact),
        disk_model=SimpleNamespace(gaps=SimpleNamespace(since={12: 1})),
        disk=SimpleNamespace(directory=SimpleNamespace(log=log)),
    )
    marks: list[str] = []
    cluster: Any = SimpleNamespace(
        members=lambda **_: [host],
        sessions=SimpleNamespace(acknowledged_index=lambda: 20),
        trace=SimpleNamespace(mark=marks.append),
    )
    monkeypatch.setattr(runner, "_what_must_go", lambda *_: {9, 12})
    monkeypatch.setattr(runner, "_wait", lambda *_: 0)
    if trimmed_to > 9:
        runner._clean_all(cluster, 1)
        assert marks == ["last compaction"]
    else:
        with pytest.raises(InvariantError, match="I25: a compaction left"):
            runner._clean_all(cluster, 1)
