"""Seeded clients, which record everything that they ask and receive.

Each is a small sans-IO client over `copycat.protocol`: it registers, sends runs of commands
with many in flight, keeps alive, resends in order what was not answered, follows hints to the
leader or asks whoever it likes, and sometimes falls silent until its session expires.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from copycat.protocol.client import (
    ChangeRefused,
    CloseSession,
    ClusterView,
    CommandsRefused,
    Failure,
    KeepAlive,
    KeptAlive,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    SessionClosed,
)
from copycat.protocol.codec_client import decode_server, encode_client, encode_commands
from copycat.protocol.framing import split_frame
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.linearizability import NEVER, Operation
from copycat.sim.checkers.log_history import violated
from copycat.sim.client_calls import ClientWorld
from copycat.sim.host import Connection
from copycat.sim.model import PROBE_KEY, draw_command, encode
from copycat.sim.world import MS
from copycat.types import ConsistencyLevel

RESEND_MAX = 100
LEVELS = (ConsistencyLevel.LINEARIZABLE, ConsistencyLevel.SEQUENTIAL)

__all__ = ["SimClient"]


class _Asked(msgspec.Struct):
    """A numbered request that waits for its answer."""

    what: str
    deadline_us: int
    operation: Operation | None = None
    session: int = 0
    sequence: int = 0
    seen: int = 0
    slot: int = 0


class SimClient:
    """Client `number`; its place on the network is `place`."""

    def __init__(
        self,
        number: int,
        place: int,
        shared: ClientWorld,
        random: SimRandom,
    ) -> None:
        self.number = number
        self.place = place
        self.options = shared.options
        self.session = 0
        self.is_active = True
        """Asks new things; else it only finishes what it began."""
        self.silent_until_us = 0
        self.unanswered: dict[int, bytes] = {}
        self._world = shared.world
        self._network = shared.network
        self._random = random
        self._trace = shared.trace
        self._hosts = shared.hosts
        self._numbers = {address: number for number, address in enumerate(shared.addresses)}
        self._checker = shared.checker
        self._asked = shared.asked
        self._history = shared.history
        self._impatience_us = shared.impatience_us
        self._sequence = 0
        self._acked = 0
        self._acked_of: dict[int, int] = {}
        self._request = 0
        self._requests: dict[int, _Asked] = {}
        self._connection: Connection | None = None
        self._connections = 0
        self._server = random.below(len(shared.hosts))
        self._progress_us = 0
        self._kept_us = 0
        self._resend_us = 0
        self._seen = 0
        self._tokens = 0
        self._queries = 0
        self._probe: Operation | None = None

    # --- its own pace -----------------------------------------------------------------------

    def tick(self) -> None:
        """One turn of the client, which schedules the next one."""
        random, now = self._random, self._world.now_us
        tick_us = self.options.tick_us
        self._world.after(random.between(tick_us // 2, tick_us * 3 // 2), self.tick)
        if now < self.silent_until_us:
            return
        for request in [r for r, asked in self._requests.items() if asked.deadline_us < now]:
            self._gave_up(self._requests.pop(request))
        if not self.session:
            if not any(asked.what == "register" for asked in self._requests.values()):
                self._register()
            return
        if self.unanswered and now - self._progress_us > self._impatience_us:
            self._move(self._pick_server())
        elif self.unanswered and 0 < self._resend_us <= now:
            self._resend(1)
        if now - self._kept_us > self.options.session_timeout_ms * MS // 3:
            self._keep_alive()
        if self.is_active:
            self._ask_something()

    def _ask_something(self) -> None:
        random, options = self._random, self.options
        if (
            random.chance(options.command)
            and len(self.unanswered) < options.inflight_max
            and self._tokens < options.commands_max
        ):
            count = random.between(1, options.burst_max)
            self.submit([draw_command(random, options, self._token()) for _ in range(count)])
        if random.chance(options.query):
            self._query(random.pick(LEVELS))
        if self.unanswered and random.chance(options.twice):
            self._trace.mark("command sent twice")
            self._resend(1)
        if random.chance(options.close // (20 if self.unanswered else 1)):
            self._trace.mark("session closed")
            self._send(encode_client(CloseSession(self._number("close", 1), self.session)))
            self._forget_session()

    def _free_slot(self) -> int:
        """A chain of this client's queries without one in flight; -1 when all are busy."""
        busy = {one.slot for one in self._requests.values() if one.what == "query"}
        return next((slot for slot in range(self.options.queries_max) if slot not in busy), -1)

    def fall_silent(self, until_us: int) -> None:
        """Send nothing until then, like a client whose process is stopped."""
        self.silent_until_us = until_us

    def _pick_server(self) -> int:
        """Any server; in the calm the next one, so that each has its turn (I16)."""
        drawn = self._random.below(len(self._hosts))
        return drawn if self.is_active else (self._server + 1) % len(self._hosts)

    def _number(self, what: str, patience: int = 1) -> int:
        self._request += 1
        deadline_us = self._world.now_us + patience * self._impatience_us
        self._requests[self._request] = _Asked(what, deadline_us)
        return self._request

    def _gave_up(self, asked: _Asked) -> None:
        if asked.what in ("register", "keep_alive"):
            self._kept_us = 0
            if self.is_active or self._connection is not None:  # else `_closed` has moved it on
                self._move(self._pick_server())

    # --- asking -----------------------------------------------------------------------------

    def _register(self) -> None:
        request = self._number("register", 2)
        message = Register(
            request,
            f"client-{self.number}",
            self.options.session_timeout_ms,
            instance=self.number + 1,
        )
        self._send(encode_client(message))

    def _keep_alive(self) -> None:
        self._kept_us = self._world.now_us
        request = self._number("keep_alive")
        self._requests[request].session = self.session
        self._send(encode_client(KeepAlive(request, self.session, self._acked)))

    def _token(self) -> int:
        self._tokens += 1
        return self.number * 1_000_000 + self._tokens

    def submit(self, commands: Sequence[tuple[str, int, tuple[int, ...]]]) -> list[Operation]:
        """Ask for these, in order, in one frame."""
        first, submitted, encoded = self._sequence + 1, [], []
        if not self.unanswered:
            self._progress_us = self._world.now_us
        for kind, key, arguments in commands:
            self._sequence += 1
            operation = Operation(
                chain=self.session,
                number=self._sequence,
                kind=kind,
                key=key,
                arguments=arguments,
                invoked_us=self._world.now_us,
            )
            self._asked[(self.session, self._sequence)] = operation
            data = encode(kind, key, arguments)
            self.unanswered[self._sequence] = data
            submitted.append(operation)
            encoded.append(data)
        if kinds := [one for one in submitted if one.kind != "fail"]:
            self._history.extend(kinds)
        self._send(encode_commands(self.session, first, self._acked, encoded))
        return submitted

    def _query_again(self, session: int) -> None:
        """Ask again and again while no leader is known, to send the first read of a new leader."""
        if self.session == session and self.is_active:
            self._query(ConsistencyLevel.LINEARIZABLE)

    def _query(self, level: ConsistencyLevel) -> None:
        random, slot = self._random, self._free_slot()
        if slot < 0:
            return
        self._queries += 1
        kind = random.pick(("get", "items"))
        operation = Operation(
            chain=("query", self.number, slot),
            number=self._queries,
            kind=kind,
            key=random.below(self.options.keys),
            arguments=(),
            invoked_us=self._world.now_us,
        )
        sequence = self._acked if random.chance(500_000) else self._sequence
        request = self._number("query", 2)
        asked = self._requests[request]
        asked.operation, asked.session, asked.sequence = operation, self.session, sequence
        asked.seen, asked.slot = self._seen, slot
        asked.what = "query" if level is ConsistencyLevel.LINEARIZABLE else "sequential"
        data = encode(kind, operation.key, ())
        self._send(
            encode_client(QueryRequest(request, self.session, sequence, self._seen, level, data))
        )

    # --- the connection ---------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            self._connections += 1
            number = self.place * 1_000_000 + self._connections
            connection = Connection(number, self.place, self._deliver, self._closed)
            self._connection = connection
        host = self._hosts[self._server].at_its_address
        self._network.transmit(self.place, host.number, host.receive_client, connection, data)

    def _move(self, server: int) -> None:
        """Leave this server for another (or the same again) and resend what is open."""
        self._leave()
        self._server = server
        self._progress_us = self._world.now_us
        if self.session:
            self._resend(1)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            host = self._hosts[self._server].at_its_address
            self._network.transmit(self.place, host.number, host.client_disconnected, connection)

    def _resend(self, first: int) -> None:
        """Everything unanswered from `first` on, in order, in as few frames as tile it."""
        self._resend_us = 0
        run: list[bytes] = []
        start = expected = 0
        for sequence, data in self.unanswered.items():
            if sequence < first:
                continue
            if run and (sequence != expected or len(run) == RESEND_MAX):
                self._send(encode_commands(self.session, start, self._acked_below(start), run))
                run = []
            if not run:
                start = sequence
            run.append(data)
            expected = sequence + 1
        if run:
            self._trace.mark("command resent", len(run))
            self._send(encode_commands(self.session, start, self._acked_below(start), run))

    def _acked_below(self, first: int) -> int:
        return min(self._acked, first - 1)

    def _closed(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._server = self._pick_server()
            if self.session and self.unanswered:
                self._resend_us = self._world.now_us + self._random.around(20 * MS)

    # --- hearing ----------------------------------------------------------------------------

    def _deliver(self, connection: Connection, data: bytes) -> None:
        if self._world.now_us < self.silent_until_us or connection is not self._connection:
            return
        message = decode_server(split_frame(data))
        match message:
            case Results():
                self._on_results(message)
            case CommandsRefused():
                self._on_refused(message)
            case ClusterView() | ChangeRefused():
                raise violated("stop", "an answer that this client never asked for", got=message)
            case _:
                asked = self._requests.pop(message.request, None)
                if asked is not None:
                    self._on_answer(asked, message)

    def _on_answer(
        self,
        asked: _Asked,
        message: Registered | KeptAlive | SessionClosed | QueryResult | Failure,
    ) -> None:
        match message:
            case Registered():
                self._on_registered(message)
            case QueryResult():
                self._on_query_result(asked, message)
            case Failure():
                self._on_failure(asked, message)
            case KeptAlive() | SessionClosed():
                if message.__class__ is KeptAlive:
                    self._trace.mark("session kept alive")

    def _on_registered(self, message: Registered) -> None:
        self._requests.clear()
        self._trace.record(self._world.now_us, f"c{self.number}", "session", message.session)
        self._trace.mark("session opened")
        self.session = message.session
        self._sequence = self._acked = 0
        self._seen = max(self._seen, message.session)
        self._kept_us = self._world.now_us
        self.unanswered.clear()

    def _on_results(self, message: Results) -> None:
        if (message.session, message.first_sequence) not in self._asked:
            raise violated("I17", "a reply to what nobody asked", reply=message)
        self._checker.reply(
            f"client {self.number}",
            message.session,
            message.first_sequence,
            message,
            self._acked_of.get(message.session, 0),
        )
        if message.session != self.session:
            return
        for at, result in enumerate(msgspec.msgpack.decode(message.body)):
            sequence = message.first_sequence + at
            if self.unanswered.pop(sequence, None) is None:
                self._trace.mark("reply heard twice")
                continue
            operation = self._asked[(self.session, sequence)]
            operation.result = result
            operation.returned_us = self._progress_us = self._world.now_us
        while self._acked < self._sequence and (self._acked + 1) not in self.unanswered:
            self._acked += 1
        self._acked_of[self.session] = self._acked
        self._seen = max(self._seen, message.last_index)

    def _on_query_result(self, asked: _Asked, message: QueryResult) -> None:
        operation = asked.operation
        if operation is None:
            raise violated("I14", "a query result to another request", reply=message)
        operation.result = msgspec.msgpack.decode(message.body)
        operation.returned_us = self._world.now_us
        operation.index = message.index
        self._checker.query_answered(operation, asked.session, asked.sequence, asked.seen)
        self._seen = max(self._seen, message.index)
        self._trace.mark(f"{asked.what} answered")
        if asked.what == "query":
            self._history.append(operation)

    def _on_refused(self, message: CommandsRefused) -> None:
        if message.session != self.session:
            return
        self._trace.mark(f"refused: {Refusal(message.code).name.lower()}")
        now = self._world.now_us
        match message.code:
            case Refusal.UNKNOWN_SESSION:
                self._lost_session()
            case (
                Refusal.COMMAND | Refusal.OVERLOADED | Refusal.DISK_FULL
            ):  # many refusals, one resend
                self._resend_us = now + self._random.around(30 * MS)
            case Refusal.NO_LEADER | Refusal.NO_QUORUM:
                self._follow(message.leader)
                self._resend_us = now + self._random.around(30 * MS)
            case Refusal.ILLEGAL_MEMBER_STATE:
                self._move(self._pick_server())
            case _:
                raise violated("F21", "an honest run of commands was refused", reply=message)

    def _on_failure(self, asked: _Asked, message: Failure) -> None:
        self._trace.mark(f"failed: {Refusal(message.code).name.lower()}")
        if message.code == Refusal.UNKNOWN_SESSION and asked.session == self.session:
            self._lost_session()
        elif message.code in (Refusal.NO_LEADER, Refusal.NO_QUORUM):
            self._follow(message.leader)
            if asked.what == "keep_alive":
                self._kept_us = 0
            elif asked.what == "query" and self._random.chance(700_000):
                self._world.after(self._random.around(4 * MS), self._query_again, self.session)
        elif message.code == Refusal.ILLEGAL_MEMBER_STATE:
            self._move(self._pick_server())

    def _follow(self, leader: str) -> None:
        """Connect to the leader that was named; sometimes stay with this server, or guess."""
        server = self._numbers.get(leader, self._pick_server())
        if server != self._server and self._random.chance(600_000):
            self._leave()
            self._server = server

    def _lost_session(self) -> None:
        """The session ended: open calls have an unknown outcome, and are never repeated."""
        self._trace.record(self._world.now_us, f"c{self.number}", "session lost", self.session)
        self._trace.mark("session lost")
        self._checker.session_lost(self.session)
        self._forget_session()

    def _forget_session(self) -> None:
        self.session = 0
        self.unanswered.clear()
        self._requests.clear()
        self._resend_us = 0

    def probe(self) -> bool:
        """Submit one command, again only in a new session; True when it was answered."""
        if self._probe is not None and self._probe.returned_us != NEVER:
            return True
        if self.session and (self._probe is None or self._probe.chain != self.session):
            self._probe = self.submit([("append", PROBE_KEY, (self._token(),))])[0]
        return False

    @property
    def is_idle(self) -> bool:
        """Whether it has a session and no open calls."""
        return self.session > 0 and not self.unanswered
