"""Everything that was read, in the memory of everything that was written: a record is kept once, though read often.

Fed poll by poll. Polls of one process come in their order (or in the opposite one): what follows what is looked at on
the way, and of each step that leaves something out or goes back one example is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from odradek.chaos.history import Poll

Partition = tuple[str, int]


class Sighting:
    """What was read at one offset. `poll`: the first one, without its records; `committed`: the first of committed
    records. `more`: other values that were read there, which is an anomaly.
    """

    __slots__ = ("committed", "more", "poll", "value")

    def __init__(self, value: str, poll: Poll) -> None:
        self.value = value
        self.poll = poll
        self.committed = poll if poll.committed_only else None
        self.more: list[Sighting] | None = None

    def again(self, poll: Poll) -> None:
        if poll.completed < self.poll.completed:
            self.poll = poll
        if poll.committed_only and (self.committed is None or poll.completed < self.committed.completed):
            self.committed = poll


class Step:
    """From one record that a consumer was given to the next one, where that is not the next offset."""

    __slots__ = ("after", "at", "before", "earlier", "internal", "later")

    def __init__(
        self, at: Partition, earlier: int, later: int, before: Poll, after: Poll, internal: bool
    ) -> None:
        self.at = at
        self.earlier = earlier
        self.later = later
        self.before = before
        self.after = after
        self.internal = internal
        """Within one poll."""


class _Run:
    """What one consumer read of a partition, poll after poll."""

    __slots__ = ("began", "first", "last", "poll")

    def __init__(self, poll: Poll, first: int, last: int) -> None:
        self.began = self.poll = poll
        self.first = first
        self.last = last


class Reads:
    """`add` every poll, then ask."""

    def __init__(self) -> None:
        self.count = 0
        self.has_final = False
        self.final: dict[Partition, dict[int, str]] = defaultdict(dict)
        self.final_values: set[str] = set()
        self._seen: dict[Partition, dict[int, Sighting]] = defaultdict(dict)
        self._runs: dict[tuple[str, int, Partition], list[_Run]] = {}
        self._steps: dict[tuple[Partition, int, int, bool], Step] = {}

    def add(self, poll: Poll) -> None:
        """`poll` itself is not kept."""
        self.count += len(poll.records)
        self.has_final |= poll.final
        brief = Poll(poll.process, poll.session, poll.completed, [], poll.committed_only, poll.final)
        spans: dict[Partition, tuple[int, int]] = {}
        """First and last offset in this poll."""
        at: Partition = ("", -1)
        seen: dict[int, Sighting] = {}
        for topic, partition, offset, value in poll.records:
            if partition != at[1] or topic != at[0]:
                at = (topic, partition)
                seen = self._seen[at]
            sighting = seen.get(offset)
            if sighting is None:
                seen[offset] = Sighting(value, brief)
            elif sighting.value == value:
                sighting.again(brief)
            else:
                self._other(sighting, value, brief)
            span = spans.get(at)
            if span is None:
                spans[at] = (offset, offset)
                continue
            if offset != span[1] + 1:
                self._step(at, span[1], offset, brief, brief, internal=True)
            spans[at] = (span[0], offset)
        if poll.final:
            for topic, partition, offset, value in poll.records:
                self.final[topic, partition][offset] = value
                self.final_values.add(value)
        for at, (first, last) in spans.items():
            self._follow(at, first, last, brief)

    @staticmethod
    def _other(sighting: Sighting, value: str, poll: Poll) -> None:
        sighting.more = sighting.more or []
        for each in sighting.more:
            if each.value == value:
                each.again(poll)
                return
        sighting.more.append(Sighting(value, poll))

    def _follow(self, at: Partition, first: int, last: int, poll: Poll) -> None:
        runs = self._runs.setdefault((poll.process, poll.session, at), [])
        if runs and runs[-1].poll.completed <= poll.completed:
            run = runs[-1]
            if first != run.last + 1:
                self._step(at, run.last, first, run.poll, poll, internal=False)
            run.poll, run.last = poll, last
        else:
            runs.append(_Run(poll, first, last))

    def _step(
        self, at: Partition, earlier: int, later: int, before: Poll, after: Poll, *, internal: bool
    ) -> None:
        key = (at, earlier, later, internal)
        if key not in self._steps:
            self._steps[key] = Step(at, earlier, later, before, after, internal)

    def steps(self) -> Iterator[Step]:
        """One example of each; not those to the very next offset."""
        yield from self._steps.values()
        for (_, _, at), runs in self._runs.items():
            runs.sort(key=lambda run: run.began.completed)
            for earlier, later in pairwise(runs):
                if later.first != earlier.last + 1:
                    yield Step(at, earlier.last, later.first, earlier.poll, later.began, False)

    def places(self) -> Iterator[tuple[Partition, int, Sighting]]:
        """Each partition and offset, with each value that was read there."""
        for at, offsets in self._seen.items():
            for offset, sighting in offsets.items():
                yield at, offset, sighting
                for other in sighting.more or ():
                    yield at, offset, other

    def contested(self) -> Iterator[tuple[Partition, int, list[Sighting]]]:
        """Offsets at which different values were read."""
        for at, offsets in self._seen.items():
            for offset, sighting in offsets.items():
                if sighting.more:
                    yield at, offset, [sighting, *sighting.more]

    def shown(self, poll: Poll, at: Partition, *offsets: int) -> Poll:
        """As evidence: the poll with the records at these offsets."""
        known = [(offset, self._seen[at].get(offset)) for offset in offsets]
        records = [(*at, offset, sighting.value) for offset, sighting in known if sighting is not None]
        return Poll(poll.process, poll.session, poll.completed, records, poll.committed_only, poll.final)
