"""What is said between processes, and how it looks as bytes. Sans-IO: no sockets, no clock.

* `framing`: `Frame`, `FrameBuffer` (bytes in, frames out), `encode_frame`, `split_frame`.
* `peer`, `client`: the messages, as values.
* `wire`: `FrameType`. `codec_peer`: between members `encode_/decode_` `hello`,
  `hello_refused`, `append`, `peer` (all others), `forward`, `return`. `codec_client`: with
  clients `encode_client`/`decode_client`,
  `encode_server`/`decode_server`, and the hot `encode_commands`/`decode_commands`,
  `decode_results_frame`. Whatever the bytes are: a value, or ProtocolError.
* `operations`: `Operation`, `Command`, `Query`, `CompactionMode`, `encode_operation`.
* `results`: `decode_results(body, count, types)` and `decode_result(body, type)` at the client
  (exceptions come back as values); `freeze`, `encode_results`, `error_value` at the executor;
  `refusal_error` for a Refusal code.
"""

from __future__ import annotations

__all__: list[str] = []
