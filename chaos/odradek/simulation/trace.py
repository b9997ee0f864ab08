"""What happened, in order: the last steps to read, and a digest of all of them to compare runs by.

An entry is (virtual time in µs, who, what, details); details are plain values whose text is the same in every process.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from zlib import crc32

LAST_STEPS = 400
Entry = tuple[int, str, str, tuple[object, ...]]


class InvariantViolation(BaseException):
    """The cluster broke a promise; the text starts with the name of the invariant. No `except Exception` of the product
    may take it for an error of its own.
    """


class Trace:
    """`note` is called for everything that happens, so it formats nothing that nobody reads."""

    def __init__(self, now: Callable[[], int], echo: Callable[[str], None] | None = None) -> None:
        self._now = now
        self._echo = echo
        self._entries: deque[Entry] = deque(maxlen=LAST_STEPS)
        self.digest = 0
        self.steps = 0
        self.counters: Counter[str] = Counter()
        """How often each fault and each rare branch was met: a simulation that never meets them proves nothing."""

    def note(self, who: str, what: str, *details: object) -> None:
        entry = (self._now(), who, what, details)
        self._entries.append(entry)
        self.steps += 1
        self.digest = crc32(repr(entry).encode(), self.digest)
        if self._echo is not None:
            self._echo(render(entry))

    def count(self, what: str) -> None:
        self.counters[what] += 1

    def last_steps(self, number: int = 60) -> list[str]:
        return [render(entry) for entry in list(self._entries)[-number:]]


def render(entry: Entry) -> str:
    time_us, who, what, details = entry
    return f"{time_us / 1e6:11.6f}  {who:<10} {what:<24} {' '.join(map(_text, details))}".rstrip()


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:12]
    return str(value)
