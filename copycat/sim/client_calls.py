"""What the callers of a simulated client ask of its session, and whether the results are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from copycat.client.completion import FOREVER_MS, Call
from copycat.client.outbox import Outbox
from copycat.client.session import ClientSession
from copycat.errors import ApplicationError, ClosedSessionError, CopycatError, SessionExpiredError
from copycat.protocol.client import QueryRequest, QueryResult, Results
from copycat.seeded_random import SimRandom
from copycat.sim.checkers.linearizability import Operation
from copycat.sim.checkers.log_history import violated
from copycat.sim.checkers.sessions import SessionChecker
from copycat.sim.host import SimHost
from copycat.sim.model import FAILED, encode, make
from copycat.sim.network import Network
from copycat.sim.options import WorkloadOptions
from copycat.sim.world import MS, Trace, World
from copycat.types import ConsistencyLevel

__all__ = ["IMPATIENCE", "ClientCalls", "ClientWorld"]

IMPATIENCE = 3
"""Election timeouts after which a client that heard nothing asks another server."""

_ABANDON = 20_000
"""Chance per million and look that the caller of a query, or of commands, waits no longer."""
_PATIENCE_MS = (FOREVER_MS, FOREVER_MS, 300, 3_000)


class ClientWorld(NamedTuple):
    """What every client of one cluster shares."""

    world: World
    network: Network
    trace: Trace
    hosts: Sequence[SimHost]
    addresses: Sequence[str]
    options: WorkloadOptions
    checker: SessionChecker
    asked: dict[tuple[int, int], Operation]
    history: list[Operation]
    impatience_us: int


class _Commands:
    """One call of `submit` or `submit_many`."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self.call: Call
        self.is_given_up = False
        """Its caller waits no longer: what was not sent yet never leaves."""


class _Query:
    """A query that its caller waits for."""

    def __init__(self, operation: Operation, level: ConsistencyLevel, slot: int) -> None:
        self.operation = operation
        self.level = level
        self.slot = slot
        self.request = 0
        self.session = 0
        self.sequence = 0
        """Sequence that the state must have reached: the least with which it was sent."""
        self.seen = 0
        """The highest index that the caller had heard of when it asked."""
        self.is_sent = False


class ClientCalls:
    """The open calls of client `number`, of one session at a time."""

    def __init__(
        self,
        number: int,
        around: ClientWorld,
        random: SimRandom,
        session: ClientSession,
        outbox: Outbox,
    ) -> None:
        self.patience_ms = random.pick(_PATIENCE_MS)
        """How long its callers wait; each client has callers of one kind."""
        self._number = number
        self._around = around
        self._world = around.world
        self._trace = around.trace
        self._random = random
        self._asked_queries = 0
        self.begin(session, outbox)

    def begin(self, session: ClientSession, outbox: Outbox) -> None:
        """What is asked from now on belongs to this session."""
        self._session = session
        self._outbox = outbox
        self._calls: list[_Commands] = []
        self._unsent: list[tuple[_Commands, Operation]] = []
        """What was never sent, in order: sequences above the outbox's `attempted`."""
        self._queries: dict[int, _Query] = {}

    # --- asking -----------------------------------------------------------------------------

    def _deadline_ms(self) -> int:
        patience_ms = self.patience_ms
        return FOREVER_MS if patience_ms == FOREVER_MS else self._world.now_us // MS + patience_ms

    def submit(
        self, drawn: Sequence[tuple[str, int, tuple[int, ...]]], *, as_one: bool = False
    ) -> list[Operation]:
        """Submit these, in order. as_one: by one call, whose caller hears of all at once."""
        session, first = self._session, self._outbox.last_submitted + 1
        operations = [
            Operation(
                chain=session.session,
                number=number,
                kind=kind,
                key=key,
                arguments=arguments,
                invoked_us=self._world.now_us,
            )
            for number, (kind, key, arguments) in enumerate(drawn, first)
        ]
        made = [make(*command) for command in drawn]
        encoded = [encode(*command) for command in drawn]
        if as_one:
            commands = _Commands(operations)
            commands.call = session.submit_many(commands, made, encoded, self._deadline_ms())
            self._submitted(commands)
        else:
            for operation, one, data in zip(operations, made, encoded, strict=True):
                commands = _Commands([operation])
                commands.call = session.submit(commands, one, data, self._deadline_ms())
                self._submitted(commands)
        return operations

    def _submitted(self, commands: _Commands) -> None:
        self._calls.append(commands)
        self._unsent += [(commands, operation) for operation in commands.operations]

    def query(self, level: ConsistencyLevel) -> None:
        """Ask something, unless as many queries as may be are open."""
        busy = {query.slot for query in self._queries.values()}
        free = [slot for slot in range(self._around.options.queries_max) if slot not in busy]
        if not free:
            return
        self._asked_queries += 1
        kind = self._random.pick(("get", "items"))
        operation = Operation(
            chain=("query", self._number, free[0]),
            number=self._asked_queries,
            kind=kind,
            key=self._random.below(self._around.options.keys),
            arguments=(),
            invoked_us=self._world.now_us,
        )
        query = _Query(operation, level, free[0])
        query.session, query.seen = self._session.session, self._session.index
        one, data = make(kind, operation.key, ()), encode(kind, operation.key, ())
        query.request = self._session.query(query, one, data, level, self._deadline_ms())
        self._queries[query.request] = query

    # --- giving up --------------------------------------------------------------------------

    def give_some_up(self) -> None:
        """Some callers do not want to know any more."""
        random = self._random
        for commands in [one for one in self._calls if random.chance(_ABANDON)]:
            self._trace.mark("commands given up by their caller")
            self._calls.remove(commands)
            commands.is_given_up = True
            self._session.abandon_call(commands.call)
        for query in [one for one in self._queries.values() if random.chance(_ABANDON)]:
            self._trace.mark("query given up by its caller")
            del self._queries[query.request]
            self._session.abandon(query.request)

    def give_up_overdue(self, now_ms: int, servers: str) -> None:
        """Fail the calls whose time is over."""
        self.complete()
        self._session.give_up_overdue(now_ms, self.patience_ms, servers)
        self.complete(is_given_up=True)

    def drop_given_up(self) -> None:
        """What was given up before it was sent leaves no trace: those behind it move up."""
        remaining = [pair for pair in self._unsent if not pair[0].is_given_up]
        if len(remaining) < len(self._unsent):
            self._trace.mark(
                "command dropped before it was sent", len(self._unsent) - len(remaining)
            )
            self._unsent = remaining
            for number, (_, operation) in enumerate(remaining, self._outbox.last_attempted + 1):
                operation.number = number

    def note_sent(self) -> None:
        """From the moment when they are first sent, commands may take effect."""
        count = 0
        for _, operation in self._unsent:
            if operation.number > self._outbox.last_attempted:
                break
            count += 1
            self._around.asked[(self._session.session, operation.number)] = operation
            if operation.kind != "fail":
                self._around.history.append(operation)
        del self._unsent[:count]

    # --- what leaves and what comes ---------------------------------------------------------

    def query_leaves(self, message: QueryRequest) -> None:
        """A query is sent, perhaps again."""
        query = self._queries.get(message.request)
        if query is None:
            return
        self._trace.mark("query sent again", query.is_sent)
        query.sequence = (
            min(query.sequence, message.sequence) if query.is_sent else message.sequence
        )
        query.is_sent = True

    def check_results(self, message: Results) -> None:
        """A reply arrived, and was not looked at by the session yet."""
        if (message.session, message.first_sequence) not in self._around.asked:
            raise violated("I17", "a reply to what nobody asked", reply=message)
        answered = self._outbox.last_answered if message.session == self._session.session else 0
        last = message.first_sequence + message.count - 1
        if last <= answered:
            self._trace.mark("reply heard twice")
        elif message.first_sequence > answered + 1:
            self._trace.mark("reply heard early")
        elif message.first_sequence <= answered:
            self._trace.mark("reply overlaps what was heard")
        who = f"client {self._number}"
        self._around.checker.reply(who, message.session, message.first_sequence, message, answered)

    def query_answered(self, message: QueryResult) -> None:
        """The answer to a query arrived; the first one counts."""
        query = self._queries.get(message.request)
        if query is None:
            self._trace.mark("answer to a query that nobody waits for")
        elif not query.operation.index:
            query.operation.index = message.index

    def complete(self, *, is_given_up: bool = False) -> None:
        """Results that callers receive now, in that order.

        is_given_up: some hear that their time is over, and why nothing was answered; and what
        waited behind them completes.
        """
        for finished in self._session.take_finished():
            future, value, failed = finished.future, finished.value, finished.failed
            if isinstance(future, _Query):
                if self._queries.pop(future.request, None) is not None:
                    self._query_done(future, value, failed=failed)
            elif isinstance(future, _Commands):
                self._calls.remove(future)
                if is_given_up and failed and not isinstance(value, ApplicationError):
                    self._given_up(future, value)
                else:
                    self._commands_done(future.operations, value, failed=failed)

    def _given_up(self, commands: _Commands, error: CopycatError) -> None:
        """A caller that learns that nothing was sent can safely ask again."""
        commands.is_given_up = True
        self._trace.mark(f"gave up: {error.code}")
        unsent = sum(one is commands for one, _ in self._unsent)
        if error.outcome_unknown == (unsent == len(commands.operations)):
            raise violated(
                "I18",
                "a caller hears of an outcome that is not so",
                error=error,
                unsent=unsent,
                of=len(commands.operations),
            )

    def _query_done(self, query: _Query, value: Any, *, failed: bool) -> None:
        operation = query.operation
        if failed:
            operation.index = 0
            self._trace.mark(f"query failed: {value.code}")
            return
        operation.result, operation.returned_us = value, self._world.now_us
        self._around.checker.query_answered(operation, query.session, query.sequence, query.seen)
        if query.level is ConsistencyLevel.LINEARIZABLE:
            self._trace.mark("query answered")
            self._around.history.append(operation)
        else:
            self._trace.mark("sequential answered")

    def _commands_done(self, operations: list[Operation], value: Any, *, failed: bool) -> None:
        if isinstance(value, SessionExpiredError | ClosedSessionError):
            return  # their outcome is unknown, and they are never asked again
        if failed:
            results = getattr(value, "results", [value])
        else:
            results = value if isinstance(value, list) else [value]
        for operation, result in zip(operations, results, strict=True):
            self._check_heard(operation, result)
            operation.result, operation.returned_us = result, self._world.now_us

    def _check_heard(self, operation: Operation, result: object) -> None:
        """I18: a caller receives the result of its own command, and never another's."""
        effect = self._around.checker.effects.get((self._session.session, operation.number))
        if effect is None or (
            not isinstance(result, CopycatError)
            if effect.result is FAILED
            else result != effect.result
        ):
            raise violated(
                "I18",
                "a caller hears what its command did not come to",
                client=self._number,
                operation=operation.summary(),
                heard=result,
                effect=effect,
            )
