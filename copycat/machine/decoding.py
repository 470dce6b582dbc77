"""Reading the commands of a log without applying them: for tools that show a log."""

from __future__ import annotations

import msgspec

from copycat.errors import SerializationError
from copycat.machine.executor import Executor
from copycat.protocol.operations import Command

__all__ = ["CommandReader"]


class CommandReader(Executor):
    """Decodes what the machine's own executor would; never applies it."""

    def decode(self, operation: bytes | memoryview) -> Command[object]:
        """The command in the bytes behind an entry's envelope. SerializationError."""
        try:
            command: Command[object] = self.performer.decode(bytes(operation))
        except msgspec.MsgspecError as error:
            machine = type(self.machine).__name__
            raise SerializationError(f"no command of {machine}: {error}") from error
        return command
