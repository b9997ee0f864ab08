"""Between the group coordinator and `__consumer_offsets`: appends of decided records, loading at leadership."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.wire.errors import KafkaError
from odradek.wire.records import iter_batches, read_records, simple_batch

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.broker.replica_manager import ReplicaManager
    from odradek.coordinator.group_coordinator import GroupCoordinator
    from odradek.ports.clock import Clock

LOAD_BYTES = 1 << 20
"""Read at a time while loading."""
BATCH_BYTES_MAX = 64 << 20
"""Bound on a decompressed batch of the offsets topic."""


class OffsetsLog:
    """The coordinator's writer (`append`), and what loads a partition when this node starts to lead it."""

    def __init__(self, replicas: ReplicaManager, clock: Clock, warn: Callable[..., None]) -> None:
        self._replicas = replicas
        self._clock = clock
        self._warn = warn

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], done: Callable[[int], None]
    ) -> None:
        """Append one batch; `done(error code)` once it is committed, or refused."""
        now = self._clock.wall_ms()
        try:
            leader = self._replicas.leader_of(OFFSETS_TOPIC, partition)
            leader.refuse_if_too_few_in_sync()
            batch = simple_batch(records, base_offset=0, timestamp=now)
            result = leader.append(memoryview(batch), now)
        except KafkaError as error:
            done(error.code)
            return
        leader.when_committed(result.last_offset + 1, done)

    def load(self, partition: Partition, coordinator: GroupCoordinator) -> None:
        """Replay a partition of the offsets topic into the coordinator, unless it has it already."""
        if not coordinator.load_begin(partition.index, partition.leader_epoch):
            return
        try:
            self._replay(partition, coordinator)
        except KafkaError as error:
            # Half of its groups would be wrong answers for the other half: it stays "loading", and the log says why.
            self._warn(
                "the groups of a partition cannot be loaded", partition=partition.index, error=str(error)
            )
            return
        coordinator.load_end(partition.index)

    def _replay(self, partition: Partition, coordinator: GroupCoordinator) -> None:
        log = partition.log
        offset = log.log_start_offset
        end = log.written_end_offset
        while offset < end:
            result = log.read(offset, LOAD_BYTES, end_offset=end, min_one=True)
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                if header.is_control:
                    continue
                for record in read_records(
                    view[position : position + header.size], header, limit=BATCH_BYTES_MAX
                ):
                    if record.key is not None:
                        coordinator.load_record(partition.index, record.key, record.value, record.timestamp)
            if result.next_offset <= offset:
                break
            offset = result.next_offset
