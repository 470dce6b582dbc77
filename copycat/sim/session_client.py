"""Simulated clients made of the shipped session, outbox, completion and server selector.

`ClientSession`, `Outbox` and `ServerSelector` decide here what they decide in `CopycatClient`:
what is sent
again and when, which server is next, what an early, late, lost or doubled answer means, in
which order callers hear. What is written anew is what the asyncio driver does around them: to
open a connection, to hand over frames and the time, to leave a server. Everything that a
caller hears is held against the reference of the checkers.
"""

from __future__ import annotations

from copycat.client.completion import FOREVER_MS
from copycat.client.options import Backoff, ServerSelection
from copycat.client.outbox import Outbox
from copycat.client.server_selector import ServerSelector
from copycat.client.session import ClientSession, SessionPhase
from copycat.protocol.client import (
    ClientMessage,
    Failure,
    QueryRequest,
    QueryResult,
    Refusal,
    Register,
    Registered,
    Results,
    ServerMessage,
)
from copycat.protocol.codec_client import decode_server, encode_client
from copycat.protocol.framing import split_frame
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.linearizability import NEVER, Operation
from copycat.sim.client_calls import ClientCalls, ClientWorld
from copycat.sim.host import Connection
from copycat.sim.model import PROBE_KEY, draw_command
from copycat.sim.world import MS, SECOND
from copycat.types import ConsistencyLevel

__all__ = ["SessionClient"]

_LEVELS = (ConsistencyLevel.LINEARIZABLE, ConsistencyLevel.SEQUENTIAL)
_SELECTIONS = (ServerSelection.LEADER, ServerSelection.ANY, ServerSelection.FOLLOWERS)
_FULL = 20_000
"""Chance per million that the socket takes nothing at the moment."""


class SessionClient:
    """Client `number`; its place on the network is `place`."""

    def __init__(self, number: int, place: int, around: ClientWorld, random: SimRandom) -> None:
        self.number = number
        self.place = place
        self.options = around.options
        self.is_active = True
        """Asks new things; else it only finishes what it began."""
        self.silent_until_us = 0
        self._around = around
        self._world = around.world
        self._trace = around.trace
        self._random = random
        self._selector = ServerSelector(
            random.shuffled(around.addresses),
            random.pick(_SELECTIONS),
            Backoff.exponential(),
            seed=random.below(1 << 32),
        )
        self._outbox = Outbox()
        self._session = ClientSession(self._outbox)
        self._connection: Connection | None = None
        self._connections = 0
        self._connected_ms = 0
        self._address = ""
        self._host = around.hosts[0]
        self._is_dialling = False
        self._register_by_us = 0
        self._timer_us = 0
        self._calls = ClientCalls(number, around, random, self._session, self._outbox)
        self._tokens = 0
        self._probe: Operation | None = None

    @property
    def session(self) -> int:
        """Number of the open session; 0 without one."""
        return self._session.session if self._session.phase is SessionPhase.OPEN else 0

    @property
    def is_idle(self) -> bool:
        """Whether it has a session and no open calls."""
        return self.session > 0 and self._session.is_idle

    # --- its own pace -----------------------------------------------------------------------

    def tick(self) -> None:
        """One turn of the client, which schedules the next one."""
        tick_us = self.options.tick_us
        self._world.after(self._random.between(tick_us // 2, tick_us * 3 // 2), self.tick)
        if self._is_silent():
            return
        if self._connection is None:
            self._dial()
        elif 0 < self._register_by_us < self._world.now_us:
            self._lose_server("no answer to the registration")
        elif self.session and self.is_active:
            self._ask_something()
        self._send_outgoing()

    def fall_silent(self, until_us: int) -> None:
        """Send and receive nothing until then, like a client whose process is stopped."""
        self.silent_until_us = until_us

    def _is_silent(self) -> bool:
        return self._world.now_us < self.silent_until_us

    def _now_ms(self) -> int:
        return self._world.now_us // MS

    def _ask_something(self) -> None:
        random, options = self._random, self.options
        in_flight = self._outbox.last_submitted - self._outbox.last_answered
        if (
            random.chance(options.command)
            and in_flight < options.inflight_max
            and self._tokens < options.commands_max
        ):
            count = random.between(1, options.burst_max)
            drawn = [draw_command(random, options, self._token()) for _ in range(count)]
            self._calls.submit(drawn, as_one=random.chance(500_000))
        if random.chance(options.query):
            self._calls.query(random.pick(_LEVELS))
        self._calls.give_some_up()
        if random.chance(options.close // (20 if in_flight else 1)):
            self._close()

    def _token(self) -> int:
        self._tokens += 1
        return self.number * 1_000_000 + self._tokens

    # --- asking -----------------------------------------------------------------------------

    def probe(self) -> bool:
        """Submit one command, again only in a new session; True when it was answered."""
        if self._probe is not None and self._probe.returned_us != NEVER:
            return True
        if self.session and (self._probe is None or self._probe.chain != self.session):
            self._calls.patience_ms = FOREVER_MS
            self._probe = self._calls.submit([("append", PROBE_KEY, (self._token(),))])[0]
            self._send_outgoing()
        return False

    def _close(self) -> None:
        self._trace.mark("session closed")
        self._send(self._session.close())
        self._session.closed()
        self._calls.complete()
        self._begin_session()

    # --- the connection ---------------------------------------------------------------------

    def _dial(self) -> None:
        if not self._is_dialling and self._connection is None:
            address, delay = self._selector.next()
            self._is_dialling = True
            self._world.after(round(delay * SECOND) + 1, self._open, address)

    def _open(self, address: str) -> None:
        self._is_dialling = False
        if self._is_silent() or self._connection is not None:
            return  # the next look around begins again
        self._connections += 1
        number = self.place * 1_000_000 + self._connections
        self._connection = Connection(number, self.place, self._deliver, self._closed)
        self._connected_ms = self._now_ms()
        self._address = address
        self._host = self._around.hosts[self._around.addresses.index(address)].at_its_address
        if self._session.phase is SessionPhase.WAITING:
            self._register_by_us = self._world.now_us + 2 * self._around.impatience_us
            timeout_ms = self.options.session_timeout_ms
            client_id, instance = f"client-{self.number}", self.number + 1
            request = self._connections  # grows
            self._send(Register(request, client_id, timeout_ms, instance=instance))
        else:
            self._trace.mark("session continues over another connection")
            self._session.connected(self._now_ms())
            self._send_outgoing()

    def _send(self, message: ClientMessage) -> None:
        connection = self._connection
        if connection is not None:
            data = encode_client(message)
            target, receive = self._host.number, self._host.receive_client
            self._around.network.transmit(self.place, target, receive, connection, data)

    def _send_outgoing(self) -> None:
        """Send what may be sent, end what is overdue; come again when the session wants it."""
        session, now_ms = self._session, self._now_ms()
        if session.phase is SessionPhase.CLOSED:
            return
        if now_ms >= session.give_up_ms:
            self._calls.give_up_overdue(now_ms, self._selector.report())
        self._calls.drop_given_up()
        is_full = self._random.chance(_FULL)
        for message in session.outgoing(now_ms, is_full=is_full):
            if isinstance(message, QueryRequest):
                self._calls.query_leaves(message)
            self._send(message)
        self._calls.note_sent()
        self._calls.complete()
        due_ms = session.give_up_ms
        if self._connection is not None and session.phase is SessionPhase.OPEN:
            if session.must_switch_server:
                self._trace.mark("client changes the server")
                self._selector.avoid(self._address)
                self._leave()
                self._dial()
                return
            due_ms = min(due_ms, session.deadline_ms(is_full=is_full))
        if due_ms < FOREVER_MS:
            self._arm(max(self._world.now_us + 1, due_ms * MS))

    def _arm(self, due_us: int) -> None:
        if not self._world.now_us < self._timer_us <= due_us:
            self._timer_us = due_us
            self._world.at(due_us, self._on_timer, due_us)

    def _on_timer(self, due_us: int) -> None:
        if due_us == self._timer_us and not self._is_silent():
            self._send_outgoing()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        self._register_by_us = 0
        self._session.disconnected()
        if self._session.confirmed_ms >= self._connected_ms:
            self._selector.served()
        if connection is not None:
            target, client_disconnected = self._host.number, self._host.client_disconnected
            self._around.network.transmit(self.place, target, client_disconnected, connection)

    def _lose_server(self, reason: str) -> None:
        self._selector.failed(self._address, reason)
        self._leave()
        if self._selector.is_round_over:
            self._session.no_server_reachable(self._now_ms())
        self._dial()

    def _closed(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._lose_server("the server closed the connection")

    def _begin_session(self) -> None:
        """The old session is over: what is asked from now on belongs to another one."""
        self._outbox = Outbox()
        self._session = ClientSession(self._outbox)
        self._calls.begin(self._session, self._outbox)
        self._leave()
        self._dial()

    # --- hearing ----------------------------------------------------------------------------

    def _deliver(self, connection: Connection, data: bytes) -> None:
        if self._is_silent() or connection is not self._connection:
            return
        message: ServerMessage = decode_server(split_frame(data))
        session = self._session
        if session.phase is SessionPhase.WAITING:
            self._on_registered(message)
            return
        if isinstance(message, Results):
            self._calls.check_results(message)
        elif isinstance(message, QueryResult):
            self._calls.query_answered(message)
        elif isinstance(message, Failure):
            self._trace.mark(f"failed: {Refusal(message.code).name.lower()}")
        session.received(message, self._now_ms())
        self._calls.complete()
        if session.phase is SessionPhase.CLOSED:
            self._lost_session()
            return
        self._selector.follow(session.leader, session.members)
        self._send_outgoing()

    def _on_registered(self, message: ServerMessage) -> None:
        if isinstance(message, Failure):
            self._selector.follow(message.leader, ())
            self._lose_server(message.reason)
        elif isinstance(message, Registered):
            self._trace.record(self._world.now_us, f"c{self.number}", "session", message.session)
            self._trace.mark("session opened")
            self._register_by_us = 0
            self._session.opened(message, self._now_ms())
            self._session.connected(self._now_ms(), fresh=True)
            self._selector.succeeded()
            self._send_outgoing()

    def _lost_session(self) -> None:
        """The session ended: open calls have an unknown outcome, and are never repeated."""
        session = self._session.session
        self._trace.record(self._world.now_us, f"c{self.number}", "session lost", session)
        self._trace.mark("session lost")
        self._around.checker.session_lost(session)
        self._begin_session()
