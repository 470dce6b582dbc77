"""Asks any member about the members of its cluster, over the network and without a session.

Each request is sent to one of the addresses, and that member passes it on to its leader. A request
whose answer was lost is sent again to the next address: what holds already is success. Only a
transfer of leadership is not, since leadership would go on to a third member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import count

import msgspec

from copycat.client.connection import Connection
from copycat.errors import CopycatError, NoLeaderError, ProtocolError
from copycat.protocol.change_errors import view_or_error
from copycat.protocol.client import (
    ClusterRequest,
    ClusterView,
    Failure,
    Refusal,
    TransferRequest,
    ViewRequest,
)
from copycat.protocol.codec_client import decode_server, encode_client
from copycat.protocol.framing import Frame

__all__ = ["ClusterConnection"]

SILENCE_S = 5.0
"""A member that does not answer anything for so long is given up: the next address is asked."""
_SILENT = "start one of them, or give the address of a member that runs"
CHECK_S = 1.0
"""So often a member that has not answered yet is asked for a view, which shows that it lives."""
ELSEWHERE = frozenset({Refusal.NO_LEADER, Refusal.ILLEGAL_MEMBER_STATE, Refusal.SERVER_FULL})
"""Another member may serve what this one refuses so."""


class _NotSentError(ConnectionError):
    """No connection was made, so the request was not sent. Only this module knows it."""


class ClusterConnection:
    """Asks the members at `addresses`, one after the other, until one has answered. One request
    is asked at a time: the next one may close the connection on which the first one waits.

    cluster_name: members of another cluster refuse; empty for any.
    """

    def __init__(self, addresses: Sequence[str], *, cluster_name: str = "") -> None:
        self._addresses = list(dict.fromkeys(addresses))
        self._cluster_name = cluster_name
        self._numbers = count(1)
        self._connection: Connection | None = None
        self._answers: dict[int, asyncio.Future[ClusterView | CopycatError]] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Who is asked, the next one first."""
        return tuple(self._addresses)

    def learn(self, addresses: Sequence[str]) -> None:
        """Ask these too, after those that are known."""
        self._addresses = list(dict.fromkeys([*self._addresses, *addresses]))

    async def ask(self, message: ClusterRequest) -> ClusterView:
        """The answer to one request, from whichever member gives one; from one that knows a
        leader, if there is such a one.

        Raises the error that the cluster answers; NoLeaderError with one line for each address
        when nobody serves it now.
        """
        reasons: dict[str, str] = {}
        failure: CopycatError | None = None
        leaderless: ClusterView | None = None
        for address in self.addresses:
            was_sent = True
            try:
                answer = await self._ask_at(address, message)
            except (OSError, ProtocolError) as error:
                reasons[address] = str(error) or type(error).__name__
                was_sent = not isinstance(error, _NotSentError)
            else:
                if isinstance(answer, ClusterView):
                    self.learn([one.address for one in answer.members])
                    if answer.leader:
                        return answer
                    leaderless = leaderless or answer
                elif answer.refusal in ELSEWHERE:
                    reasons[address], failure = answer.message, failure or answer
                else:
                    raise answer
            self._addresses.append(self._addresses.pop(0))
            if was_sent and isinstance(message, TransferRequest):
                break  # it may be done all the same: whoever asks looks first who leads now
        if leaderless is not None:
            return leaderless
        lines = "\n".join(f"{address}: {reason}" for address, reason in reasons.items())
        if isinstance(failure, NoLeaderError) and len(reasons) == 1:
            raise failure
        if failure is not None:
            raise NoLeaderError(f"no member knows a leader at {', '.join(reasons)}", state=lines)
        raise NoLeaderError(
            f"no member answers at {', '.join(reasons)}", state=lines, hint=_SILENT
        )

    async def look(self) -> ClusterView:
        """The cluster, asked on a connection of its own: a request that waits on this one for its
        answer is not disturbed."""
        other = ClusterConnection(self._addresses, cluster_name=self._cluster_name)
        try:
            return await other.ask(ViewRequest(0))
        finally:
            other.close()

    async def ask_at(self, address: str) -> ClusterView:
        """How the member at `address` is, as it says itself. OSError: it does not answer."""
        here = ClusterConnection([address], cluster_name=self._cluster_name)
        try:
            answer = await here._ask_at(address, ViewRequest(0, is_local=True))
        finally:
            here.close()
        if isinstance(answer, CopycatError):
            raise answer
        return answer

    async def _ask_at(self, address: str, message: ClusterRequest) -> ClusterView | CopycatError:
        """What the member answers, which may be an error; raises when it answers nothing. An error
        of the cluster may be an OSError too."""
        try:
            connection = await self._connected(address)
        except OSError as error:
            raise _NotSentError(str(error) or type(error).__name__) from error
        answer = self._send(connection, message)
        while not answer.done():
            await asyncio.wait({answer}, timeout=CHECK_S)
            if answer.done():
                break
            check = self._send(connection, ViewRequest(0, is_local=True))
            await asyncio.wait({answer, check}, timeout=SILENCE_S, return_when="FIRST_COMPLETED")
            if not answer.done() and not check.done():
                connection.close(f"it did not answer for {SILENCE_S:g} s")
                raise ConnectionError(connection.reason)
        return answer.result()

    def _send(
        self, connection: Connection, message: ClusterRequest
    ) -> asyncio.Future[ClusterView | CopycatError]:
        number = next(self._numbers)
        message = msgspec.structs.replace(message, request=number, cluster=self._cluster_name)
        answer: asyncio.Future[ClusterView | CopycatError]
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        connection.write([encode_client(message)])
        return answer

    async def _connected(self, address: str) -> Connection:
        connection = self._connection
        if connection is not None:
            if connection.address == address and not connection.lost.done():
                return connection
            connection.close("another member is asked")
        # Without a time limit here: each step of a dial has its own, and tries every address.
        connection = await Connection.open(address, self._received, _ignore)
        connection.lost.add_done_callback(partial(self._lost, connection))
        self._connection = connection
        return connection

    def _received(self, frames: list[Frame]) -> None:
        for frame in frames:
            message = decode_server(frame)
            request: int = getattr(message, "request", 0)
            if isinstance(message, Failure) and not request:
                self._fail_all(view_or_error(message))
                continue
            answer = self._answers.pop(request, None)
            if answer is not None and not answer.done():
                answer.set_result(view_or_error(message))

    def _fail_all(self, error: ClusterView | CopycatError) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_result(error)

    def _lost(self, connection: Connection, _: object) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError(connection.reason))
                answer.exception()  # retrieved here, in case nobody waits any more

    def close(self) -> None:
        """Close the connection; what was asked and not answered may be done all the same."""
        if self._connection is not None:
            self._connection.close("it was closed")
            self._connection = None


def _ignore() -> None:
    """A socket that was full takes bytes again: requests are small, and none waits for that."""
