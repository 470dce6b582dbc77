"""Calls the machine for each command of a run, and encodes the results."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from copycat.machine.context import ApplyContext
from copycat.machine.handlers import Handlers
from copycat.machine.keys import KeyTable
from copycat.machine.reading import OperationReader
from copycat.machine.sessions import ServerSession
from copycat.machine.user_code import UserCode
from copycat.protocol.results import PLAIN, encode_pieces, freeze

__all__ = ["Performer"]


class Performer:
    """The commands of one machine. Sessions and duplicates were looked at before."""

    def __init__(
        self,
        handlers: Handlers,
        commands: OperationReader,
        keys: KeyTable,
        apply_context: ApplyContext,
        user: UserCode,
    ) -> None:
        self._handlers = handlers
        self._keys = keys
        self._apply_context = apply_context
        self._user = user
        self._commands = commands

    def perform(
        self, session: ServerSession, index: int, payloads: list[bytes]
    ) -> Iterable[tuple[int, bytes]]:
        """Call the machine for each command; their results as (count, array), in one piece
        unless they are large. The hot loop.

        MachineMismatchError when it cannot read one of them: then it is called for none.
        """
        user = self._user
        if user.skips:
            return encode_pieces([user.skipped() for _ in payloads])
        decode = self._commands.decode
        try:
            # Not map(): a StopIteration of the field's own code would end the list.
            operations = [decode(payload) for payload in payloads]
        except BaseException:  # noqa: BLE001  (a field's own code may raise anything)
            operations = [self._read(payload, at) for at, payload in enumerate(payloads, index)]
        apply_context, table, plain = self._apply_context, self._handlers.table, PLAIN
        apply_context.session, session_id, perform = session, session.id, self._keys.perform
        results: list[Any] = []
        for operation in operations:
            apply_context.index = index
            apply_context.operation = operation
            row: Any = table[type(operation)]
            handler, arguments, keyed = row
            try:
                if keyed is None:
                    result = handler(*arguments(operation))
                else:
                    result = perform(index, session_id, operation, row)
                if type(result) not in plain:
                    result = freeze(result, operation)
            except BaseException as error:  # noqa: BLE001  (a result like any other, F23)
                user.index = index
                result = user.result(error)
            index += 1
            results.append(result)
        return encode_pieces(results, operations)

    def check(self, index: int, payloads: list[bytes], skips: Collection[int]) -> None:
        """What `perform` raises before it calls the machine; not for entries of `skips`."""
        decode = self._commands.decode
        try:
            for payload in payloads:
                decode(payload)
        except BaseException:  # noqa: BLE001  (a field's own code may raise anything)
            for at, payload in enumerate(payloads, index):
                if at not in skips:
                    self._read(payload, at)

    def _read(self, payload: bytes, index: int) -> Any:
        try:
            return self._commands.read(payload, index)
        except (MemoryError, KeyboardInterrupt) as error:
            self._user.index = index
            self._user.result(error)  # or it leaves: memory was short, or a signal came
            raise self._commands.mismatch(payload, error, index) from error
