"""One seed from its first event to its verdict: faults, then calm, then liveness, then history.

A failure is a `SeedFailed` whose text is a whole report: the rule, the options, the last events
and the one command that replays it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter

import msgspec

from copycat.errors import CopycatError, InternalError
from copycat.replica.leader_search import ELECTIONS
from copycat.sim.checkers.linearizability import check_linearizable, check_witness
from copycat.sim.checkers.log_history import contents, violated
from copycat.sim.checkers.replay import check_replay, what_must_go
from copycat.sim.client_calls import IMPATIENCE
from copycat.sim.cluster import Cluster
from copycat.sim.draws import draw_options
from copycat.sim.host import SimHost
from copycat.sim.marks import election_marks
from copycat.sim.options import SeedOptions
from copycat.sim.world import MS, SECOND
from copycat.types import Compaction, CompactionReport, Release

__all__ = ["SeedFailed", "SeedResult", "run_seed"]

STEPS_MAX = 3_000_000
CALM_TIMEOUTS = 40
"""Election timeouts within which a calm cluster has one leader and serves everybody (I16)."""
FOREVER_US = 1 << 62


class SeedResult(msgspec.Struct, frozen=True):
    """What happened in a seed in which all rules held."""

    seed: int
    steps: int
    simulated_us: int
    cpu_seconds: float
    digest: int
    commands: int
    marks: dict[str, int]


class SeedFailed(InternalError):
    """A rule did not hold. The message is the report."""

    code = "seed-failed"
    default_hint = "replay it with the command at the end of this report"

    def __reduce__(self) -> tuple[type[SeedFailed], tuple[str]]:
        return type(self), (self.message,)


# Machines of seeds raise on purpose: their tracebacks must not fill the terminal.
logging.getLogger("copycat.machine").addHandler(logging.NullHandler())


def run_seed(seed: int, options: SeedOptions | None = None) -> SeedResult:
    """Run one seed; SeedFailed with a report when a rule is broken."""
    drawn = draw_options(seed) if options is None else options
    begun = time.process_time()
    cluster = Cluster(seed, drawn)
    try:
        _run(cluster)
    except SeedFailed:
        raise
    except Exception as cause:
        raise SeedFailed(_report(cluster, cause)) from cause
    return SeedResult(
        seed=seed,
        steps=cluster.world.steps,
        simulated_us=cluster.world.now_us,
        cpu_seconds=time.process_time() - begun,
        digest=cluster.trace.digest,
        commands=len(cluster.sessions.effects),
        marks=dict(_marks(cluster)),
    )


def _marks(cluster: Cluster) -> Counter[str]:
    marks = cluster.trace.marks
    marks["truncation"] += sum(disk_model.truncations for disk_model in cluster.disk_models)
    marks["log reset"] += sum(disk_model.resets for disk_model in cluster.disk_models)
    marks["gap fed"] += sum(disk_model.gaps_fed for disk_model in cluster.disk_models)
    marks["deletion cleaned"] += sum(
        release_class is Release.SEQUENTIAL
        for release_class in cluster.log_history.deletions.values()
    )
    marks["key expired"] += cluster.sessions.model.expired
    marks["session expired"] += cluster.sessions.expired
    marks["command of a closed session ignored"] += cluster.sessions.ignored
    marks["session expired while its command waits"] += cluster.sessions.cut_short
    majority = cluster.raft.membership.committed[0].quorum_size
    marks += election_marks(cluster.raft.votes, cluster.raft.leaders, majority)
    return marks


def _report(cluster: Cluster, cause: BaseException) -> str:
    what = cause.render() if isinstance(cause, CopycatError) else repr(cause)
    trace = "\n".join(cluster.trace.lines(80))
    options = msgspec.json.encode(cluster.options).decode()
    return (
        f"{trace}\n\nseed {cluster.seed} failed at {cluster.world.now_us / SECOND:.6f} s, "
        f"step {cluster.world.steps}\n{what}\noptions: {options}\n"
        f"replay: make sim SEED={cluster.seed}"
    )


# --- the phases -----------------------------------------------------------------------------


def _run(cluster: Cluster) -> None:
    options = cluster.options
    cluster.start()
    cluster.world.run_until(options.duration_us, STEPS_MAX)
    cluster.trace.record(cluster.world.now_us, "--", "calm")
    cluster.nemesis.calm()
    _must_live(cluster)
    _check_equal(cluster)
    if cluster.trace.marks["entry cleaned"]:
        stateful = cluster.members(is_stateful=True)
        disks = [(host.number, *host.disk.again(cluster.seed)) for host in stateful]
        last_index = len(cluster.raft.committed)
        check_replay(disks, cluster.committed_log, last_index, cluster.sessions, cluster.trace)
    _check_history(cluster)


def _timeout_us(cluster: Cluster) -> int:
    """One election timeout as this seed's slowest parts stretch it."""
    options = cluster.options
    slow = options.network.delay_us * 4 + 2 * options.disk.sync_us + 2 * options.disk.save_us
    return (
        options.raft.election_timeout_ms * MS * (1_000_000 + options.drift_ppm) // 1_000_000 + slow
    )


def _wait(cluster: Cluster, what: str, timeouts: int, until: object) -> int:
    """Run until `until()` holds; how many timeouts that took. A violation of I16 otherwise."""
    step_us = _timeout_us(cluster)
    for passed in range(timeouts):
        if callable(until) and until():
            return passed
        cluster.world.run_until(cluster.world.now_us + step_us, STEPS_MAX)
    facts = [
        (host.number, host.state.value, host.term, host.commit_index, host.disk_model.last_index)
        if host.replica is not None
        else (host.number, "down")
        for host in cluster.hosts
    ]
    raise violated("I16", f"calm, but not live: {what}", timeouts=timeouts, members=facts)


def _must_live(cluster: Cluster) -> None:
    """I16: one leader, constant term, a probe of every client, equal members."""
    for client in cluster.clients:
        client.is_active = False
    # Messages and answers that are in flight, held back or resent may still cause elections.
    _wait(cluster, "no agreed leader", CALM_TIMEOUTS, lambda: cluster.agreed_leader() != 0)
    cluster.world.run_until(cluster.world.now_us + 4 * SECOND, STEPS_MAX)
    _wait(cluster, "no agreed leader later", CALM_TIMEOUTS, lambda: cluster.agreed_leader() != 0)
    leader, term = cluster.agreed_leader(), max(host.term for host in cluster.members())
    clients = cluster.clients
    # A host that never joined does not answer: a client is away from the others for so long.
    joiners = cluster.options.joiners + cluster.options.spares
    rounds = CALM_TIMEOUTS + 10 * SECOND // _timeout_us(cluster) + 2 * IMPATIENCE * joiners
    _wait(cluster, "clients without answers", rounds, lambda: all(c.is_idle for c in clients))
    _wait(
        cluster,
        "probes without answers",
        rounds,
        lambda: sum(c.probe() for c in clients) == len(clients),
    )
    if (leader, term) != (cluster.agreed_leader(), max(host.term for host in cluster.members())):
        raise violated(
            "I16",
            "leadership moves in a calm",
            before=(leader, term),
            now=(cluster.agreed_leader(), [host.term for host in cluster.members()]),
        )
    for client in clients:
        # Else a slow cluster always has a keep-alive under way, and no two logs of one length.
        client.fall_silent(FOREVER_US)
    _wait(cluster, "members not equal", rounds, lambda: _converged(cluster))
    # Who finds no leader by a link asks one member after the other who leads, each after a while.
    searches = rounds + len(cluster.hosts) * ELECTIONS
    _wait(cluster, "removed members do not know it", searches, cluster.know_their_removal)
    if cluster.options.workload.is_keyed:
        _clean_all(cluster, rounds)
        _wait(cluster, "members not equal later", rounds, lambda: _converged(cluster))


def _clean_all(cluster: Cluster, rounds: int) -> None:
    """I25: a last major compaction of every member leaves nothing that was released for good."""
    hosts = cluster.members(is_stateful=True)
    before = [_what_must_go(host, cluster.sessions.acknowledged_index()) for host in hosts]
    reports: list[CompactionReport] = []
    for host in hosts:
        if host.replica is not None:
            host.replica.compact(Compaction.MAJOR, reports.append)
    _wait(cluster, "no compaction", rounds, lambda: len(reports) == len(hosts))
    for host, must_go in zip(hosts, before, strict=True):
        directory = host.disk.directory
        if directory is None:
            continue  # it is down, and the next check says so
        # A snapshot may have been admitted meanwhile: then what was trimmed from the log's front
        # is deleted too.
        first_index, gaps = directory.log.first_index, host.disk_model.gaps.since
        left = sorted(index for index in must_go - gaps.keys() if index >= first_index)
        if left:
            raise violated(
                "I25",
                "a compaction left what was released long ago",
                member=host.number,
                left=left[:8],
                reports=reports,
            )
        cluster.trace.mark("last compaction")


def _converged(cluster: Cluster) -> bool:
    end, newest = len(cluster.raft.committed), cluster.raft.membership.newest_committed.entry
    if any(host.committed_configuration.entry != newest for host in cluster.members()):
        return False
    return all(
        host.commit_index == host.last_applied == host.disk_model.last_index == end
        and host.durable_index == end
        for host in cluster.members(is_stateful=True)
    )


def _what_must_go(host: SimHost, acknowledged_index: int) -> set[int]:
    directory = host.disk.directory
    if directory is None:
        return set()
    return what_must_go(directory.log, host.disk_model, host.last_applied, acknowledged_index)


def _check_equal(cluster: Cluster) -> None:
    """Digests equal; each disk, read back whole, holds exactly what was committed (I5, I20)."""
    for host in cluster.members(is_stateful=True):
        if host.executor is None or host.disk.directory is None:
            raise violated("I16", "a member is down in a calm", member=host.number)
        cluster.sessions.digest(host.number, host.last_applied, host.executor.digest())
        cluster.raft.after_step(host)
        log = host.disk.directory.log
        frames, gaps = contents(log.scan(log.first_index, log.last_index + 1))
        filled = cluster.log_history.filled(host.number, frames, gaps)
        entries = [(term, crc) for _, term, crc in filled]
        deleted = {index for gap in gaps for index in range(gap.first, gap.end)}
        known = {index for index in host.disk_model.gaps.since if index >= log.first_index}
        cluster.trace.marks["log trimmed"] += log.first_index > 1
        if entries != cluster.raft.committed[log.first_index - 1 :]:
            raise violated("I5", "a log differs from what was committed", member=host.number)
        if deleted != known:
            raise violated("I23", "a log with other gaps than were made", member=host.number)
    for leader in cluster.leaders():
        cluster.raft.check_matches(leader)
    terms = max(host.term for host in cluster.members())
    if terms > 4 * len(cluster.raft.leaders) + cluster.trace.marks["campaign"] + 40:
        raise violated("I16", "terms run away", term=terms, leaders=len(cluster.raft.leaders))


def _check_history(cluster: Cluster) -> None:
    cluster.sessions.check_tokens()
    check_witness(cluster.history)
    if not check_linearizable(cluster.history):
        cluster.trace.mark("history undecided")
