"""The protocol: what processes say to each other, as values and as bytes.

What it is for
--------------
Members talk to members, and clients to members, over TCP. This package defines every message,
the one way in which each is encoded, and how a stream of bytes is cut into frames. It is sans-IO:
it opens no socket and reads no clock, so server, client, simulator and tests share it.

Its objects
-----------
* `framing.py`: `Frame`, `FrameBuffer` (bytes in, whole frames out), `encode_frame`, `split_frame`.
* `wire.py`: `FrameType` with the sets of types that each side may send, and a strict `Reader`.
* `peer.py`: the messages between members; `codec_peer.py`: `encode_` and `decode_` with `hello`,
  `hello_refused`, `append`, `install`, `forward`, `return`, and `peer` for all others.
* `client.py`: the messages between clients and members; `codec_client.py`: `encode_client`,
  `decode_client`, `encode_server`, `decode_server`, and the frequent ones apart:
  `encode_commands`, `decode_commands`, `decode_results_frame`.
* `member_record.py`: who the members of a cluster are; `codec_configuration.py` gives it bytes,
  the same on the wire, in the log and in files.
* `operations.py`: `Operation`, `Command`, `Query`, `CompactionMode`, `encode_operation`. An
  operation is a MessagePack array that begins with its name.
* `results.py`: `encode_results`, `freeze` and `error_value` where a machine answers;
  `decode_results`, `decode_result` and `refusal_error` where a client hears of it. An exception
  travels as an extension value, so that a result is never mistaken for an error.
* `obstacles.py`: what in a value has no encoding, and the path to it, for error messages.

The loop that drives it
-----------------------
    memory = buffer.get_buffer(sizehint)           # the socket writes into the buffer's memory
    for frame in buffer.buffer_updated(nbytes):    # the frames that are whole now
        message = decode_client(frame)             # a value, or ProtocolError
    connection.write([encode_server(reply)])

A large frame is received into memory of its own size and is never copied again: the batch of an
append is verified in place. A frame whose header breaks the format ends the connection, for
nothing behind it can be trusted (F20).

What it promises
----------------
* Whatever the bytes are, a decoder returns a value or raises `ProtocolError`, and nothing else
  (F20, F28). A frame longer than its connection's limit is refused before memory is taken.
* Encoding is canonical: a value has one encoding, and the tests hold its golden bytes.
* An operation is checked by decoding what was encoded before it is sent, so a wrong type fails
  at its caller and never in the log.
* Members exchange the versions that they speak in HELLO, before anything else.

What it never does
------------------
It never decides: whether a message is welcome in this term, of this session or from this peer is
the business of `copycat.raft`, `copycat.machine` and `copycat.replica`. It never names the sender
of a peer's message: the link that the frame came by says so. It never skips bytes that it does
not understand: a body with bytes left over is refused.

Begin with `client.py` and `peer.py`; docs/reference/wire-format.md has the bytes.
"""

from __future__ import annotations

__all__: list[str] = []
