"""A history, sorted for the questions that the checks ask."""

from __future__ import annotations

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
from odradek.chaos.reads import Partition, Reads

__all__ = ["Anomaly", "Model", "Partition"]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be. `evidence`: the events that show it."""

    name: str
    text: str
    evidence: tuple[Event, ...] = ()


class Model:
    """See the module. Events may come in any order, those of one process in theirs."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.sends: dict[str, Send] = {}
        """By value."""
        self.transactions: dict[str, Transaction] = {}
        self.reads = Reads()
        self._commits: dict[tuple[str, str, str, int, int], Commit] = {}
        self.fetched: list[Fetched] = []
        self.assigned: list[Assigned] = []
        self.notes: list[Note] = []
        for event in events:
            self._add(event)
        self.commits = list(self._commits.values())
        self.has_final = self.reads.has_final
        self.final = self.reads.final
        self.final_values = self.reads.final_values

    def _add(self, event: Event) -> None:
        match event:
            case Send():
                if event.completed or event.value not in self.sends:
                    self.sends[event.value] = event
            case Transaction():
                if event.completed or event.id not in self.transactions:
                    self.transactions[event.id] = event
            case Poll():
                self.reads.add(event)
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
