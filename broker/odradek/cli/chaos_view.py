"""A chaos run as it goes on: one line for each thing that happens, and on a terminal how much is acknowledged now."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

SECONDS_SHOWN = 40
BLOCKS = " ▁▂▃▄▅▆▇█"
ACKNOWLEDGED = b'"outcome":"ok","offset"'
"""In a line of the history: a record that was acknowledged."""


class RunView:
    """`with` it; on paper it prints lines only."""

    def __init__(self, console: Console, title: str, history: Path) -> None:
        self._console = console
        self._title = title
        self._history = history
        self._positions: dict[Path, int] = {}
        self._rates: deque[int] = deque(maxlen=SECONDS_SHOWN)
        self._since = 0.0
        self._pending = 0
        self._began = time.monotonic()
        self._until: float | None = None
        self._now = "starting"
        self._acknowledged = 0
        self._faults = 0
        self._live: Live | None = None

    def __enter__(self) -> RunView:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._picture, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begins(self, until: float | None) -> None:
        """Faults begin, and last until then (time.monotonic), or as long as the plan."""
        self._until = until

    def said(self, text: str) -> None:
        """What happens now."""
        self._now = text
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False)

    def _picture(self) -> RenderableType:
        from rich.text import Text

        self._look()
        elapsed = time.monotonic() - self._began
        left = (
            ""
            if self._until is None
            else f", {max(0.0, self._until - time.monotonic()):.0f} s of faults left"
        )
        highest = max(self._rates, default=0) or 1
        bars = "".join(BLOCKS[-(-rate * (len(BLOCKS) - 1) // highest)] for rate in self._rates)
        rate = self._rates[-1] if self._rates else 0
        return Text.assemble(
            (f"{self._title}  ", "bold"),
            f"{elapsed:.0f} s{left}  ",
            (self._now, "yellow"),
            "\n",
            (bars.rjust(SECONDS_SHOWN), "red" if self._rates and not rate else "green"),
            f"  {rate:,}/s acknowledged, {self._acknowledged:,} in all   Ctrl-C heals and reports",
        )

    def _look(self) -> None:
        """What the clients have written down since the last time."""
        now = time.monotonic()
        for path in self._history.glob("*.jsonl") if self._history.is_dir() else ():
            if not path.name.startswith(("writer", "ledger", "mover")):
                continue
            with path.open("rb") as file:
                file.seek(self._positions.get(path, 0))
                written = file.read()
                whole = written[: written.rfind(b"\n") + 1]
                self._positions[path] = self._positions.get(path, 0) + len(whole)
            self._pending += whole.count(ACKNOWLEDGED)
        if now - self._since >= 1.0:
            self._rates.append(self._pending)
            self._acknowledged += self._pending
            self._pending, self._since = 0, now
