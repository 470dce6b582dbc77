"""A settings file: what it may say, and what is said of one that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat.config import Storage
from copycat.errors import ConfigurationError
from copycat.types import Durability


def written(path: Path, text: str) -> Path:
    file = path / "copycat.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_sizes_have_units_and_what_is_missing_has_its_default(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [storage]
        directory = "data"
        durability = "interval"
        max_segment_size = "8MiB"
        min_free_space = 0
        minor_compaction_interval = 5
        """,
    )
    assert Storage.from_toml(file) == Storage(
        directory=str(tmp_path / "data"),
        durability=Durability.INTERVAL,
        max_segment_size=8 << 20,
        min_free_space=0,
        minor_compaction_interval=5.0,
    )


def test_a_directory_is_relative_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, '[storage]\ndirectory = "data"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    directory = Storage.from_toml("../copycat.toml").directory
    assert Path(directory).is_absolute()
    assert Path(directory).resolve() == tmp_path.resolve() / "data"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"there is no table \[storage\]"),
        ("storage = 5", r"there is no table \[storage\]"),
        ("[storage]\n[server]\n", r"\[server\] is not a table of this file"),
        ("[storage]\nflush = 1\nmax_segment_size = '32MB'\n", r"storage\.flush; storage\.max_seg"),
        (
            "[storage]\nmax_segment_size = 5\ndurability = 'x'\n",
            "storage.durability .*; storage.max",
        ),
        ("[storage", "is not TOML"),
    ],
)
def test_all_problems_are_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Storage.from_toml(file)
    assert str(file) in str(caught.value)


def test_a_key_that_is_nearly_right_is_suggested(tmp_path: Path) -> None:
    file = written(tmp_path, "[storage]\nmax_segment_sise = 8192\n")
    with pytest.raises(ConfigurationError) as caught:
        Storage.from_toml(file)
    assert caught.value.hint == "did you mean storage.max_segment_size?"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Storage.from_toml(tmp_path / "none.toml")
