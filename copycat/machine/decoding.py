"""Reading the commands of a log without applying them: for tools that show a log."""

from __future__ import annotations

from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.operations import Command

__all__ = ["CommandReader"]


class CommandReader(SessionExecutor):
    """Decodes what the machine's own executor would; never applies it."""

    def decode(self, operation: bytes | memoryview) -> Command[object]:
        """The command in the bytes behind an entry's envelope, where `stand_in_of` sees none.

        MachineMismatchError when the machine cannot read it.
        """
        command: Command[object] = self.commands.read(bytes(operation))
        return command
