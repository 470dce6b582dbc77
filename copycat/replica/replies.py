"""Answers to clients: each leaves by the connection, or by the link, that its request came by."""

from __future__ import annotations

from copycat.protocol.client import ServerMessage
from copycat.protocol.codec_client import encode_server
from copycat.protocol.codec_peer import encode_return
from copycat.replica.host import Host
from copycat.replica.session_index import Route

__all__ = ["Replies"]


class Replies:
    """Knows the host only, so all who answer clients can be given it when they are built."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def send(self, route: Route, message: ServerMessage) -> None:
        """Send an answer to where the request came from."""
        frame = encode_server(message)
        if route.peer:
            # Lost when the link is down: the member that forwarded the request tells its client.
            self._host.send(route.peer, encode_return(route.token, frame), None)
        else:
            self._host.reply(route.token, frame)
