"""The report says what was broken, what it cost, what it shows, and how to do it again."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from odradek.chaos.checker import check
from odradek.chaos.history import FAULT, HEALED, OK, Event, Note, Poll, Send
from odradek.chaos.judge import judge
from odradek.chaos.report import write_report
from odradek.chaos.run import Outcome
from odradek.chaos.scenario import parse
from odradek.chaos.timeline import Timeline

S = 1_000_000_000
SCENARIO = parse(
    {"description": "a <leader> dies", "faults": [{"kind": "kill", "who": "leader"}]}, "mine.toml", "mine"
)


def outcome(*more: Event, silence_s: float = 0.5) -> Outcome:
    events: list[Event] = []
    for tenth in range(200):
        at = S + tenth * S // 10 + (int(silence_s * S) if tenth >= 100 else 0)
        events.append(Send("w", "plain", 0, f"v{tenth}", OK, tenth, at - 3_000_000, at))
    records = [("plain", 0, tenth, f"v{tenth}") for tenth in range(200)]
    events.append(Poll("r", 0, 30 * S, records, final=True))
    expect = {"recover_s": 3.0, "median_s": 1.0, "counted": "fault", "metadata_s": None}
    details = {"number": 1, "label": "kill leader", "lasts": True, "expect": expect}
    events += [Note(11 * S, FAULT, "2", details), Note(13 * S, HEALED, "2", {"number": 1})]
    timeline = Timeline("plain")
    verdict = check(timeline.watch([*events, *more]))
    timeline.settle()
    return Outcome(verdict, timeline, judge(SCENARIO, timeline), {"kill leader": 1}, {}, 30.0)


def test_a_run_as_promised(tmp_path: Path) -> None:
    found = write_report(tmp_path, outcome(), SCENARIO, "local", 7)
    assert found["ok"] and json.loads((tmp_path / "verdict.json").read_text()) == found
    assert found["command"] == "odradek chaos run mine.toml --seed 7"
    text = (tmp_path / "report.md").read_text()
    assert "# mine: no promise was broken" in text
    assert "| 1 | kill leader: 2 | met | 10.0 | 2.0 | 0.50 | ≤ 3 |" in text
    assert "| kill leader | 0.50 | ≤ 1 |" in text
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;leader&gt; dies" in page and "<leader>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere
    assert "odradek chaos run mine.toml --seed 7" in page


def test_the_picture_marks_faults_and_silence(tmp_path: Path) -> None:
    write_report(tmp_path, outcome(silence_s=2.0), SCENARIO, "local", 7)
    page = (tmp_path / "report.html").read_text()
    picture = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    titles = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["1: kill leader 2 at 10.0 s"]
    silent = [each for each in picture if each.get("fill") == "#fecaca"]
    assert len(silent) >= 1
    lines = [each.get("d") or "" for each in picture if each.tag.endswith("path")]
    assert len(lines) == 4 and all("nan" not in line for line in lines)


def test_what_was_not_met_is_said_everywhere(tmp_path: Path) -> None:
    bad = outcome(silence_s=5.0)
    assert not bad.ok
    found = write_report(tmp_path, bad, SCENARIO, "compose", 7)
    assert "--target compose" in found["command"] and len(found["not_met"]) == 2
    for file in ("report.md", "report.html"):
        text = (tmp_path / file).read_text()
        assert "NOT AS PROMISED" in text and "NOT MET" in text and "unavailable for 5.0" in text


def test_an_anomaly_comes_with_the_records_that_show_it(tmp_path: Path) -> None:
    wrong = Poll("other", 0, 15 * S, [("plain", 0, 5, "v9")])
    found = write_report(tmp_path, outcome(wrong), SCENARIO, "local", 7)
    assert not found["ok"] and {each["name"] for each in found["shown"]} >= {
        "inconsistent-offsets",
        "duplicate",
    }
    evidence = next(each for each in found["shown"] if each["name"] == "inconsistent-offsets")["evidence"]
    assert {"plain", 0, 5, "v9"} <= set(evidence[-1]["records"][0]) or any(
        list(record) == ["plain", 0, 5, "v9"] for event in evidence for record in event.get("records", [])
    )
    page = (tmp_path / "report.html").read_text()
    assert "two records were seen at one offset" in page and "v9" in page


def test_nothing_acknowledged_is_a_report_too(tmp_path: Path) -> None:
    timeline = Timeline("plain")
    verdict = check(timeline.watch([]))
    timeline.settle()
    empty = Outcome(
        verdict, timeline, judge(SCENARIO, timeline), {}, {}, 1.0, interrupted=True, trouble=["no clients"]
    )
    found = write_report(tmp_path, empty, SCENARIO, "local", 7)
    assert not found["ok"] and "interrupted" in (tmp_path / "report.md").read_text()
    assert "no clients" in (tmp_path / "report.html").read_text()


def test_runs_are_summed_up_in_a_table(tmp_path: Path) -> None:
    for name, silence_s in (("a", 0.5), ("b", 5.0)):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, outcome(silence_s=silence_s), SCENARIO, "local", 7)
    command = [sys.executable, "-m", "odradek.cli.main", "chaos", "summary", str(tmp_path / "a")]
    command.append(str(tmp_path / "b" / "verdict.json"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = done.stdout.splitlines()
    assert rows[2].startswith("| mine | as promised | 1 | 0.50 | 0.50 | ≤ 3 | 0 | 0 | 200 | 200 |")
    assert rows[3].startswith("| mine | NOT AS PROMISED | 1 | 5.00 | 5.00 | ≤ 3 | 0 | 0 |")
