"""A cleaned log made by hand, byte by byte, from what docs/reference/disk-format.md says."""

from __future__ import annotations

import struct
from collections.abc import Collection

from copycat.storage import disk_format
from copycat.storage._native import Env, crc32c
from copycat.storage.disk_format import FRAME, SegmentInfo
from copycat.storage.reader import StoredEntry, entries, segments

__all__ = ["clean_by_hand", "gap_frame"]

_ROW = disk_format._ROW


def gap_frame(first: int, end: int, term: int, *, valid_from: int, time_ms: int = 7) -> bytes:
    body = struct.pack("<QQ", end, valid_from)
    head = FRAME.pack(0, len(body), first, term, time_ms & 0xFFFF, time_ms >> 16, 15, 0)
    return struct.pack("<I", crc32c(head[4:] + body)) + head[4:] + body


def clean_by_hand(
    env: Env,
    directory: str,
    position: int,
    keep: Collection[int],
    *,
    valid_from: int,
    row_valid_from: int | None = None,
) -> SegmentInfo:
    """Rewrite the segment at `position` of the manifest: only `keep` stays, gaps for the rest.

    The file gets the next version, with one mark and without an index; the manifest names it.
    told_valid_from: what the manifest says, if not the truth.
    """
    row = segments(directory, env=env)[position]
    stored = [e for e in entries(directory, env=env) if row.first_index <= e.index]
    stored = [e for e in stored if e.index <= row.last_index]
    frames = _records(stored, keep, valid_from)
    body = _mark(row, frames) + b"".join(frames)
    newer = row._replace(
        version=row.version + 1,
        end_offset=4096 + len(body),
        valid_from=valid_from if row_valid_from is None else row_valid_from,
    )
    header = bytearray(env.read_file(f"{directory}/{row.name}")[:4096])
    struct.pack_into("<I", header, 40, newer.version)
    struct.pack_into("<I", header, 12, crc32c(header[16:64]))
    env.create(f"{directory}/{newer.name}").write(0, bytes(header) + body)
    manifest = bytearray(env.read_file(f"{directory}/manifest"))
    _ROW.pack_into(
        manifest,
        40 + position * _ROW.size,
        newer.uuid,
        newer.id,
        newer.version,
        1,
        *newer[4:9],
    )
    struct.pack_into("<I", manifest, 12, crc32c(manifest[16:]))
    env.replace_file(f"{directory}/manifest", bytes(manifest))
    env.remove(f"{directory}/{row.name}")
    return newer


def _mark(row: SegmentInfo, frames: list[bytes]) -> bytes:
    """What says of all frames that they were written together."""
    size = sum(map(len, frames))
    sums = crc32c(b"".join(frame[:4] for frame in frames))
    rest = struct.pack("<IQQIHBB", size, row.first_index, row.first_index - 1, sums, 0, 14, 0)
    crc = crc32c(rest + row.uuid + (4096).to_bytes(8, "little"))
    return crc.to_bytes(4, "little") + rest


def _records(stored: list[StoredEntry], keep: Collection[int], valid_from: int) -> list[bytes]:
    """Frames and gaps that tile the segment; one term a gap (C3)."""
    frames: list[bytes] = []
    gap: list[StoredEntry] = []

    def close_gap() -> None:
        if gap:
            first, last = gap[0], gap[-1]
            frames.append(
                gap_frame(
                    first.index,
                    last.index + 1,
                    last.term,
                    valid_from=valid_from,
                    time_ms=last.time_ms,
                )
            )
            gap.clear()

    for entry in stored:
        if entry.index in keep:
            close_gap()
            frames.append(entry.frame + bytes(-len(entry.frame) % 8))
            continue
        if gap and gap[-1].term != entry.term:
            close_gap()
        gap.append(entry)
    close_gap()
    return frames
