"""What `copycat log ...` prints of configurations: those in the log, and those beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from copycat.cli.log.members import configuration_fields, configuration_text
from copycat.member.configuration_file import (
    CONFIGURATION_FILES,
    NOTHING_STORED,
    ConfigurationFile,
    StoredConfigurations,
)
from copycat.member.directory import MemberDirectory
from copycat.member.markers import write_deleted_log
from copycat.protocol.codec_configuration import encode_configuration
from copycat.protocol.member_record import ConfigurationRecord, HealingPolicy, MemberRecord
from copycat.storage._native import Env
from copycat.types import EntryId, EntryKind, MemberId, MemberType
from tests.cli.logs import append, one
from tests.cli.test_log_tools import run
from tests.log.contract import durable
from tests.log.test_native import open_small


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


FOUNDER = MemberRecord(MemberId(7), MemberType.ACTIVE, "a:1")
CONFIGURATION = ConfigurationRecord(
    EntryId(1, 2),
    0xC0FFEE,
    (
        FOUNDER,
        MemberRecord(MemberId(8), MemberType.PASSIVE, "b:2", 2, is_promotable=True),
        MemberRecord(MemberId(9), MemberType.RESERVE, "c:3"),
    ),
)


def changed_log(path: Path) -> None:
    """A log with a configuration, and one of a version that nobody knows."""
    path.mkdir()
    log = open_small(Env(), str(path))
    append(log, 1, 0, one(EntryKind.NOOP))
    append(log, 1, 1, one(EntryKind.CONFIGURATION, encode_configuration(CONFIGURATION)))
    append(log, 1, 2, one(EntryKind.CONFIGURATION, b"\x09\x00later"))
    durable(log)
    log.close()


def test_a_configuration_is_shown_with_its_members(tmp_path: Path) -> None:
    changed_log(tmp_path / "d")
    shown = run("show", "d", "--kind", "configuration").stdout
    assert "a:1 active, b:2 passive since 2, to become active, c:3 reserve" in shown
    assert "is a configuration of version 9" in shown
    entries = json.loads(run("show", "d", "--json").stdout)["entries"]
    assert entries[1]["cluster"] == f"{0xC0FFEE:032x}"
    assert entries[1]["members"][1] == {
        "member": f"{8:032x}",
        "type": "passive",
        "address": "b:2",
        "since": 2,
        "is_promotable": True,
        "is_demoted": False,
        "is_leaving": False,
        "failure_domain": "",
        "weight": 0,
    }
    assert "version 9" in entries[2]["problem"]
    exported = run("export", "d", "--kind", "configuration").stdout.splitlines()
    assert json.loads(exported[0])["members"][2]["type"] == "reserve"
    assert run("verify", "d").exit_code == 0


def test_what_leaders_heal_by_is_shown_with_the_members() -> None:
    record = ConfigurationRecord(
        EntryId(1, 2),
        5,
        (
            MemberRecord(MemberId(7), MemberType.ACTIVE, "a:1", is_leaving=True),
            MemberRecord(
                MemberId(8),
                MemberType.PASSIVE,
                "b:2",
                failure_domain="x",
                weight=2,
                is_demoted=True,
            ),
        ),
        HealingPolicy(3, 1, is_on=True),
    )
    assert configuration_text(record) == (
        "a:1 active, to be replaced, b:2 passive in x weight 2, demoted by a user;"
        " heals to 3 active and 1 passive"
    )
    assert configuration_fields(record)["policy"]["target_active"] == 3


def joined(path: Path) -> MemberDirectory:
    """The directory of a member that joined later."""
    return MemberDirectory.open(
        Env(),
        str(path),
        cluster_name="orders",
        address="b:2",
        members=(),
        member=MemberId(8),
        incarnation_source=lambda: 5,
        first=StoredConfigurations((CONFIGURATION,)),
    )


def test_stat_says_who_the_members_are_as_the_directory_has_it(tmp_path: Path) -> None:
    directory = joined(tmp_path / "m")
    directory.close()
    text = run("stat", "m").stdout
    assert "cluster     orders, joined later" in text
    assert "members     a:1 active, b:2 passive since 2" in text
    assert "of entry 2, term 1" in text
    document = json.loads(run("stat", "m", "--json").stdout)
    assert document["identity"]["cluster_incarnation"] == f"{0xC0FFEE:032x}"
    assert document["configuration"]["index"] == 2
    assert len(document["configuration"]["members"]) == 3


@pytest.mark.parametrize("has_log", [True, False])
def test_verify_reads_the_list_of_members(tmp_path: Path, *, has_log: bool) -> None:
    directory = joined(tmp_path / "m")
    if has_log:
        append(directory.native, 1, 0, one(EntryKind.NOOP))
    directory.close()
    assert run("verify", "m").exit_code == 0
    home = tmp_path / "m"
    flip(home / "configuration-b")
    result = run("verify", "m")
    assert result.exit_code == 4
    assert "configuration-b" in result.stderr
    assert "configuration-a" not in result.stderr
    assert "nothing is lost" in result.stderr
    flip(home / "configuration-a")
    result = run("verify", "m")
    assert result.exit_code == 4
    assert "configuration-a" in result.stderr
    assert "configuration-b" in result.stderr
    expected = "nothing is lost" if has_log else "do not start this member"
    assert expected in result.stderr
    for name in CONFIGURATION_FILES:
        (home / name).unlink()
    result = run("verify", "m")
    assert result.exit_code == 4
    assert "this copy is missing" in result.stderr
    assert expected in result.stderr
    write_deleted_log(Env(), str(home), EntryId(1, 2))
    assert "do not start this member" in run("verify", "m").stderr


def test_a_log_that_is_being_deleted_is_not_damaged(tmp_path: Path) -> None:
    """A start that deletes the log of a reserve was cut short."""
    home = tmp_path / "m"
    directory = MemberDirectory.open(
        Env(),
        str(home),
        cluster_name="orders",
        address="b:2",
        members=(),
        member=MemberId(8),
        incarnation_source=lambda: 5,
        first=StoredConfigurations((CONFIGURATION,)),
    )
    append(directory.native, 1, 0, one(EntryKind.NOOP))
    directory.close()
    (home / "log" / "manifest").unlink()
    assert "F3" in run("verify", "m").stderr
    file = ConfigurationFile(Env(), str(home))
    file.write(StoredConfigurations((CONFIGURATION,), is_wiped=True))
    assert run("verify", "m").exit_code == 0
    assert "its next start deletes the log" in run("stat", "m").stdout


def flip(path: Path) -> None:
    """One bit of a file rots."""
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def test_advice_depends_on_the_members_of_now_and_not_on_the_founders(tmp_path: Path) -> None:
    """A founder of a cluster of one has others by now, which have its entries."""
    for name, first in (("alone", NOTHING_STORED), ("grown", StoredConfigurations((GROWN,)))):
        directory = MemberDirectory.open(
            Env(),
            str(tmp_path / name),
            cluster_name="orders",
            address="a:1",
            members=("a:1",),
            member=MemberId(7),
            incarnation_source=lambda: 5,
            first=first,
        )
        for _ in range(3):
            append(directory.native, 1, 0, one(EntryKind.NOOP))
        durable(directory.native)
        directory.close()
        (segment,) = (tmp_path / name / "log").glob("*.log")
        data = bytearray(segment.read_bytes())
        at = data.rindex((2).to_bytes(8, "little") + (1).to_bytes(8, "little"))
        data[at + 3] ^= 1
        segment.write_bytes(data)
    assert "this cluster has one member" in run("verify", "alone").stderr
    assert "until it has fetched the missing entries" in run("verify", "grown").stderr


GROWN = CONFIGURATION._replace(
    members=(FOUNDER, MemberRecord(MemberId(8), MemberType.ACTIVE, "b:2", 2))
)
