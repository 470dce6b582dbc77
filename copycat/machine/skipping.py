"""Cuts runs so that an entry whose code the operator had left out stands alone (decision 0022)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from copycat.types import EntryKind, Run

__all__ = ["cut_at"]


def cut_at(run: Run, skips: AbstractSet[int]) -> list[Run]:
    """The same entries; each one of `skips` in a run of its own."""
    if run.kind != EntryKind.COMMAND or not any(run.first_index <= at < run.end for at in skips):
        return [run]
    pieces: list[Run] = []
    begin, first = 0, run.first_index
    for offset in range(len(run.payloads) + 1):
        at_end = offset == len(run.payloads)
        if at_end or first + offset in skips or first + offset - 1 in skips:
            if offset > begin:
                pieces.append(
                    run._replace(
                        first_index=first + begin,
                        first_sequence=run.first_sequence + begin,
                        acked=run.acked if at_end else 0,  # the last entry says it
                        payloads=run.payloads[begin:offset],
                    )
                )
            begin = offset
    return pieces
