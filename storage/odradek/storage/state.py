"""The state of one log, shared by the files that read it (reads.py), append to it (appends.py) and keep it (log.py)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from odradek.ports.disk import Buffer, Syncer
from odradek.storage.config import CREATE_TIME, PRODUCER, UNCOMPRESSED, LogConfig
from odradek.storage.epoch_starts import EpochStarts
from odradek.storage.epochs import LeaderEpochCache
from odradek.storage.producers import ProducerStates
from odradek.storage.segment import FilePool, Segment
from odradek.wire.errors import ErrorCode, KafkaError

NO_LIMIT: Final = (1 << 63) - 1


class SyncTicket:
    """One `sync` under way. Tickets complete in order, so that the recovery point never passes an older one."""

    __slots__ = ("done", "end", "failure", "truncations", "waiting")

    def __init__(
        self, end: int, truncations: int, waiting: int, done: Callable[[OSError | None], None]
    ) -> None:
        self.end = end
        self.truncations = truncations
        self.waiting = waiting
        self.done = done
        self.failure: OSError | None = None


class LogState:
    """Fields of a log. Plain attributes are read on the hot path; only the classes in this package write them."""

    __slots__ = (
        "_after_ms",
        "_bases",
        "_damage",
        "_dirs_to_sync",
        "_fast_limit",
        "_fast_limit_own",
        "_held",
        "_hints",
        "_interval",
        "_pool",
        "_segments",
        "_sought",
        "_sought_offset",
        "_staged",
        "_syncer",
        "_syncs",
        "_truncations",
        "compacted_below",
        "config",
        "corrupt_offset",
        "dir",
        "dir_id",
        "epoch_starts",
        "epochs",
        "foreign_files",
        "has_aborted",
        "last_flush_ms",
        "log_end_offset",
        "log_start_offset",
        "lowest_cut",
        "offline",
        "on_failure",
        "on_removed",
        "on_truncated",
        "partition",
        "producers",
        "readable_end",
        "recovery_point",
        "size_bytes",
        "tail_was_lost",
        "topic",
        "topic_id",
        "written_end_offset",
    )

    def __init__(
        self,
        pool: FilePool,
        directory: str,
        config: LogConfig,
        *,
        topic: str,
        partition: int,
        syncer: Syncer | None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.topic_id: bytes | None = None
        self.dir = directory
        self.dir_id: bytes | None = None
        """The directory id of the data directory (KIP-858), set by the manager."""
        self.log_start_offset = 0
        self.log_end_offset = 0
        """Next offset to assign; counts staged batches."""
        self.written_end_offset = 0
        """What readers may see: everything below is in the file."""
        self.recovery_point = 0
        """Everything below is fsynced."""
        self.compacted_below = 0
        """Compaction has been at work below this offset: only there, batches may be missing between segments."""
        self.size_bytes = 0
        self.offline = False
        """An append or fsync failed: nothing works until the directory is opened anew."""
        self.corrupt_offset: int | None = None
        """Where a read or recovery has found damage. Never served."""
        self.readable_end = NO_LIMIT
        """Recovery found damage in the middle: reads from here on are refused, appends altogether."""
        self.tail_was_lost = False
        """Recovery has cut a tail that was more than a write which its process did not live to finish."""
        self.foreign_files: list[str] = []
        """Names in the directory that no log has; left alone."""
        self.has_aborted = False
        """Some segment has, or had, a transaction index."""
        self.epochs = LeaderEpochCache(pool.disk, directory)
        self.epoch_starts: EpochStarts | None = None
        """Where `assign_epoch` makes a start durable; without it, in the log's own file."""
        self.producers = ProducerStates()
        self.lowest_cut = NO_LIMIT
        """The lowest offset at which it was cut since somebody who copies it (futures.py) last looked."""
        self.on_failure: Callable[[LogState, OSError], None] | None = None
        self.on_removed: Callable[[LogState, list[str]], None] | None = None
        """Takes the paths of `.deleted` files, to unlink them after `file.delete.delay.ms`."""
        self.on_truncated: Callable[[LogState], None] | None = None
        """The log is about to be cut: a higher recovery point noted elsewhere must be lowered first, durably."""
        self.last_flush_ms = 0
        self._pool = pool
        self._syncer = syncer
        self._segments: list[Segment] = []
        self._bases: list[int] = []
        self._staged: list[Buffer] = []
        self._hints: dict[int, tuple[Segment, int]] = {}
        self._sought: tuple[Segment, int, int] | None = None
        """What the last search found, for `_sought_offset`."""
        self._sought_offset = -1
        self._damage: tuple[Segment, int] | None = None
        """Where in the files `readable_end` is: the rest of that segment is unsound whatever offset it begins with."""
        self._truncations = 0
        self._syncs: list[SyncTicket] = []
        self._held: list[tuple[Syncer, Callable[[OSError | None], None]]] | None = None
        """Syncs that were asked for while they are held back; None: they are not."""
        self._dirs_to_sync: list[str] = []
        self._fast_limit = self._fast_limit_own = -1
        self.set_config(config)

    def __repr__(self) -> str:
        return f"Log({self.dir}, [{self.log_start_offset}, {self.log_end_offset}))"

    def set_config(self, config: LogConfig) -> None:
        """Live: the next append goes by it."""
        self.config = config
        self._interval = config.index_interval_bytes
        self._after_ms = min(config.timestamp_after_max_ms, NO_LIMIT >> 1)
        self._refresh_fast_limit()

    def _refresh_fast_limit(self) -> None:
        """The largest batch of the fast append; -1 sends everything through the complete checks. `own`: of those that
        the broker writes itself, which no rule on keys or compression would open.
        """
        config = self.config
        plain = (
            config.timestamp_type == CREATE_TIME
            and not config.checks_old_timestamps
            and config.compression_type in (PRODUCER, UNCOMPRESSED)
        )
        usable = not self.offline and self.readable_end == NO_LIMIT
        ready = bool(self._segments) and self._segments[-1].index is not None
        limit = min(config.max_message_bytes, config.segment_bytes)
        self._fast_limit_own = limit if plain and usable and ready else -1
        anything = not config.cleanup_compact and config.compression_type == PRODUCER
        self._fast_limit = self._fast_limit_own if anything else -1

    @property
    def active_segment(self) -> Segment:
        return self._segments[-1]

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    @property
    def first_base_offset(self) -> int:
        return self._bases[0]

    @property
    def truncations(self) -> int:
        """How often the log was cut since it was opened."""
        return self._truncations

    @property
    def is_syncing(self) -> bool:
        """Some `sync` has not completed."""
        return bool(self._syncs)

    @property
    def key(self) -> tuple[str, int]:
        return self.topic, self.partition

    def last_stable_offset(self, high_watermark: int) -> int:
        """Exclusive end of what a read_committed consumer may see; never above the high watermark (T2)."""
        producers = self.producers
        if not producers.ongoing and not producers.completed:
            return high_watermark
        first = producers.first_unstable_offset(high_watermark)
        return high_watermark if first is None else min(max(first, self.log_start_offset), high_watermark)

    def in_transaction(self, producer_id: int, producer_epoch: int) -> bool:
        """Whether this producer, in this epoch, has a transaction under way here."""
        entry = self.producers.entries.get(producer_id)
        return entry is not None and entry.transaction_start >= 0 and entry.epoch == producer_epoch

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(largest epoch ≤ `epoch`, its end offset) as KIP-101 and KIP-279 have it; (-1, -1) if unknown."""
        return self.epochs.end_offset_for(epoch, self.log_end_offset)

    def _forget_positions(self) -> None:
        """Bytes have gone from the log: where something was found before, it may not be any more."""
        self._hints.clear()
        self._sought = None

    def fail(self, error: OSError) -> None:
        """An append or fsync failed: the tail is unknown, the log is out until it is opened anew (never retried)."""
        if self.offline:
            return
        self.offline = True
        self._staged.clear()
        self._fast_limit = self._fast_limit_own = -1
        if self.on_failure is not None:
            self.on_failure(self, error)

    def _segment_index(self, offset: int) -> int:
        """Index of the segment that would hold `offset`."""
        return max(0, bisect_right(self._bases, offset) - 1)

    def _storage_error(self, error: OSError) -> KafkaError:
        return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.topic}-{self.partition}: {error}")
