"""The frames of a fed batch on the link: as they lie in the log, or compressed by LZ4."""

from __future__ import annotations

import lz4.block

from copycat.errors import ProtocolError
from copycat.storage.interface import Batch

__all__ = ["RAW_NBYTES_MAX", "compressed", "frames_of"]

RAW_NBYTES_MAX = 64 << 20
"""Compressed frames that say that they are larger are refused."""


def compressed(batch: Batch) -> bytes | None:
    """The frames by LZ4; None when that is not shorter."""
    data: bytes = lz4.block.compress(memoryview(batch), store_size=False)
    return data if len(data) < batch.nbytes else None


def frames_of(body: memoryview, raw_nbytes: int) -> memoryview:
    """The frames that arrived, not verified. ProtocolError when they cannot be restored."""
    if not raw_nbytes:
        return body
    if raw_nbytes <= RAW_NBYTES_MAX:
        try:
            frames: bytes = lz4.block.decompress(body, uncompressed_size=raw_nbytes)
        except lz4.block.LZ4BlockError:
            frames = b""
        if len(frames) == raw_nbytes:
            return memoryview(frames)
    raise ProtocolError(f"{len(body)} compressed bytes are no {raw_nbytes} bytes of frames")
