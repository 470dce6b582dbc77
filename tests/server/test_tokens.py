"""Names of connections are never used again, not after a restart either.

A client's REGISTER goes through follower F to the leader; F dies and is back before the leader
answers; the first client of the new F would take the answer, and the session, for its own.
"""

from __future__ import annotations

from typing import cast

from copycat.protocol.client import Registered
from copycat.protocol.codec_client import encode_server
from copycat.protocol.codec_peer import decode_return, encode_return
from copycat.protocol.framing import split_frame
from copycat.server.host import AsyncHost
from copycat.server.listener import Listener


def listener() -> Listener:
    host = cast("AsyncHost", None)
    return Listener(host, max_entry_size=1, session_timeout=1.0, peer_dialled=lambda _: None)


def test_tokens_of_two_lives_do_not_meet() -> None:
    first = [next(each.tokens) for each in (listener() for _ in range(50))]
    assert len(set(first)) == 50
    assert min(abs(a - b) for a in first for b in first if a != b) > 1 << 20


def test_a_token_fits_its_frame() -> None:
    token = (1 << 62) + (1 << 40)
    answer = encode_server(Registered(1, 5, 100, "", ()))
    assert decode_return(split_frame(encode_return(token, answer)))[0] == token
