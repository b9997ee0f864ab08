"""Between a coordinator and its internal topic: appends of decided records, loading at leadership.

One for the groups (`__consumer_offsets`), one for transactions (`__transaction_state`). Loading runs in slices on the
timers, so that the loop stays free for everybody else; partitions take turns. A load belongs to a leader epoch: when
the partition is led no more, or is loaded again, it stops where it is. It ends when everything it has read is
committed, so that nobody is told of, and no marker is written for, what a later leader may not have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from odradek.storage.producers import end_transaction_marker
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import parse_records
from odradek.wire.records import HEADER, HEADER_SIZE, BatchHeader, read_records, simple_batch

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.broker.replica_manager import ReplicaManager
    from odradek.coordinator.runtime import CoordinatorRuntime, Marker
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Syncer
    from odradek.ports.timers import TimerQueue
    from odradek.storage.log import AppendResult

READ_BYTES = 256 << 10
"""Read at a time while loading."""
SLICE_NS = 5_000_000
"""How long one slice of a load keeps everybody else waiting."""
BATCH_BYTES_MAX = 64 << 20
"""Bound on a decompressed batch of an internal topic."""

Records = list[tuple[bytes, bytes | None]]
Done = Callable[[int], None]


class CoordinatorLog:
    """The coordinator's `PartitionWriter`, and what loads a partition when this node starts to lead it."""

    def __init__(
        self,
        topic: str,
        replicas: ReplicaManager,
        clock: Clock,
        timers: TimerQueue,
        syncer: Syncer,
        warn: Callable[..., None],
    ) -> None:
        self._topic = topic
        self._replicas = replicas
        self._clock = clock
        self._timers = timers
        self._syncer = syncer
        self._warn = warn
        self._loads: deque[_Load] = deque()
        self._armed = False

    # -- appending -----------------------------------------------------------------------------------------------

    def append(self, partition: int, records: Records, done: Done) -> None:
        """Append one batch; `done(error code)` once it is committed, or refused. See `PartitionWriter`."""
        now = self._clock.wall_ms()
        self._append(partition, simple_batch(records, base_offset=0, timestamp=now), now, done)

    def append_transactional(
        self, partition: int, producer_id: int, producer_epoch: int, records: Records, done: Done
    ) -> None:
        """The same, as a batch of a transaction; it has no sequences, as its producer does not write it."""
        now = self._clock.wall_ms()
        batch = simple_batch(
            records,
            base_offset=0,
            timestamp=now,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            transactional=True,
        )
        self._append(partition, batch, now, done)

    def append_marker(self, partition: int, marker: Marker, done: Done) -> None:
        """The marker that ends a transaction here."""
        wall_ms = self._clock.wall_ms()
        self._run(partition, lambda leader: leader.append_marker(marker, wall_ms), done)

    def _append(self, partition: int, batch: bytearray, wall_ms: int, done: Done) -> None:
        self._run(partition, lambda leader: leader.append_internally(memoryview(batch), wall_ms), done)

    def _run(self, partition: int, append: Callable[[Partition], AppendResult], done: Done) -> None:
        try:
            leader = self._replicas.leader_of(self._topic, partition)
            leader.refuse_if_too_few_in_sync()
            result = append(leader)
        except KafkaError as error:
            done(error.code)
            return
        end = result.last_offset + 1

        def told(code: int) -> None:
            done(code)
            if code == ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND:
                _tell_commit(leader, end, done)

        leader.when_committed(end, told)

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, partition: Partition, owner: CoordinatorRuntime[Any]) -> None:
        """Replay a partition into its coordinator, unless that has it already; `load_end` tells it when."""
        if owner.load_begin(partition.index, partition.leader_epoch):
            self._loads = deque(load for load in self._loads if load.partition is not partition)
            self._loads.append(_Load(partition, owner))
            self._arm()

    def _arm(self, at_ms: int | None = None) -> None:
        if not self._armed and self._loads:
            self._armed = True
            self._timers.at(self._clock.monotonic_ms() if at_ms is None else at_ms, self._run_slice)

    def _run_slice(self, now_ms: int) -> None:
        """Loads take turns until the slice is over. The next one comes after everything that waits for the loop."""
        self._armed = False
        clock_ns = self._clock.monotonic_ns
        end_ns = clock_ns() + SLICE_NS
        while self._loads and clock_ns() < end_ns:
            load = self._loads.popleft()
            try:
                if load.is_wanted and self._advance(load, end_ns):
                    self._loads.append(load)
            except KafkaError as error:
                # Half of the records would be wrong answers for the other half: it stays "loading", the log says why.
                self._warn(
                    "a partition of a coordinator cannot be loaded",
                    topic=self._topic,
                    partition=load.partition.index,
                    error=str(error),
                )
        self._arm(max(self._clock.monotonic_ms(), now_ms + 1))

    def _advance(self, load: _Load, end_ns: int) -> bool:
        """Replay what is read, then read on; False if the load is over, or waits for the disk or a commit."""
        clock_ns = self._clock.monotonic_ns
        for _ in load.batches:
            if clock_ns() >= end_ns:
                return True
        if load.offset >= load.end:
            load.end_when_committed()
            return False
        where = load.partition.log.locate(load.offset, READ_BYTES, load.end)
        if not where.cached and not load.warmed:
            load.warmed = True
            self._syncer.run(where.warm, partial(self._warmed, load))
            return False
        load.warmed = False
        load.read()
        return True

    def _warmed(self, load: _Load, _error: OSError | None) -> None:
        """In the page cache now; if not, the read itself says why."""
        self._loads.append(load)
        self._arm()


def _tell_commit(partition: Partition, end: int, done: Done) -> None:
    """`done(NONE)` when what is in the log is committed after all, as long as this node leads: no later write may come
    to tell, where the coordinator lets none begin before it knows.
    """
    epoch, key = partition.leader_epoch, object()

    def wake(_partition: Partition) -> None:
        leads = partition.leads and partition.leader_epoch == epoch
        committed = partition.high_watermark >= end
        if committed or not leads:
            partition.unwatch_data(key)
        if committed and leads:
            done(ErrorCode.NONE)

    partition.watch_data(key, wake)


class _Load:
    """One partition on its way into its coordinator."""

    __slots__ = ("batches", "end", "epoch", "offset", "owner", "partition", "warmed")

    def __init__(self, partition: Partition, owner: CoordinatorRuntime[Any]) -> None:
        self.partition = partition
        self.owner = owner
        self.epoch = partition.leader_epoch
        self.offset = partition.log.log_start_offset
        self.end = partition.log.written_end_offset
        """Nothing is written before the load ends: the coordinator refuses."""
        self.batches: Iterator[None] = iter(())
        self.warmed = False

    @property
    def is_wanted(self) -> bool:
        return self.partition.leads and self.partition.leader_epoch == self.epoch

    def read(self) -> None:
        result = self.partition.log.read(self.offset, READ_BYTES, end_offset=self.end, min_one=True)
        if result.next_offset <= self.offset:
            self.offset = self.end
        else:
            self.offset = result.next_offset
            self.batches = self._replay(memoryview(result.data))

    def _replay(self, view: memoryview) -> Iterator[None]:
        """One batch at a step."""
        owner, index = self.owner, self.partition.index
        for position, header in _batches(view):
            batch = view[position : position + header.size]
            producer_id, epoch = header.producer_id, header.producer_epoch
            if header.is_control:
                marker = end_transaction_marker(header, batch)
                if marker is not None:
                    owner.load_marker(index, producer_id, epoch, marker.commit)
            elif header.is_transactional:
                for record in read_records(batch, header, limit=BATCH_BYTES_MAX):
                    if record.key is not None:
                        owner.load_transactional_record(index, producer_id, epoch, record.key, record.value)
            else:
                if header.attributes == 0:  # what we write ourselves: the codec need not be asked for
                    body = bytes(batch[HEADER_SIZE:])
                    records = parse_records(body, header.count, header.base_offset, header.base_timestamp)
                else:
                    records = read_records(batch, header, limit=BATCH_BYTES_MAX)
                for record in records:
                    if record.key is not None:
                        owner.load_record(index, record.key, record.value)
            yield

    def end_when_committed(self, _partition: Partition | None = None) -> None:
        """Now, or when the high watermark has reached the end of what was read."""
        partition = self.partition
        partition.unwatch_data(self)
        if not self.is_wanted:
            return
        if partition.high_watermark < self.end:
            partition.watch_data(self, self.end_when_committed)
        else:
            self.owner.load_end(partition.index)


def _batches(view: memoryview) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each batch of a read, which are whole and of a known format."""
    position = 0
    while position < len(view):
        header = BatchHeader._make(HEADER.unpack_from(view, position))
        yield position, header
        position += header.size
