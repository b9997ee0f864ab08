"""The picture of a run as one SVG, drawn by hand: no plotting library is needed where the harness runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from odradek.chaos.judge import RESOLUTION_S, Availability
from odradek.chaos.timeline import Timeline

WIDTH, LEFT, RIGHT = 1_080, 74, 16
PANEL, GAP, TOP, BOTTOM = 170, 46, 56, 34
ACKS, READS, MEDIAN, TAIL, FAULT, DOWN, GRID = (
    "#0f766e", "#94a3b8", "#0f766e", "#c2410c", "#b91c1c", "#fecaca", "#e2e8f0"
)  # fmt: skip
LABELS_MAX = 30
POINTS_MAX = 1_200


def draw(timeline: Timeline, availability: Availability) -> str:
    """Records per second above, latency below (logarithmic); a line for each fault, red where nothing went on."""
    seconds = int(timeline.end_s) + 1  # what comes later is the working off of what was left
    acks = timeline.per_second()[:seconds]
    reads = timeline.reads_per_second(len(acks))
    latency = timeline.latency_per_second()[:seconds]
    step = -(-seconds // POINTS_MAX)
    height = TOP + 2 * PANEL + GAP + BOTTOM
    low = TOP + PANEL + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="throughput and latency over time" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for begin, end in timeline.gaps(RESOLUTION_S):
        x, wide = _x(begin, seconds), max(1.0, _x(end, seconds) - _x(begin, seconds))
        parts.append(
            f'<rect x="{x:.1f}" y="{TOP}" width="{wide:.1f}" height="{low + PANEL - TOP}" fill="{DOWN}"/>'
        )
    top = _nice(max([*acks, *reads, 1]))
    parts += _frame(TOP, "records per second", [(value, _lin(value, top, TOP)) for value in _ticks(top)])
    # A second that is not full at either end would look like a drop.
    parts.append(_line(_thin(reads[:-1], step), step, seconds, lambda value: _lin(value, top, TOP), READS))
    parts.append(_line(_thin(acks[:-1], step), step, seconds, lambda value: _lin(value, top, TOP), ACKS))
    parts += _legend(
        TOP, [("acknowledged", ACKS), ("read", READS), ("a partition acknowledges nothing", DOWN)]
    )
    highest = max([each[1] for each in latency if each] or [1.0])
    decades = max(1, math.ceil(math.log10(max(highest, 10.0))))
    ticks = [(10**power, _log(10**power, decades, low)) for power in range(decades + 1)]
    parts += _frame(low, "milliseconds until acknowledged", ticks)
    for index, color in ((0, MEDIAN), (1, TAIL)):
        values = [None if each is None else each[index] for each in latency[:-1]]
        parts.append(
            _line(_thin(values, step), step, seconds, lambda value: _log(value, decades, low), color)
        )
    parts += _legend(low, [("median", MEDIAN), ("99th percentile", TAIL)])
    parts += _time_axis(low + PANEL, seconds)
    parts += _marks(availability, seconds, low + PANEL)
    return "\n".join([*parts, "</svg>"])


def _x(second: float, seconds: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(second, 0.0), seconds) / seconds


def _lin(value: float, top: float, panel: int) -> float:
    return panel + PANEL - PANEL * value / top


def _log(value: float, decades: int, panel: int) -> float:
    return panel + PANEL - PANEL * min(max(math.log10(max(value, 1.0)), 0.0), decades) / decades


def _nice(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


def _ticks(top: float) -> list[float]:
    return [top * part / 4 for part in range(5)]


def _thin(values: Sequence[float | None], step: int) -> list[float | None]:
    """One of each `step`: the largest, so that no peak is lost."""
    found: list[float | None] = []
    for at in range(0, len(values), step):
        known = [each for each in values[at : at + step] if each is not None]
        found.append(max(known) if known else None)
    return found


def _line(values: list[float | None], step: int, seconds: int, y: object, color: str) -> str:
    """A polyline, broken where there is no value."""
    assert callable(y)
    path, pen = [], "M"
    for index, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{_x((index + 0.5) * step, seconds):.1f},{y(value):.1f}")
        pen = "L"
    return f'<path d="{" ".join(path)}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _frame(panel: int, title: str, ticks: Iterable[tuple[float, float]]) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{panel - 8}" font-weight="600">{title}</text>']
    for value, y in ticks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#475569">{value:,.10g}</text>'
        )
    return parts


def _legend(panel: int, entries: list[tuple[str, str]]) -> list[str]:
    parts, x = [], WIDTH - RIGHT
    for text, color in reversed(entries):
        x -= 7 * len(text) + 22
        parts.append(f'<rect x="{x}" y="{panel - 17}" width="12" height="10" fill="{color}"/>')
        parts.append(f'<text x="{x + 16}" y="{panel - 8}" fill="#475569">{text}</text>')
    return parts


def _time_axis(y: int, seconds: int) -> list[str]:
    step = max(1, int(_nice(seconds / 10)))
    return [
        f'<text x="{_x(at, seconds):.1f}" y="{y + 28}" text-anchor="middle" fill="#475569">{at} s</text>'
        for at in range(0, seconds + 1, step)
    ]


def _marks(availability: Availability, seconds: int, bottom: int) -> list[str]:
    """A line where each fault begins, a bar under the panels for as long as it lasts, its number above."""
    parts = []
    many = len(availability.faults) > LABELS_MAX
    for fault in availability.faults:
        x = _x(fault.at_s, seconds)
        end = _x(fault.healed_s if fault.healed_s is not None else fault.at_s, seconds)
        said = f"{fault.number}: {fault.label} {fault.target} at {fault.at_s:.1f} s"
        parts.append(
            f"<g><title>{escape(said)}</title>"
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{FAULT}" stroke-dasharray="3 3"/>'
            f'<rect x="{x:.1f}" y="{bottom + 4}" width="{max(2.0, end - x):.1f}" height="6" fill="{FAULT}"/>'
            + ("" if many else f'<text x="{x:.1f}" y="{TOP - 26}" fill="{FAULT}">{fault.number}</text>')
            + "</g>"
        )
    return parts
