"""The demo itself on a short input; and that no way out of it leaves a process behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from copycat import CopycatClient
from copycat.cli.demo.app import DemoOptions, run_demo
from copycat.cli.demo.drive import Drive
from copycat.cli.demo.lines import check_lines
from copycat.errors import EntryTooLargeError
from copycat.member.verify import verify
from copycat.storage.reader import entries
from tests.tidy.tree import ROOT

_PID = re.compile(r"^  n\d .* pid (\d+) ", re.MULTILINE)
_LIMIT_S = 180
_NAMES = ("n1", "n2", "n3", "n4", "n5")


def command(tmp_path: Path, lines: int, *more: str) -> list[str]:
    file = tmp_path / "lines.txt"
    file.write_bytes(b"\n".join(b"line %d" % n for n in range(lines)))
    program = [sys.executable, "-m", "copycat", "demo", "--file", str(file)]
    return [*program, "--directory", str(tmp_path / "members"), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_demo_proves_a_short_input(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, 2000),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "commands per second",
        "p50",
        "p99",
        "from SIGKILL of",
        "until n4, which was passive, had its vote",
        "n5 joined with an empty directory",
        "caught up, as far as entry",
        "lines were acknowledged meanwhile",
        "the states of n1, n2, n3, n4, n5 equal",
        "durability          fsync on",
        "each of 2,000 lines applied exactly once and in order",
        "byte-identical",
    ):
        assert words in done.stdout
    assert "SIGKILL to n" in done.stderr
    assert re.search(
        r"^n4 is active in place of n[123], which is passive now$", done.stderr, re.MULTILINE
    )
    assert re.search(r"^n[123] runs again .*, as passive$", done.stderr, re.MULTILINE)


def test_a_line_that_is_too_long_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit counts the encoded command, which is a few bytes longer than its line."""
    monkeypatch.chdir(tmp_path)
    longest = (1 << 20) - 16
    while True:
        try:
            check_lines([b"x" * longest])
        except EntryTooLargeError:
            break
        longest += 1
    assert longest <= 1 << 20
    file = tmp_path / "lines.txt"
    file.write_bytes(b"short\n" + b"x" * longest + b"\n")
    with pytest.raises(EntryTooLargeError, match=rf"^line 2 has {longest:,} bytes;"):
        run_demo(DemoOptions(file, tmp_path / "members", 16, keep=False))
    assert [path.name for path in tmp_path.iterdir()] == ["lines.txt"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A demo in the middle of its load, and the process ids of its members."""
    with subprocess.Popen(
        command(tmp_path, 400_000),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        if process.stderr is None:
            raise AssertionError("no stderr")
        words = ""
        for line in process.stderr:
            words += line
            if "leads term" in line:
                break
        pids = [int(pid) for pid in _PID.findall(words)]
        try:
            yield process, pids
        finally:
            process.kill()


def test_the_first_answer_after_a_moment_is_known_at_once() -> None:
    """Also while most lines have no answer yet, and so no time."""
    client = CopycatClient("127.0.0.1:1")
    drive = Drive(client, [b"line"] * 1000, 64, on_count=lambda _: None)
    for number in range(10):
        drive.acknowledged_at[number] = 5.0 + number
    drive.acknowledged = 10
    assert drive.first_acknowledged_after(7.5) == 8.0
    assert drive.first_acknowledged_after(14.0) == 14.0
    assert drive.first_acknowledged_after(14.5) is None


def have_ended(pids: list[int]) -> bool:
    """Wait until none of the processes runs; False when one still does at the time limit."""
    deadline = time.monotonic() + 60
    left = set(pids)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if is_running(pid)}
        time.sleep(0.01)
    return not left


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


@pytest.mark.slow
def test_ctrl_c_leaves_no_process(running: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, pids = running
    assert len(pids) == 4, "the fifth member joins later"
    assert all(is_running(pid) for pid in pids)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(_LIMIT_S) == 130
    assert have_ended(pids)


@pytest.mark.slow
def test_sigkill_of_the_demo_leaves_no_process(
    running: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, pids = running
    process.kill()
    process.wait(_LIMIT_S)
    assert have_ended(pids)


@pytest.mark.slow
def test_a_member_that_dies_by_itself_fails_the_demo(
    running: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, pids = running
    os.kill(pids[0], signal.SIGKILL)
    with suppress(ProcessLookupError):  # the demo may have ended it already, for the first's sake
        os.kill(pids[1], signal.SIGKILL)
    if process.stderr is None:
        raise AssertionError("no stderr")
    words = process.stderr.read()
    assert process.wait(_LIMIT_S) == 1
    assert "error[member-failed]" in words
    assert have_ended(pids)


@pytest.mark.slow
def test_an_empty_input_starts_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, 0),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 2
    assert "no lines" in done.stderr


@pytest.mark.slow
def test_a_single_line_is_proved_too(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, 1),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "each of 1 lines" in done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a demo of 300 lines left on the disk."""
    root = tmp_path_factory.mktemp("finished")
    subprocess.run(command(root, 300), cwd=root, env=environment(), check=True, timeout=_LIMIT_S)
    return root


def ask(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def damage(root: Path) -> Path:
    """One bit of entry 20 flips on the disk of n1."""
    member = root / "members" / "n1"
    entry = next(entries(member, 20))
    data = bytearray(Path(entry.path).read_bytes())
    data[entry.offset + len(entry.frame) - 1] ^= 1
    Path(entry.path).write_bytes(data)
    return member


@pytest.mark.slow
def test_log_commands_read_what_the_demo_left(finished: Path, tmp_path: Path) -> None:
    member = str(finished / "members" / "n1")
    report = json.loads(ask("copycat", "log", "verify", member, "--json").stdout)
    assert report["ok"]
    assert report["last_index"] > 300
    assert "every checksum fits" in ask("copycat", "log", "verify", member).stdout
    shown = ask("copycat", "log", "show", member, "--jsonl", "--count", "9").stdout
    rows = [json.loads(row) for row in shown.splitlines()]
    assert [row["index"] for row in rows] == list(range(1, 10))
    assert rows[0]["kind"] == "noop"
    assert "line 0" in ask("copycat", "log", "show", member, "--count", "20").stdout

    shutil.copytree(finished, tmp_path / "copy")
    damaged = ask("copycat", "log", "verify", str(damage(tmp_path / "copy")))
    assert damaged.returncode == 4
    assert "error[corrupt-log]" in damaged.stderr


def verdict(root: Path, commit_index: int, file: Path) -> tuple[int, dict[str, object]]:
    words = ["--file", str(file)]
    for name in _NAMES:
        words += ["--member", name, str(root / "members" / name), str(commit_index)]
    done = ask("copycat.cli.demo.verify", *words)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_the_separate_verifier_fires(finished: Path, tmp_path: Path) -> None:
    # Members stop one after another, and those that stop later commit that the others are away:
    # what every log has is what all five can be asked for.
    commit_index = min(verify(finished / "members" / name).last_index for name in _NAMES)
    code, words = verdict(finished, commit_index, finished / "lines.txt")
    assert (code, words.get("lines")) == (0, 300)

    other = tmp_path / "other.txt"
    other.write_bytes((finished / "lines.txt").read_bytes().replace(b"line 250", b"line X"))
    code, words = verdict(finished, commit_index, other)
    assert code == 4
    assert words["what"] == "not line 251 of the input"
    assert (words["expected"], words["actual"]) == ("b'line X'", "b'line 250'")

    shutil.copytree(finished, tmp_path / "copy")
    damage(tmp_path / "copy")
    code, words = verdict(tmp_path / "copy", commit_index, finished / "lines.txt")
    assert (code, words["member"], words["index"]) == (4, "n1", 20)

    code, words = verdict(finished, commit_index - 100, finished / "lines.txt")
    assert (code, words["what"]) == (4, "lines are missing")
