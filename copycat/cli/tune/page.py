"""The page of a tuning: one HTML file with its plots inside; nothing is fetched from anywhere."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from copycat.cli.tune.choose import Choice, Measurement, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["page", "plots"]

_TITLES = {
    "batch": (
        "Entries per append",
        "The entries of an append share one sync; a larger append takes a little longer.",
    ),
    "segment": (
        "Segment size",
        "Each new segment costs a file and a manifest; a large segment opens more slowly.",
    ),
    "durability": (
        "Durability",
        "Only fsync loses nothing that was acknowledged; the others show what fsync costs.",
    ),
    "threshold": (
        "Compaction threshold",
        "With a low threshold segments are rewritten sooner: less space, more bytes written.",
    ),
    "churn": (
        "Segment size when entries are released",
        "What compactions write and keep, by segment size.",
    ),
}
_CLEANED = ("threshold", "churn")
"""Sweeps of a log that is cleaned: their plots are of amplification."""
_LOGARITHMIC = 12
"""From this ratio of the largest to the smallest on, an axis is logarithmic."""
_LINE = "#33658a"
_CHOSEN = "#d1495b"
_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; background: #f5f6f8; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; margin: 1.2rem 0;
  padding: 1rem 1.4rem; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: .2rem 0; font-size: 1.15rem; }
p { margin: .3rem 0 .8rem; } .facts { color: #5b6876; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #eceff2; }
th:first-child, td:first-child { text-align: left; } th { color: #5b6876; font-weight: 600; }
tr.chosen td { color: #d1495b; font-weight: 600; }
pre { background: #f0f2f5; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
svg { width: 100%; height: auto; }
"""


def page(
    measurements: Sequence[Measurement],
    choice: Choice,
    *,
    facts: dict[str, Any],
    snippets: Sequence[str],
) -> str:
    """The whole page. Needs matplotlib."""
    pictures = plots(measurements, choice)
    facts_text = " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in choice.reasons)
    code = "".join(f"<pre>{html.escape(text.strip())}</pre>" for text in snippets)
    sections = "".join(
        f"<section><h2>{html.escape(_TITLES[sweep][0])}</h2>"
        f"<p>{html.escape(_TITLES[sweep][1])}</p>{picture}{_table(measurements, sweep, choice)}"
        "</section>"
        for sweep, picture in pictures.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>copycat tune</title><style>{_CSS}</style></head><body><main>"
        f'<h1>copycat tune</h1><p class="facts">{html.escape(facts_text)}</p>'
        f"<section><h2>Settings for this disk</h2><ul>{reasons}</ul>{code}</section>"
        f"<section><h2>How to read the plots</h2>{_legend(measurements)}</section>"
        f"{sections}</main></body></html>\n"
    )


def _legend(measurements: Sequence[Measurement]) -> str:
    runs = max((one.runs for one in measurements), default=0)
    return (
        f"<p>A bar or a dot is the median of {runs} runs of one setting, and the whisker on it"
        " reaches from the least to the most of them. Where the whiskers of two settings"
        " overlap, their difference is within the noise of this disk, and the default stays."
        f' <b style="color:{_CHOSEN}">Red</b> is the setting that was chosen,'
        f' <b style="color:{_LINE}">blue</b> are the others. Bars begin at zero; where the'
        " largest value is many times the smallest, dots stand on a logarithmic axis.</p>"
    )


def plots(measurements: Sequence[Measurement], choice: Choice) -> dict[str, str]:
    """An SVG for each sweep that was run, in the order of the page."""
    images = {}
    for sweep in _TITLES:
        rows = [one for one in measurements if one.sweep == sweep]
        if rows:
            images[sweep] = _svg(_figure(sweep, rows, _chosen(sweep, choice)), sweep)
    return images


def _chosen(sweep: str, choice: Choice) -> float | str | None:
    return {
        "batch": choice.batch,
        "segment": choice.max_segment_size,
        "durability": "fsync",
        "threshold": choice.compaction_threshold,
    }.get(sweep)


def _figure(sweep: str, rows: Sequence[Measurement], chosen: float | str | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    marks = [row.value == chosen for row in rows]
    if sweep in _CLEANED:
        _draw(left, rows, "write_amplification", marks, "bytes written for each byte appended")
        _draw(right, rows, "space_amplification", marks, "bytes kept for each live byte")
        return figure
    _draw(left, rows, "entries_per_s", marks, "entries per second")
    slowest = max(row.most.p99_us for row in rows)
    if slowest < 2000:
        _draw(right, rows, "p99_us", marks, "p99 of an append, microseconds")
    else:
        _draw(right, rows, "p99_us", marks, "p99 of an append, milliseconds", unit=1000)
    return figure


def _draw(
    axes: Axes,
    rows: Sequence[Measurement],
    field: str,
    marks: list[bool],
    title: str,
    unit: float = 1,
) -> None:
    """Medians with whiskers from the least to the most of the runs.

    Bars from zero, since nothing was measured between two settings. Where the largest is many
    times the smallest, dots on a logarithmic axis: the small ones could not be read off bars.
    """
    labels = [label_of(row) for row in rows]
    values, least, most = (
        [getattr(sample, field) / unit for sample in column]
        for column in zip(*((row.sample, row.least, row.most) for row in rows), strict=True)
    )
    colours = [_CHOSEN if mark else _LINE for mark in marks]
    spread = [
        [value - low for value, low in zip(values, least, strict=True)],
        [high - value for value, high in zip(values, most, strict=True)],
    ]
    places = range(len(rows))
    axes.errorbar(places, values, spread, fmt="none", ecolor="#5b6876", capsize=3, zorder=3)
    if min(least) > 0 and max(most) >= _LOGARITHMIC * min(least):
        axes.scatter(places, values, color=colours, s=36, zorder=4)
        axes.set_yscale("log")
        axes.set_ylim(min(least) / 1.5, max(most) * 1.5)
        title += " (logarithmic)"
    else:
        axes.bar(places, values, color=colours, width=0.65)
        axes.set_ylim(0, 1.08 * max(most) or 1)
    axes.yaxis.set_major_formatter(_number)
    axes.set_title(title)
    axes.set_xticks(places, labels, rotation=30 if sum(map(len, labels)) > 30 else 0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eceff2")
    axes.set_axisbelow(True)


def _number(value: float, _: float | None) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:g}"


def _svg(figure: Figure, salt: str) -> str:
    """The figure as an element of the page: text stays text, ids differ between figures."""
    import matplotlib as mpl

    out = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}
    with mpl.rc_context(settings):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


def _table(measurements: Sequence[Measurement], sweep: str, choice: Choice) -> str:
    head = ["setting", "durability", "entries/s", "MiB/s", "p50 µs", "p99 µs", "open ms"]
    if sweep in _CLEANED:
        head = [*head, "written", "kept"]
    rows = []
    for one in measurements:
        if one.sweep != sweep:
            continue
        cells = [
            label_of(one),
            one.durability,
            f"{one.sample.entries_per_s:,.0f}",
            f"{one.sample.nbytes_per_s / (1 << 20):,.1f}",
            f"{one.sample.p50_us:,.0f}",
            f"{one.sample.p99_us:,.0f}",
            f"{one.sample.open_ms:,.1f}",
        ]
        if sweep in _CLEANED:
            cells += [
                f"{one.sample.write_amplification:.2f}",
                f"{one.sample.space_amplification:.2f}",
            ]
        mark = ' class="chosen"' if one.value == _chosen(sweep, choice) else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
