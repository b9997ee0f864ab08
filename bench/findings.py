"""What every command of the bench begins and ends with: options, bench/results/<date>-<label>.{json,md,png}, tables."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from bench.machine import describe
from bench.report import Outcome, Table, markdown
from bench.servers import ROOT, data_root, only_run
from bench.terminal import say, show

RESULTS = ROOT / "bench" / "results"


class Report(Protocol):
    """A module that says what was found: tables, targets, a picture."""

    def draw(self, results: dict[str, Any], path: Path) -> None: ...

    def tables(self, results: dict[str, Any]) -> list[Table]: ...

    def outcomes(self, results: dict[str, Any]) -> list[Outcome]: ...


def parser(
    command: str, description: str, sides: tuple[str, ...], quick: str, default: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """The options that `find` reads, and the sides: all of them, where no `default` is named."""
    found = argparse.ArgumentParser(prog=f"python -m bench {command}", description=description)
    found.add_argument(
        "--sides",
        type=names_of(sides),
        default=list(default or sides),
        metavar="SIDE,…",
        help=", ".join(sides),
    )
    found.add_argument("--label", default=command, help="in the names of the result files")
    found.add_argument("--data", help="directory for the nodes' data, removed afterwards")
    found.add_argument("--quick", action="store_true", help=f"a look: {quick}")
    return found


def find(
    options: argparse.Namespace, measure: Callable[[Path], dict[str, Any]], report: Report, notes: list[str]
) -> int:
    """Measure in a directory that is removed afterwards, with `options.data` and `options.label`, and write it down.

    `measure` returns what is found under a key that tells the command.
    """
    began = time.monotonic()
    with only_run(), data_root(options.data) as root:
        machine = describe(root)
        found = measure(root)
    say(f"took {time.monotonic() - began:.0f} s")
    results = {"machine": machine, "date": date.today().isoformat(), **found, "notes": notes}
    base = RESULTS / f"{results['date']}-{options.label}"
    base.with_name(base.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    write(report, base, results)
    return 0


def write(report: Report, base: Path, results: dict[str, Any]) -> None:
    """What follows from the samples: also for `python -m bench report`."""
    base.with_name(base.name + ".md").write_text(page(report, base.name, results))
    report.draw(results, base.with_name(base.name + ".png"))
    show(report.tables(results), report.outcomes(results))


def page(report: Report, name: str, results: dict[str, Any]) -> str:
    """In Markdown."""
    return markdown(
        name, results["machine"], results["notes"], report.outcomes(results), report.tables(results)
    )


def names_of(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    """An argparse type: comma-separated names; one that ends in `*` stands for all that begin so; "" for none."""

    def parse(text: str) -> list[str]:
        found: list[str] = []
        for part in filter(None, text.split(",")):
            matching = [
                name for name in allowed if name == part or (part[-1:] == "*" and name.startswith(part[:-1]))
            ]
            if not matching:
                raise argparse.ArgumentTypeError(f"'{part}' is none of {', '.join(allowed)}")
            found += matching
        return list(dict.fromkeys(found))

    return parse
