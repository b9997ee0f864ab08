"""I3: producer state is a pure function of the log's prefix; what a log knows of producers is what its batches say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.simulation.trace import InvariantViolation
from odradek.storage.state import NO_LIMIT

if TYPE_CHECKING:
    from odradek.simulation.partition_model import BatchInfo, Mirror
    from odradek.storage.log import Log


def check_producer_state(log: Log, mirror: Mirror, host: str) -> None:
    """Compare the last batch and the next sequence of each producer that has batches in the log."""
    if log.readable_end < NO_LIMIT:
        return  # damaged: what is behind is not looked at
    last: dict[int, BatchInfo] = {}
    for batch in mirror.batches:
        if batch.producer_id >= 0 and batch.sequence >= 0:
            last[batch.producer_id] = batch
    entries = log.producers.entries
    for producer_id, batch in last.items():
        entry = entries.get(producer_id)
        wanted = (batch.producer_epoch, (batch.sequence + batch.end - batch.base) & 0x7FFFFFFF, batch.end - 1)
        found = (entry.epoch, entry.next_sequence, entry.last_offset) if entry is not None else None
        if found != wanted:
            raise InvariantViolation(
                f"I3: {log.topic}-{log.partition} at {host}: producer {producer_id} is (epoch, next sequence, last "
                f"offset) {found}, its log says {wanted}"
            )
    if mirror.start == 0 and len(entries) > len(last):
        extra = sorted(set(entries) - set(last))
        raise InvariantViolation(
            f"I3: {log.topic}-{log.partition} at {host} knows producers {extra} without batches"
        )
