"""What a run shows while it goes on, and at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from bench.report import Outcome, Table


def show(found: Sequence[Table], results: Sequence[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in found:
        rich = RichTable(title=table.title, caption=table.note or None, title_justify="left")
        for index, name in enumerate(table.header):
            rich.add_column(name, justify="left" if index == 0 or name in ("side", "targets") else "right")
        for row in table.rows:
            rich.add_row(*row)
        console.print(rich)
    missed = [one for one in results if one.met is False]
    even = sum(one.met is None for one in results)
    met = len(results) - len(missed) - even
    console.print(
        f"targets: {met} met, {len(missed)} missed, {even} open (the clients are the limit)", style="bold"
    )
    for one in missed:
        console.print(f"  missed · {one.row}: {one.text}", style="red")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
