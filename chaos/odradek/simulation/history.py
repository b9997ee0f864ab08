"""What clients sent, were told and read, judged against what is committed (Jepsen's Kafka workload has the names).

A batch is known by its CRC: every batch that a simulated producer sends is different from all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from odradek.simulation.trace import InvariantViolation

if TYPE_CHECKING:
    from odradek.simulation.partition_model import BatchInfo, PartitionModel

Key = tuple[bytes, int]
"""(topic id, partition)."""


class Fate(Enum):
    PENDING = "pending"
    ACKED = "acked"
    FAILED = "failed"
    """Refused each time: it is nowhere."""
    UNKNOWN = "unknown"
    """No answer, or one that leaves it open."""


@dataclass(slots=True, eq=False)
class Sent:
    """One batch of one producer."""

    producer: str
    number: int
    """Rising for each producer and partition."""
    key: Key
    count: int
    crc: int
    acks: int
    idempotent: bool
    fate: Fate = Fate.PENDING
    base: int = -1
    """Where it was said to be, if it was acknowledged with an offset."""
    acked_by: str = ""
    leaders_then: int = 0
    """How many leaders the partition had had when it was acknowledged."""
    doubts: int = 0
    """Attempts whose outcome nobody told."""
    found: list[int] = field(default_factory=list)


class History:
    """Everything the clients of one run did with records."""

    def __init__(self) -> None:
        self.sent: dict[int, Sent] = {}
        self.acked = 0
        self.unknown = 0
        self.refused = 0
        self.read = 0
        self.deleted: set[Key] = set()
        """Partitions of topics that were deleted: nothing is promised of them."""

    def send(self, sent: Sent) -> None:
        assert sent.crc not in self.sent, "two batches with one CRC: the workload must make them differ"
        self.sent[sent.crc] = sent

    def settle(self, sent: Sent, fate: Fate, base: int, model: PartitionModel | None, by: str) -> None:
        """The producer has learned what there is to learn, from host `by` if it was acknowledged."""
        assert sent.fate is Fate.PENDING
        sent.fate, sent.base, sent.acked_by = fate, base, by
        if fate is Fate.ACKED:
            self.acked += 1
            if model is not None:
                sent.leaders_then = len(model.leaders)
                if sent.acks == -1:
                    self._check_acked(sent, model)
        elif fate is Fate.UNKNOWN:
            self.unknown += 1
        else:
            self.refused += 1

    def _check_acked(self, sent: Sent, model: PartitionModel) -> None:
        """P3 as far as a client sees it: what all acknowledge is committed, where it was said to be. I2 too."""
        if model.losses or model.loss_allowed or model.dead or sent.base < 0:
            return
        batch = model.at(sent.base)
        if batch is None and sent.base < model.log_start:
            return
        if batch is None or batch.base != sent.base or batch.crc != sent.crc:
            raise InvariantViolation(
                f"lost-write: {model.name}: {sent.producer}/{sent.number} is acknowledged at {sent.base}, where "
                f"{batch} is committed, below {model.high_watermark}"
            )

    def check_read(self, model: PartitionModel, base: int, crc: int, who: str) -> None:
        """P7: what a consumer reads is committed and never changes."""
        self.read += 1
        if model.dead:
            return
        batch = model.at(base)
        if batch is None or batch.base != base or batch.crc != crc:
            raise InvariantViolation(
                f"P7: {model.name}: {who} reads batch {crc:08x} at {base}, where {batch} is committed, below "
                f"{model.high_watermark}"
            )

    # -- at the end ----------------------------------------------------------------------------------------------

    def check_all(self, models: dict[Key, PartitionModel]) -> None:
        """Every batch against the committed logs, once everything is quiet."""
        for key, model in models.items():
            if key not in self.deleted and not model.dead:
                self._find(key, model)
        for sent in self.sent.values():
            held = models.get(sent.key)
            if held is not None and sent.key not in self.deleted and not held.dead:
                self._judge(sent, held)

    def _find(self, key: Key, model: PartitionModel) -> None:
        numbers: dict[str, int] = {}
        for batch in model.batches:
            sent = self.sent.get(batch.crc)
            if sent is None:
                continue
            if sent.key != key:
                raise InvariantViolation(f"inconsistent-offsets: {model.name} holds a batch of {sent.key}")
            sent.found.append(batch.base)
            self._check_order(sent, batch, model, numbers)

    def _check_order(
        self, sent: Sent, batch: BatchInfo, model: PartitionModel, numbers: dict[str, int]
    ) -> None:
        """Idempotent producers: in the order of sending, and once. Others may be doubled and overtaken."""
        if not sent.idempotent:
            return
        before = numbers.get(sent.producer, -1)
        if len(sent.found) > 1 and not model.losses:
            raise InvariantViolation(
                f"duplicate: {model.name}: {sent.producer}/{sent.number} is at {sent.found}"
            )
        if sent.number < before and not model.losses:
            raise InvariantViolation(
                f"nonmonotonic-send: {model.name}: {sent.producer}/{sent.number} at {batch.base} comes after number "
                f"{before}"
            )
        numbers[sent.producer] = sent.number

    def _judge(self, sent: Sent, model: PartitionModel) -> None:
        if sent.fate is Fate.FAILED and sent.found:
            raise InvariantViolation(
                f"unseen: {model.name}: {sent.producer}/{sent.number} was refused, and is at {sent.found}"
            )
        if sent.fate is not Fate.ACKED or sent.found or not self._must_be_there(sent, model):
            return
        raise InvariantViolation(
            f"lost-write: {model.name}: {sent.producer}/{sent.number} (acks={sent.acks}) was acknowledged at "
            f"{sent.base} and is nowhere; the log ends at {model.high_watermark}"
        )

    def _must_be_there(self, sent: Sent, model: PartitionModel) -> bool:
        """D1 to D3, less what retention has deleted."""
        if model.losses or 0 <= sent.base < model.log_start or sent.acks == 0:
            return False
        if sent.acks == -1:
            return True
        later = {f"n{node}" for _, node in model.leaders[max(0, sent.leaders_then - 1) :]}
        return later <= {sent.acked_by}
