"""What clients felt: acknowledgements over time, how long they took, and when there were none.

Only what the plots and the judge need is kept: 16 bytes for each acknowledged record, none for reads. Seconds are
counted from the first event of the run.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from odradek.chaos.history import (
    CLIENT_ERROR,
    CLIENT_OVERDUE,
    FAULT,
    HEALED,
    METADATA_BACK,
    OK,
    UNKNOWN,
    Event,
    Note,
    Poll,
    Send,
)

NANOSECONDS = 1e9


@dataclass(slots=True)
class FaultTime:
    """A fault as it was done."""

    number: int
    label: str
    target: str
    at_s: float
    expect: dict[str, Any]
    lasts: bool = True
    healed_s: float | None = None
    metadata_s: float | None = None
    """When a topic could be created again."""


@dataclass(slots=True)
class Timeline:
    """Feed it all events with `watch`, then `settle`, then ask."""

    topic: str
    """Whose acknowledgements count for what is unavailable: the one written to all the time."""
    faults: list[FaultTime] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """What clients were told that had to begin anew."""
    overdue: Counter[str] = field(default_factory=Counter)
    """The same, where the client's library had not returned from a call in time: not the cluster's doing."""
    failed: int = 0
    """Records of that topic whose producer was told that they failed, or may have."""
    reads: Counter[int] = field(default_factory=Counter)
    """By second of the monotonic clock; `final` readings apart."""
    acks: dict[tuple[str, int], array[int]] = field(default_factory=dict)
    latencies: array[int] = field(default_factory=lambda: array("q"))
    """Pairs: when it was acknowledged, nanoseconds that took."""
    origin: int = 0

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events, looked at on their way."""
        for event in events:
            if isinstance(event, Send):
                self._sent(event)
            elif isinstance(event, Note):
                self._noted(event)
            elif isinstance(event, Poll) and not event.final:
                self.reads[event.completed // 1_000_000_000] += len(event.records)
            yield event

    def _sent(self, send: Send) -> None:
        if not send.completed:
            return
        if send.outcome == OK:
            at = send.topic, send.partition
            if at not in self.acks:
                self.acks[at] = array("q")
            self.acks[at].append(send.completed)
            self.latencies.extend((send.completed, send.completed - send.invoked))
        elif send.topic == self.topic and send.outcome in (UNKNOWN, "failed"):
            self.failed += 1

    def _noted(self, note: Note) -> None:
        details = note.details
        if note.what == FAULT:
            found = FaultTime(details["number"], details["label"], note.target, note.at, details["expect"])
            found.lasts = bool(details["lasts"])
            self.faults.append(found)
        elif note.what == CLIENT_OVERDUE:
            self.overdue[str(details["error"])] += 1
        elif note.what == CLIENT_ERROR:
            self.errors[str(details["error"])] += 1
        elif note.what in (HEALED, METADATA_BACK):
            for fault in self.faults:
                if fault.number == details["number"]:
                    if note.what == HEALED:
                        fault.healed_s = note.at
                    else:
                        fault.metadata_s = note.at

    def settle(self) -> None:
        """All events have been seen: nanoseconds become seconds of the run."""
        starts = [each[0] for each in self.acks.values()] + [fault.at_s for fault in self.faults]
        self.origin = int(min(starts, default=0))
        for at, times in self.acks.items():
            self.acks[at] = array("q", sorted(times))
        self.faults.sort(key=lambda fault: fault.number)
        for fault in self.faults:
            fault.at_s = self.second(fault.at_s)
            fault.healed_s = None if fault.healed_s is None else self.second(fault.healed_s)
            fault.metadata_s = None if fault.metadata_s is None else self.second(fault.metadata_s)

    def second(self, at: float) -> float:
        return (at - self.origin) / NANOSECONDS

    @property
    def end_s(self) -> float:
        ends = [self.second(times[-1]) for (topic, _), times in self.acks.items() if topic == self.topic]
        return max(ends, default=0.0)

    def unavailable(self, since_s: float, until_s: float) -> tuple[float, float, int] | None:
        """(seconds, from, partition): the longest time between these two in which a partition acknowledged nothing.
        What began before counts from `since_s`, what lasts longer to `until_s`. None: no partition was written to.
        """
        worst: tuple[float, float, int] | None = None
        since, until = (int(each * NANOSECONDS) + self.origin for each in (since_s, until_s))
        for (topic, partition), times in self.acks.items():
            if topic != self.topic:
                continue
            first = bisect_right(times, since)
            last = bisect_left(times, until)
            within = [since, *times[first:last], max(since, until)]
            length, begins = max((b - a, a) for a, b in pairwise(within))
            if worst is None or length / NANOSECONDS > worst[0]:
                worst = length / NANOSECONDS, self.second(begins), partition
        return worst

    def gaps(self, at_least_s: float) -> list[tuple[float, float]]:
        """(from, to) in which some partition of the topic acknowledged nothing, joined where they overlap."""
        found = []
        for (topic, _), times in self.acks.items():
            if topic == self.topic:
                found += [(a, b) for a, b in pairwise(times) if b - a >= at_least_s * NANOSECONDS]
        joined: list[tuple[float, float]] = []
        for begin, end in sorted((self.second(a), self.second(b)) for a, b in found):
            if joined and begin <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((begin, end))
        return joined

    def per_second(self) -> list[int]:
        """Acknowledged records, all topics."""
        counts: Counter[int] = Counter()
        for times in self.acks.values():
            counts.update(int(self.second(each)) for each in times)
        return [counts[second] for second in range(max(counts, default=-1) + 1)]

    def reads_per_second(self, seconds: int) -> list[int]:
        first = self.origin // 1_000_000_000
        return [self.reads[first + second] for second in range(seconds)]

    def latency_per_second(self) -> list[tuple[float, float] | None]:
        """(median, 99th percentile) in milliseconds of what was acknowledged in each second; None: nothing was."""
        bins: dict[int, list[int]] = {}
        for index in range(0, len(self.latencies), 2):
            bins.setdefault(int(self.second(self.latencies[index])), []).append(self.latencies[index + 1])
        found: list[tuple[float, float] | None] = []
        for second in range(max(bins, default=-1) + 1):
            each = sorted(bins.get(second, ()))
            found.append((each[len(each) // 2] / 1e6, each[len(each) * 99 // 100] / 1e6) if each else None)
        return found
