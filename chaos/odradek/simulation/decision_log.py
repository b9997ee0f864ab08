"""T4, from the coordinators' own log: what `__transaction_state` says of each transactional id, and what became of it.

A decision that is committed there stands, whoever coordinates next: after PrepareCommit comes CompleteCommit and no
other. Every partition that it names gets the marker that it says, and no partition gets one that nobody has decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.coordinator.transaction.records import decode
from odradek.coordinator.transaction.state import (
    COMPLETE_ABORT,
    COMPLETE_COMMIT,
    PREPARE_ABORT,
    PREPARE_COMMIT,
    PREPARED,
    Transaction,
)
from odradek.simulation.trace import InvariantViolation
from odradek.wire.records import read_records

if TYPE_CHECKING:
    from odradek.simulation.history import Key
    from odradek.simulation.partition_model import PartitionModel

TOPIC = "__transaction_state"
_BYTES_MAX = 1 << 20
_END_OF = {PREPARE_COMMIT: COMPLETE_COMMIT, PREPARE_ABORT: COMPLETE_ABORT}


class Decision(NamedTuple):
    """A transaction is to end so, in these partitions."""

    transactional_id: str
    offset: int
    commits: bool
    producer: tuple[int, int]
    """(id, epoch) of its markers."""
    partitions: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        state = "PrepareCommit" if self.commits else "PrepareAbort"
        return f"{state} of {self.transactional_id} {self.producer} at {self.offset}"


class DecisionLog:
    """One partition of `__transaction_state`; fed with committed batches in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: dict[str, Decision] = {}
        """By transactional id: decided, and not yet complete."""
        self.decisions: list[Decision] = []

    def add(self, batch: bytes) -> None:
        for record in read_records(batch, limit=_BYTES_MAX):
            told = decode(record.key or b"", record.value)
            if told is not None:
                self._add(record.offset, told.transactional_id, told.value)

    def _add(self, offset: int, transactional_id: str, value: Transaction | None) -> None:
        state = value.state if value is not None else None
        decided = self._open.get(transactional_id)
        if decided is not None:
            prepared = PREPARE_COMMIT if decided.commits else PREPARE_ABORT
            if state not in (prepared, _END_OF[prepared]):
                raise InvariantViolation(f"T4: {self._name}: {decided} is followed by {state} at {offset}")
            if state is not prepared:
                del self._open[transactional_id]
        elif state is COMPLETE_COMMIT:
            raise InvariantViolation(
                f"T4: {self._name}: {transactional_id} is {state} at {offset}, and nobody has decided that"
            )
        if value is not None and state in PREPARED:
            decision = Decision(
                transactional_id,
                offset,
                state is PREPARE_COMMIT,
                (value.producer_id, value.producer_epoch),
                tuple(value.partitions),
            )
            self._open[transactional_id] = decision
            self.decisions.append(decision)

    @property
    def under_way(self) -> Iterable[Decision]:
        """Decided, and not complete."""
        return self._open.values()


def check_ends(model: PartitionModel, models: Iterable[PartitionModel]) -> None:
    """No partition sees more transactions end than were decided: a marker of an earlier one ends none."""
    ended, model.transactions.ended_last = model.transactions.ended_last, []
    logs = [each for each in models if each.topic == TOPIC]
    if not _is_known(model) or not all(map(_is_known, logs)):
        return
    for producer in ended:
        count = model.transactions.ends[producer]
        decided = sum(
            decision.producer == producer and (model.topic, model.index) in decision.partitions
            for log in logs
            for decision in log.decisions.decisions
        )
        if count > decided:
            raise InvariantViolation(
                f"T3: in {model.name} {count} transactions of {producer} have ended, {decided} were decided"
            )


def check_decisions(models: dict[Key, PartitionModel], deleted: Iterable[Key]) -> int:
    """At the end, when everything is at rest; how many decisions were looked at."""
    logs = [model for model in models.values() if model.topic == TOPIC]
    if any(not _is_known(model) for model in logs):
        return 0
    partitions = {
        (model.topic, model.index): model
        for key, model in models.items()
        if _is_known(model) and key not in deleted
    }
    decided: set[tuple[tuple[int, int], bool]] = set()
    count = 0
    for log in logs:
        for decision in log.decisions.under_way:
            raise InvariantViolation(f"T4: {log.name}: {decision} never ends")
        for decision in log.decisions.decisions:
            decided.add((decision.producer, decision.commits))
            count += 1
            for partition in decision.partitions:
                _check_marker(decision, partitions.get(partition))
    for model in partitions.values():
        for marker in model.transactions.markers - decided:
            producer, commits = marker
            what = "commits" if commits else "aborts"
            raise InvariantViolation(
                f"T4: {model.name} has a marker that {what} {producer}: nobody decided that"
            )
    return count


def _check_marker(decision: Decision, model: PartitionModel | None) -> None:
    if model is None or (decision.producer, decision.commits) in model.transactions.markers:
        return
    if model.topic == OFFSETS_TOPIC and not any(
        (batch.producer_id, batch.producer_epoch) == decision.producer for batch in model.batches
    ):
        return  # named before the topic was there, so that there was nobody to write a marker, and nothing to end
    raise InvariantViolation(f"T4: {model.name} has no marker for {decision}")


def _is_known(model: PartitionModel) -> bool:
    return not (model.losses or model.loss_allowed or model.dead)
