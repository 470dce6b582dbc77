"""Accepts connections on the one port for members and clients, and gives frames to the replica.

The first frame of a connection says whether a member or a client has connected. A connection that
breaks the protocol is closed and the reason is logged; no other connection is affected (F20, F21).
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import cast

from copycat.config import Address
from copycat.errors import ProtocolError
from copycat.net import WriteBuffer, escaped, serve, unacknowledged, watch_socket
from copycat.protocol.client import Commands, CommandsRefused, Failure, Refusal
from copycat.protocol.codec_client import decode_client, encode_server
from copycat.protocol.framing import CLIENT_LIMIT, PEER_LIMIT, Frame, FrameBuffer
from copycat.protocol.wire import CLIENT_TYPES, FrameType, unknown_frame
from copycat.replica.host import REPLY_ROOM
from copycat.replica.members import PeerRefused
from copycat.replica.replica import Replica
from copycat.server.host import AsyncHost
from copycat.server.progress_timeout import ProgressTimeout
from copycat.server.refusal_log import RefusalLog
from copycat.types import MemberId

__all__ = ["HANDSHAKE_S", "Listener"]

HANDSHAKE_S = 5.0
"""Within so many seconds the first frame of a connection must arrive."""
PROGRESS_TIMEOUT_SHARE = 3 / 4
"""After this share of its session's timeout, a connection on which a client neither sends nor
reads is closed. The check may come one interval late, which is still within the timeout."""
CHECKS_PER_TIMEOUT = 8
"""How often each client is checked within one session timeout."""
LINGER_S = 1.0
"""How long a connection stays open after the frame that refuses it, so that the frame arrives."""

TOO_MANY = "too-many"
SILENT = "silent"
FILES_RESERVED = 32
"""File descriptors that connections leave free: a log that cannot open its next file stops
(F29)."""
UNIDENTIFIED_RESERVED = 96
"""Connections that clients leave free: for peers, and for connections without a first frame
yet."""


class Listener:
    """The listening socket, and the connections that it accepted.

    max_entry_size: in bytes. session_timeout: seconds without progress after which a
    client is disconnected, when its session has no longer timeout. peer_dialled: called with
    each member that connects.
    """

    def __init__(
        self,
        host: AsyncHost,
        *,
        max_entry_size: int,
        session_timeout: float,
        peer_dialled: Callable[[MemberId], None],
    ) -> None:
        self.host = host
        self.session_timeout = session_timeout
        self.client_limit = CLIENT_LIMIT + max_entry_size
        self.peer_dialled = peer_dialled
        self.replica: Replica | None = None
        """None until the member is started: every connection is refused before that."""
        # A leader may answer a forwarded request after this member was restarted. If tokens were
        # used again, a new client would get the answer of an old one.
        self.tokens = itertools.count(secrets.randbits(62))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.connections_max = max(FILES_RESERVED, files - FILES_RESERVED)
        self.clients_max = max(1, self.connections_max - UNIDENTIFIED_RESERVED)
        """F29: clients must not use up the file descriptors that the log and the peers need."""
        self.clients = 0
        self.inbounds: set[Inbound] = set()
        self.peers: dict[MemberId, Inbound] = {}
        self.closed = Counter[str]()
        """How many connections this member closed, by error code."""
        self.refusal_log = RefusalLog()
        self._server: asyncio.Server | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._check_due_s = 0.0
        self.is_closing = False

    async def start(self, bind: Address) -> Address:
        """Listen; returns the address with the port that the system chose for port 0.

        AddressInUseError; ConfigurationError for an address that is not one of this machine.
        """
        self._server = await serve(bind, partial(Inbound, self))
        self._schedule_check()
        port: int = self._server.sockets[0].getsockname()[1]
        return Address(bind.host, port)

    def _schedule_check(self) -> None:
        loop = asyncio.get_running_loop()
        self._check_due_s = loop.time() + self.session_timeout / CHECKS_PER_TIMEOUT
        self._check_timer = loop.call_at(self._check_due_s, self._check_clients)

    def _check_clients(self) -> None:
        """Close the connections of clients that are unreachable, silent, or do not read."""
        now = asyncio.get_running_loop().time()
        # While the loop was blocked, what clients sent could not be read: that time does not
        # count.
        late_s = now - self._check_due_s
        for inbound in list(self.inbounds):
            inbound.check_progress(now, late_s)
        self._schedule_check()

    async def close(self) -> None:
        """Stop listening, and close every connection; returns when all are closed."""
        self.is_closing = True
        if self._check_timer is not None:
            self._check_timer.cancel()
        if self._server is not None:
            # A connection that was just accepted gets its transport in the next pass of the loop.
            # CPython up to 3.12 leaks that socket if the server is closed before.
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
            await asyncio.sleep(0)
            self._server.close()
        inbounds = list(self.inbounds)
        for inbound in inbounds:
            inbound.abort()
        if inbounds:
            await asyncio.wait([inbound.lost for inbound in inbounds], timeout=1.0)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None


class Inbound(asyncio.BufferedProtocol):
    """One accepted connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._frames = FrameBuffer(listener.client_limit)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._who = "?"
        self._peer: MemberId | None = None
        self._connection = 0
        self._write_buffer: WriteBuffer | None = None
        self._progress_timeout = ProgressTimeout(asyncio.get_running_loop().time())
        self._limit_s = listener.session_timeout
        self._received = 0
        self._is_refused = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self, reason: str, *, code: str = ProtocolError.code) -> None:
        """Close this connection only; the reason is logged and counted."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if code:
            self._listener.closed[code] += 1
            refusal_log = self._listener.refusal_log
            refusal_log.record("closed the connection from", self._who, escaped(reason))
        transport.abort()

    def _refuse_request(self, frame: Frame, code: Refusal, reason: str, leader: str) -> None:
        """Answer a client's request with the reason why it is not served, and close."""
        message = decode_client(frame)
        if isinstance(message, Commands):
            refusal = CommandsRefused(message.session, message.first_sequence, code, leader)
            self._send_refusal(encode_server(refusal), code, reason)
        else:
            self._refuse(message.request, code, reason, leader)

    def _refuse(self, request: int, code: Refusal, reason: str, leader: str = "") -> None:
        self._send_refusal(encode_server(Failure(request, code, leader, reason)), code, reason)

    def _send_refusal(self, frame: bytes, code: Refusal, reason: str) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._is_refused = True
        if code is Refusal.SERVER_FULL:
            self._listener.closed[TOO_MANY] += 1
            self._listener.refusal_log.record("refused the client at", self._who, escaped(reason))
        transport.write(frame)
        transport.write_eof()
        if self._deadline is not None:
            self._deadline.cancel()
        # Closing at once could reset the connection before the client has read the answer.
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def check_progress(self, now_s: float, late_s: float) -> None:
        """Close the connection of a client that has read nothing, or sent nothing, for too long.

        late_s: how long the event loop was blocked before this check.
        """
        write_buffer, transport, replica = (
            self._write_buffer,
            self._transport,
            self._listener.replica,
        )
        if write_buffer is None or transport is None or replica is None:
            return
        limit_s = max(
            self._listener.session_timeout, replica.client_timeout_ms(self._connection) / 1000
        )
        if limit_s != self._limit_s:
            self._limit_s = limit_s
            watch_socket(transport, limit_s)
        self._progress_timeout.extend(late_s)
        unsent = unacknowledged(transport)
        reason = self._progress_timeout.reason_to_close(
            now_s,
            PROGRESS_TIMEOUT_SHARE * limit_s,
            received=self._received,
            sent=write_buffer.written - unsent,
            unsent=unsent,
        )
        if reason:
            self.close(reason, code=SILENT)

    def abort(self) -> None:
        """Close at once; bytes that wait to be written are dropped."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have all of its methods.
        self._transport = transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._who = f"{name[0]}:{name[1]}" if name else "?"
        self._listener.inbounds.add(self)
        if self._listener.is_closing:
            self.abort()  # the connection was accepted in the same pass of the loop as the close
            return
        watch_socket(transport, self._limit_s)
        if len(self._listener.inbounds) > self._listener.connections_max:
            limit = self._listener.connections_max
            self._refuse(0, Refusal.SERVER_FULL, f"no room: {limit} connections are open")
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(
            HANDSHAKE_S, self.close, f"no first frame within {HANDSHAKE_S:g} s"
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        if self._is_refused:
            return  # bytes are read only because unread ones would reset the connection
        try:
            for frame in self._frames.buffer_updated(nbytes):
                self._receive(frame)
        except PeerRefused as refusal:
            if self._transport is not None:
                self._transport.write(refusal.frame)
                self._transport.close()  # after the frame that says why
            self._listener.closed[refusal.code] += 1
            refusal_log = self._listener.refusal_log
            refusal_log.record("refused the peer at", self._who, escaped(str(refusal)))
        except ProtocolError as error:
            self.close(str(error), code=error.code)

    def pause_writing(self) -> None:
        if self._transport is not None and self._connection:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and self._connection:
            self._transport.resume_reading()
            self._listener.host.check_write_buffers()

    def connection_lost(self, exc: Exception | None) -> None:
        listener = self._listener
        if isinstance(exc, TimeoutError):  # the kernel noticed it before `check_progress`
            listener.closed[SILENT] += 1
            reason = "it does not read or is unreachable: it acknowledged nothing for"
            reason += f" {self._limit_s:g} s"
            listener.refusal_log.record("lost the connection from", self._who, reason)
        listener.inbounds.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._peer is not None and listener.peers.get(self._peer) is self:
            del listener.peers[self._peer]
            listener.host.peer_disconnected(self._peer)
        if self._connection:
            listener.clients -= 1
            listener.host.client_disconnected(self._connection)
            if listener.replica is not None and not listener.host.is_stopped:
                listener.replica.client_disconnected(self._connection)
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)

    # --- frames -------------------------------------------------------------------------------

    def _receive(self, frame: Frame) -> None:
        replica = self._listener.replica
        if self._is_refused:
            return
        if self._listener.host.is_stopped or replica is None:
            if frame.type in CLIENT_TYPES:
                code = Refusal.ILLEGAL_MEMBER_STATE
                self._refuse_request(frame, code, "this member has not started yet", "")
            else:
                self.close("this member is not started", code="")
        elif self._peer is not None:
            replica.receive_peer(self._peer, frame)
        elif self._connection:
            replica.receive_client(self._connection, frame)
        elif frame.type == FrameType.HELLO:
            self._accept_peer(replica, frame)
        elif frame.type in CLIENT_TYPES:
            self._accept_client(replica, frame)
        else:
            raise unknown_frame(frame, "a peer's HELLO or a client's request")

    def _end_handshake(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _accept_peer(self, replica: Replica, frame: Frame) -> None:
        member, answer = replica.accept_peer(frame)
        self._end_handshake()
        self._peer = member
        self._frames.limit = PEER_LIMIT
        old = self._listener.peers.get(member)
        if old is not None:
            old.close("the peer dialled again", code="")
        self._listener.peers[member] = self
        self._listener.host.peer_connected(member, partial(self.close, code=""))
        if self._transport is not None:
            self._transport.write(answer)
        self._listener.peer_dialled(member)

    def _accept_client(self, replica: Replica, frame: Frame) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._listener.clients >= self._listener.clients_max:
            limit = self._listener.clients_max
            reason = f"no room: {limit} clients are connected, as many as this member takes"
            self._refuse_request(frame, Refusal.SERVER_FULL, reason, replica.status().leader)
            return
        self._listener.clients += 1
        self._end_handshake()
        # While a client does not read its replies, no further requests are read from it.
        transport.set_write_buffer_limits(high=REPLY_ROOM - 1)
        self._connection = next(self._listener.tokens)
        self._write_buffer = WriteBuffer(transport)
        self._listener.host.client_connected(self._connection, self._write_buffer, self.close)
        replica.receive_client(self._connection, frame)
