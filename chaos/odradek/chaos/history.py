"""What clients sent and saw, as a list of events: one JSON object a line.

Times are nanoseconds of one machine's monotonic clock. `process` is a client; a client that starts anew is another
process. Values are unique in the whole history. What takes time is written twice: before it is asked for, as UNKNOWN
with `completed` 0, and when its end is known. A client that is killed in between leaves the first line only: then it
may take effect at any later time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from sys import intern
from typing import Any, TextIO

OK = "ok"
FAILED = "failed"
"""It has no effect, for certain."""
UNKNOWN = "unknown"
DRAINED = "drained"
FAULT, HEALED, METADATA_BACK = "fault", "healed", "metadata-back"
CLIENT_ERROR, CLIENT_OVERDUE = "client-error", "client-overdue"
"""What notes are about; see `Note`."""


@dataclass(slots=True)
class Send:
    """One record, acknowledged at `offset`, failed, or unknown."""

    process: str
    topic: str
    partition: int
    value: str
    outcome: str
    offset: int | None
    invoked: int
    completed: int
    transaction: str | None = None
    origin: str | None = None
    """The value it was made of, where the producer reads one topic and writes another."""


@dataclass(slots=True)
class Transaction:
    """The end of a transaction: OK committed, FAILED aborted. `invoked`: when its commit or abort was asked for."""

    process: str
    id: str
    outcome: str
    invoked: int
    completed: int


@dataclass(slots=True)
class Poll:
    """Records that one call of a consumer returned, in its order.

    `session` changes whenever the consumer is given other partitions or seeks: from then on it may jump.
    """

    process: str
    session: int
    completed: int
    records: list[tuple[str, int, int, str]]
    """(topic, partition, offset, value)"""
    committed_only: bool = True
    """isolation.level=read_committed"""
    final: bool = False
    """Part of the last reading of everything, after all faults, from the beginning to the end."""


@dataclass(slots=True)
class Commit:
    """A group's offset of a partition, committed by a member (`owner`) in a `generation`, also within a transaction."""

    process: str
    group: str
    topic: str
    partition: int
    offset: int
    outcome: str
    invoked: int
    completed: int
    generation: int | None = None
    transaction: str | None = None


@dataclass(slots=True)
class Fetched:
    """The committed offset that a group was told; None: there is none."""

    process: str
    group: str
    topic: str
    partition: int
    offset: int | None
    invoked: int
    completed: int


@dataclass(slots=True)
class Assigned:
    """A member has all these partitions from now on, and no others, in `generation` where it knows that.

    `owner` tells members apart: the process, or what lasts of a static member.
    """

    process: str
    owner: str
    group: str
    partitions: list[tuple[str, int]]
    at: int
    generation: int | None = None


@dataclass(slots=True)
class Note:
    """Something that was done to the cluster, or happened to it.

    FAULT: `target` says to whom; `details` have "number", "label", "lasts" and "expect". HEALED, METADATA_BACK (topics
    can be created again): of the fault "number". CLIENT_ERROR: the process `target` had to begin anew, because of
    "error"; CLIENT_OVERDUE: so it had, by its library's own
    doing: a call that did not return in time, a broker that it forgot.
    DRAINED: all of topic `target` was worked off into the topic that `details` names as "sink".
    """

    at: int
    what: str
    target: str = ""
    details: dict[str, Any] = field(default_factory=dict)


Event = Send | Transaction | Poll | Commit | Fetched | Assigned | Note
KINDS: dict[str, type[Any]] = {
    "send": Send,
    "transaction": Transaction,
    "poll": Poll,
    "commit": Commit,
    "fetched": Fetched,
    "assigned": Assigned,
    "note": Note,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in _NAMES}


class HistoryError(ValueError):
    """A line that is no event."""


class Recorder:
    """Writes the history of one process. `file` is line-buffered: what was added outlives a kill -9 of the writer."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, event: Event) -> None:
        kind = type(event)
        values = {name: getattr(event, name) for name in _FIELDS[kind]}
        self._file.write(json.dumps({"kind": _NAMES[kind], **values}, separators=(",", ":")) + "\n")


def read_history(*paths: str | Path) -> Iterator[Event]:
    """The events of these files, in the order of their lines. HistoryError names the line that is none.

    A last line without an end is what a killed writer was at: it is left out.
    """
    for path in paths:
        with Path(path).open() as file:
            try:
                yield from parse(line for line in file if line.endswith("\n"))
            except HistoryError as error:
                raise HistoryError(f"{path}: {error}") from error


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """See `read_history`."""
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            kind = KINDS[found.pop("kind")]
            unknown = found.keys() - {each.name for each in fields(kind)}
            if unknown:
                raise HistoryError(f"line {number}: {sorted(unknown)} is not known")
            event: Event = kind(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, HistoryError):
                raise
            raise HistoryError(f"line {number} is no event: {error}") from error
        if isinstance(event, Send):
            # Written twice, read many times, and named by others: one copy of each string is enough.
            event.process, event.topic = intern(event.process), intern(event.topic)
            event.value, event.outcome = intern(event.value), intern(event.outcome)
            event.transaction = None if event.transaction is None else intern(event.transaction)
            event.origin = None if event.origin is None else intern(event.origin)
        elif isinstance(event, Poll):
            event.process = intern(event.process)
            # Everything is read many times: one copy of each string is enough.
            event.records = [
                (intern(topic), partition, offset, intern(value))
                for topic, partition, offset, value in event.records
            ]
        elif isinstance(event, Assigned):
            event.partitions = [(topic, partition) for topic, partition in event.partitions]
        yield event
