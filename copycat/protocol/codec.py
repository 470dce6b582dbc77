"""Every message as bytes and back: the one place to import encoders and decoders from.

Whatever the bytes are, a decoder answers with a value or raises ProtocolError (F20, F28).
"""

from __future__ import annotations

from copycat.protocol.codec_client import (
    RUN_MAX,
    decode_client,
    decode_commands,
    decode_results_frame,
    decode_server,
    encode_client,
    encode_commands,
    encode_server,
    split_operations,
)
from copycat.protocol.codec_peer import (
    decode_append,
    decode_forward,
    decode_hello,
    decode_hello_refused,
    decode_install,
    decode_peer,
    decode_return,
    encode_append,
    encode_forward,
    encode_hello,
    encode_hello_refused,
    encode_install,
    encode_peer,
    encode_return,
)
from copycat.protocol.wire import CLIENT_TYPES, PEER_TYPES, SERVER_TYPES, FrameType

__all__ = [
    "CLIENT_TYPES",
    "PEER_TYPES",
    "RUN_MAX",
    "SERVER_TYPES",
    "FrameType",
    "decode_append",
    "decode_client",
    "decode_commands",
    "decode_forward",
    "decode_hello",
    "decode_hello_refused",
    "decode_install",
    "decode_peer",
    "decode_results_frame",
    "decode_return",
    "decode_server",
    "encode_append",
    "encode_client",
    "encode_commands",
    "encode_forward",
    "encode_hello",
    "encode_hello_refused",
    "encode_install",
    "encode_peer",
    "encode_return",
    "encode_server",
    "split_operations",
]
