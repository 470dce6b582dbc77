"""Runs a transcript over a tiny network of pure cores.

A transcript is blocks, a blank line between them: commands (a line each, or `;` between),
`----`, then what was observed. Lines that begin with `#` are prose. The commands:

    cluster active=3 [seed=7] [window=4] [entries=100] [fresh] [young]
    campaign 1          its leader is forgotten everywhere, its timer runs out
    propose 1 x y       one turn with these entries
    read 1 7            a linearizable read with token 7
    transfer 1 2        hand leadership over (0: to the best)
    load 1 200          as `run`, with an entry that member 1 proposes before each step
    stabilize           deliver, save and sync in order until nothing moves
    deliver 1->2 [n]    the oldest n messages of this link (default: all)
    lose 1->2           throw away what is on its way on this link
    last 1->2           deliver only the newest message of this link, out of order
    drop 1->2 / heal    nothing new passes this link / all links pass again
    down 1->2           this link refuses: the sender is told `Unreachable`
    isolate 3           both directions, to everybody
    apart 2 3 4         no two of these reach each other: both directions, nobody notices
    slow 2 / sync 2 [n] `stabilize` leaves its disk alone / its oldest n syncs end (all)
    save 2 [n]          its oldest n saves of the hard state end (all)
    full 1 / room 1     its disk has no room for an entry / has room again (F12)
    unreachable 1->2    member 1 learns that its link to 2 broke (reachable 1->2: is up)
    position 1->2       the first message on a new link: where the log of member 1 ends
    tick 1 20           20 ms pass at member 1 (`tick all 20`)
    run 100 [1 2]       100 ms pass everywhere (or there), in heartbeats, `stabilize` after each
    crash 2 [keep]      power loss; `keep` unsynced entries survive by luck
    restart 2           from what its disk holds
    misread 2           its next start cannot read the file with the configurations (F5)
    forget 2            a member with its log in memory is restarted
    rot 2 5 [silently]  entry 5 and what follows cannot be read: cut, and restarted
    image 2             a copy of its disk is taken
    regress 2           it comes back with that copy (F8)
    record 2            its directory says what it was told that it lost
    accept 2            an operator accepts the loss of what is missing
    snapshot 2          it saves what is committed; the newest two are kept
    trim 2 7            its log begins at 7, as far as its oldest snapshot allows
    clean 2 7           it lets entries up to 7 go: gaps, valid from its commit index on
    feed 2->4 [9]       member 4 asks 2 for what it lacks (up to 9), and takes what 2 may send
    unfed / fed         `stabilize` leaves feeding alone / feeds whom the leader names somebody
    alone               no follower is regarded as one that can feed: leaders serve history
    recent 1 5          member 1 has its entries from 5 on in memory (C29)
    node 4 / link 4     a member with an empty directory starts / has links to everybody
    add 1 4 passive [t:i] [at=m3]   ask member 1 that member 4 is added (base t:i: by default what
                        1 has); it listens at this address (`cluster addresses`: 3 is at m3)
    promote 1 4 active / demote 1 3 passive / remove 1 3    the same, each with a base if need be
    news                from here on `run` writes who is available, and says so (C38)
    flap 3 40 60        3 hears nobody for 40 ms, then everybody for 60 ms
    policy 1 active=3 [passive=1] [after=200] [every=100] [suspend=1000] [slow=200]    ask member 1
                        that leaders heal so from here on, in ms (C39)
    domain 1 4 x [5]    ask member 1 to write that member 4 is in domain x, with weight 5
    healing             from here on `run` lets leaders heal, and says what they do
    wipe 3              its log and its state are deleted, as its core asked
    members             the newest configuration that each knows, and the newest committed one
    show / floor / log 2 / network / hush / speak

What is observed: every change of role, every commit, truncation, read and finished transfer, every
snapshot that is asked for or has arrived, every log that begins anew; every configuration (`1 2
p3+ r4=2`: passive and to be promoted, reserve in the
place of 2) that counts, that is committed, or that a member is
told to delete its log by, and every answer to a change; with `speak` also every message. A broken
law ends the transcript with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

from copycat.config import RaftOptions
from copycat.protocol.peer import (
    AppendEntries,
    AppendReply,
    ConfigurationNotice,
    InstallReply,
    InstallSnapshot,
    LogPosition,
    LogRegressed,
    PreVote,
    PreVoteReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from copycat.raft import leader_feeding
from copycat.raft.changes import ConfigurationChange
from copycat.raft.configuration import Configuration
from copycat.raft.effects import (
    ChangeFinished,
    Commit,
    ConfigurationChanged,
    ConfigurationCommitted,
    Effect,
    EndDeparture,
    EndShipping,
    PeerRegressed,
    ReadReady,
    RecordLoss,
    Replicate,
    Reset,
    RoleChanged,
    Send,
    ShipSnapshot,
    StopForGood,
    TransferFinished,
    Truncate,
    Wipe,
)
from copycat.raft.events import StorageFull, TransferRequested
from copycat.raft.leader_state import LeaderState
from copycat.raft.state import State
from copycat.types import (
    INDEX_END,
    NO_ENTRY,
    ChangeKind,
    EntryId,
    MemberId,
    MemberType,
    ServerState,
)
from tests.raft.changing import text_of
from tests.raft.cluster import Cluster, Envelope
from tests.raft.healers import Healers, policy_of
from tests.raft.statuses import Statuses

__all__ = ["run_transcript"]


def run_transcript(path: Path) -> str:
    """The transcript with every observation replaced by what happens now."""
    of_core = leader_feeding.feeders
    try:
        return _run_transcript(path)
    finally:
        leader_feeding.feeders = of_core


def _nobody(raft: State, leader_state: LeaderState) -> list[MemberId]:
    return []


def _run_transcript(path: Path) -> str:
    runner = _Runner()
    blocks = []
    for prose, commands in _blocks(path.read_text(encoding="utf-8")):
        if not commands:
            blocks.append("\n".join(prose))
            continue
        observed: list[str] = []
        for line in commands:
            for command in line.split(";"):
                observed += runner.run(command.split())
        blocks.append("\n".join([*prose, *commands, "----", *(observed or ["ok"])]))
    return "\n\n".join(blocks) + "\n"


def _blocks(text: str) -> Iterator[tuple[list[str], list[str]]]:
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        prose = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        yield prose, rest[: rest.index("----")] if "----" in rest else rest


def _link(word: str) -> tuple[int, int]:
    source, target = word.split("->")
    return int(source), int(target)


def _name(entry: EntryId) -> str:
    return f"{entry.term}:{entry.index}"


class _Runner:
    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.slow: set[int] = set()
        self.is_speaking = False
        self.statuses: Statuses | None = None
        self.healers: Healers | None = None
        self.lines: list[str] = []

    def run(self, words: list[str]) -> list[str]:
        """One command; what was observed meanwhile."""
        self.lines = []
        verb: Callable[..., None] = getattr(self, f"do_{words[0].replace('-', '_')}")
        verb(*words[1:])
        return self.lines

    # ---- observation -----------------------------------------------------------------

    def watch(self, number: int, effect: Effect) -> None:
        match effect:
            case RoleChanged(state=state, term=term, leader=leader):
                following = "" if state is ServerState.LEADER else f" leader={leader or '?'}"
                self.lines.append(f"{number} {state} term={term}{following}")
            case Commit(index=index):
                self.lines.append(f"{number} commit {index}")
            case Truncate(after=after):
                self.lines.append(f"{number} truncate after={after}")
            case ReadReady(token=token, index=index):
                self.lines.append(f"{number} read {token} index={index}")
            case PeerRegressed(peer=peer, acknowledged=acknowledged, last=last):
                self.lines.append(
                    f"{number} says that {peer} acknowledged {_name(acknowledged)} and has "
                    f"{_name(last)}"
                )
            case RecordLoss(lost_upto=lost_upto):
                self.lines.append(f"{number} records that it held {_name(lost_upto)}")
            case StopForGood(acknowledged=acknowledged):
                self.lines.append(f"{number} stops for good: it lacks {_name(acknowledged)}")
            case Reset(entry=entry):
                self.lines.append(f"{number} reset after={_name(entry)}")
            case ShipSnapshot(peer=peer, min_index=min_index):
                self.lines.append(f"{number} ships a snapshot to {peer} floor={min_index}")
            case EndShipping(peer=peer, done=done):
                self.lines.append(f"{number} {'has shipped' if done else 'stops'} to {peer}")
            case ConfigurationChanged(configuration=configuration):
                self.lines.append(f"{number} members {_members(configuration)}")
            case ConfigurationCommitted(configuration=configuration):
                if self.healers is not None:
                    self.healers.committed(number, configuration)
                self.lines.append(f"{number} committed {_members(configuration)}")
            case Wipe(configuration=configuration):
                self.lines.append(f"{number} wipes by {_members(configuration)}")
            case EndDeparture(peer=peer):
                self.lines.append(f"{number} is done with {peer}")
            case ChangeFinished():
                self.lines.append(f"{number} {_outcome(effect)}")
            case TransferFinished(ok=True):
                self.lines.append(f"{number} transfer done")
            case TransferFinished(failure=failure, lacks=lacks):
                why = f": {failure.value}" if failure else ""
                self.lines.append(f"{number} transfer given up{why}{f' {lacks}' * (lacks > 0)}")
            case Send(peer=peer, message=message) if self.is_speaking:
                self.lines.append(f"{number} -> {peer} {_describe(message)}")
            case Replicate() if self.is_speaking:
                self.lines.append(f"{number} -> {effect.peer} {_describe(effect)}")
            case _:
                pass

    # ---- commands --------------------------------------------------------------------

    def do_cluster(self, *words: str) -> None:
        values = dict(word.split("=") for word in words if "=" in word)
        self.cluster = Cluster(
            int(values.get("active", "3")),
            seed=int(values.get("seed", "7")),
            options=RaftOptions(
                election_timeout_ms=100,
                heartbeat_interval_ms=20,
                window=int(values.get("window", "4")),
            ),
            entries_max=int(values.get("entries", "100")),
            fresh="fresh" in words,
            has_addresses="addresses" in words,
        )
        self.cluster.watch = self.watch
        self.statuses, self.healers = None, None
        self.slow.clear()
        if "young" not in words and "fresh" not in words:
            self.cluster.age()

    def do_campaign(self, number: str) -> None:
        self.cluster.forget_leader()
        member = int(number)
        self.cluster.tick(member, self.cluster.nodes[member].raft.timeout_ms)

    def do_propose(self, number: str, *payloads: str) -> None:
        if not self.cluster.propose(int(number), *payloads):
            self.lines.append(f"{number} takes no proposals")

    def do_read(self, number: str, token: str) -> None:
        self.cluster.read(int(number), int(token))

    def do_transfer(self, number: str, to: str) -> None:
        self.cluster.step(int(number), TransferRequested(MemberId(int(to))))

    def do_stabilize(self) -> None:
        self.cluster.stabilize(slow=frozenset(self.slow))

    def _positions(self, link: str) -> list[int]:
        pair = _link(link)
        network = self.cluster.network
        return [at for at, item in enumerate(network) if (item.source, item.target) == pair]

    def do_deliver(self, link: str, count: str = "1000") -> None:
        for _ in range(min(int(count), len(self._positions(link)))):
            self.cluster.deliver(self._positions(link)[0])

    def do_last(self, link: str) -> None:
        self.cluster.deliver(self._positions(link)[-1])

    def do_lose(self, link: str) -> None:
        network, pair = self.cluster.network, _link(link)
        network[:] = [item for item in network if (item.source, item.target) != pair]

    def do_drop(self, link: str) -> None:
        self.cluster.blocked.add(_link(link))

    def do_down(self, link: str) -> None:
        self.cluster.down.add(_link(link))

    def do_heal(self) -> None:
        self.cluster.blocked.clear()
        self.cluster.down.clear()

    def do_isolate(self, number: str) -> None:
        for other in self.cluster.nodes:
            self.cluster.blocked |= {(int(number), other), (other, int(number))}

    def do_apart(self, *numbers: str) -> None:
        self.cluster.blocked |= set(permutations(map(int, numbers), 2))

    def do_slow(self, number: str) -> None:
        self.slow.add(int(number))

    def do_sync(self, number: str, count: str = "1000") -> None:
        for _ in range(int(count)):
            if not self.cluster.sync(int(number)):
                break
        if count == "1000":
            self.slow.discard(int(number))

    def do_save(self, number: str, count: str = "1000") -> None:
        for _ in range(int(count)):
            if not self.cluster.save(int(number)):
                break

    def do_full(self, number: str) -> None:
        self.cluster.step(int(number), StorageFull(True))

    def do_room(self, number: str) -> None:
        self.cluster.step(int(number), StorageFull(False))

    def do_unreachable(self, link: str) -> None:
        self.cluster.unreachable(*_link(link))

    def do_reachable(self, link: str) -> None:
        self.cluster.reachable(*_link(link))

    def do_position(self, link: str) -> None:
        self.cluster.say_position(*_link(link))

    def do_tick(self, number: str, elapsed_ms: str) -> None:
        numbers = self.cluster.nodes if number == "all" else (int(number),)
        for member in numbers:
            if self.cluster.nodes[member].is_up:
                self.cluster.tick(member, int(elapsed_ms))

    def do_run(self, elapsed_ms: str, *numbers: str) -> None:
        step_ms = self.cluster.options.heartbeat_interval_ms
        for _ in range(int(elapsed_ms) // step_ms):
            for member in numbers or ("all",):
                self.do_tick(member, str(step_ms))
            self.do_stabilize()
            if self.statuses is not None:
                for number in self.cluster.nodes:
                    self.statuses.write(number)
                self.do_stabilize()
                self.lines += self.statuses.news()

            if self.healers is not None:
                self.lines += self.healers.advance_all()
                self.do_stabilize()

    def do_load(self, number: str, elapsed_ms: str) -> None:
        for _ in range(int(elapsed_ms) // 20):
            self.do_propose(number, "x")
            self.do_run("20")

    def do_policy(self, number: str, *words: str) -> None:
        base = self.cluster.nodes[int(number)].raft.committed_configuration.entry
        change = ConfigurationChange.set_policy(policy_of(words), base)
        self.cluster.change_by_itself(int(number), change)
        self.do_stabilize()

    def do_domain(self, number: str, member: str, domain: str, weight: str = "0") -> None:
        now = self.cluster.nodes[int(number)].raft.committed_configuration
        record = now.record(MemberId(int(member)))
        assert record is not None, member
        record = record._replace(failure_domain=domain, weight=int(weight))
        self.cluster.change_by_itself(int(number), ConfigurationChange.move(record, now.entry))
        self.do_stabilize()

    def do_healing(self) -> None:
        self.healers = Healers(self.cluster)

    def do_news(self) -> None:
        self.statuses = Statuses(self.cluster)

    def do_flap(self, number: str, silent_ms: str, heard_ms: str) -> None:
        self.do_isolate(number)
        self.do_run(silent_ms)
        self.do_heal()
        self.do_run(heard_ms)

    def do_crash(self, number: str, keep: str = "0") -> None:
        lost = self.cluster.crash(int(number), keep=int(keep))
        self.lines.append(f"{number} lost {lost} entries")

    def do_restart(self, number: str) -> None:
        self.cluster.start(int(number))
        raft = self.cluster.nodes[int(number)].raft
        self.lines.append(
            f"{number} recovered last={_name(raft.last)} term={raft.current_term} "
            f"voted_for={raft.voted_for or '-'}"
        )

    def do_misread(self, number: str) -> None:
        self.cluster.nodes[int(number)].stored = None

    def do_forget(self, number: str) -> None:
        self.cluster.forget(int(number))

    def do_forget_all(self) -> None:
        self.cluster.forget_all()
        self.cluster.says_position = True

    def do_rot(self, number: str, index: str, mode: str = "") -> None:
        self.cluster.rot(int(number), int(index), is_recovering=mode != "silently")

    def do_image(self, number: str) -> None:
        self.cluster.nodes[int(number)].take_image()

    def do_regress(self, number: str) -> None:
        self.cluster.regress(int(number))
        raft = self.cluster.nodes[int(number)].raft
        self.lines.append(
            f"{number} is back with last={_name(raft.last)} term={raft.current_term} "
            f"voted_for={raft.voted_for or '-'}"
        )

    def do_record(self, number: str) -> None:
        if not self.cluster.record(int(number)):
            self.lines.append(f"{number} was told nothing")

    def do_accept(self, number: str) -> None:
        self.cluster.accept_loss(int(number))

    def do_show(self) -> None:
        for number, node in self.cluster.nodes.items():
            raft = node.raft
            self.lines.append(
                f"{number} {raft.state} term={raft.current_term} voted_for={raft.voted_for or '-'}"
                f" last={_name(raft.last)} durable={raft.durable_index} commit={raft.commit_index}"
                if node.is_up
                else f"{number} down"
            )

    def do_log(self, number: str) -> None:
        log = self.cluster.nodes[int(number)].log
        self.lines.append(" ".join(f"{entry.term}:{entry.payload}" for entry in log) or "empty")

    def do_match(self, number: str) -> None:
        raft = self.cluster.nodes[int(number)].raft
        matches = " ".join(f"{peer}={raft.match_index(peer)}" for peer in raft.peers)
        self.lines.append(f"{number} match {matches}")

    def do_snapshot(self, number: str) -> None:
        if not self.cluster.snapshot(int(number)):
            self.lines.append(f"{number} has nothing new to save")

    def do_trim(self, number: str, first: str) -> None:
        self.cluster.trim(int(number), int(first))
        self.lines.append(f"{number} begins at {self.cluster.nodes[int(number)].first}")

    def do_clean(self, number: str, last: str) -> None:
        node = self.cluster.nodes[int(number)]
        node.gaps = (min(int(last), node.commit_index), node.commit_index)
        self.lines.append(f"{number} gaps up to {node.gaps[0]}, valid from {node.gaps[1]}")

    def do_feed(self, link: str, last: str = "0") -> None:
        if not self.cluster.feed(*_link(link), upto=int(last) or INDEX_END):
            self.lines.append(f"{link}: {self.cluster.feed_refused or 'nothing new'}")

    def do_unfed(self) -> None:
        self.cluster.feeds = False

    def do_fed(self) -> None:
        self.cluster.feeds = True

    def do_alone(self) -> None:
        leader_feeding.feeders = _nobody

    def do_recent(self, number: str, first: str) -> None:
        self.cluster.recent[int(number)] = int(first)

    def do_node(self, number: str) -> None:
        self.cluster.add_node(int(number))

    def do_link(self, number: str) -> None:
        for other, node in self.cluster.nodes.items():
            if node.is_up and other != int(number):
                self.cluster.reachable(int(number), other)
                self.cluster.reachable(other, int(number))

    def do_add(self, number: str, member: str, to: str, *more: str) -> None:
        places = [word.removeprefix("at=") for word in more if word.startswith("at=")]
        base = "".join(word for word in more if not word.startswith("at="))
        self._change(number, ChangeKind.ADD, member, to, base, *places)

    def do_promote(self, number: str, member: str, to: str, base: str = "") -> None:
        self._change(number, ChangeKind.PROMOTE, member, to, base)

    def do_demote(self, number: str, member: str, to: str, base: str = "") -> None:
        self._change(number, ChangeKind.DEMOTE, member, to, base)

    def do_remove(self, number: str, member: str, base: str = "") -> None:
        self._change(number, ChangeKind.REMOVE, member, "inactive", base)

    def _change(
        self, number: str, kind: ChangeKind, member: str, to: str, base: str, address: str = ""
    ) -> None:
        name = EntryId(*map(int, base.split(":"))) if base else None
        self.cluster.change(int(number), kind, int(member), MemberType(to), name, address)

    def do_wipe(self, number: str) -> None:
        if not self.cluster.wipe(int(number)):
            self.lines.append(f"{number} has nothing to delete")

    def do_members(self) -> None:
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                raft = node.raft
                known = _name(raft.known_configuration.entry)
                bound = ", ".join(each.value for each in raft.eligibility.restrictions)
                self.lines.append(
                    f"{number} {_members(raft.configuration)} committed={known}"
                    f" {raft.own_record.member_type}{f' ({bound})' if bound else ''}"
                )

    def do_floor(self) -> None:
        for number, node in self.cluster.nodes.items():
            if node.is_up:
                raft = node.raft
                self.lines.append(
                    f"{number} floor={raft.deletion_floor} known={raft.cluster_deletion_floor}"
                )

    def do_network(self) -> None:
        for item in self.cluster.network:
            self.lines.append(_envelope(item))

    def do_speak(self) -> None:
        self.is_speaking = True

    def do_hush(self) -> None:
        self.is_speaking = False


def _members(configuration: Configuration) -> str:
    return f"{_name(configuration.entry)} [{text_of(configuration)}]"


def _outcome(effect: ChangeFinished) -> str:
    if effect.refusal is None:
        return f"change {effect.token} done in {_name(effect.configuration.entry)}"
    missing = f" without {' '.join(map(str, effect.missing))}" if effect.missing else ""
    first = f", demote {effect.demote_first} first" if effect.demote_first else ""
    return f"change {effect.token} refused: {effect.refusal.name}{missing}{first}"


def _envelope(item: Envelope) -> str:
    return f"{item.source} -> {item.target} {_describe(item.message)}"


def _orders(message: AppendEntries | Replicate) -> str:
    """What a leader repeats about the members; nothing while they are the founders."""
    orders = message.orders if isinstance(message, Replicate) else message
    if orders.configuration == NO_ENTRY:
        return ""
    return f" {orders.member_type} since={orders.since} by={_name(orders.configuration)}"


def _known(message: AppendReply) -> str:
    name = message.configuration
    return "" if name == NO_ENTRY else f" knows={_name(name)}"


def _describe(message: object) -> str:
    match message:
        case AppendEntries() | Replicate():
            span = message.span
            entries = f"{span.term}:{span.first}..{span.last}" if span.length else "-"
            return (
                f"AppendEntries request={message.request} prev={_name(message.prev)} "
                f"entries={entries} commit={message.leader_commit}{_orders(message)}"
                f"{f' feeder={message.feeder}' if message.feeder else ''}"
            )
        case AppendReply(accepted=True):
            known = _known(message)
            return f"AppendReply request={message.request} match={message.match_index}{known}"
        case AppendReply():
            return (
                f"AppendReply request={message.request} rejected term={message.term} "
                f"hint={_name(message.hint)}{_known(message)}"
            )
        case PreVote():
            return f"PreVote term={message.term} last={_name(message.last)}"
        case PreVoteReply():
            return f"PreVoteReply term={message.term} {'yes' if message.granted else 'no'}"
        case RequestVote():
            transfer = " transfer" if message.transfer else ""
            return f"RequestVote term={message.term} last={_name(message.last)}{transfer}"
        case VoteReply():
            return f"VoteReply term={message.term} {'yes' if message.granted else 'no'}"
        case InstallSnapshot():
            return (
                f"InstallSnapshot request={message.request} entry={_name(message.entry)} "
                f"offset={message.offset}"
            )
        case InstallReply():
            progress = "done" if message.done else f"offset={message.offset}"
            return f"InstallReply request={message.request} {_name(message.entry)} {progress}"
        case LogPosition():
            return f"LogPosition term={message.term} last={_name(message.last)}"
        case LogRegressed():
            final = " final" if message.is_final else ""
            return f"LogRegressed term={message.term} held={_name(message.acknowledged)}{final}"
        case ConfigurationNotice():
            return f"ConfigurationNotice {_name(message.configuration.entry)}"
        case TimeoutNow():
            return f"TimeoutNow term={message.term}"
        case _:
            raise TypeError(f"no words for {message!r}")
