"""`report.md` of a run: the verdict, and what the faults did to throughput."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from odradek.chaos.history import OK, Note, Send, read_history

GAPS_SHOWN = 10


def write_report(directory: Path, verdict: dict[str, Any]) -> None:
    """From what `run` left behind."""
    sends: list[int] = []
    notes: list[Note] = []
    for event in read_history(*(directory / "history").iterdir()):
        if isinstance(event, Send) and event.outcome == OK:
            sends.append(event.completed)
        elif isinstance(event, Note):
            notes.append(event)
    lines = [
        f"# Chaos run, seed {verdict['seed']}: {'valid' if verdict['ok'] else 'NOT VALID'}",
        "",
        *_table("fault", verdict["faults"]),
        *_table("how clients ended", verdict["clients"]),
        *_table("records sent", verdict["records"]),
        *_table("transactions", verdict["transactions"]),
        f"{verdict['reads']:,} records read, {verdict['commits']:,} offsets committed.",
        "",
        "## Anomalies",
        "",
        *(_table("anomaly", verdict["anomalies"]) if verdict["anomalies"] else ["None.", ""]),
        *(f"- {line}" for line in verdict["first"] + verdict["trouble"]),
        "",
        "## Longest times in which nobody's record was acknowledged",
        "",
        *_gaps(sends, notes),
        "",
        f"Again: `odradek chaos run --minutes {verdict['seconds'] / 60:.0f} --seed {verdict['seed']}`",
    ]
    (directory / "report.md").write_text("\n".join(lines) + "\n")


def _table(name: str, counts: dict[str, int]) -> list[str]:
    return [
        f"| {name} | count |",
        "|---|---:|",
        *(f"| {key} | {count:,} |" for key, count in Counter(counts).most_common()),
        "",
    ]


def _gaps(sends: list[int], notes: list[Note]) -> list[str]:
    """The gaps, and what was done just before each or in it."""
    sends.sort()
    if not sends:
        return ["No record was acknowledged."]
    gaps = sorted(((later - earlier, earlier) for earlier, later in pairwise(sends)), reverse=True)
    lines = ["| ms | at s | what was done |", "|---:|---:|---|"]
    for length, at in gaps[:GAPS_SHOWN]:
        near = [
            f"{note.what} {note.target}" for note in notes if at - 1_000_000_000 <= note.at <= at + length
        ]
        lines.append(f"| {length / 1e6:,.0f} | {(at - sends[0]) / 1e9:,.1f} | {', '.join(near)} |")
    return lines
