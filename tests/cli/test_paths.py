"""Paths of the command line are meant where it was typed, whatever an --app does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from copycat.cli.main import tree
from copycat.cli.serve import ServeOptions
from copycat.log.log import Log
from tests.cli.logs import command_log

APP = """
import os
from copycat import StateMachine
os.chdir({there!r})
class App(StateMachine):
    def __init__(self):
        os.chdir({there!r})
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log `m1`, and another place with an empty log of that name."""
    there = tmp_path / "there"
    Log.open(there / "m1").close()
    home = tmp_path / "here"
    home.mkdir()
    command_log(home / "m1")
    (home / "wandering.py").write_text(APP.format(there=str(there)))
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "wandering", raising=False)
    return home


@pytest.mark.parametrize(
    "words", [["show", "m1"], ["tail", "m1"], ["export", "m1", "-o", "out"], ["export", "m1"]]
)
def test_an_app_that_changes_the_directory_changes_no_path(here: Path, words: list[str]) -> None:
    plain = CliRunner().invoke(tree, ["log", *words])
    written = (here / "out").read_bytes() if "out" in words else b""
    (here / "out").unlink(missing_ok=True)
    result = CliRunner().invoke(tree, ["log", *words, "--app", "wandering:App"])
    assert (result.exit_code, plain.exit_code) == (0, 0), result.output
    assert len(result.output.splitlines()) == len(plain.output.splitlines()) > 0
    if written:
        assert (here / "out").read_bytes().count(b"\n") == written.count(b"\n") > 0


def test_a_member_is_served_where_it_was_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def noted(options: ServeOptions) -> int:
        named.append(options.storage.directory)
        return 0

    monkeypatch.setattr("copycat.cli.serve.run_serve", noted)
    printed = CliRunner().invoke(tree, ["serve", "127.0.0.1:0", "--app", "a:B"])
    assert printed.exit_code == 0, printed.output
    printed = CliRunner().invoke(
        tree, ["serve", "127.0.0.1:0", "--app", "a:B", "--directory", "~/member"]
    )
    assert named == [f"{here}/copycat-data", str(Path("~/member").expanduser())]
