"""`odradek simulate`: whole clusters on virtual time under seeded faults, every invariant checked after each step.

Exit code 0 if no seed broke a promise (with --mutant: if one did), else 1. What a seed does follows from the seed, the
scenario and the version alone; the line that replays a failure is printed with it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, run_tool

if TYPE_CHECKING:
    from odradek.simulation.runner import Result

SEEDS_IN_HAND = 4
"""Seeds that are given to each process ahead of time."""
STEPS_SHOWN = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code."""
    return run_tool(run, argv)


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog="odradek simulate",
        description="Run simulated clusters of real nodes under faults and check every promise after each step.",
    )
    parser.add_argument(
        "--seeds", default="1..100", help="One seed, a list, or a range: 7  1,4,9  1..1000 (default: 1..100)"
    )
    parser.add_argument(
        "--scenario", help="One of --list; without it, seeds take turns through the default ones."
    )
    parser.add_argument("--mutant", help="Break the product in a known way first; some seed must then fail.")
    parser.add_argument("--trace", action="store_true", help="Print every step, as it happens.")
    parser.add_argument("--jobs", type=int, default=0, help="Processes (default: one for each processor).")
    parser.add_argument("--keep-going", action="store_true", help="Do not stop at the first violation.")
    parser.add_argument(
        "--counters", action="store_true", help="Print how often each fault and rare branch was met."
    )
    parser.add_argument("--list", action="store_true", help="List scenarios and mutants.")
    return parser


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv or ["--seeds", "1..100"])
    from odradek.simulation.mutants import MUTANTS
    from odradek.simulation.scenario import SCENARIOS

    if options.list:
        return _list()
    if options.scenario is not None and options.scenario not in SCENARIOS:
        raise ToolError(f"--scenario {options.scenario}: there is {', '.join(SCENARIOS)}")
    if options.mutant is not None and options.mutant not in MUTANTS:
        raise ToolError(f"--mutant {options.mutant}: there is {', '.join(MUTANTS)}")
    if options.mutant is not None and options.scenario is None:
        options.scenario = MUTANTS[options.mutant].scenario
    seeds = parse_seeds(options.seeds)
    found = _run_all(seeds, options)
    if options.mutant is not None:
        print(f"mutant {options.mutant}: {'caught' if found else 'NOT caught'}")
        return 0 if found else 1
    return 1 if found else 0


def parse_seeds(text: str) -> list[int]:
    """`7`, `1,4,9`, `1..1000`, or any of these joined by commas. ToolError if it is something else."""
    seeds: list[int] = []
    for part in text.split(","):
        matched = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        if matched is None:
            raise ToolError(f"--seeds {text}: expected a seed, a list or a range, such as 1..1000")
        first = int(matched[1])
        seeds += range(first, int(matched[2] or first) + 1)
    if not seeds:
        raise ToolError(f"--seeds {text}: the range is empty")
    return seeds


def _list() -> int:
    from odradek.simulation.mutants import MUTANTS
    from odradek.simulation.scenario import DEFAULT, SCENARIOS

    print("Scenarios (* takes part when none is named):")
    for name, scenario in SCENARIOS.items():
        print(f"  {'*' if name in DEFAULT else ' '} {name:<18} {scenario.about}")
    print("\nMutants:")
    for name, mutant in MUTANTS.items():
        print(f"    {name:<34} {mutant.about} ({mutant.scenario})")
    return 0


def _run_all(seeds: list[int], options: argparse.Namespace) -> int:
    """Run, show, sum up; the number of seeds with a violation."""
    began = time.monotonic()
    totals: Counter[str] = Counter()
    steps = virtual_ms = done = 0
    bad: list[Result] = []
    with _Progress(len(seeds), quiet=options.trace) as progress:
        for result in _results(seeds, options):
            done += 1
            totals.update(result.counters)
            steps += result.steps
            virtual_ms += result.virtual_ms
            if result.violation is not None:
                bad.append(result)
                progress.say(describe(result, options.mutant))
            progress.advance(len(bad), steps)
            if bad and not options.keep_going:
                break
    elapsed_s = time.monotonic() - began
    print(
        f"{done} seeds in {elapsed_s:.1f} s ({done / elapsed_s:.1f}/s): {steps:,} steps, "
        f"{virtual_ms / 60_000:,.1f} minutes of virtual time, {len(bad)} with a violation"
    )
    if options.counters:
        width = max(map(len, totals), default=0)
        for name, count in sorted(totals.items()):
            print(f"  {name:<{width}}  {count:>10,}")
    return len(bad)


def describe(result: Result, mutant: str | None) -> str:
    """A violation for people: what led to it, what it is, how to see it again."""
    lines = [*result.last_steps, "", f"seed {result.seed}, scenario {result.scenario}: {result.violation}"]
    broken = f" --mutant {mutant}" if mutant else ""
    lines.append(
        f"replay: odradek simulate --seeds {result.seed} --scenario {result.scenario}{broken} --trace"
    )
    return "\n".join(lines)


def _results(seeds: list[int], options: argparse.Namespace) -> Iterator[Result]:
    """In the order of seeds, from one process or several."""
    from odradek.simulation.runner import run_seed

    jobs = options.jobs or min(os.cpu_count() or 1, len(seeds))
    if jobs <= 1 or options.trace or len(seeds) == 1:
        echo = _echo if options.trace else None
        for seed in seeds:
            yield run_seed(seed, options.scenario, mutant=options.mutant, echo=echo, steps_shown=STEPS_SHOWN)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from _in_order(pool, seeds, options, jobs * SEEDS_IN_HAND)


def _in_order(
    pool: ProcessPoolExecutor, seeds: list[int], options: argparse.Namespace, ahead: int
) -> Iterator[Result]:
    """As soon as each is there and those before it are, so that a run reports the same seed first every time."""
    from odradek.simulation.runner import run_seed

    left = iter(seeds)
    under_way: list[Future[Result]] = []
    try:
        while True:
            for seed in left:
                under_way.append(
                    pool.submit(
                        run_seed, seed, options.scenario, mutant=options.mutant, steps_shown=STEPS_SHOWN
                    )
                )
                if len(under_way) >= ahead:
                    break
            if not under_way:
                return
            wait(under_way[:1], return_when=FIRST_COMPLETED)
            yield under_way.pop(0).result()
    finally:
        for future in under_way:
            future.cancel()


def _echo(line: str) -> None:
    print(line)


class _Progress:
    """A bar for people, a line per violation for everybody."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total = total
        self._bar: Any = None
        self._task: Any = None
        self._drawn = not quiet and total > 1 and sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    def __enter__(self) -> _Progress:
        if self._drawn:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("seeds", total=self._total, said="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, bad: int, steps: int) -> None:
        if self._bar is not None:
            said = f"{steps:,} steps, {bad} violations"
            self._bar.update(self._task, advance=1, said=said)

    def say(self, text: str) -> None:
        """Above the bar, and on standard output."""
        if self._bar is not None:
            self._bar.stop()
            print(text, flush=True)
            self._bar.start()
        else:
            print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
