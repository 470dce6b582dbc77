"""What `copycat log ...` prints, to the letter, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from copycat.cli.main import exit_code_of, tree
from copycat.errors import ConfigurationError, CopycatError
from copycat.machine.kv import KeyValueStore
from copycat.machine.session_executor import SessionExecutor
from copycat.storage._native import Env, FaultEnv
from copycat.storage.reader import entries, segments
from copycat.types import EntryKind
from tests.cli.logs import APP, append, bare_log, command_log, one, put, run_of
from tests.golden import compare_or_rewrite
from tests.log.contract import durable, grow
from tests.log.test_native import open_small
from tests.tidy.tree import ROOT

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


def run(*words: str) -> Result:
    """The command in this process; errors of copycat become exit codes, as `main` makes them."""
    result = CliRunner().invoke(tree, ["log", *words])
    if isinstance(result.exception, CopycatError):
        result.exit_code = exit_code_of(result.exception)
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def json_of(*words: str) -> Any:
    result = run(*words)
    assert not result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    return document


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("show", ["show", "d"]),
        ("show-app", ["show", "d", "--app", APP, "--kind", "command"]),
        ("show-jsonl", ["show", "d", "--jsonl"]),
        ("show-app-json", ["show", "d", "--json", "--app", APP, "--from", "9", "--to", "11"]),
        ("tail", ["tail", "d", "--last", "3"]),
        ("verify", ["verify", "d"]),
        ("verify-json", ["verify", "d", "--json"]),
        ("export", ["export", "d", "--kind", "gap"]),
    ],
)
def test_the_tools_print_what_they_printed(
    name: str, words: list[str], tmp_path: Path, *, rewrite: bool
) -> None:
    command_log(tmp_path / "d")
    result = run(*words)
    assert result.exit_code == 0
    compare_or_rewrite(GOLDEN / f"{name}.txt", result.output, rewrite=rewrite)


def test_a_bare_log_shows_text_and_bytes(tmp_path: Path, *, rewrite: bool) -> None:
    bare_log(tmp_path / "d")
    compare_or_rewrite(GOLDEN / "show-bare.txt", run("show", "d").output, rewrite=rewrite)


def test_lines_of_eighty_columns_hold_the_fixed_part(tmp_path: Path) -> None:
    command_log(tmp_path / "d")
    head = run("show", "d").stdout.splitlines()[0]
    assert len(head) <= 52


@pytest.mark.parametrize(
    ("words", "indexes"),
    [
        (["--from", "5", "--to", "8"], [4, 7, 8]),
        (["--last", "2"], [15, 16]),
        (["--last", "2", "--kind", "command"], [10, 11]),
        (["--session", "2"], [2, 3, 7, 8, 10, 11, 12, 13, 14]),
        (["--kind", "gap"], [4]),
        (["--from", "99"], []),
        (["--count", "2"], [1, 2]),
    ],
)
def test_filters(tmp_path: Path, words: list[str], indexes: list[int]) -> None:
    command_log(tmp_path / "d")
    lines = run("show", "d", "-q", "--jsonl", *words).stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == indexes


def test_twenty_lines_and_where_to_go_on(tmp_path: Path) -> None:
    bare_log(tmp_path / "d", 30)
    result = run("show", "d")
    assert len(result.stdout.splitlines()) == 22
    assert result.stderr == "more follows: --from 21\n"
    assert not run("show", "d", "-q").stderr
    assert len(run("show", "d", "--jsonl").stdout.splitlines()) == 31


@pytest.mark.parametrize("app", [[], ["--app", APP]])
def test_a_command_that_was_refused_is_shown_with_the_reason(
    tmp_path: Path, app: list[str]
) -> None:
    unknown = b"\x91\xa4poke"
    stand_in = SessionExecutor(KeyValueStore()).commands.refusals([unknown])[0]
    log = open_small(Env(), str(tmp_path / "d"))
    append(log, 1, 0, one(EntryKind.NOOP))
    append(log, 1, 5, run_of(2, 1, put("k", b"v"), stand_in, b""))
    durable(log)
    log.close()
    words = ["show", "d", *app]
    lines = run(*words).stdout.splitlines()
    assert lines[-2].endswith(
        "2#2 refused: KeyValueStore.poke: 'poke' is no command of KeyValueStore"
    )
    assert "2#3 refused: " in lines[-1]
    document = json.loads(run(*words, "--jsonl", "--from", "3", "--to", "3").stdout)
    assert document["refused"].startswith("KeyValueStore.poke: ")
    assert "payload" not in document
    assert "operation" not in document


def test_an_operation_that_the_machine_does_not_know_is_shown_by_its_bytes(
    tmp_path: Path,
) -> None:
    command_log(tmp_path / "d")
    words = ["show", "d", "--app", "copycat.cli.demo.lines:LineLog", "--from", "10", "--to", "10"]
    document = json.loads(run(*words, "--jsonl").stdout)
    assert document["operation"] == "put"
    assert "no command of LineLog" in document["problem"]
    assert "no command of LineLog" in run(*words).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["show", "empty"],
        ["tail", "empty"],
        ["stat", "empty"],
        ["verify", "empty"],
        ["export", "empty"],
        ["show", "d", "--kind", "entry"],
        ["show", "d", "--from", "3", "--to", "2"],
        ["show", "d", "--from", "3", "--last", "2"],
        ["show", "d", "--json", "--jsonl"],
        ["show", "d", "--app", "copycat:Log"],
        ["show", "d", "--app", "nothing.at:all"],
        ["export", "d", "-o", "d/manifest"],
    ],
)
def test_what_the_user_must_correct_is_exit_code_2(tmp_path: Path, words: list[str]) -> None:
    command_log(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    before = (tmp_path / "d/manifest").read_bytes()
    result = run(*words)
    assert result.exit_code == 2
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.hint
    assert (tmp_path / "d/manifest").read_bytes() == before


def test_damage_is_exit_code_4_with_file_byte_index_and_what_to_do(tmp_path: Path) -> None:
    command_log(tmp_path / "d", clean=False)
    victim = next(entries(tmp_path / "d", 7))
    with Path(victim.path).open("r+b") as stream:
        stream.seek(victim.offset + 40)
        byte = stream.read(1)
        stream.seek(victim.offset + 40)
        stream.write(bytes([byte[0] ^ 1]))
    result = run("verify", "d")
    assert result.exit_code == 4
    assert "damaged at entry 7" in result.stdout
    assert f"error[corrupt-log]: entry 7 of d (d/1-1.log, byte {victim.offset:,})" in result.stderr
    assert "hint: no other copy is known" in result.stderr
    assert "copycat log export d --to 6 -o FILE" in result.stderr
    document = json.loads(run("verify", "d", "--json", "-q").stdout)
    assert not document["ok"]
    (damage,) = document["damage"]
    assert (damage["index"], damage["offset"], damage["row"]) == (7, victim.offset, "F2")
    assert run("stat", "d").exit_code == 4


def test_segments_without_a_manifest_are_damage(tmp_path: Path) -> None:
    command_log(tmp_path / "d")
    (tmp_path / "d/manifest").unlink()
    result = run("verify", "d")
    assert result.exit_code == 4
    assert "no manifest" in result.stderr


def test_stat_counts_what_is_there(tmp_path: Path) -> None:
    command_log(tmp_path / "d")
    document = json_of("stat", "d", "--json")
    assert (document["first_index"], document["last_index"], document["last_term"]) == (1, 16, 2)
    assert (document["entries"], document["gaps"], document["valid_from"]) == (13, 3, 15)
    assert [s["state"] for s in document["segments"]] == ["compacted", "tail"]
    assert document["identity"] is None
    text = run("stat", "d").stdout
    assert "3 deleted, 81 % left; a replay is exact from 15 on" in text
    assert text.splitlines()[-2].split()[:6] == ["1-2.log", "1", "to", "8", "5", "62"]


@pytest.mark.parametrize(
    ("log_time_ms", "advice"),
    [
        (5_000, "8,645.000 s behind the wall clock"),
        (9_000_001, "350.001 s ahead of the wall clock"),
    ],
)
def test_stat_says_what_a_member_noted_of_log_time(
    tmp_path: Path, log_time_ms: int, advice: str
) -> None:
    from copycat.member.time_note import TIME_FILE, TimeNote
    from tests.log.test_directory import open_member

    directory = open_member(Env(), path=str(tmp_path / "n1"))
    note = TimeNote(log_time_ms, 8_650_000, 3)
    assert directory.time_file.write(note)
    directory.close()
    assert json_of("stat", "n1", "--json")["log_time"] == note._asdict()
    assert f"log time    {advice}, noted in term 3" in run("stat", "n1").stdout
    (tmp_path / "n1" / TIME_FILE).write_bytes(b"rot")
    assert json_of("stat", "n1", "--json")["log_time"] is None
    assert run("stat", "n1").exit_code == run("verify", "n1").exit_code == 0


def test_a_member_has_an_identity_a_vote_and_snapshots(tmp_path: Path) -> None:
    from copycat.storage.snapshot_store import SnapshotStore
    from copycat.types import EntryId
    from tests.log.test_directory import open_member, save

    env = Env()
    path = str(tmp_path / "n1")
    directory = open_member(env, path=path)
    save(directory, 3, 1)
    grow(directory.log, 4, term=3)
    durable(directory.log)
    directory.close()
    SnapshotStore(env, f"{path}/snapshots").save(EntryId(3, 4), time_ms=5, data=b"x" * 5000)
    document = json_of("stat", "n1", "--json")
    assert document["hard_state"]["current_term"] == 3
    assert document["identity"]["cluster_name"]
    assert [s["last_index"] for s in document["snapshots"]] == [4]
    text = run("stat", "n1").stdout
    assert "hard state  term 3, voted for" in text
    assert document["log_time"] is None
    assert "log time" not in text
    assert "snapshot    of entry 4, term 3" in text
    assert "snapshot of entry 4, term 3: ok" in run("verify", "n1").stdout
    (tmp_path / "n1/snapshots/4-3.snap").write_bytes(b"rot")
    result = run("verify", "n1")
    assert result.exit_code == 4
    assert "hint: the next start uses an earlier snapshot" in result.stderr


def test_a_raw_export_is_the_frames_of_the_log(tmp_path: Path) -> None:
    command_log(tmp_path / "d", clean=False)
    result = run("export", "d", "--format", "raw", "-o", "frames", "--to", "5")
    assert result.exit_code == 0
    assert result.stderr.startswith("5 records, ")
    first_frames = [e.frame for e in entries(tmp_path / "d")][:5]
    whole = b"".join(frame + bytes(-len(frame) % 8) for frame in first_frames)
    assert (tmp_path / "frames").read_bytes() == whole


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    bare_log(tmp_path / "d")
    tail = segments(tmp_path / "d")[-1]
    (tmp_path / "d" / tail.name).unlink()
    assert run("export", "d", "-o", "out").exit_code == 1
    assert not (tmp_path / "out").exists()


def test_tail_follows_a_log_that_grows_is_cut_and_grows_again(tmp_path: Path) -> None:
    from copycat.storage.follow import Follower

    log = open_small(Env(), str(tmp_path))
    grow(log, 3)
    follower = Follower(tmp_path, 2)
    assert [r.index for r in follower.poll().records] == [2, 3]
    assert not follower.poll().records
    grow(log, 20)
    assert [r.index for r in follower.poll().records] == list(range(4, 24))
    durable(log)
    log.truncate(15)
    grow(log, 2, term=2)
    news = follower.poll()
    assert news.rewound_to == 15
    assert [(r.index, r.term) for r in news.records] == [(16, 2), (17, 2)]
    assert follower.poll() == (0, [])
    log.close()


def test_a_compaction_is_no_news_to_a_follower() -> None:
    from copycat.storage.follow import Follower
    from tests.log.cleaned import clean_by_hand
    from tests.log.test_inspect import written
    from tests.log.test_native import DIRECTORY

    env: FaultEnv = written()
    log = open_small(env)
    grow(log, 1, term=4)
    durable(log)
    follower = Follower(DIRECTORY, 23, env=env)
    clean_by_hand(env, DIRECTORY, 0, {3}, valid_from=20)
    assert follower.poll() == (0, [])
    grow(log, 2, term=4)
    assert [r.index for r in follower.poll().records] == [23, 24]


def test_tail_ends_after_count(tmp_path: Path) -> None:
    bare_log(tmp_path / "d")
    lines = run("tail", "d", "-f", "--count", "2", "--jsonl").stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [1, 2]


@pytest.mark.slow
def test_ctrl_c_ends_tail_with_130(tmp_path: Path) -> None:
    bare_log(tmp_path / "d")
    with subprocess.Popen(
        [sys.executable, "-m", "copycat", "log", "tail", "-f", "d", "--jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    assert json.loads(seen[-1])["index"] == 4
    assert process.returncode == 130
    assert words.strip() == "interrupted"
