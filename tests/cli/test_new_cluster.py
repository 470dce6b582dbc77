"""`copycat recover --show` and `--new-cluster`, as an operator sees them, and real processes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from copycat import ClusterReplacedError, CopycatClient, NoLeaderError
from copycat.cli import new_cluster as cli
from copycat.cli.main import exit_code_of, tree
from copycat.errors import CopycatError, DiskFullError
from copycat.machine.kv import KeyValueStore
from copycat.member.identity import Identity, read_identity
from copycat.member.markers import LostEntries
from copycat.member.new_cluster_file import UNFINISHED_FILE
from copycat.storage import Env
from copycat.types import EntryId
from tests.cli.test_cluster_processes import LIMIT_S, started, until_seen
from tests.cli.test_log_advice import cut_tail
from tests.faults.test_f2_alone import image
from tests.log.contract import durable, grow
from tests.log.test_directory import MEMBERS, open_member, save
from tests.server.cluster import free_address


def identity_of(path: Path) -> Identity:
    """Who the directory says it is, without its starts."""
    identity, _ = read_identity(Env(), str(path))
    assert identity is not None
    return replace(identity, starts=())


def survivor(path: Path) -> Path:
    """One of three founders, with 13 entries of term 1, in term 4."""
    directory = open_member(Env(), path=str(path), members=MEMBERS)
    save(directory, 4, 1)
    grow(directory.log, 13)
    durable(directory.log)
    directory.close()
    return path


def recover(path: Path, *words: str) -> Result:
    result = CliRunner().invoke(tree, ["recover", str(path), *words])
    if isinstance(result.exception, CopycatError):
        result.exit_code = exit_code_of(result.exception)
    return result


def test_c46_a_survivor_is_shown_and_nothing_is_changed(tmp_path: Path) -> None:
    path = survivor(tmp_path / "n1")
    before = image(path)
    shown = recover(path, "--show")
    assert shown.exit_code == 0, shown.output
    assert "last entry      13 of term 1; this member is in term 4" in shown.output
    assert "entries 1 to 13 may have been committed, or not" in shown.output
    assert "members         a:1  active  (this one)" in shown.output
    document = json.loads(recover(path, "--show", "--json").output)
    assert document["last"] == {"term": 1, "index": 13}
    assert document["committed"] == {"term": 0, "index": 0}
    assert [one["address"] for one in document["members"]] == sorted(MEMBERS)
    assert document["obstacles"] == []
    assert image(path) == before


def test_c46_it_says_what_may_be_lost_and_does_nothing_unless_that_is_confirmed(
    tmp_path: Path,
) -> None:
    path = survivor(tmp_path / "n1")
    before = image(path)
    asked = recover(path, "--new-cluster")
    assert asked.exit_code == 1
    assert "Every entry that is not here is lost" in asked.output
    assert "Entries 1 to 13 become part of the new cluster" in asked.output
    assert "b:2, c:3" in asked.output
    assert f"copycat recover --new-cluster {path} --cluster-name test --yes" in asked.output
    assert recover(path, "--new-cluster", "--yes").exit_code == 2
    wrong = recover(path, "--new-cluster", "--yes", "--cluster-name", "other")
    assert wrong.exit_code == 2
    assert 'of cluster "test", not "other"' in str(wrong.exception)
    for words in (["--show", "--new-cluster"], ["--address", "x:1"], ["--json"]):
        assert recover(path, *words).exit_code == 2
    assert image(path) == before


def test_c46_who_has_a_terminal_types_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = survivor(tmp_path / "n1")

    def yes() -> bool:
        return True

    for typed, code in (("no", 1), ("test", 0)):
        monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: yes())
        done = CliRunner().invoke(tree, ["recover", str(path), "--new-cluster"], input=typed)
        assert done.exit_code == code, done.output
        assert 'Type the name of the cluster ("test")' in done.output
    assert "made the cluster" in done.output


def test_c46_the_new_cluster_is_named_and_a_second_run_is_refused(tmp_path: Path) -> None:
    path = survivor(tmp_path / "n1")
    words = ["--new-cluster", "--cluster-name", "test", "--yes"]
    made = recover(path, *words, "--address", "d:4", "--json")
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)["new_cluster"]
    assert document["address"] == "d:4"
    assert document["last"] == {"term": 1, "index": 13}
    assert document["term"] == 5
    assert document["parent_incarnation"] is None
    assert document["member"] != document["parent_member"]
    shown = recover(path, "--show")
    assert "last entry      15 of term 5" in shown.output
    assert "made by recover --new-cluster from entry 13 of term 1" in shown.output
    (line,) = (path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["action"] == "new-cluster"
    before = image(path)
    again = recover(path, *words)
    assert again.exit_code == 5
    assert "error[recovery-refused]" in again.stderr
    assert "it is the only voter" in again.stderr
    assert image(path) == before


def test_c46_damage_and_what_is_missing_have_exit_codes_of_their_own(tmp_path: Path) -> None:
    path = survivor(tmp_path / "n1")
    LostEntries(Env(), str(path), EntryId(1, 20), first_index=14, term=2).write()
    words = ["--new-cluster", "--cluster-name", "test", "--yes"]
    refused = recover(path, *words)
    assert refused.exit_code == 5
    assert "were lost, and no leader has sent them again" in refused.stderr
    cut_tail(path)
    before = image(path)
    assert recover(path, "--show").exit_code == 4
    assert recover(path, *words).exit_code == 4
    assert image(path) == before
    nobody = tmp_path / "empty"
    nobody.mkdir()
    assert recover(nobody, "--show").exit_code == 2
    assert recover(nobody, "--new-cluster").exit_code == 2
    assert list(nobody.iterdir()) == []


def test_c46_an_interrupted_run_is_completed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = survivor(tmp_path / "n1")
    words = ["--new-cluster", "--cluster-name", "test", "--yes"]

    def full(*_: object) -> None:
        raise DiskFullError("the disk is full", path=str(path))

    with monkeypatch.context() as patched:
        patched.setattr(cli, "complete", full)
        assert isinstance(recover(path, *words).exception, DiskFullError)
    assert (path / UNFINISHED_FILE).exists()
    for other in (["--show"], ["--accept-loss-from", "5"]):
        refused = recover(path, *other)
        assert refused.exit_code == 2
        assert "was interrupted here" in str(refused.exception)
    assert recover(path, "--new-cluster", "--address", "x:9").exit_code == 2
    done = recover(path, "--new-cluster")
    assert done.exit_code == 0, done.output
    assert "an earlier run was interrupted; it is completed now" in done.stderr
    assert recover(path, "--show").exit_code == 0


async def connected(client: CopycatClient) -> None:
    """Three processes may take long to start and to elect a leader."""
    for _ in range(5):
        with suppress(NoLeaderError):
            await client.connect()
            return
    raise AssertionError("no leader")


def until_it_has(path: Path, last_index: int) -> None:
    """Wait until a member that runs has so many entries on its disk."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        shown = recover(path, "--show", "--json")
        if shown.exit_code == 0 and json.loads(shown.stdout)["last"]["index"] >= last_index:
            return
    raise AssertionError(f"{path} lacks entry {last_index}")


@pytest.mark.slow
def test_c46_two_of_three_are_deleted_for_good(tmp_path: Path) -> None:
    """Real processes: the survivor becomes a new cluster, two new members join it, a client of the
    old cluster is told so, and an old member that comes back stays outside and as it was."""
    first, second, third, fourth, fifth = (free_address() for _ in range(5))
    founders = [word for each in (first, second, third) for word in ("--member", each)]
    names = {each: tmp_path / each.rpartition(":")[2] for each in (first, second, third, fourth)}
    processes = {each: started(tmp_path, each, *founders) for each in (first, second, third)}

    def kill(*addresses: str) -> None:
        for each in addresses:
            processes[each].send_signal(signal.SIGKILL)
            processes[each].wait(LIMIT_S)

    async def scenario() -> None:
        client = CopycatClient(first, second, third, session_timeout=15.0)
        await connected(client)
        for number in range(10):
            await client.submit(KeyValueStore.put(f"k{number}", b"v"))
        session = client.session.id
        for each in (first, second):
            await asyncio.to_thread(until_it_has, names[each], 12)
        await asyncio.to_thread(kill, first, second, third)
        shutil.copytree(names[second], tmp_path / "backup")
        shutil.rmtree(names[second])
        shutil.rmtree(names[third])
        shown = json.loads(recover(names[first], "--show", "--json").output)
        assert session in [one["session"] for one in shown["sessions"]]
        words = ["--new-cluster", "--cluster-name", "copycat", "--yes"]
        made = recover(names[first], *words)
        assert made.exit_code == 0, made.output
        processes[first] = started(tmp_path, first)
        with pytest.raises(ClusterReplacedError, match="an operator made this cluster"):
            await client.submit(KeyValueStore.put("lost", b"v"), timeout=LIMIT_S)
        for each in (fourth, fifth):
            processes[each] = started(tmp_path, each, "--join", first)
        roles = {first: ("active", "leader")}
        roles |= dict.fromkeys((fourth, fifth), ("active", "follower"))
        await asyncio.to_thread(until_seen, first, roles)
        shutil.copytree(tmp_path / "backup", names[second])
        processes[second] = started(tmp_path, second, *founders)
        await asyncio.sleep(2.0)
        assert processes[second].poll() is None
        await asyncio.to_thread(until_seen, fourth, roles)
        await asyncio.to_thread(kill, second)
        term = json.loads(recover(names[second], "--show", "--json").output)["term"]
        assert term == json.loads(recover(tmp_path / "backup", "--show", "--json").output)["term"]
        assert identity_of(names[second]) == identity_of(tmp_path / "backup")
        async with CopycatClient(fifth, session_timeout=60.0) as other:
            for number in range(10):
                assert await other.submit(KeyValueStore.get(f"k{number}")) == b"v"
            assert await other.submit(KeyValueStore.get("lost")) is None
        await client.close()

    try:
        asyncio.run(asyncio.wait_for(scenario(), 3 * LIMIT_S))
    finally:
        for each in processes.values():
            each.kill()
            each.wait(LIMIT_S)
