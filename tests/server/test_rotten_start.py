"""A start whose list of members cannot be read (F5, C35)."""

from __future__ import annotations

from pathlib import Path

import pytest

from copycat import CorruptLogError
from copycat.config import Address, ServerOptions
from copycat.member.configuration_file import (
    CONFIGURATION_FILES,
    ConfigurationFile,
    StoredConfigurations,
)
from copycat.member.identity import Identity, write_identity
from copycat.protocol.member_record import ConfigurationRecord, MemberRecord
from copycat.server.startup import start_of
from copycat.storage import Env
from copycat.types import EntryId, MemberId, MemberType
from tests.server.cluster import Book
from tests.server.test_membership import Growing, growing

OPTIONS = ServerOptions(
    address=Address("127.0.0.1", 5001),
    bind=Address("127.0.0.1", 5001),
    cluster_name="c",
    name="x",
    election_timeout=1.0,
    heartbeat_interval=0.25,
    session_timeout=5.0,
    insecure=False,
)


def test_f5_who_joined_has_its_id_from_the_identity(tmp_path: Path) -> None:
    own = Identity.of("c", "127.0.0.1:5001", (), MemberId(77)).with_cluster_incarnation(9)
    write_identity(Env(), str(tmp_path), own.with_incarnation(5))
    for place in CONFIGURATION_FILES:
        (tmp_path / place).write_bytes(b"rotten" * 20)
    for given in ((), ("127.0.0.1:5001", "127.0.0.1:5002")):
        start = start_of(OPTIONS, str(tmp_path), given)
        assert start.member == 77
        assert start.founders == ()
        assert start.configuration is None
        assert start.addresses == ()


@pytest.mark.slow
def test_f5_a_member_that_joined_starts_with_its_log_alone(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        b = await cluster.join("b")
        await cluster.all_see(a="active", b="active")
        async with a.client() as client:
            assert await client.submit(Book.add(1)) == 1
            await b.shutdown()
            flip(tmp_path / "b", CONFIGURATION_FILES)
            await b.bootstrap()
            assert await client.submit(Book.add(2)) == 2
        await cluster.all_see(a="active", b="active")
        await b.shutdown()
        flip(tmp_path / "b", CONFIGURATION_FILES[1:])  # both were written again
        await b.bootstrap()
        await cluster.all_see(a="active", b="active")

    growing(tmp_path, test)


@pytest.mark.slow
def test_f5_a_member_that_nothing_names_says_so(tmp_path: Path) -> None:
    async def test(cluster: Growing) -> None:
        a = await cluster.bootstrap()
        r = await cluster.join("r", type="reserve")
        await r.shutdown()
        flip(tmp_path / "r", CONFIGURATION_FILES)
        with pytest.raises(CorruptLogError) as caught:
            await r.join(str(a.address))
        assert caught.value.code == "corrupt-log"
        text = caught.value.render()
        assert "nothing in this directory says who the members are now" in text
        assert "join a new member, with another directory, and remove this one" in text
        assert str(tmp_path / "r") in text or str(r.address) in text

    growing(tmp_path, test)


def flip(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        data = bytearray((directory / name).read_bytes())
        data[40] ^= 1
        (directory / name).write_bytes(data)


@pytest.mark.parametrize(
    ("other", "is_alone"), [(MemberType.PASSIVE, True), (MemberType.ACTIVE, False)]
)
def test_f2_who_is_the_only_voter_is_alone(
    tmp_path: Path, other: MemberType, is_alone: bool
) -> None:
    """However many members there are: nobody without a vote gives back what damage took."""
    env, own = Env(), Identity.of("c", "127.0.0.1:5001", (), MemberId(77))
    write_identity(env, str(tmp_path), own.with_cluster_incarnation(9).with_incarnation(5))
    members = (
        MemberRecord(MemberId(77), MemberType.ACTIVE, "127.0.0.1:5001"),
        MemberRecord(MemberId(78), other, "127.0.0.1:5002", 3),
    )
    record = ConfigurationRecord(EntryId(1, 3), 9, members)
    ConfigurationFile(env, str(tmp_path)).write(StoredConfigurations((record,)))
    assert start_of(OPTIONS, str(tmp_path), ()).is_alone is is_alone
