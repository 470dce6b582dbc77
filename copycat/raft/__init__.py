"""Raft as a function: `Raft.step(event) -> [effects]`. Integers in, integers out.

The core decides who leads, which entries follow which, and what is committed. It names entries
and never sees their bytes: one batch has one term, so `Span(term, first, end)` says all that a
decision needs. It has no clock, no socket, no file and no thread. Whoever drives it turns the
world into events and carries out the effects (`copycat.replica` does, in the server and in the
simulator alike).

Its objects:

* `Raft` (core.py) takes an event, applies the rule about terms, and calls the file of the role
  that answers: follower.py, election.py, leader.py, install_snapshot.py, regression.py,
  membership.py.
* `State` (state.py) is what every role shares: positions in the log, hard state, timers.
* `Eligibility` (eligibility.py) answers what a member may vote for, whether it may campaign, and
  whether gaps may stand for entries that it lacks.
* `LeaderState` (leader_state.py) is what only a leader has. It is made at the election and dropped
  whole when the member stops leading.
* `Replicator` (replication.py) decides what each peer is sent next. It owns one `Progress`
  (progress.py) for each peer. A leader owns it, and it needs nothing of a leader but its log.
* `InitialState` (initial_state.py) is what a member recovered from its directory.
* `Configuration` (configuration.py) holds the members, and alone counts a majority.
  `ConfigurationTable` (configuration_table.py) holds those of the log, and follows the log.
* membership.py says what a member is, by its log and by the word of a leader; leader_members.py
  says what each member is to a leader. change_requests.py decides whether a change of the members
  (changes.py) may be appended, and leads it to its end.
* `TermIndex` (term_index.py) knows the term of every entry, as runs of equal terms.
* `ReadRounds` (read_index.py), `Transfer` (transfer.py) and `Acknowledgements`
  (acknowledgements.py) hold what reads, a handover and an older copy of a directory need.
* events.py and effects.py are the whole interface, with the messages of `copycat.protocol.peer`.

The driver has four duties:

1. Carry out the effects of a step in list order, and completely, before the next step.
2. Answer `Sync` with `Synced`, and `SaveHardState` with `Saved`, only when the disk has it.
3. Send what a `Send` or a `Replicate` says, and deliver only messages whose bytes were verified.
   Messages may be lost, doubled, delayed and reordered.
4. Begin each turn with a `Tick` of the milliseconds that passed, by a clock that also counts while
   the machine sleeps (C11).

The loop:

    effects = raft.step(Tick(elapsed_ms))
    for event in what_arrived():                  # Received, Synced, Saved, Sent, ...
        effects += raft.step(event)               # in truth carried out after each step
    for effect in effects:
        match effect:
            case Append(): log.append(bytes_of(effect.span))
            case Truncate(): log.truncate(effect.after)
            case SaveHardState(): begin_save(effect)                  # later: Saved(ticket)
            case Sync(): begin_sync(effect.ticket)                    # later: Synced(ticket)
            case Send(): write(effect.peer, encode(effect.message))
            case Replicate(): write(effect.peer, entries_of(effect))  # now: Sent(peer, span)
            case Commit(): apply_up_to(effect.index)
            case ReadReady(): answer_reads(effect.token, effect.index)
            case RoleChanged(): fail_what_waits_for_a_leader()
            case _: ...                                               # snapshots, transfers
    wait_at_most(raft.timeout_ms)

The messages between members:

`PreVote` asks who would vote for the sender. It changes no term and promises nothing. So a member
that cannot win, or that lost its link for a while, never ends the term of a healthy leader.
`PreVoteReply` names the term of its sender, and the next round asks beyond the highest such term.

`RequestVote` asks for the one vote of a term. The vote is saved before `VoteReply` leaves (C9), is
given only to a log that has at least as much as the voter must not lose (C12), and is refused
while a leader is heard, unless that leader itself hands its leadership over.

`AppendEntries` carries a span, the name of the entry before it, and how far the leader has
committed; with an empty span it is a heartbeat. It names the leader of its term, which is its
sender: a follower takes entries from no other member in this term. `AppendReply` says how far
the follower's log is durable and equal to the leader's (C1), or names the entry to return to. A
follower commits only what the very message in its hand verified (C2).

`InstallSnapshot` offers a snapshot when the log does not reach back far enough, or when deletions
that the peer lacks may be deleted from it (C23). `InstallReply` says at the end that the snapshot
is durable and installed. The chunks between the two are exchanged by the replicas; the core only
hears that their senders live, and in which terms they are.

`ConfigurationNotice` says all of the newest committed configuration, to a member whose last answer
named an older one. Each AppendEntries names it too, with what its receiver is by it (C28).

`TimeoutNow` asks the follower to whom the leader hands over to campaign at once.

`LogPosition` is the first message on a link, and says where the log of its sender ends.
`LogRegressed` answers a member whose log no longer has what it once acknowledged (F8).

What it promises: at most one leader in a term (I1); nothing of a term leaves before the term and
the vote are saved (I2); a log only loses entries that were not committed (I10); a committed entry
is durable on a majority (I6), and is committed by count only in the leader's own term (I7); reads
see everything that was committed before they arrived (I14). invariants.py states the laws of one
member, and every test checks them after every step.

What it never does: it never waits, never reads a clock, never does I/O, never draws a random
number that does not come from its seed, and never raises because of what a peer says. Nonsense is
counted in `ignored`. A law of its own that does not hold raises `InvariantError`.

`docs/internals/raft-core.md` has a table of all events and effects.
"""

from __future__ import annotations

__all__: list[str] = []
