"""I3: producer state is a pure function of the log's prefix; what a log knows of producers is what its batches say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from odradek.simulation.trace import InvariantViolation
from odradek.storage.state import NO_LIMIT
from odradek.wire.records import TRANSACTIONAL_FLAG

if TYPE_CHECKING:
    from odradek.simulation.partition_model import BatchInfo, Mirror
    from odradek.storage.log import Log


class Known(NamedTuple):
    """What there is to know of a producer."""

    epoch: int
    next_sequence: int = -1
    last_offset: int = -1
    transaction_start: int = -1


def _after(known: Known | None, batch: BatchInfo) -> Known:
    """With one batch more."""
    start = known.transaction_start if known is not None else -1
    if batch.commits is not None:
        if known is None or known.epoch != batch.producer_epoch:
            return Known(batch.producer_epoch)
        return known._replace(transaction_start=-1)
    if batch.attributes & TRANSACTIONAL_FLAG and start < 0:
        start = batch.base
    # Offsets that a coordinator writes into a transaction have no sequences.
    following = (batch.sequence + batch.end - batch.base) & 0x7FFFFFFF if batch.sequence >= 0 else 0
    return Known(batch.producer_epoch, following, batch.end - 1, start)


def _without_deleted(found: Known, wanted: Known, start: int) -> Known:
    """What was known of records that are deleted now, the log does not say any more."""
    if wanted.last_offset < 0 and found.last_offset < start:
        found = found._replace(next_sequence=-1, last_offset=-1)
    if found.transaction_start < start:
        found = found._replace(transaction_start=wanted.transaction_start)
    return found


def check_producer_state(log: Log, mirror: Mirror, host: str) -> None:
    """Compare the last batch and the next sequence of each producer that has batches in the log."""
    if log.readable_end < NO_LIMIT:
        return  # damaged: what is behind is not looked at
    last: dict[int, Known] = {}
    for batch in mirror.batches:
        if batch.producer_id >= 0 and batch.end > log.log_start_offset:
            last[batch.producer_id] = _after(last.get(batch.producer_id), batch)
    entries = log.producers.entries
    for producer_id, wanted in last.items():
        entry = entries.get(producer_id)
        found = None
        if entry is not None:
            found = Known(entry.epoch, entry.next_sequence, entry.last_offset, entry.transaction_start)
        if found is not None:
            found = _without_deleted(found, wanted, log.log_start_offset)
        if found != wanted:
            raise InvariantViolation(
                f"I3: {log.topic}-{log.partition} at {host}: producer {producer_id} is {found}, its log says {wanted}"
            )
    if mirror.start == 0 == log.log_start_offset and not mirror.compacted and len(entries) > len(last):
        extra = sorted(set(entries) - set(last))
        raise InvariantViolation(
            f"I3: {log.topic}-{log.partition} at {host} knows producers {extra} without batches"
        )
