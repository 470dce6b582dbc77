"""What fails is one line on stderr and the exit code that docs/reference/cli.md promises."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from copycat.cli.main import main
from tests.cli.logs import APP, bare_log, command_log
from tests.tidy.tree import ROOT


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a log `m1` in it. What `--app` adds to the path is undone."""
    command_log(tmp_path / "m1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["copycat", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def command(*words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The same in a process of its own, where a stream can be anything."""
    printed_text = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **more}
    printed_text["env"] = {**os.environ, "PYTHONPATH": str(ROOT), **printed_text.get("env", {})}
    return subprocess.run([sys.executable, "-m", "copycat", *words], check=False, **printed_text)


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["log", "export", "m1", "-o", "no/x"], 2, "error[os]: no/x: No such file or directory"),
        (
            ["log", "export", "m1", "-o", "m1/manifest/x"],
            2,
            "error[os]: m1/manifest/x: Not a directory",
        ),
        (["log", "export", "m1", "-o", "/dev/full/x"], 2, "error[os]: /dev/full/x: Not a dir"),
        (["log", "show", "\udcff"], 2, "error[bad-config]: the path ('\\udcff') must be"),
        (["demo", "--directory", "m1"], 2, "error[os]: m1: File exists"),
        (["log", "show", "nowhere"], 2, "Error: Invalid value for 'DIRECTORY'"),
        (["serve", "127.0.0.1:0", "--app", "a:B", "--directory", "m1/manifest"], 2, "is a file"),
    ],
)
def test_a_path_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: Path,
    words: list[str],
    code: int,
    expected: str,
) -> None:
    os.mkdir(os.fsencode(here) + b"/\xff")  # noqa: PTH102  (no str names it)
    assert run(monkeypatch, *words) == code
    assert expected in capsys.readouterr().err


APPS = {
    "syntax": ("x = (", "SyntaxError: '(' was never closed (syntax.py, line 1)"),
    "ends": ("import sys\nsys.exit(3)", "SystemExit: 3\n  raised in {here}/ends.py, line 2\n"),
    "raises": ("raise OSError('a\\nb')", "OSError: a b\n  raised in {here}/raises.py, line 1\n"),
    "lacks": ("", "AttributeError: module 'lacks' has no attribute 'M'\n  hint: write module:Cl"),
    "gone": (None, "ModuleNotFoundError: No module named 'gone'\n  hint: write module:Class"),
    "function": ("def M(): ...", "is not a StateMachine class"),
}


@pytest.mark.parametrize("name", APPS)
def test_an_app_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path, name: str
) -> None:
    text, expected = APPS[name]
    if text is not None:
        (here / f"{name}.py").write_text(text, encoding="utf-8")
    assert run(monkeypatch, "log", "show", "m1", "--app", f"{name}:M") == 2
    printed_text = capsys.readouterr().err
    assert printed_text.startswith(f"error[bad-config]: --app {name}:M")
    assert expected.format(here=here) in printed_text


def test_an_app_whose_machine_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "needs.py").write_text(
        "from copycat import StateMachine\n\n\n"
        "class M(StateMachine):\n    def __init__(self, size): ...\n",
        encoding="utf-8",
    )
    words = ["serve", "127.0.0.1:0", "--app", "needs:M", "--directory", "member"]
    assert run(monkeypatch, *words) == 2
    assert "error[bad-config]: --app needs:M: TypeError: " in capsys.readouterr().err


def test_an_address_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`.invalid` is never a host (RFC 2606); without --insecure only loopback is listened on."""
    words = ["serve", "no.invalid:1", "--app", APP, "--directory", "member"]
    assert run(monkeypatch, *words) == 2
    assert "--insecure" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--insecure") == 2
    assert "error[bad-config]: address no.invalid:1: " in capsys.readouterr().err


@pytest.mark.parametrize("count", [3, 3000])
def test_a_full_disk_behind_stdout(here: Path, count: int) -> None:
    """Of a few lines only the last flush fails, of many a print."""
    bare_log(here / "full", count)
    with Path("/dev/full").open("wb") as full:
        done = command("log", "show", "full", "--count", "9999", "-q", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error[os]: ")
    assert done.stderr.endswith(b"No space left on device\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", [["log", "stat", "m1"], ["log", "show", "m1", "--jsonl"]])
def test_a_reader_that_went_away_is_no_word_on_stderr(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:  # noqa: PTH123  (a descriptor, no path)
        done = command(*words, stdout=nobody)
    assert done.stderr == b""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_is_no_traceback(closed: str) -> None:
    script = f'exec "$0" -m copycat log show m1 --count 1 {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert (b"more follows" in done.stderr) is ("2>&-" not in closed)
    assert b"Traceback" not in done.stderr
    assert (b"noop" in done.stdout) is (closed == "2>&-")
    assert b"more follows" not in done.stdout


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_stdout_cannot_write_is_escaped(encoding: str) -> None:
    env = {"PYTHONIOENCODING": encoding}
    printed_text = command("log", "show", "m1", env=env)
    assert (printed_text.returncode, printed_text.stderr) == (0, b"")
    assert ("4–6" if encoding == "utf-8" else "4\\u20136").encode() in printed_text.stdout


def test_json_is_json_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An escape is what JSON has for a character, outside of the first plane too."""
    text = "é–😀"

    def stat(*_: object, **__: object) -> int:
        sys.stdout.write(json.dumps([text], ensure_ascii=False))
        return 0

    monkeypatch.setattr("copycat.cli.log.stat.run_stat", stat)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run(monkeypatch, "log", "stat", "m1", "--json") == 0
    assert json.loads(stdout.buffer.getvalue()) == [text]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ("copycat/storage/_native*", "error[not-built]: copycat's extension is not built"),
        ("copycat/cli/main.py", "error[not-installed]: "),
    ],
)
def test_a_tree_that_is_not_built_names_the_command_that_builds_it(
    tmp_path: Path, lacks: str, words: str
) -> None:
    shutil.copytree(ROOT / "copycat", tmp_path / "copycat")
    for path in tmp_path.glob(lacks):
        path.unlink()
    log = bare_log(tmp_path / "log")
    process = command("log", "stat", str(log), cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    error = process.stderr.decode()
    assert process.returncode in {1, 2}
    assert words in error
    assert "make build" in error
    assert "Traceback" not in error


def test_the_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert run(monkeypatch, "--version") == 0
    assert project["version"] in capsys.readouterr().out


@pytest.mark.slow
def test_a_member_is_served_with_the_settings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "copycat.toml"
    file.write_text('[storage]\ndirectory = "here"\ndurability = "interval"\n', encoding="utf-8")
    words = ["serve", "127.0.0.1:0", "--app", APP, "--json", "--config", str(file)]
    with subprocess.Popen(
        [sys.executable, "-m", "copycat", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        heard = next(line for line in lines if line["event"] == "listening")
        process.terminate()
        assert [line["event"] for line in lines][-1] == "stopped"
    assert process.returncode == 0
    assert (heard["durability"], heard["directory"]) == ("interval", str(tmp_path / "here"))


def test_a_settings_file_that_does_not_fit_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "copycat.toml"
    file.write_text("[storage]\nmax_segment_sise = 1\n", encoding="utf-8")
    assert run(monkeypatch, "serve", "127.0.0.1:0", "--app", APP, "--config", str(file)) == 2
    expected = capsys.readouterr().err
    assert "unknown key storage.max_segment_sise" in expected
    assert "did you mean storage.max_segment_size?" in expected


@pytest.mark.slow
@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]])
def test_a_reader_that_has_read_enough_is_no_failure(here: Path, streams: list[str]) -> None:
    """As `copycat log show DIR | head -1` leaves the pipe, and with `2>&1` before it."""
    bare_log(here / "many", 9000)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        done = command("log", "show", "many", "--count", "9999", **dict.fromkeys(streams, pipe))
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["log", "--help"], ["log"]])
def test_help_that_nobody_reads_to_its_end_is_no_failure(here: Path, words: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        done = command(*words, stdout=pipe, stderr=subprocess.PIPE)
    assert done.returncode == (2 if words == ["log"] else 0)  # a usage error is on stderr
    assert b"Traceback" not in done.stderr


_INTERRUPTS = """
import runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "copycat.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
runpy.run_module("copycat", run_name="__main__")
"""


@pytest.mark.slow
def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    printed_text = [sys.executable, "-c", _INTERRUPTS]
    done = subprocess.run(printed_text, check=False, capture_output=True, cwd=ROOT, timeout=60)
    assert done.returncode == 130
    assert done.stderr == b"interrupted\n"
