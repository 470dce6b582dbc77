"""`copycat log verify` and `copycat log show`: offline and read-only."""

from __future__ import annotations

import json
from itertools import islice

from copycat.log.inspect import StoredEntry, VerifyReport, entries, segments
from copycat.log.inspect import verify as verify_log
from copycat.types import EntryKind

__all__ = ["run_show", "run_verify"]

_PAYLOAD_SHOWN = 48
_KINDS = {kind.value: kind.name.lower() for kind in EntryKind}


def run_verify(directory: str, *, as_json: bool) -> int:
    """Print the report; 0 when nothing that was durable is unreadable, else 4."""
    report = verify_log(directory)
    print(_report_as_json(report) if as_json else _report_as_text(directory, report))
    return 0 if report.ok else 4


def _report_as_json(report: VerifyReport) -> str:
    damage = [one._asdict() for one in report.damage]
    return json.dumps({"schema": 1, **report._asdict(), "ok": report.ok, "damage": damage})


def _report_as_text(directory: str, report: VerifyReport) -> str:
    rows = [f"{'SEGMENT':<16}{'INDEXES':<28}STATE"]
    if report.ok:
        for row in segments(directory):
            last = row.last_index if row.sealed else report.last_index
            indexes = f"{row.first_index:,} to {last:,}"
            rows.append(f"{row.name:<16}{indexes:<28}{'sealed' if row.sealed else 'tail'}")
    rows.append(
        f"{report.path}: entries {report.first_index:,} to {report.last_index:,}, last term"
        f" {report.last_term}, {report.nbytes / (1 << 20):,.1f} MiB in {report.segments}"
        " segment(s)"
    )
    if report.torn_bytes:
        rows.append(
            f"{report.torn_bytes} bytes behind the last entry are torn: they were never"
            " acknowledged, and the next start drops them"
        )
    rows += [
        f"error[corrupt-log]: entry {one.index} at byte {one.offset} of {one.path}: {one.what}"
        for one in report.damage
    ]
    if report.ok:
        rows.append("every frame's checksum fits")
    return "\n".join(rows)


def run_show(directory: str, first: int, count: int, *, as_json: bool) -> int:
    """Print `count` entries from `first` on."""
    for entry in islice(entries(directory, first), count):
        print(_entry_as_json(entry) if as_json else _entry_as_text(entry))
    return 0


def _entry_as_json(entry: StoredEntry) -> str:
    return json.dumps(
        {
            "index": entry.index,
            "term": entry.term,
            "kind": _kind(entry.kind),
            "time_ms": entry.time_ms,
            "crc": entry.crc,
            "payload": entry.payload.hex(),
        }
    )


def _entry_as_text(entry: StoredEntry) -> str:
    payload = entry.payload
    shown = repr(bytes(payload[:_PAYLOAD_SHOWN]))[1:]
    more = "…" if len(payload) > _PAYLOAD_SHOWN else ""
    return (
        f"{entry.index:>10}  term {entry.term:<5} {_kind(entry.kind):<13} {entry.time_ms:>14} ms"
        f"  {len(payload):>8} B  {shown}{more}"
    )


def _kind(kind: int) -> str:
    return _KINDS.get(kind, f"kind {kind}")
