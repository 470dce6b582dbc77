"""Injects faults: which, when and for how long is drawn from one seed, until `calm`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from copycat.seeded_random import SimRandom
from copycat.sim.checkers.membership import MembershipChecker
from copycat.sim.churn import Churn
from copycat.sim.fault_trigger import FaultTrigger
from copycat.sim.host import SimHost
from copycat.sim.marks import OF_NOBODY, Marks
from copycat.sim.network import Network
from copycat.sim.older_copy import OlderCopies
from copycat.sim.options import N_ZONES, SeedOptions
from copycat.sim.session_client import SessionClient
from copycat.sim.way_back import WayBack
from copycat.sim.workload import SimClient
from copycat.sim.world import HOUR_MS, MS, SECOND, Trace, World
from copycat.types import Compaction, MemberId, ServerState

__all__ = ["Nemesis"]

STALE_STEPS = 6
"""How often the answers to a leader become slower, each time by less than an election timeout."""


class Nemesis:
    """Draws one fault after another. Crashed members come back by themselves."""

    def __init__(
        self,
        options: SeedOptions,
        *,
        world: World,
        network: Network,
        random: SimRandom,
        trace: Trace,
        marks: Marks,
        hosts: Sequence[SimHost],
        clients: Sequence[SimClient | SessionClient],
        churn: Churn,
        way_back: WayBack,
        membership: MembershipChecker,
    ) -> None:
        self._options = options
        self._world = world
        self._network = network
        self._random = random
        self._trace = trace
        self._marks = marks
        self._hosts = hosts
        self._clients = clients
        self._churn = churn
        self._way_back = way_back
        self._membership = membership
        self._is_over = not options.faults
        self._round = 0
        self._wrong_number = options.wrong_clock
        self._copies = OlderCopies(
            hosts[: options.members],
            random,
            trace,
            lambda host: self.restart(host, self._down_us()),
        )
        self._kind = ""
        """The fault that is being executed."""
        self.fault_trigger: FaultTrigger | None = None
        """A fault that waits for a state."""
        self._met: SimHost | None = None
        """The member that entered that state."""

    def begin(self) -> None:
        """Schedule the first fault."""
        if not self._is_over:
            self._world.after(self._random.around(self._options.fault_us), self._next_fault)

    def calm(self) -> None:
        """No more faults: everything is repaired now, and everybody is up and awake."""
        self._is_over = True
        self._round += 1
        self._churn.calm()
        self._network.calm()
        for host in self._hosts:
            if host.disk.has_fault:
                host.lose_power()
            host.disk.calm()
            host.clock.steady()
            host.resume()
            host.workers.calm()
            if not host.is_up and host.was_started and not host.is_over:
                host.start()
        for client in self._clients:
            client.silent_until_us = 0

    def _next_fault(self) -> None:
        if self._is_over:
            return
        self._world.after(self._random.around(self._options.fault_us), self._next_fault)
        kind = self._random.pick(self._options.faults)
        if self.fault_trigger is not None and not self.fault_trigger.keep_waiting():
            self.fault_trigger = None
        is_free = self.fault_trigger is None and kind not in OF_NOBODY
        if is_free and self._random.chance(self._options.fault_trigger):
            self.fault_trigger = FaultTrigger(kind, self._options, self._random)
        else:
            self._execute(kind)

    def touched(self, host: SimHost) -> None:
        """Something happened at a member: execute the waiting fault if the member is in its
        state."""
        if self.fault_trigger is not None and not self._is_over and self.fault_trigger.meets(host):
            kind, self.fault_trigger, self._met = self.fault_trigger.kind, None, host
            self._trace.mark("fault that lay in wait")
            self._execute(kind)
            self._met = None

    def _execute(self, kind: str) -> None:
        self._kind = kind
        self._trace.mark(f"fault: {kind}")
        self._trace.record(self._world.now_us, "--", kind)
        getattr(self, f"_{kind}")()

    def _victim(self) -> SimHost:
        """The member for which the fault waited; else any, every second time a leader if there is
        one."""
        if self._met is not None:
            self._marks.fault_meets(self._kind, self._met)
            return self._met
        leaders = self._leaders()
        is_leader = leaders and self._random.chance(500_000)
        host = self._random.pick(leaders if is_leader else self._hosts)
        self._marks.fault_meets(self._kind, host)
        return host

    def _leaders(self) -> list[SimHost]:
        return [one for one in self._hosts if one.is_up and one.state is ServerState.LEADER]

    # --- machines ---------------------------------------------------------------------------

    def restart(self, host: SimHost, delay_us: int) -> None:
        """Bring a member back later."""
        self._world.after(delay_us, self._restart, host, host.process)

    def _restart(self, host: SimHost, process: int) -> None:
        if not host.is_up and host.process == process and not host.is_over:
            host.start()

    def _down_us(self) -> int:
        mean = self._random.pick((20 * MS, 500 * MS, 3 * SECOND))
        return self._random.around(mean)

    def _power(self) -> None:
        host = self._victim()
        if host.is_up:
            host.lose_power()
            self.restart(host, self._down_us())

    def _process(self) -> None:
        host = self._victim()
        if host.is_up:
            host.lose_process()
            self.restart(host, self._down_us())

    def _rot(self) -> None:
        """A disk loses bytes of its log while its member is down.

        Only one member at a time has lost entries, so every other member that acknowledged one of
        them still has a copy that can be read. And all members must be allowed to vote, for the
        damaged one may have been the only one that had the end of its log (C12, C16).
        """
        host = self._victim()
        living = [one for one in self._hosts if one.was_started and not one.is_over]
        is_next = not any(
            one.disk_model.has_unseen_damage or one.disk_model.loss.entries_before
            for one in living
        )
        bears_loss = is_next and all(one.may_vote for one in living) and self._can_elect(host)
        if host.is_up and bears_loss:
            is_second = len(living) < sum(one.was_started for one in self._hosts)
            self._trace.mark("log damaged after a disk was lost" if is_second else "log damaged")
            host.lose_power()
            host.disk.rot()
            self.restart(host, self._down_us())

    def _can_elect(self, damaged: SimHost) -> bool:
        """Whether the voters elect a leader although `damaged` votes for none of them.

        A voter whose disk is gone for good, and that nobody has removed so far, votes no more
        either. Of three voters, or four, one such loss is what they bear; five bear two.
        """
        ids = self._membership.ids
        whole = [
            ids[one.number]
            for one in self._hosts
            if one is not damaged and one.was_started and not one.is_over
        ]
        return all(each.has_quorum(whole) for each in self._membership.possible)

    def _disk_rollback(self) -> None:
        """Copy a disk, or put an earlier copy back."""
        self._copies.put_back_or_take()

    def _disk_lost(self) -> None:
        """A member loses its disk, and comes back with an empty one (C43)."""
        self._way_back.lose_disk()

    def _power_all(self) -> None:
        for host in self._hosts:
            self._marks.fault_meets(self._kind, host)
            if host.is_up:
                host.lose_power()
                self.restart(host, self._down_us())

    def _power_midway(self) -> None:
        """The power fails in the middle of a turn, after a few more disk operations."""
        host = self._victim()
        if host.is_up:
            host.disk.cut_power_after(self._random.below(12))

    def _away(self) -> None:
        """A member is down or cut off for so long that the others' logs grow without it."""
        host = self._met or self._random.pick(self._hosts)
        length_us = self._random.between(3, 8) * SECOND
        self._marks.fault_meets(self._kind, host)
        if not host.is_up:
            return
        if self._random.chance(500_000):
            host.lose_power()
            self.restart(host, length_us)
            return
        others = [one.number for one in self._hosts if one is not host]
        self._network.block([host.number], others)
        self._network.block(others, [host.number])
        self._world.after(length_us, self._heal, self._round, self._network.heal)

    def _zone(self) -> None:
        """A failure domain is cut off from the others, mostly for longer than a leader waits."""
        zone = self._random.below(N_ZONES)
        inside = [one.number for one in self._hosts if one.number % N_ZONES == zone]
        others = [one.number for one in self._hosts if one.number % N_ZONES != zone]
        self._network.block(inside, others)
        self._network.block(others, inside)
        length_us = self._random.between(2, 24) * self._options.raft.election_timeout_ms * MS
        self._world.after(length_us, self._heal, self._round, self._network.heal)

    def _slow_voter(self) -> None:
        """The disk of a voter that follows is slow for long: it answers, and is behind (C39)."""
        voters = [
            one
            for one in self._hosts
            if one.is_up
            and one.state is ServerState.FOLLOWER
            and one.committed_configuration.has_vote(one.links.ids[one.number])
        ]
        if voters:
            disk = self._random.pick(voters).disk
            timeout_us = self._options.raft.election_timeout_ms * MS
            disk.slow_us = self._random.between(2, 6) * timeout_us
            length_us = self._random.between(10, 40) * timeout_us
            quicken = partial(setattr, disk, "slow_us", 0)
            self._world.after(length_us, self._heal, self._round, quicken)

    def _pause(self) -> None:
        host = self._victim()
        if host.is_up and not host.is_paused:
            host.pause()
            length = self._random.around(self._random.pick((100 * MS, SECOND, 10 * SECOND)))
            self._world.after(min(length, 60 * SECOND), self._resume, host, host.process)

    def _resume(self, host: SimHost, process: int) -> None:
        if host.process == process:
            host.resume()

    def _slow_disk(self) -> None:
        host = self._victim()
        host.disk.slow_us = self._random.pick((20 * MS, 200 * MS, 2 * SECOND))
        self._later(lambda: setattr(host.disk, "slow_us", 0))

    def _sync_error(self) -> None:
        self._victim().disk.fail_next("sync", "EIO")

    def _write_error(self) -> None:
        self._victim().disk.fail_next("write", self._random.pick(("EIO", "SHORT")))

    def _disk_full(self) -> None:
        operation = self._random.pick(("write", "zero_fill", "allocate", "create"))
        self._victim().disk.fail_next(operation, "ENOSPC")

    def _no_space(self) -> None:
        """Somebody else fills the disk, and cleans up later: nobody has to stop (F12)."""
        disk = self._victim().disk
        disk.space(self._random.below(2 << 20))
        self._later(disk.space)

    def _clock_jump(self) -> None:
        host = self._victim()
        host.clock.jump(self._random.between(-HOUR_MS, HOUR_MS))

    def _wrong_clock(self) -> None:
        """One wall clock is wrong, by hours, days or years, and always the same member's (C25).
        Sometimes it is set right. It is set while its member runs, or is down."""
        clock = self._hosts[self._wrong_number].clock
        clock.steady()
        clock.jump(self._random.pick((0, 2, -2, 72, -72, -490_000)) * HOUR_MS)

    # --- the network ------------------------------------------------------------------------

    def _later(self, heal: object) -> None:
        self._world.after(self._random.around(3 * SECOND), self._heal, self._round, heal)

    def _heal(self, number: int, heal: object) -> None:
        if number == self._round and callable(heal):
            heal()

    def _everybody(self) -> list[int]:
        return [host.number for host in self._hosts] + [client.place for client in self._clients]

    def _partition(self) -> None:
        """Two parts that cannot reach each other, with clients in both."""
        places = self._random.shuffled(self._everybody())
        cut = self._random.between(1, len(places))
        self._network.block(places[:cut], places[cut:])
        self._network.block(places[cut:], places[:cut])
        self._later(self._network.heal)

    def _isolate(self) -> None:
        """One member receives nothing from other members, nor they from it; clients still reach
        it."""
        number = self._victim().number
        others = [host.number for host in self._hosts if host.number != number]
        self._network.block([number], others)
        self._network.block(others, [number])
        self._later(self._network.heal)

    def _one_way(self) -> None:
        number = self._victim().number
        others = self._random.shuffled(self._everybody())[: self._random.between(1, 4)]
        if self._random.chance(500_000):
            self._network.block([number], others)
        else:
            self._network.block(others, [number])
        self._later(self._network.heal)

    def _break_link(self) -> None:
        host = self._victim()
        for other in self._hosts:
            if other is not host and host.is_up and self._random.chance(500_000):
                host.links.cut(other.number, self._random.around(MS))

    def _slow_link(self) -> None:
        first, second = self._victim().number, self._random.pick(self._hosts).number
        delay_us = self._random.pick((50 * MS, 500 * MS, 3 * SECOND))
        self._network.slow(first, second, delay_us)
        if self._random.chance(500_000):
            self._network.slow(second, first, delay_us)
        self._later(self._network.heal)

    def _echo(self) -> None:
        """A leader receives late answers, while its own messages reach nobody any more.

        The others elect another leader, while answers to earlier requests still confirm the old
        one.
        """
        leader = self._victim().number
        others = [host.number for host in self._hosts if host.number != leader]
        timeout_us = self._options.raft.election_timeout_ms * MS
        for other in others:
            self._network.slow(
                other, leader, self._random.between(timeout_us // 2, 2 * timeout_us)
            )
        self._world.after(
            self._random.between(timeout_us // 2, 2 * timeout_us),
            self._heal,
            self._round,
            lambda: self._network.block([leader], others),
        )
        self._later(self._network.heal)

    def _stale_leader(self) -> None:
        """As `_echo`, step by step, so that the leader never misses a majority.

        Answers to the leader take longer and longer, until they are older than the last two
        elections; then its own messages reach nobody any more. For some election timeouts the
        leader still receives answers, and confirms reads that clients asked for before, while the
        others have elected a leader that commits and answers. Clients reach all members all the
        time.
        """
        leaders = self._leaders()
        if not leaders:
            return
        host = leaders[0]
        self._marks.fault_meets(self._kind, host)
        leader = host.number
        others = [one.number for one in self._hosts if one is not host]
        timeout_us = self._options.raft.election_timeout_ms * MS
        for step in range(STALE_STEPS):
            delay_us = (step + 1) * timeout_us * 6 // 10
            self._world.after(
                step * timeout_us,
                self._heal,
                self._round,
                partial(self._slow_answers, leader, others, delay_us),
            )
        block_us = STALE_STEPS * timeout_us + self._random.below(4 * timeout_us)
        block = partial(self._network.block, [leader], others)
        self._world.after(block_us, self._heal, self._round, block)
        heal_us = block_us + 5 * timeout_us
        self._world.after(heal_us, self._heal, self._round, self._network.heal)

    def _slow_answers(self, leader: int, others: Sequence[int], delay_us: int) -> None:
        for other in others:
            self._network.slow(other, leader, delay_us)

    # --- requests ---------------------------------------------------------------------------

    def _transfer(self) -> None:
        host = self._victim()
        if host.replica is None or host.is_paused:
            return
        to = self._random.pick((0, *host.links.ids))
        if to != host.links.ids[host.number]:
            mark = self._trace.mark
            host.replica.transfer_leadership(
                MemberId(to),
                lambda outcome: mark(f"transfer {'done' if outcome.ok else 'refused'}"),
            )

    def _change(self) -> None:
        """Somebody asks for a change of the members."""
        self._churn.next_change()

    def _clean(self) -> None:
        """Somebody asks for a cleaning now."""
        host = self._victim()
        if host.replica is None or host.is_paused:
            return
        mark = self._trace.mark
        compaction = self._random.pick((Compaction.MINOR, Compaction.MAJOR))
        host.replica.compact(
            compaction,
            lambda report: mark(
                f"{compaction} compaction {'failed' if report.failure else 'done'}"
            ),
        )

    def _silence(self) -> None:
        client = self._random.pick(self._clients)
        length = self._random.around(client.options.session_timeout_ms * MS * 2)
        client.fall_silent(self._world.now_us + length)
