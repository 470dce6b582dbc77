"""Queries: answered from the state as it is, between two slices of entries."""

from __future__ import annotations

from copycat.machine.apply_result import MachineQuery, QueryAnswer
from copycat.machine.context import ApplyContext
from copycat.machine.handlers import Handlers
from copycat.machine.sessions import SessionTable
from copycat.machine.user_code import UserCode, result_of_query
from copycat.protocol.operations import Query
from copycat.protocol.results import encode_result

__all__ = ["QueryExecutor"]


class QueryExecutor:
    """Calls the machine's query handlers; nothing can be scheduled or released in them."""

    def __init__(
        self,
        handlers: Handlers,
        apply_context: ApplyContext,
        sessions: SessionTable,
        user: UserCode,
    ) -> None:
        self._user = user
        self._handlers = handlers
        self._apply_context = apply_context
        self._sessions = sessions
        self._queries = handlers.reader(Query)

    def answer(self, queries: list[MachineQuery]) -> list[QueryAnswer]:
        """One answer each, at the index of the newest entry applied."""
        try:
            return [self._answer(query) for query in queries]
        finally:
            self._apply_context.session = self._apply_context.operation = None

    def _answer(self, query: MachineQuery) -> QueryAnswer:
        index = self._apply_context.index
        record = self._sessions.get(query.session)
        if record is None:
            return QueryAnswer(query.token, index, True, b"")
        try:
            operation = self._queries.read(query.operation)
            self._apply_context.session, self._apply_context.operation = (
                record.server_session,
                operation,
            )
            handler, arguments, _ = self._handlers.table[type(operation)]
            body = encode_result(handler(*arguments(operation)), operation)
        except BaseException as error:  # noqa: BLE001  (its result: it changed nothing)
            self._user.reraise_signal(error)
            self._user.log_once(error)
            body = encode_result(result_of_query(error))
        return QueryAnswer(query.token, index, False, body)
