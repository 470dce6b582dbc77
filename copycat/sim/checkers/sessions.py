"""The laws of sessions, held against a reference that replays the committed log: I17 to I20.

The reference reads each committed entry once, decides by itself which commands take effect, and
knows every result. What executors produce and what clients hear is compared with
it, byte for byte where a byte was seen before. Only the *end* of a session is taken from the
first executor that reports it, after its own law was checked; all others must agree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from copycat.machine.apply_result import (
    ApplyResult,
    RunReply,
    SessionEnded,
    SessionKeptAlive,
    SessionOpened,
)
from copycat.machine.envelope import decode_availability, decode_keep_alive
from copycat.protocol.client import Results
from copycat.protocol.codec_configuration import decode_configuration
from copycat.sim.checkers.compaction import Write
from copycat.sim.checkers.linearizability import UNKNOWN, Operation
from copycat.sim.checkers.log_history import violated
from copycat.sim.model import FAILED, ReferenceModel
from copycat.types import EntryKind, Run

__all__ = ["Effect", "SessionChecker"]

_Change = SessionOpened | SessionKeptAlive | SessionEnded
_ANY = msgspec.msgpack.Decoder()
_RAW = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Effect(msgspec.Struct):
    """What a command did, once: where in the log, its result, and the bytes of its reply."""

    index: int
    result: object
    raw: bytes | None = None


class _Session:
    __slots__ = ("active_ms", "claimed", "ended", "newest", "sequence", "timeout_ms")

    def __init__(self, timeout_ms: int, time_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self.active_ms = time_ms
        self.sequence = 0
        self.claimed = 0
        """So far its client has every reply, as the log says it."""
        self.newest = 0
        """Index of its newest command."""
        self.ended = 0
        """Index of the entry that ended it."""

    @property
    def acked(self) -> int:
        return min(self.claimed, self.sequence)


class SessionChecker:
    """One for a world. `asked` maps (session, sequence) to what its client submitted."""

    def __init__(self, asked: Mapping[tuple[int, int], Operation]) -> None:
        self.asked = asked
        self.model = ReferenceModel()
        self.effects: dict[tuple[int, int], Effect] = {}
        self.replayed = 0
        self.time_ms = 0
        self.digests: dict[int, tuple[int, object]] = {}
        self.expired = 0
        self.ignored = 0
        self.cut_short = 0
        """Sessions that expired while a command of theirs waited."""
        self._runs: deque[Run] = deque()
        self.committed_index = 0
        self._sessions: dict[int, _Session] = {}
        self._changes: dict[tuple[int, str, int], _Change] = {}
        self._at: dict[int, list[_Change]] = {}
        self._rejected: set[tuple[int, int, int]] = set()
        self._fixed: set[int] = set()
        """Entries that are no commands and no keep-alives: only a snapshot replaces them (C19)."""
        self._statuses: dict[int, int] = {}
        """By member: the newest entry that says whether it is heard."""
        self._last_noop_ms = 0
        self._noops: list[int] = []
        """Indexes of the no-ops replayed: each is the first entry of a leader."""

    # --- the committed log ----------------------------------------------------------------

    def committed(self, runs: list[Run]) -> None:
        """The next committed entries, read back from the log of who committed them first."""
        for run in runs:
            if run.first_index != self.committed_index + 1 or run.kind == EntryKind.GAP:
                raise violated(
                    "I6", "an index is missing from the committed log", index=run.first_index
                )
            self.committed_index += len(run.payloads)
            self._runs.append(run)

    def _replay(self, upto: int) -> None:
        runs = self._runs
        while self.replayed < upto:
            run = runs[0]
            if run.time_ms < self.time_ms:
                raise violated(
                    "I19", "log time decreases", index=run.first_index, time_ms=run.time_ms
                )
            if run.time_ms > self.time_ms:
                self.time_ms = run.time_ms
                self.model.expire(run.first_index, run.time_ms)
            count = min(len(run.payloads), upto - self.replayed)
            if run.kind == EntryKind.COMMAND:
                self._replay_commands(run, count)
            else:
                self._replay_system(run)
            self.replayed += count
            if count == len(run.payloads):
                runs.popleft()
            else:
                runs[0] = run._replace(
                    first_index=run.first_index + count,
                    first_sequence=run.first_sequence + count,
                    payloads=run.payloads[count:],
                )

    def _replay_system(self, run: Run) -> None:
        if run.kind == EntryKind.KEEP_ALIVE:
            session, acked = decode_keep_alive(run.payloads[0])
            if session in self._sessions:
                self._claim(self._sessions[session], acked)
        else:
            self._fixed.add(run.first_index)
            self._release_statuses(run)
        if run.kind == EntryKind.NOOP:
            self._last_noop_ms = run.time_ms
            self._noops.append(run.first_index)
            return
        is_timed = run.kind == EntryKind.EXPIRE
        for change in self._at.get(run.first_index, ()):
            self._replay_change(change, run.time_ms, is_timed=is_timed)

    def _release_statuses(self, run: Run) -> None:
        """C38: the newest entry about each member stays, and none about who is no member."""
        statuses = self._statuses
        if run.kind == EntryKind.AVAILABILITY:
            member, _ = decode_availability(run.payloads[0])
            self._fixed.discard(statuses.get(member, 0))
            statuses[member] = run.first_index
        elif run.kind == EntryKind.CONFIGURATION and statuses:
            configuration = decode_configuration(run.payloads[0], f"entry {run.first_index}")
            members = {each.member for each in configuration.members}
            for member in [member for member in statuses if member not in members]:
                self._fixed.discard(statuses.pop(member))

    @staticmethod
    def _claim(session: _Session, acked: int) -> None:
        session.claimed = max(session.claimed, acked)

    def _replay_change(self, change: _Change, time_ms: int, *, is_timed: bool) -> None:
        if isinstance(change, SessionOpened):
            self._sessions[change.session] = _Session(change.timeout_ms, time_ms)
            return
        session = self._sessions.get(change.session)
        if session is None or session.ended:
            raise violated("I19", "a closed session stirs", says=change)
        if isinstance(change, SessionKeptAlive):
            session.active_ms = time_ms
            return
        session.ended = change.index
        if not is_timed:
            return  # closed by its client, or replaced by its client's next one
        self.expired += 1
        self.cut_short += (change.session, session.sequence + 1) in self.asked
        silent_ms = time_ms - max(session.active_ms, self._last_noop_ms)
        if silent_ms < session.timeout_ms:
            raise violated(
                "I19",
                "a session expired before its time",
                session=change.session,
                silent_ms=silent_ms,
                timeout_ms=session.timeout_ms,
            )

    def _replay_commands(self, run: Run, count: int) -> None:
        session = self._sessions.get(run.session)
        for at in range(count):
            index, sequence = run.first_index + at, run.first_sequence + at
            if session is None or session.ended:
                self._rejected.add((run.session, sequence, index))
                self.ignored += 1
                continue
            if sequence != session.sequence + 1:
                raise violated(
                    "I17" if sequence <= session.sequence else "I18",
                    "a command logged twice"
                    if sequence <= session.sequence
                    else "a gap in a session's sequence",
                    session=run.session,
                    sequence=sequence,
                    index=index,
                    newest=session.sequence,
                )
            operation = self.asked.get((run.session, sequence))
            if operation is None:
                raise violated(
                    "I17", "a command nobody asked for", session=run.session, sequence=sequence
                )
            session.sequence = sequence
            session.newest = index
            session.active_ms = run.time_ms
            operation.index = index
            result = self.model.apply(
                index, operation.kind, operation.key, operation.arguments, run.time_ms
            )
            self.effects[(run.session, sequence)] = Effect(index, result)
        if session is not None:
            self._claim(session, run.acked)

    # --- what cleaning asks (checkers_gaps.Reference) -----------------------------------------

    def acknowledged_index(self) -> int:
        """Up to here every reply is acknowledged, as the log says it (C21)."""
        reply_indexes = [
            self.effects[(number, session.acked + 1)].index
            for number, session in self._sessions.items()
            if not session.ended and session.acked < session.sequence
        ]
        return min(reply_indexes) - 1 if reply_indexes else self.replayed

    def needs_snapshot(self, index: int) -> bool:
        """C19: a session's newest command, and all that is no command and no keep-alive."""
        return index in self._fixed or any(
            session.newest == index and not session.ended for session in self._sessions.values()
        )

    def key_writes(self) -> Mapping[Hashable, Sequence[Write]]:
        """By register, or by the key of a commit: the entries that may write or delete it."""
        return self.model.writes

    # --- what executors say ---------------------------------------------------------------

    def outcome(self, member: int, outcome: ApplyResult, valid_from: int = 0) -> None:
        """One member applied a slice. Below `valid_from` it replays a log with gaps: only what
        some client still waits for must be as it was (C21, C22)."""
        if outcome.last_applied > self.committed_index:
            raise violated(
                "I4", "applied what was not committed", member=member, upto=outcome.last_applied
            )
        is_first = outcome.last_applied > self.replayed
        for change in outcome.changes:
            if isinstance(change, (SessionOpened, SessionKeptAlive, SessionEnded)):
                self._change(member, change)
        if is_first:
            self._replay(outcome.last_applied)
        for rejected in outcome.rejected:
            if rejected[1] and rejected not in self._rejected:
                raise violated(
                    "I17", "a command of an open session was refused", rejected=rejected
                )
        for reply in outcome.replies:
            session = self._sessions.get(reply.session)
            forgotten = 0
            if reply.first_index <= valid_from and session is not None:
                last = reply.first_sequence + reply.count - 1
                forgotten = last if session.ended else session.acked
            self.reply(
                f"member {member}",
                reply.session,
                reply.first_sequence,
                reply,
                forgotten=forgotten,
            )

    def _change(self, member: int, change: _Change) -> None:
        index = change.session if isinstance(change, SessionOpened) else change.index
        key = (index, type(change).__name__, change.session)
        known = self._changes.setdefault(key, change)
        if known != change:
            raise violated(
                "I20",
                "two members disagree about a session",
                member=member,
                says=change,
                not_=known,
            )
        if known is not change:
            return
        if index <= self.replayed:
            raise violated(
                "I20", "a session changed on one member only", member=member, says=change
            )
        self._at.setdefault(index, []).append(change)

    def reply(
        self,
        who: str,
        session: int,
        first_sequence: int,
        reply: RunReply | Results,
        acked: int = 0,
        forgotten: int = 0,
    ) -> None:
        """Results as an executor made them or a client got them: the first bytes stand.

        Only of what its client acknowledged (up to `acked`) the reply may be missing: a late
        copy of such a command is then answered by an error that says so. Results of sequences up
        to `forgotten` that a replay of a cleaned log makes again are not compared: no client
        receives them.
        """
        results = _RAW.decode(reply.body)
        if len(results) != reply.count:
            raise violated("I17", "a reply with another count", who=who, reply=reply)
        effects = self.effects
        for at, raw in enumerate(results):
            if first_sequence + at <= forgotten:
                continue
            effect = effects.get((session, first_sequence + at))
            if effect is None:
                raise violated(
                    "I17",
                    "a reply to a command that took no effect",
                    who=who,
                    session=session,
                    sequence=first_sequence + at,
                )
            if effect.raw is None:
                self._check_result(who, session, first_sequence + at, effect, bytes(raw))
            elif effect.raw != bytes(raw) and not (
                first_sequence + at <= acked and _is_error(raw)
            ):
                raise violated(
                    "I17",
                    "another reply than the first time",
                    who=who,
                    session=session,
                    sequence=first_sequence + at,
                    now=bytes(raw),
                    before=effect.raw,
                )
        if first_sequence <= forgotten:
            return
        first = effects[(session, first_sequence)].index
        last = effects[(session, first_sequence + reply.count - 1)].index
        if first_sequence > acked and not (
            reply.first_index <= first <= last <= reply.last_index <= self.replayed
        ):  # a part of a cached run names the indexes of the whole run
            raise violated(
                "I17", "a reply with other indexes", who=who, reply=reply, indexes=(first, last)
            )

    @staticmethod
    def _check_result(who: str, session: int, sequence: int, effect: Effect, raw: bytes) -> None:
        result = _ANY.decode(raw)
        if effect.result is FAILED:
            good = _is_error(raw)
        else:
            good = result == effect.result and type(result) is type(effect.result)
        if not good:
            raise violated(
                "I18",
                "a result that no order explains",
                who=who,
                session=session,
                sequence=sequence,
                result=result,
                reference=effect.result,
            )
        effect.raw = raw

    def digest(self, member: int, index: int, digest: object) -> None:
        """I20: equal applied index, equal digest, whoever applied it and in what slices."""
        other, known = self.digests.setdefault(index, (member, digest))
        if known != digest:
            raise violated(
                "I20",
                "two members differ after the same entry",
                index=index,
                members=(other, member),
                digests=(known, digest),
            )

    # --- what clients hear ----------------------------------------------------------------

    def query_answered(self, operation: Operation, session: int, sequence: int, seen: int) -> None:
        """A query's answer: the state at the index that it names, never older than promised."""
        index = operation.index
        if index > self.replayed:
            raise violated("I14", "a query shows what nobody applied", index=index)
        expected = self.model.read(index, operation.kind, operation.key)
        if operation.result != expected:
            raise violated(
                "I14",
                "a query's answer is not the state at its index",
                query=operation.summary(),
                expected=expected,
            )
        if index < seen:
            raise violated(
                "I21", "a query answers with an older state", query=operation.summary(), seen=seen
            )
        effect = self.effects.get((session, sequence)) if sequence else None
        if sequence and (effect is None or effect.index > index):
            raise violated(
                "I18", "a query overtakes its session's commands", query=operation.summary()
            )

    def session_lost(self, session: int) -> None:
        """A client was told that its session is unknown: that must be in the log (I19), and
        cannot be for a REGISTER of its own, since it asks for no other session while it has one.
        Another leader does not know the registrations that this one remembers.
        """
        known = self._sessions.get(session)
        if known is None:
            return
        if not known.ended:
            raise violated("I19", "an open session was declared unknown", session=session)
        is_one_leader = not any(session < noop < known.ended for noop in self._noops)
        if known.ended in self._sessions and is_one_leader:
            raise violated(
                "I19",
                "a REGISTER that its client had given up ended the session opened after it",
                session=session,
                register=known.ended,
            )

    def check_tokens(self) -> None:
        """At the end: every token at most once in its list; each acknowledged one is there."""
        for key, tokens in self.model.tokens().items():
            if len(set(tokens)) != len(tokens):
                raise violated("I17", "a token twice", key=key)
        for (session, sequence), operation in self.asked.items():
            if operation.kind != "append" or operation.result is UNKNOWN:
                continue
            if operation.arguments[0] not in self.model.tokens().get(operation.key, []):
                raise violated(
                    "I17", "an acknowledged token is missing", session=session, at=sequence
                )


def _is_error(raw: bytes | msgspec.Raw) -> bool:
    return isinstance(_ANY.decode(raw), msgspec.msgpack.Ext)
