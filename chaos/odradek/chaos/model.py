"""A history, sorted for the questions that the checks ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from odradek.chaos.history import (
    FAILED,
    OK,
    Assigned,
    Commit,
    Event,
    Fetched,
    Note,
    Poll,
    Send,
    Transaction,
)

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be. `evidence`: the events that show it."""

    name: str
    text: str
    evidence: tuple[Event, ...] = ()


class Model:
    """See the module. Events may come in any order."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.sends: dict[str, Send] = {}
        """By value."""
        self.transactions: dict[str, Transaction] = {}
        self.polls: list[Poll] = []
        self._commits: dict[tuple[str, str, str, int, int], Commit] = {}
        self.fetched: list[Fetched] = []
        self.assigned: list[Assigned] = []
        self.notes: list[Note] = []
        for event in events:
            self._add(event)
        self.commits = list(self._commits.values())
        self.polls.sort(key=lambda poll: poll.completed)
        self.has_final = any(poll.final for poll in self.polls)
        self.records_read = sum(len(poll.records) for poll in self.polls)
        self.seen: dict[Partition, dict[int, dict[str, Poll]]] = defaultdict(lambda: defaultdict(dict))
        """By partition and offset: what was read there, and in which poll first."""
        self.final: dict[Partition, dict[int, str]] = defaultdict(dict)
        self.final_values: set[str] = set()
        self._collect_reads()

    def _add(self, event: Event) -> None:
        match event:
            case Send():
                if event.completed or event.value not in self.sends:
                    self.sends[event.value] = event
            case Transaction():
                if event.completed or event.id not in self.transactions:
                    self.transactions[event.id] = event
            case Poll():
                self.polls.append(event)
            case Commit():
                key = (event.process, event.group, event.topic, event.partition, event.invoked)
                if event.completed or key not in self._commits:
                    self._commits[key] = event
            case Fetched():
                self.fetched.append(event)
            case Assigned():
                self.assigned.append(event)
            case Note():
                self.notes.append(event)

    def _collect_reads(self) -> None:
        for poll in self.polls:
            for topic, partition, offset, value in poll.records:
                self.seen[topic, partition][offset].setdefault(value, poll)
                if poll.final:
                    self.final[topic, partition][offset] = value
                    self.final_values.add(value)

    def transaction_of(self, send: Send | Commit) -> Transaction | None:
        """How its transaction ended. One that nobody asked to be committed is aborted."""
        if send.transaction is None:
            return None
        found = self.transactions.get(send.transaction)
        if found is None:
            found = Transaction(send.process, send.transaction, FAILED, send.invoked, send.completed)
        return found

    def visible(self, send: Send) -> bool | None:
        """Whether a reader of committed records must in the end see a record: yes, no, or None for either."""
        if send.outcome == FAILED:
            return False
        if send.transaction is None:
            return True if send.outcome == OK else None
        end = self.transaction_of(send)
        if end is not None and end.outcome == FAILED:
            return False
        if end is not None and end.outcome == OK and send.outcome == OK:
            return True
        return None
