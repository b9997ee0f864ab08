"""Tables that look like Kafka's where a program reads them, and are easier on the eye where a person does.

Kafka's consumer-group tables are left-aligned columns of a least width, a blank line before, and no line end after
each row but before it. On a terminal that is wide enough the same rows are drawn with rich; a pipe, a file, a narrow
terminal or `NO_COLOR` gets Kafka's bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    *,
    emphasis: str | None = None,
) -> None:
    """Print a table; `widths` are Kafka's least widths, 0 for a column that is not padded.

    `emphasis` names a column of numbers that is coloured when it is above zero (the lag).
    """
    if _for_a_person() and _draw(headers, rows, emphasis):
        return
    sys.stdout.write(plain_table(headers, rows, widths))


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Kafka's form."""
    sizes = [
        max(least, *(len(row[column]) for row in (headers, *rows)))
        if least and headers[column] in _GROWING
        else least
        for column, least in enumerate(widths)
    ]
    lines = []
    for row in (headers, *rows):
        cells = [cell.ljust(size) if size else cell for cell, size in zip(row, sizes, strict=True)]
        lines.append("\n" + " ".join(cells))
    return "".join(lines) + "\n"


def tabbed_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the table of Kafka's newer tools: padded to the longest cell, and a tab after each, the last included."""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    for row in (headers, *rows):
        print("".join(cell.ljust(width) + "\t" for cell, width in zip(row, widths, strict=True)))


# Columns of Kafka's that widen to their longest cell; the others keep their width and are overrun.
_GROWING = frozenset(
    (
        "GROUP",
        "TOPIC",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
        "GROUP-INSTANCE-ID",
        "CURRENT-ASSIGNMENT",
        "TARGET-ASSIGNMENT",
        "COORDINATOR (ID)",
    )
)


def _for_a_person() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]], emphasis: str | None) -> bool:
    """Draw with rich; False when the terminal is too narrow for whole cells."""
    from shutil import get_terminal_size

    needed = sum(max(len(row[column]) for row in (headers, *rows)) + 2 for column in range(len(headers))) + 2
    if needed > get_terminal_size((80, 24)).columns:
        return False
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    numeric = [
        bool(rows) and all(row[column].lstrip("-").isdigit() or row[column] == "-" for row in rows)
        for column in range(len(headers))
    ]
    for header, right in zip(headers, numeric, strict=True):
        table.add_column(
            header, justify="right" if right and header not in ("GROUP", "TOPIC") else "left", no_wrap=True
        )
    for row in rows:
        cells = []
        for header, cell in zip(headers, row, strict=True):
            behind = header == emphasis and cell.isdigit() and int(cell) > 0
            cells.append(Text(cell, style="yellow" if behind else "dim" if cell == "-" else ""))
        table.add_row(*cells)
    Console(highlight=False).print(table)
    return True
