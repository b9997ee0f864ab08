"""What transactional producers did and were told, judged against the committed logs (T1, T4 to T6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from odradek.simulation.history import Fate, Key, Sent
from odradek.simulation.trace import InvariantViolation

if TYPE_CHECKING:
    from odradek.simulation.partition_model import PartitionModel


class End(Enum):
    OPEN = "open"
    COMMITTED = "committed"
    """The client was told so."""
    ABORTED = "aborted"
    """So it was told, or it never asked for anything else."""
    UNKNOWN = "unknown"
    """It asked for the commit and had no answer."""


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of one client."""

    transactional_id: str
    number: int
    """Rising for each transactional id: whoever begins later has the newer epoch, or loses."""
    client: str
    producer: tuple[int, int]
    """(id, epoch)."""
    batches: list[Sent] = field(default_factory=list)
    offset: int = -1
    """Committed for the group of this transactional id; -1: none was acknowledged."""
    end: End = End.OPEN

    def __str__(self) -> str:
        return f"{self.transactional_id}/{self.number} of {self.client} {self.producer}"


class TransactionHistory:
    """All transactions of one run."""

    def __init__(self) -> None:
        self._all: dict[str, list[Transaction]] = {}
        self._offsets: dict[str, int] = {}

    def begin(self, transactional_id: str, client: str, producer: tuple[int, int]) -> Transaction:
        known = self._all.setdefault(transactional_id, [])
        transaction = Transaction(transactional_id, len(known), client, producer)
        known.append(transaction)
        return transaction

    def next_offset(self, transactional_id: str) -> int:
        """The next position to commit with a transaction: larger than all before."""
        self._offsets[transactional_id] = self._offsets.get(transactional_id, 0) + 1
        return self._offsets[transactional_id]

    def count(self, end: End) -> int:
        return sum(each.end is end for known in self._all.values() for each in known)

    def check_all(self, models: dict[Key, PartitionModel]) -> None:
        for known in self._all.values():
            for transaction in known:
                self._judge(transaction, models)

    def _judge(self, transaction: Transaction, models: dict[Key, PartitionModel]) -> None:
        """T1: all of it or nothing, as the client was told if it was. T5: nothing is left open."""
        outcomes = {sent.crc: _outcome(sent, models) for sent in transaction.batches}
        if None in outcomes.values():
            return  # of a partition that may have lost it
        found = {outcome for outcome in outcomes.values() if outcome is not _MISSING}
        if "open" in found:
            raise InvariantViolation(f"T5: transaction {transaction} is still open: {_tell(outcomes)}")
        if len(found) > 1:
            raise InvariantViolation(f"T1: transaction {transaction} is split: {_tell(outcomes)}")
        if transaction.end is End.COMMITTED and found != {"committed"}:
            raise InvariantViolation(
                f"T4: transaction {transaction} was acknowledged as committed and is {_tell(outcomes)}"
            )
        if transaction.end in (End.ABORTED, End.OPEN) and "committed" in found:
            raise InvariantViolation(
                f"T6: transaction {transaction} was never to be committed and is {_tell(outcomes)}"
            )
        acked = [sent for sent in transaction.batches if sent.fate is Fate.ACKED]
        if found == {"committed"} and any(outcomes[sent.crc] is _MISSING for sent in acked):
            raise InvariantViolation(
                f"T1: transaction {transaction} is committed without some batches: {_tell(outcomes)}"
            )

    def expected_offset(self, transactional_id: str, models: dict[Key, PartitionModel]) -> int | None:
        """What the last committed transaction with offsets committed; None if nobody can tell."""
        expected = -1
        for transaction in self._all.get(transactional_id, ()):
            outcomes = [_outcome(sent, models) for sent in transaction.batches]
            if None in outcomes:
                return None
            if "committed" in outcomes and transaction.offset >= 0:
                expected = transaction.offset
        return expected

    def ids(self) -> Iterable[str]:
        return self._all


_MISSING = "missing"


def _outcome(sent: Sent, models: dict[Key, PartitionModel]) -> str | None:
    """None: of a partition that may have lost it."""
    model = models.get(sent.key)
    if model is None or model.losses or model.loss_allowed or model.dead:
        return None
    for base in sent.found:
        outcome = model.transactions.outcome.get(base)
        return "open" if outcome is None else "committed" if outcome else "aborted"
    return _MISSING


def _tell(outcomes: dict[int, str | None]) -> str:
    return ", ".join(f"{crc:08x} {outcome}" for crc, outcome in outcomes.items())
