"""Values that are of the right kind and still no setting: none passes, none is a traceback."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from copycat.config import Address, RaftOptions, ServerOptions, Storage, seconds
from copycat.errors import ConfigurationError
from copycat.log.log import Log
from copycat.types import StorageLevelLike

NUMBERS: dict[str, list[Any]] = {
    "float": [math.nan, math.inf, -math.inf, -0.0, -1.0, 10**400],
    "int": [-1, 1 << 64],
}
"""For each type of number: what passes as one, and is none that a setting can have."""
WRONG: list[Any] = [None, True, "1", b"x", 1.5j, [], math.nan, -1, 1 << 64, 10**400]
"""For every setting; what a setting does take of these stands in `TAKES`."""
TAKES: dict[str, list[Any]] = {"directory": ["1"], "retain_stale_snapshots": [True]}


def refused_values(type_: Any) -> list[tuple[str, Any]]:
    """(setting, value that is none) of a type of settings."""
    return [
        (field.name, value)
        for field in msgspec.structs.fields(type_)
        for value in [*NUMBERS.get(getattr(field.type, "__name__", ""), []), *WRONG]
        if value not in TAKES.get(field.name, [])
    ]


@pytest.mark.parametrize(("name", "value"), refused_values(Storage))
def test_storage_refuses(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^storage\.{name} \("):
        Storage(**{name: value})


@pytest.mark.parametrize(("name", "value"), refused_values(RaftOptions))
def test_raft_options_refuse(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} \("):
        RaftOptions(**{name: value})


def server(**changes: Any) -> ServerOptions:
    at = Address("127.0.0.1", 1)
    good: dict[str, Any] = {
        "address": at,
        "bind": at,
        "cluster_name": "c",
        "name": "n",
        "election_timeout": 0.75,
        "heartbeat_interval": 0.25,
        "session_timeout": 5.0,
        "insecure": False,
    }
    return ServerOptions(**{**good, **changes})


@pytest.mark.parametrize("name", ["election_timeout", "heartbeat_interval", "session_timeout"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, -1.0, 1e10])
def test_server_timers_refuse(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        server(**{name: value})


@pytest.mark.parametrize("value", [None, 5, b"n", "", "n\0", "\ud800", "x" * 129])
@pytest.mark.parametrize("name", ["cluster_name", "name"])
def test_server_names_refuse(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} \("):
        server(**{name: value})


def test_the_problems_of_a_server_and_of_the_core_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        server(name=5, insecure="no", heartbeat_interval=math.nan, session_timeout=math.inf)
    for name in ("name", "insecure", "heartbeat_interval", "election_timeout", "session_timeout"):
        assert f"{name} (" in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        RaftOptions(heartbeat_interval_ms=0, window=True, election_timeout_ms=1 << 64)
    for name in ("heartbeat_interval_ms", "window", "election_timeout_ms"):
        assert f"{name} (" in caught.value.message


def test_timers_that_fit_in_seconds_fit_in_milliseconds() -> None:
    options = server(heartbeat_interval=0.0015, election_timeout=0.003).raft()
    assert (options.heartbeat_interval_ms, options.election_timeout_ms) == (2, 4)


@pytest.mark.parametrize(
    "value",
    [
        ("h", "80"),
        ("h", True),
        ("h", math.nan),
        ("h", 1, 2),
        ("h",),
        ("h", -1),
        ("h\0x", 1),
        (b"h", 1),
        5,
        None,
        Address("h", 70000),
        Address("", 1),
        "h:" + "9" * 5000,
        "a\0b:1",
    ],
)
def test_an_address_refuses(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^address "):
        Address.parse(value)


@pytest.mark.parametrize("value", ["750", None, True, b"1", 10**400])
def test_a_duration_refuses(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no duration"):
        seconds(value)
    assert (seconds(1), seconds(timedelta(milliseconds=5))) == (1.0, 0.005)


# --- the log: refused before anything is made on the disk --------------------------------------


@pytest.mark.parametrize("place", ["", "{}/y\0z", "{}/y\ud800"])
@pytest.mark.parametrize("level", ["disk", "mapped", "memory"])
def test_a_path_that_is_none_makes_nothing(
    tmp_path: Path, level: StorageLevelLike, place: str
) -> None:
    for is_read_only in (False, True):
        with pytest.raises(ConfigurationError, match=r"^storage\.directory \("):
            Log.open(place.format(tmp_path), level=level, read_only=is_read_only)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", [{"level": "disk"}, "disk", Storage])
def test_a_storage_that_is_none_is_named(tmp_path: Path, storage: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a copycat\.Storage, not"):
        Log.open(tmp_path / "log", storage=storage)
    assert not list(tmp_path.iterdir())


LONGEST = {
    "sync_interval": 365 * 86400.0,
    "minor_compaction_interval": 365 * 86400.0,
    "major_compaction_interval": 365 * 86400.0,
    "max_segment_size": 1 << 31,
    "max_entries_per_segment": 1 << 24,
    "max_entry_size": 1 << 24,
    "entry_buffer_size": 1 << 24,
    "compaction_threshold": 1e9,
    "snapshot_threshold": 1 << 50,
    "min_free_space": 1 << 50,
}
"""The largest that passes, or for the threshold what benchmarks call never."""


@pytest.mark.parametrize("name", LONGEST)
def test_a_log_works_with_the_largest_that_passes(tmp_path: Path, name: str) -> None:
    """Its threads too: one that dies is an error of this test (pytest's threadexception)."""
    settings: dict[str, Any] = {"durability": "interval", name: LONGEST[name]}
    with Log.open(tmp_path / "log", **settings) as log:
        if name in {"max_segment_size", "min_free_space"}:
            return  # an append would zero-fill 2 GiB, or be refused for want of a petabyte
        log.append_many([b"x"] * 2000)
        log.release_many(range(1, 1500))
    assert log.closed


@pytest.mark.parametrize("value", [1, 0, "no", "yes", None, [], 1.5])
def test_read_only_is_true_or_false(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^read_only \(.*must be True or False"):
        Log.open(tmp_path / "log", read_only=value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["32MiB", True, None, 1.5, b"x"])
@pytest.mark.parametrize(
    ("name", "bounds"),
    [("max_segment_size", "8192 to 2147483648 bytes"), ("compaction_threads", "1 to 64")],
)
def test_a_value_of_a_wrong_type_is_told_the_bounds(name: str, value: Any, bounds: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Storage(**{name: value})
    assert caught.value.message.startswith(f"storage.{name} ({value!r}): Expected `int`")
    assert caught.value.message.endswith(f"; it must be {bounds}")
