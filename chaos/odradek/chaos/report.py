"""What is left of a run: `report.html` with the picture, `report.md`, `verdict.json`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odradek.chaos.checker import ALLOWED, ERRORS
from odradek.chaos.history import Event, Poll
from odradek.chaos.plot import draw
from odradek.chaos.scenario import Scenario

if TYPE_CHECKING:
    from odradek.chaos.run import Outcome

ANOMALIES_SHOWN = 20
EVIDENCE_RECORDS_MAX = 40
"""Of a poll that shows an anomaly, in JSON."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #0f172a; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: .2rem } h2 { margin-top: 2rem } .dim { color: #64748b }
.verdict { display: inline-block; padding: .2rem .8rem; border-radius: .3rem; color: #fff; font-weight: 600 }
.ok { background: #0f766e } .bad { background: #b91c1c } td.bad { background: none; color: #b91c1c; font-weight: 600 }
table { border-collapse: collapse; margin: .8rem 0 } td, th { padding: .25rem .7rem; border-bottom: 1px solid #e2e8f0 }
th { text-align: left; color: #475569 } td.number { text-align: right; font-variant-numeric: tabular-nums }
.side { display: flex; flex-wrap: wrap; gap: 2.5rem } code, pre { background: #f1f5f9; border-radius: .2rem }
code { padding: .1rem .3rem } pre { padding: .6rem; overflow-x: auto; font-size: 13px }
svg { width: 100%; height: auto }
"""


def as_json(outcome: Outcome, scenario: Scenario, target: str, seed: int) -> dict[str, Any]:
    """For `verdict.json`, and for whoever comes after."""
    verdict, availability = outcome.verdict, outcome.availability
    return {
        "ok": outcome.ok,
        "scenario": scenario.name,
        "target": target,
        "seed": seed,
        "command": command(scenario, target, seed),
        "interrupted": outcome.interrupted,
        "seconds": round(outcome.seconds),
        "machine": machine(),
        "faults": outcome.faults,
        "judged": [_rounded(asdict(each)) for each in availability.faults],
        "medians": {
            label: {"s": round(middle, 3), "expected_s": most} for label, (middle, most) in availability.medians.items()
        },
        "client_errors": availability.client_errors,
        "told": dict(outcome.timeline.errors.most_common(20)),
        "overdue": dict(outcome.timeline.overdue.most_common(20)),
        "not_met": availability.broken,
        "clients": outcome.ends,
        "records": dict(verdict.sends),
        "transactions": dict(verdict.transactions),
        "reads": verdict.reads,
        "commits": verdict.commits,
        "anomalies": dict(verdict.counts),
        "shown": [
            {"name": each.name, "text": each.text, "evidence": [_evidence(event) for event in each.evidence]}
            for each in verdict.anomalies
            if each.name in verdict.errors
        ],
        "trouble": outcome.trouble,
    }  # fmt: skip


def command(scenario: Scenario, target: str, seed: int) -> str:
    """What repeats the run."""
    words = [
        "odradek",
        "chaos",
        "run",
        scenario.file if "/scenarios/" not in scenario.file else scenario.name,
    ]
    if target != "local":
        words += ["--target", target]
    if scenario.minutes is not None:
        words += ["--minutes", f"{scenario.minutes:g}"]
    return " ".join([*words, "--seed", str(seed)])


def machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}


def _evidence(event: Event) -> dict[str, Any]:
    found = {"kind": type(event).__name__.lower(), **asdict(event)}
    if isinstance(event, Poll):
        found["records"] = found["records"][:EVIDENCE_RECORDS_MAX]
    return found


def write_report(
    directory: Path, outcome: Outcome, scenario: Scenario, target: str, seed: int
) -> dict[str, Any]:
    """All three files; what `verdict.json` says."""
    found = as_json(outcome, scenario, target, seed)
    (directory / "verdict.json").write_text(json.dumps(found, indent=1) + "\n")
    (directory / "report.md").write_text(_markdown(found, scenario))
    (directory / "report.html").write_text(
        _html(found, scenario, draw(outcome.timeline, outcome.availability))
    )
    return found


def summary(verdicts: Iterable[dict[str, Any]]) -> str:
    """A Markdown table: one line for each of these runs."""
    rows = []
    for found in verdicts:
        expected = {each["expected_s"] for each in found["judged"] if each["expected_s"] is not None}
        took = [each["unavailable_s"] for each in found["judged"]]
        worst = "for ever" if None in took else f"{max(took, default=0.0):.2f}"
        errors = sum(count for name, count in found["anomalies"].items() if name in ERRORS)
        rows.append(
            [
                found["scenario"],
                "as promised" if found["ok"] else "NOT AS PROMISED",
                str(sum(found["faults"].values())),
                "; ".join(f"{each['s']:.2f}" for each in found["medians"].values()),
                worst,
                ", ".join(f"≤ {each:g}" for each in sorted(expected)),
                str(errors),
                str(found["client_errors"]),
                f"{found['records'].get('ok', 0):,}",
                f"{found['reads']:,}",
                f"{found['machine']['load']:g}",
                str(found["seed"]),
            ]
        )
    heads = ["scenario", "verdict", "faults", "unavailable s: median", "worst", "expected s", "anomalies"]
    heads += ["client errors", "records acknowledged", "read", "load", "seed"]
    return "\n".join(_markdown_table((heads, rows, 2)))


# --- the tables, for both -------------------------------------------------------------------------------------------

Table = tuple[list[str], list[list[str]], int]
"""Heads, rows, and how many columns on the left are words."""


def title(found: dict[str, Any]) -> str:
    return "no promise was broken" if found["ok"] else "NOT AS PROMISED"


def _seconds(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.2f}"


def _faults(found: dict[str, Any]) -> Table:
    rows = []
    for each in found["judged"]:
        expected = "" if each["expected_s"] is None else f"≤ {each['expected_s']:g}"
        if expected and each["counted"] == "heal":
            expected += " once healed"
        healed = each["healed_s"]
        metadata = _seconds(each["metadata_s"], "never" if each["metadata_expected_s"] else "")
        if each["metadata_expected_s"]:
            metadata += f" (≤ {each['metadata_expected_s']:g})"
        rows.append(
            [
                str(each["number"]),
                f"{each['label']}: {each['target']}",
                "met" if each["ok"] else "NOT MET",
                f"{each['at_s']:.1f}",
                "" if healed is None else f"{healed - each['at_s']:.1f}",
                _seconds(each["unavailable_s"], "for ever"),
                expected,
                metadata,
            ]
        )
    heads = [
        "",
        "fault: to whom",
        "",
        "at s",
        "healed after s",
        "unavailable s",
        "expected s",
        "topics again s",
    ]
    return heads, rows, 3


def _told(found: dict[str, Any]) -> list[str]:
    lines = [f"{count} × {text}" for text, count in found["told"].items()]
    why = "by the client library's own doing (not counted)"
    return lines + [f"{count} × {why}: {text}" for text, count in found["overdue"].items()]


def _medians(found: dict[str, Any]) -> Table:
    rows = [
        [label, f"{each['s']:.2f}", "" if each["expected_s"] is None else f"≤ {each['expected_s']:g}"]
        for label, each in found["medians"].items()
    ]
    return ["fault", "median unavailable s", "expected s"], rows, 1


def _counts(head: str, counts: dict[str, int]) -> Table:
    return [head, "count"], [[key, f"{count:,}"] for key, count in Counter(counts).most_common()], 1


def _summaries(found: dict[str, Any]) -> Iterable[Table]:
    read = {"records read": found["reads"], "offsets committed": found["commits"]}
    yield _counts("records sent", found["records"])
    yield _counts("transactions", found["transactions"])
    yield _counts("read", read)
    yield _counts("faults", found["faults"])
    if any(found["clients"].values()):
        yield _counts("how clients ended", found["clients"])


def _about(found: dict[str, Any]) -> str:
    at = found["machine"]
    return (
        f"{found['target']}, seed {found['seed']}, {found['seconds']} s with start and reading · {at['system']}, "
        f"{at['cpus']} CPUs, load {at['load']}, Python {at['python']}, {at['date']}"
        + (" · interrupted" if found["interrupted"] else "")
    )


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown(found: dict[str, Any], scenario: Scenario) -> str:
    lines = [f"# {scenario.name}: {title(found)}", "", scenario.text, "", _about(found), ""]
    problems = found["not_met"] + found["trouble"]
    if problems:
        lines += ["## Not met", "", *(f"- {line}" for line in problems), ""]
    lines += ["## Faults", "", *_markdown_table(_faults(found)), *_markdown_table(_medians(found))]
    lines += [f"Errors that reached clients: {found['client_errors']}", ""]
    lines += [f"- {line}" for line in _told(found)] + [""] * bool(_told(found))
    lines += ["## Anomalies", ""]
    lines += _markdown_table(_counts("anomaly", found["anomalies"])) if found["anomalies"] else ["None.", ""]
    lines += [f"- {each['name']}: {each['text']}" for each in found["shown"][:ANOMALIES_SHOWN]]
    lines += ["## Work", ""]
    for table in _summaries(found):
        lines += _markdown_table(table)
    return "\n".join([*lines, f"Again: `{found['command']}`", ""])


def _markdown_table(table: Table) -> list[str]:
    heads, rows, words = table
    if not rows:
        return []
    rule = "|".join("---" if index < words else "---:" for index in range(len(heads)))
    return [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows), ""]


# --- HTML -------------------------------------------------------------------------------------------------------------


def _html(found: dict[str, Any], scenario: Scenario, picture: str) -> str:
    problems = found["not_met"] + found["trouble"]
    anomalies = {name: count for name, count in found["anomalies"].items() if name in ERRORS}
    allowed = {name: count for name, count in found["anomalies"].items() if name in ALLOWED}
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{escape(scenario.name)}: {title(found)}</title>',
        f"<style>{STYLE}</style>",
        f"<h1>{escape(scenario.name)}</h1><p>{escape(scenario.text)}</p>",
        f'<p><span class="verdict {"ok" if found["ok"] else "bad"}">{title(found)}</span></p>',
        f'<p class="dim">{escape(_about(found))}</p>',
        f"<p>Again: <code>{escape(found['command'])}</code></p>",
        _html_list("Not met", problems),
        picture,
        "<h2>Faults</h2>",
        _html_table(_faults(found)),
        _html_table(_medians(found)),
        f"<p>Errors that reached clients: {found['client_errors']}</p>",
        _html_list("", _told(found)),
        "<h2>Anomalies</h2>",
        _html_table(_counts("anomaly", anomalies)) if anomalies else "<p>None.</p>",
    ]
    parts += [f"<p><b>{name}</b>: {escape(ERRORS[name])}.</p>" for name in anomalies]
    for each in found["shown"][:ANOMALIES_SHOWN]:
        records = "\n".join(json.dumps(event) for event in each["evidence"])
        parts.append(f"<p>{escape(each['name'])}: {escape(each['text'])}</p><pre>{escape(records)}</pre>")
    for name, count in allowed.items():
        parts.append(f'<p class="dim">Allowed: {name}, {count:,} times: {escape(ALLOWED[name])}.</p>')
    parts += ["<h2>Work</h2>", '<div class="side">', *map(_html_table, _summaries(found)), "</div></html>"]
    return "\n".join(parts) + "\n"


def _html_table(table: Table) -> str:
    heads, rows, words = table
    if not rows:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f"<tr>{''.join(_cell(cell, index < words) for index, cell in enumerate(row))}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(text: str, is_word: bool) -> str:
    kind = "bad" if text == "NOT MET" else "" if is_word else "number"
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _html_list(head: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (f"<h2>{head}</h2>" if head else "") + f"<ul>{items}</ul>"
