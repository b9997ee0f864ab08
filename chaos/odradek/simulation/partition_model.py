"""What is true of one partition, as the simulator sees it: every replica's log batch by batch, and what is committed.

A batch is known by its header: offsets, leader epoch, CRC, producer. The CRC covers the records, so equal headers are
equal batches. Digests chain the headers: two logs with the same digest at an offset are the same up to there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from odradek.simulation.compaction_model import CommittedRecords, check_log
from odradek.simulation.decision_log import TOPIC, DecisionLog
from odradek.simulation.trace import InvariantViolation
from odradek.simulation.transaction_model import PartitionTransactions
from odradek.storage.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD
from odradek.storage.layout import LOG_SUFFIX
from odradek.storage.producers import end_transaction_marker
from odradek.wire.records import CONTROL_FLAG, parse_header

if TYPE_CHECKING:
    from odradek.storage.log import Log
    from odradek.storage.memory_disk import MemoryDisk
    from odradek.storage.segment import Segment

_unpack = HEADER.unpack_from


class BatchInfo(NamedTuple):
    """One batch of a log."""

    base: int
    end: int
    """Exclusive."""
    epoch: int
    crc: int
    producer_id: int
    producer_epoch: int
    sequence: int
    attributes: int
    commits: bool | None
    """Of a marker: what it says of the transaction that it ends."""
    digest: int
    """Of the log up to and with this batch."""
    data: bytes = b""
    """All of it, of the log of transaction coordinators and of compacted ones; else none."""
    records: int = 0
    """How many."""


class Mirror:
    """One replica's log, read from its files as it grows; read anew after a truncation."""

    def __init__(
        self, disk: MemoryDisk, log: Log, digest_at: Callable[[int], int], *, compacted: bool = False
    ) -> None:
        """`digest_at`: that of everything below the offset at which the log begins."""
        self._disk = disk
        self._digest_at = digest_at
        self.log = log
        self.batches: list[BatchInfo] = []
        self.bases: list[int] = []
        self._truncations = -1
        self._segment = -1
        self._position = 0
        self.end = 0
        self.truncated = False
        """Whether the last `follow` found that the log was cut."""
        self.compacted = compacted
        """Segments may be replaced: digests say nothing then, and records are looked at (compaction_model.py)."""
        self.checked_below = 0
        """What was looked at already, of a compacted log."""
        self.replaced = 0
        """How often segments were."""
        self._known: list[Segment] = []

    def follow(self) -> list[BatchInfo]:
        """Read what is new; the new batches (all of them after a truncation)."""
        log = self.log
        if not log._segments:
            return []  # in the middle of a truncation that the process does not live to finish
        self.truncated = log._truncations != self._truncations
        if self.truncated:
            self.truncated = self._truncations >= 0
            self._truncations = log._truncations
            self._begin_anew()
        if self.compacted and not self._is_continued():
            if not all(self._disk.exists(segment.path(LOG_SUFFIX)) for segment in log._segments):
                return []  # in the middle of a swap that has failed, or that the process does not live to finish
            self.replaced += 1
            self._begin_anew()
        new: list[BatchInfo] = []
        for segment in log._segments:
            if segment.base_offset < self._segment:
                continue
            if segment.base_offset > self._segment:
                self._segment, self._position = segment.base_offset, 0
            self._read(self._disk._file(segment.path(LOG_SUFFIX)).data, segment.written, new)
        self.end = min(log.written_end_offset, log.readable_end)
        self._known = list(log._segments) if self.compacted else []
        return new

    def _begin_anew(self) -> None:
        self.batches, self.bases = [], []
        self._segment, self._known = -1, []
        self.checked_below = 0

    def _is_continued(self) -> bool:
        """Whether the segments are those that were read; old ones may have gone."""
        first = self.log._segments[0].base_offset
        left = [segment for segment in self._known if segment.base_offset >= first]
        return all(one is other for one, other in zip(left, self.log._segments, strict=False))

    def _read(self, data: bytearray, written: int, new: list[BatchInfo]) -> None:
        position = self._position
        tells = self.log.topic == TOPIC or self.compacted
        digest = self.batches[-1].digest if self.batches else self._digest_at(self._segment)
        readable_end = self.log.readable_end
        while position + HEADER_SIZE <= written:
            base, length, epoch, magic, crc, attributes, delta, _, _, pid, pepoch, sequence, count = _unpack(
                data, position
            )
            if base >= readable_end or magic != 2 or length <= 0:
                break  # damage: the log is out of service from here on
            digest = hash((digest, base, delta, epoch, crc))
            end = position + length + LOG_OVERHEAD
            commits = None
            if attributes & CONTROL_FLAG and pid >= 0 and count:
                commits = _commits(bytes(data[position:end]))
            batch = BatchInfo(
                base, base + delta + 1, epoch, crc, pid, pepoch, sequence, attributes, commits, digest,
                bytes(data[position:end]) if tells else b"", count,
            )  # fmt: skip
            self.batches.append(batch)
            self.bases.append(base)
            new.append(batch)
            position = end
        self._position = position

    @property
    def start(self) -> int:
        """Where the batches begin; digests are comparable only between logs that begin alike."""
        return self.bases[0] if self.bases else self.end

    def at(self, offset: int) -> BatchInfo | None:
        """The batch that holds an offset."""
        return batch_at(self.batches, self.bases, offset)

    def digest_below(self, end: int) -> int | None:
        """Of everything below an offset at which a batch ends; None if none does."""
        batch = self.at(end - 1)
        return batch.digest if batch is not None and batch.end == end else None


def _commits(batch: bytes) -> bool | None:
    marker = end_transaction_marker(parse_header(memoryview(batch)), batch)
    return marker.commit if marker is not None else None


def batch_info(batch: bytes) -> BatchInfo:
    """One that somebody was given."""
    base, _, epoch, _, crc, attributes, delta, _, _, pid, pepoch, sequence, count = _unpack(batch, 0)
    commits = _commits(batch) if attributes & CONTROL_FLAG and pid >= 0 and count else None
    return BatchInfo(
        base, base + delta + 1, epoch, crc, pid, pepoch, sequence, attributes, commits, 0, batch, count
    )


def batch_at(batches: list[BatchInfo], bases: list[int], offset: int) -> BatchInfo | None:
    index = bisect_right(bases, offset) - 1
    if index >= 0 and offset < batches[index].end:
        return batches[index]
    return None


class PartitionModel:
    """The committed log of one partition, which never changes once it is known, and its replicas."""

    def __init__(self, topic: str, index: int, now_us: Callable[[], int] = lambda: 0) -> None:
        self.now_us = now_us
        self.topic = topic
        self.index = index
        self.name = f"{topic}-{index}"
        self.batches: list[BatchInfo] = []
        self.bases: list[int] = []
        self.high_watermark = 0
        """The true one: the largest that any leader has had (P6)."""
        self.log_start = 0
        """The largest log start that any leader has had: below it nothing need be there any more."""
        self.log_start_somewhere = 0
        """The same of all replicas: each deletes by retention on its own, as in Kafka."""
        self.leaders: list[tuple[int, int]] = []
        """(leader epoch, node) of everybody who has served as leader, in order."""
        self.loss_allowed = False
        """More has failed than the promises cover: what is committed may go, and is learned anew."""
        self.losses = 0
        self.dead = False
        """The only replica is damaged in the middle: a person has to decide what becomes of it."""
        self.transactions = PartitionTransactions(self.name)
        self.decisions = DecisionLog(self.name)
        """Of a partition of `__transaction_state`."""
        self.records: CommittedRecords | None = None
        """Of a partition that is compacted."""
        self._producers: dict[int, tuple[int, int]] = {}
        self._last_ends: dict[int, int] = {}

    @property
    def stable_end(self) -> int:
        """The true last stable offset."""
        return self.transactions.stable_end(self.high_watermark)

    def commit(self, mirror: Mirror, high_watermark: int, who: str) -> None:
        """The leader with this log exposes everything below `high_watermark`."""
        if high_watermark <= self.high_watermark:
            return
        if mirror.end < high_watermark:
            raise InvariantViolation(
                f"P5: {self.name}: {who} has high watermark {high_watermark} and a log that ends at {mirror.end}"
            )
        index = bisect_right(mirror.bases, self.high_watermark - 1) if self.high_watermark else 0
        for batch in mirror.batches[index:]:
            if batch.base >= high_watermark:
                break
            if batch.base < self.high_watermark:
                continue
            self._check_sequence(batch, who)
            self._learn(batch)
            self.batches.append(batch)
            self.bases.append(batch.base)
        self.high_watermark = high_watermark

    def _learn(self, batch: BatchInfo) -> None:
        self.transactions.add(batch)
        if self.records is not None:
            self.records.add(batch, self.now_us())
        if self.topic == TOPIC:
            self.decisions.add(batch.data)

    def _check_sequence(self, batch: BatchInfo, who: str) -> None:
        """I1: sequences of a producer and epoch follow one another. The first that a log has of a producer may be any,
        as in Kafka: what was before may have been deleted.
        """
        if batch.producer_id < 0 or batch.sequence < 0:
            return
        epoch, following = self._producers.get(batch.producer_id, (-1, batch.sequence))
        if self._last_ends.get(batch.producer_id, self.log_start_somewhere) <= self.log_start_somewhere:
            epoch, following = -1, batch.sequence  # nothing of it is left: after a restart nobody knows it
        wanted = following if batch.producer_epoch == epoch or epoch < 0 else 0
        if batch.producer_epoch < epoch or (batch.sequence != wanted and not self.losses):
            raise InvariantViolation(
                f"I1: {self.name}: {who} commits sequence {batch.sequence} of producer {batch.producer_id} epoch "
                f"{batch.producer_epoch} at {batch.base}, after {following - 1} of epoch {epoch}"
            )
        following = (batch.sequence + batch.end - batch.base) & 0x7FFFFFFF
        self._producers[batch.producer_id] = (batch.producer_epoch, following)
        self._last_ends[batch.producer_id] = batch.end

    def check_prefix(self, mirror: Mirror, end: int, what: str) -> None:
        """A log must hold what is committed below `end`, from where it starts on; but for what compaction may drop."""
        if mirror.end < end:
            raise InvariantViolation(
                f"{what}: {self.name} ends at {mirror.end}, committed below {self.high_watermark}"
            )
        if not self.batches or not mirror.batches:
            return
        if mirror.compacted:
            if self.records is not None:
                check_log(self, mirror, end, what)
            return
        last = self.at(end - 1)
        if last is None:
            return
        held = mirror.at(last.base)
        if held is None:
            if last.end <= max(mirror.start, mirror.log.log_start_offset):
                return
        elif held.digest == last.digest:
            return
        raise InvariantViolation(f"{what}: {self.name} holds {held} where {last} is committed")

    def at(self, offset: int) -> BatchInfo | None:
        return batch_at(self.batches, self.bases, offset)

    def digest_below(self, offset: int) -> int:
        """Of what is committed below an offset: where a log that starts there begins to count."""
        batch = self.at(offset - 1) if offset else None
        return batch.digest if batch is not None else 0

    def begin_anew(self, mirror: Mirror) -> None:
        """What was committed may be lost: what this leader has is the truth from now on."""
        self.losses += 1
        self.loss_allowed = False
        self.records = None  # what was compacted here, others may still have
        self.high_watermark = min(self.high_watermark, mirror.end)
        self.batches = [batch for batch in mirror.batches if batch.end <= self.high_watermark]
        self.bases = [batch.base for batch in self.batches]
        self._producers.clear()
        self.transactions = PartitionTransactions(self.name)
        self.decisions = DecisionLog(self.name)
        for batch in self.batches:
            self._learn(batch)
