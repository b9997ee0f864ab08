"""All logs of a node: its data directories, what opens and closes them, their checkpoints.

    start()        lock each directory, read or write its meta.properties, read the clean-shutdown marker
    open_all()     open every log in them, recovering after a crash
    create_log, delete_log, checkpoint*, tick   while it runs
    close()        flush, checkpoint, clean-shutdown marker (last), unlock

A directory whose disk fails goes offline alone; its logs answer KAFKA_STORAGE_ERROR.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from odradek.ports.disk import Disk, Syncer
from odradek.storage import layout
from odradek.storage.checkpoints import TopicPartition
from odradek.storage.config import LogConfig
from odradek.storage.data_dir import DataDir, DataDirError
from odradek.storage.epochs import ALL_SAVED
from odradek.storage.futures import FutureLogs
from odradek.storage.log import Log, sync_paths, unlink_all
from odradek.storage.opening import OpenAll, OpenReport, Progress, RecoveryProgress
from odradek.storage.scan import Scan, scan_files
from odradek.storage.segment import FilePool
from odradek.storage.state import NO_LIMIT, LogState
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.uuid import random_uuid, uuid_to_string

if TYPE_CHECKING:
    from odradek.storage.recovery import Opening

__all__ = ["ConfigFor", "LogManager", "OpenReport", "Progress"]

ConfigFor = Callable[[str], LogConfig]
TRIM_LOGS = 32
"""Logs whose epochs are made durable in one piece of background work."""


class LogManager:
    """Every `Log` of this node by (topic, partition)."""

    def __init__(
        self, disk: Disk, syncer: Syncer, dirs: list[str], *, rng: Random, default_config: LogConfig | None = None,
        open_files_max: int = 4096,
    ) -> None:  # fmt: skip
        """`dirs`: absolute paths, no trailing slash, the first ones preferred for new logs if equally full."""
        self.logs: dict[TopicPartition, Log] = {}
        self.default_config = default_config or LogConfig()
        self.dirs = [DataDir(disk, path) for path in dirs]
        self.cluster_id = ""
        self.on_dir_failure: Callable[[DataDir, OSError], None] | None = None
        """Called once when a directory goes offline."""
        self.recovery = RecoveryProgress()
        self.high_watermarks: dict[TopicPartition, int] = {}
        """As the last process checkpointed them; what replication starts from."""
        self.cordoned: frozenset[str] = frozenset()
        """Paths of directories that get no new logs (KIP-1066)."""
        self.futures = FutureLogs(self, disk)
        self._disk = disk
        self.syncer = syncer
        self.rng = rng
        self._pool = FilePool(disk, open_files_max)
        self._doomed: list[tuple[int, int, list[str], bool]] = []
        """A heap of (deadline, a number, paths, whether they are directories)."""
        self._dooms = count()
        self._passed_ms = 0
        """Deadlines are in this time, which goes on with the clock, and stays where that is set back."""
        self._ticked_ms = 0
        self._wall_ms = 0
        self._boot_id = ""
        self.on_unsaved_epochs: Callable[[], None] | None = None
        """Called when there is something for `save_epochs` to do, after there was not."""
        self._unsaved: dict[Log, None] = {}
        self._dirs_syncing: dict[str, bool] = {}
        """Data directories whose entries are being synced, and whether they have changed since."""

    # Start ------------------------------------------------------------------------------------------------------

    def start(
        self, *, node_id: int, cluster_id: str | None, boot_id: str = "", needed: str | None = None
    ) -> str:
        """Take the directories; the cluster id they belong to (drawn if they and the caller have none).

        `boot_id` changes whenever the machine starts anew; "" if that is not known. A directory whose disk fails is
        offline from the start, as long as there is another one, and unless it is the one at `needed`.

        DataDirError for one that is locked by another process, belongs to another node or cluster, or is
        needed and not writable; nothing stays locked then.
        """
        try:
            self._on_each(DataDir.take, needed)
            found = self._on_each(partial(DataDir.read_meta, node_id=node_id), needed)
            known = {cluster for cluster in found if cluster}
            where = ", ".join(data_dir.path for data_dir in self.dirs)
            if len(known) > 1:
                raise DataDirError(
                    f"The data directories {where} belong to different clusters: {', '.join(sorted(known))}."
                )
            if cluster_id is not None and known - {cluster_id}:
                raise DataDirError(
                    f"{where} belongs to cluster {known.pop()}, and cluster {cluster_id} is asked for: leave the "
                    "cluster id out, or choose another directory."
                )
            known |= {cluster_id} if cluster_id is not None else set()
            self.cluster_id = known.pop() if known else uuid_to_string(random_uuid(self.rng))
            self._boot_id = boot_id
            write_meta = partial(
                DataDir.write_meta, node_id=node_id, cluster_id=self.cluster_id, rng=self.rng
            )
            self._on_each(write_meta, needed)
            self._on_each(partial(DataDir.read_state, boot_id=boot_id), needed)
            for data_dir in self.dirs:
                self.high_watermarks.update(data_dir.high_watermarks)
        except BaseException:
            for data_dir in self.dirs:
                data_dir.release()
            raise
        return self.cluster_id

    def _on_each(self, step: Callable[[DataDir], str | None], needed: str | None) -> list[str | None]:
        """A step of the start on every directory that is not offline; what came of it."""
        results = []
        for data_dir in self.dirs:
            if data_dir.offline:
                continue
            try:
                results.append(step(data_dir))
            except DataDirError as error:
                others = any(not each.offline for each in self.dirs if each is not data_dir)
                if not error.is_disk or not others or data_dir.path == needed:
                    raise
                data_dir.offline = True
                data_dir.notes.append(str(error))
        return results

    @property
    def clean(self) -> bool:
        """Whether every directory was left by a clean stop."""
        return all(data_dir.clean for data_dir in self.dirs)

    @property
    def complete_epoch(self) -> int:
        """The broker epoch for which all that this node had is still there, to be told with its registration (KIP-966).
        -1 if one directory is not complete, or for another epoch than the others, as in Kafka.
        """
        epochs = {-1 if data_dir.offline else data_dir.broker_epoch for data_dir in self.dirs}
        return epochs.pop() if len(epochs) == 1 else -1

    def open_all(
        self, wall_ms: int, config_for: ConfigFor | None = None, progress: Progress | None = None,
        scan: Scan | None = None,
    ) -> OpenReport:  # fmt: skip
        """Open every log of every directory. A log that cannot be opened is reported, and is not in `logs`.

        The metadata log is the Raft driver's. Half-done deletions are completed in the background. `scan`: who scans
        segments after a crash; one after the other, here, without it. RecoveryStopped if that was asked for;
        DataDirError if a log is in two directories and nothing explains it.
        """
        self._wall_ms = wall_ms
        report = OpenReport()
        found: list[tuple[DataDir, str, TopicPartition]] = []
        futures: list[tuple[DataDir, str, TopicPartition]] = []
        for data_dir in self.dirs:
            for name in data_dir.names(needed=len(self.dirs) == 1):
                if (key := layout.parse_future_dir_name(name)) is not None:
                    futures.append((data_dir, name, key))
                else:
                    self._sort_entry(data_dir, name, found, report)
        kept = [(data_dir, key) for data_dir, _, key in self.futures.without_left_behind(found)]
        opening = OpenAll(
            self.recovery, report, begin=partial(self._begin_found, config_for), opened=self._found, progress=progress
        )  # fmt: skip
        opening.run(kept, scan or partial(scan_files, self._disk))
        for data_dir, name, key in futures:
            config = config_for(key[0]) if config_for is not None else self.default_config
            self.futures.reopen(data_dir, name, key, config)
        for data_dir in self.dirs:
            if not data_dir.clean and not self._is_whole(data_dir):
                data_dir.broker_epoch = -1
                # What was cut is not there to be found by the next process, should this one not get to register.
                self._note(data_dir, -1)
        return report

    def _is_whole(self, data_dir: DataDir) -> bool:
        """Whether every log was found as its last process left it: nothing lost, damaged or unreadable."""
        logs = (log for log in self.logs.values() if log.dir_id == data_dir.directory_id)
        return not data_dir.unopened and not any(
            log.tail_was_lost or log.readable_end < NO_LIMIT for log in logs
        )

    def note_registration(self, broker_epoch: int) -> None:
        """This node is registered, and counts in ISRs from now on. Before it does, so that the next process can tell
        whether it may still have all that this one is going to acknowledge.
        """
        for data_dir in self.dirs:
            self._note(data_dir, broker_epoch)

    def _note(self, data_dir: DataDir, broker_epoch: int) -> None:
        if data_dir.offline or not self._boot_id:
            return
        try:
            data_dir.note_registration(self._boot_id, broker_epoch)
        except OSError as error:
            self.dir_failed(data_dir, error)

    def _sort_entry(
        self,
        data_dir: DataDir,
        name: str,
        found: list[tuple[DataDir, str, TopicPartition]],
        report: OpenReport,
    ) -> None:
        path = f"{data_dir.path}/{name}"
        if name in layout.DATA_DIR_FILES or name == layout.METADATA_LOG_DIR:
            return
        if not self._disk.isdir(path):
            if name.removesuffix(layout.TEMPORARY_SUFFIX) not in layout.DATA_DIR_FILES:
                report.foreign.append(path)
        elif layout.is_marked_dir(name, layout.STRAY_DIR_SUFFIX):
            report.strays.append(path)
        elif layout.is_marked_dir(name, layout.DELETE_DIR_SUFFIX):
            self._doom(0, [path], True)
        elif (key := layout.parse_log_dir_name(name)) is not None:
            found.append((data_dir, name, key))
        else:
            report.foreign.append(path)

    def _begin_found(self, config_for: ConfigFor | None, data_dir: DataDir, key: TopicPartition) -> Opening:
        config = config_for(key[0]) if config_for is not None else self.default_config
        path = f"{data_dir.path}/{layout.log_dir_name(*key)}"
        return self._begin_open(data_dir, path, key, config, clean=data_dir.clean)

    def _found(self, data_dir: DataDir, log: Log) -> None:
        log.topic_id = data_dir.read_topic_id(log.dir)
        self.logs[log.key] = self._take_over(data_dir, log)

    def open_log(
        self, data_dir: DataDir, path: str, key: TopicPartition, config: LogConfig, *, clean: bool
    ) -> Log:
        """The log in that directory, created if it is not there; known to nobody yet. OSError."""
        opening = self._begin_open(data_dir, path, key, config, clean=clean)
        opening.finish(scan_files(self._disk, opening.jobs))
        return self._take_over(data_dir, opening.log)

    def _begin_open(
        self, data_dir: DataDir, path: str, key: TopicPartition, config: LogConfig, *, clean: bool
    ) -> Opening:
        return Log.begin_open(
            self._disk, path, config, topic=key[0], partition=key[1], wall_ms=self._wall_ms,
            recovery_point=data_dir.recovery_points.get(key, 0),
            log_start_offset=data_dir.log_start_offsets.get(key, 0),
            compacted_below=max(each.compacted_below(key) for each in self.dirs),  # a copy has the log's gaps
            clean=clean, pool=self._pool, syncer=self.syncer, epoch_starts=data_dir.known_starts.get(key, ()),
        )  # fmt: skip

    def _take_over(self, data_dir: DataDir, log: Log) -> Log:
        log.dir_id = data_dir.directory_id
        log.on_failure = self._log_failed
        log.on_removed = self._files_removed
        log.on_truncated = self._log_truncated
        log.epoch_starts = data_dir.epoch_starts
        log.epochs.on_unsaved = partial(self._epochs_unsaved, log)
        if log.epochs.unsaved_from != ALL_SAVED:
            self._epochs_unsaved(log)
        return log

    # While it runs ----------------------------------------------------------------------------------------------

    def get(self, topic: str, partition: int) -> Log | None:
        return self.logs.get((topic, partition))

    def create_log(
        self, topic: str, partition: int, topic_id: bytes, config: LogConfig | None = None, *, wall_ms: int,
        dir_id: bytes | None = None,
    ) -> Log:  # fmt: skip
        """A new, empty log, in the directory named by `dir_id` or the one with the fewest logs.

        An existing one of the same topic id is returned as it is. KafkaError KAFKA_STORAGE_ERROR if the disk
        fails, INCONSISTENT_TOPIC_ID if the directory holds another incarnation of the topic.
        """
        self._wall_ms = wall_ms
        key = topic, partition
        log = self.logs.get(key)
        if log is not None:
            if log.topic_id not in (None, topic_id):
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID, f"The log of {topic}-{partition} has another topic id."
                )
            return log
        data_dir = self.choose_dir(dir_id)
        self.high_watermarks.pop(key, None)
        try:
            self.forget_noted(data_dir, key)
            path = f"{data_dir.path}/{layout.log_dir_name(*key)}"
            log = self.logs[key] = self.open_log(
                data_dir, path, key, config or self.default_config, clean=False
            )
            log.topic_id = topic_id
            data_dir.write_topic_id(log.dir, topic_id)
        except OSError as error:
            self.logs.pop(key, None)
            self.dir_failed(data_dir, error)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-{partition}: {error}") from error
        return log

    def forget_noted(self, data_dir: DataDir, key: TopicPartition) -> None:
        """What is noted there is of a deleted log of this name, and must not be taken for the new one's."""
        has_gaps = key in data_dir.compacted
        if data_dir.forget(key):
            self._checkpoint_dir(data_dir, None, durable=True)
        if has_gaps:
            self._write_compacted(data_dir)

    def delete_log(self, topic: str, partition: int, *, wall_ms: int) -> bool:
        """Rename the directory away at once, remove it after `file.delete.delay.ms`; whether there was one."""
        self._wall_ms = wall_ms
        self.futures.delete((topic, partition))
        log = self.logs.get((topic, partition))
        if log is None:
            return False
        self._take_out(log, layout.DELETE_DIR_SUFFIX, log.config.file_delete_delay_ms)
        return True

    def set_aside(self, topic: str, partition: int) -> None:
        """A log that this node should not have: renamed as Kafka does it, and left for people to look at."""
        self.futures.delete((topic, partition))
        self._take_out(self.logs[topic, partition], layout.STRAY_DIR_SUFFIX, -1)

    def _take_out(self, log: Log, suffix: str, delay_ms: int) -> None:
        """Rename the directory of a log away. KafkaError KAFKA_STORAGE_ERROR."""
        topic, partition = log.key
        del self.logs[log.key]
        self.retire(log)
        data_dir = self.dir_of(log)
        try:
            log.dir = self.rename_away(data_dir, log.dir, log.key, suffix, delay_ms)
        except OSError as error:
            self.dir_failed(data_dir, error)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-{partition}: {error}") from error

    def retire(self, log: Log) -> None:
        """It is nobody's log any more: nothing is written to it, nor told of it."""
        self._unsaved.pop(log, None)
        log.retire()

    def rename_away(
        self, data_dir: DataDir, path: str, key: TopicPartition, suffix: str, delay_ms: int
    ) -> str:
        """Give the directory of a log a name that no log has, and remove it after `delay_ms` unless that is negative.
        The new path. OSError.
        """
        name = layout.marked_dir_name(*key, random_uuid(self.rng).hex(), suffix)
        new = f"{data_dir.path}/{name}"
        self._disk.rename(path, new)
        if delay_ms >= 0:
            self._doom(delay_ms, [new], True)
        self._sync_dir_soon(data_dir)
        return new

    def renamed(self, before: str, after: str) -> None:
        """Files that are to be removed from a directory have another name now."""
        for *_, paths, directories in self._doomed:
            if not directories:
                paths[:] = [
                    f"{after}{path[len(before) :]}" if path.startswith(f"{before}/") else path
                    for path in paths
                ]

    def tick(self, wall_ms: int) -> None:
        """Once a second or so: unlink what is due, start flushes that `flush.ms` asks for."""
        self._wall_ms, self._passed_ms, self._ticked_ms = wall_ms, self._now_ms(wall_ms), wall_ms
        while self._doomed and self._doomed[0][0] <= self._passed_ms:
            *_, paths, directories = heappop(self._doomed)
            work = (
                partial(_remove_trees, self._disk, paths)
                if directories
                else partial(unlink_all, self._disk, paths)
            )
            self.syncer.run(work, _ignore)
        for data_dir in self.dirs:
            if not data_dir.offline and data_dir.is_gone():
                self.dir_failed(
                    data_dir, FileNotFoundError(errno.ENOENT, "the directory was removed", data_dir.path)
                )
            if data_dir.epoch_starts.is_large and not data_dir.offline:
                self._trim_epoch_starts(data_dir)
        for log in self.logs.values():
            if log.flush_is_due(wall_ms) and not log.offline:
                log.last_flush_ms = wall_ms
                log.sync(self.syncer, _ignore)

    def _epochs_unsaved(self, log: Log) -> None:
        self._unsaved[log] = None
        if len(self._unsaved) == 1 and self.on_unsaved_epochs is not None:
            self.on_unsaved_epochs()

    def save_epochs(self, count: int) -> bool:
        """Write `leader-epoch-checkpoint` of so many logs that have other epochs now; whether there are more.

        In slices, and some time after they changed: after a failover it is thousands of files.
        """
        while self._unsaved and count > 0:
            log = next(iter(self._unsaved))
            del self._unsaved[log]
            if log.offline or log.epochs.unsaved_from == ALL_SAVED:
                continue
            count -= 1
            try:
                log.epochs.write(durable=False)
            except OSError as error:
                log.fail(error)
        return bool(self._unsaved)

    def _trim_epoch_starts(self, data_dir: DataDir) -> None:
        """The file has grown large: have what it tells in the files of the logs, durably, and begin it anew."""
        data_dir.epoch_starts.begin_anew()
        logs = deque(log for log in self.logs.values() if log.dir_id == data_dir.directory_id)
        self._make_epochs_durable(data_dir, logs, None)

    def _make_epochs_durable(self, data_dir: DataDir, left: deque[Log], error: OSError | None) -> None:
        if error is not None:
            self.dir_failed(data_dir, error)
        if data_dir.offline:
            return
        some = [left.popleft() for _ in range(min(TRIM_LOGS, len(left)))]
        some = [log for log in some if self.logs.get(log.key) is log]
        try:
            for log in some:
                if log.epochs.unsaved_from != ALL_SAVED:
                    log.epochs.write(durable=False)
            if not left and not some and data_dir.epoch_starts.is_idle:
                data_dir.epoch_starts.finish()
                return
        except OSError as failure:
            self.dir_failed(data_dir, failure)
            return
        paths = [f"{log.dir}/{layout.LEADER_EPOCH_CHECKPOINT}" for log in some]
        work = partial(sync_paths, self._disk, paths, [log.dir for log in some])
        self.syncer.run(work, partial(self._make_epochs_durable, data_dir, left))

    def delete_old_segments(
        self, wall_ms: int, high_watermarks: Mapping[TopicPartition, int] | None = None
    ) -> int:
        """Retention over all logs (`log.retention.check.interval.ms`); how many segments went."""
        self._wall_ms = wall_ms
        count = 0
        for key, log in self.logs.items():
            limit = high_watermarks.get(key) if high_watermarks is not None else None
            count += log.delete_old_segments(wall_ms, limit)
        return count

    def forget_checks(self) -> None:
        """Every few minutes: what was checked before is checked again before it is served unseen (trust.py)."""
        self._pool.forget_checks()

    def expire_producers(self, wall_ms: int, expiration_ms: int) -> None:
        """Forget idle producers of every log (`producer.id.expiration.ms`, checked every ten minutes in Kafka)."""
        for log in self._all():
            if log.producers.entries or log.producers.verifying:
                log.producers.expire(wall_ms, expiration_ms)

    def checkpoint(self, high_watermarks: Mapping[TopicPartition, int] | None = None) -> None:
        """Write the recovery points, log starts and (if given) high watermarks of every directory. Blocking, small.

        Not fsynced while running: an old checkpoint only means more to scan.
        """
        for data_dir in self.dirs:
            if not data_dir.offline:
                self._checkpoint_dir(data_dir, high_watermarks, durable=False)

    def _checkpoint_dir(
        self, data_dir: DataDir, high_watermarks: Mapping[TopicPartition, int] | None, *, durable: bool
    ) -> None:
        logs = [log for log in self._all() if log.dir_id == data_dir.directory_id]
        points = {log.key: min(log.recovery_point, log.epochs.unsaved_from) for log in logs}
        starts = {
            log.key: log.log_start_offset for log in logs if log.log_start_offset > log.first_base_offset
        }
        try:
            data_dir.write_points(points, starts, durable=durable)
            if high_watermarks is not None:
                current = [log for log in logs if self.logs.get(log.key) is log]
                mine = {log.key: high_watermarks[log.key] for log in current if log.key in high_watermarks}
                data_dir.write_offsets(layout.HIGH_WATERMARK_CHECKPOINT, mine, durable=durable)
                for log in logs:
                    if log.producers.completed:
                        log.producers.forget_completed(mine.get(log.key, 0))
        except OSError as error:
            self.dir_failed(data_dir, error)

    # Compaction -------------------------------------------------------------------------------------------------

    def clean_below(self, log: Log) -> int:
        """Where the last cleaning of this log ended."""
        return self.dir_of(log).cleaner_offsets.get(log.key, 0)

    def note_clean(self, log: Log, offset: int) -> None:
        """Not fsynced: what is cleaned twice comes out the same."""
        data_dir = self.dir_of(log)
        data_dir.cleaner_offsets[log.key] = offset
        self._write_cleaner_offsets(data_dir, durable=False)

    def sync_closed(self, log: Log) -> None:
        """Closed segments are compacted once they are on the medium. After a crash nobody sees to that before the log
        is written to again.
        """
        if log.recovery_point < log.active_segment.base_offset and not log.is_syncing and not log.offline:
            log.sync(self.syncer, _ignore)

    def save_recovery_points(
        self, log: Log, compacted_below: int, up_to: int
    ) -> tuple[int, Callable[[], None]]:
        """Before `log` gets gaps: write down that it may, and recovery points, if its own is not noted up to there yet;
        (what is noted, what makes that durable).
        """
        data_dir = self.dir_of(log)
        if data_dir.recovery_points.get(log.key, 0) < up_to:
            self._checkpoint_dir(data_dir, None, durable=False)
        point = -1 if data_dir.offline else data_dir.recovery_points.get(log.key, 0)
        data_dir.compacted[log.key] = max(data_dir.compacted.get(log.key, 0), compacted_below)
        write_compacted = data_dir.compacted_writer()

        def work() -> None:
            write_compacted()
            sync_paths(self._disk, [f"{data_dir.path}/{layout.RECOVERY_POINT_CHECKPOINT}"], [data_dir.path])

        return point, work

    def hand_over_cleaner_offset(self, key: TopicPartition, source: DataDir, target: DataDir) -> None:
        """The log has moved. Not fsynced: what is cleaned twice comes out the same."""
        source.compacted.pop(key, None)  # the copy has none
        offset = source.cleaner_offsets.pop(key, None)
        target.cleaner_offsets.pop(key, None)
        if offset is not None:
            target.cleaner_offsets[key] = self.logs[key].compacted_below = offset
            self._write_cleaner_offsets(target, durable=False)

    def _write_cleaner_offsets(self, data_dir: DataDir, *, durable: bool) -> None:
        try:
            data_dir.write_offsets(layout.CLEANER_CHECKPOINT, data_dir.cleaner_offsets, durable=durable)
        except OSError as error:
            self.dir_failed(data_dir, error)

    def _write_compacted(self, data_dir: DataDir) -> None:
        """Fewer gaps are possible. Until it is written, more of them pass for what compaction did."""
        failed = partial(self.dir_failed, data_dir)
        self.syncer.run(data_dir.compacted_writer(), lambda error: failed(error) if error else None)

    def close(
        self, high_watermarks: Mapping[TopicPartition, int] | None = None, *, broker_epoch: int = -1
    ) -> list[tuple[str, str]]:
        """A clean stop: every log flushed and closed, checkpoints, then the marker, then the locks.

        `broker_epoch` -1: this process was never registered, so what was complete for an earlier epoch still is.
        (directory, reason) of those that could not be left clean; they are recovered at the next start.
        """
        unclean: list[tuple[str, str]] = []
        self.save_epochs(len(self._unsaved))
        # In three passes over all logs: an fsync of one must not wait for what another has just created.
        for step in (Log.save_derived, None, Log.flush_blocking):
            if step is None:
                for data_dir in self.dirs:
                    self._disk.settle(data_dir.path)
                continue
            for log in self._all():
                with suppress(OSError):  # the log has told `_log_failed`
                    if not log.offline:
                        step(log)
        for log in self._all():
            log.close_files()
        for data_dir in self.dirs:
            if not data_dir.offline:
                self._checkpoint_dir(data_dir, high_watermarks, durable=True)
            try:
                if data_dir.offline:
                    unclean.append((data_dir.path, "offline"))
                else:
                    data_dir.mark_clean(broker_epoch if broker_epoch >= 0 else data_dir.broker_epoch)
            except OSError as error:
                unclean.append((data_dir.path, str(error)))
            data_dir.epoch_starts.close()
            data_dir.release()
        self.logs.clear()
        self.futures.logs.clear()
        return unclean

    # Failures ---------------------------------------------------------------------------------------------------

    def _log_failed(self, log: LogState, error: OSError) -> None:
        self.dir_failed(self.dir_of(log), error)

    def _all(self) -> list[Log]:
        return [*self.logs.values(), *self.futures.logs.values()]

    def dir_failed(self, data_dir: DataDir, error: OSError) -> None:
        """Nothing in it is written to again; what is on the way there has to begin anew after the next start."""
        if data_dir.offline:
            return
        data_dir.offline = True
        self.futures.drop_of(data_dir)
        for log in self.logs.values():
            if log.dir_id == data_dir.directory_id:
                log.fail(error)
        if self.on_dir_failure is not None:
            self.on_dir_failure(data_dir, error)

    def _log_truncated(self, log: LogState) -> None:
        """A recovery point on disk must never lie above what is left of the log; nor what counts as clean."""
        data_dir, end = self.dir_of(log), log.recovery_point
        self._checkpoint_dir(data_dir, None, durable=True)
        if data_dir.compacted.get(log.key, 0) > end:
            data_dir.compacted[log.key] = end
            self._write_compacted(data_dir)
        if data_dir.cleaner_offsets.get(log.key, 0) > end and not data_dir.offline:
            data_dir.cleaner_offsets[log.key] = end
            self._write_cleaner_offsets(data_dir, durable=True)

    def _sync_dir_soon(self, data_dir: DataDir) -> None:
        """Many deletions that come together cost two syncs of their directory, not one each."""
        if self._dirs_syncing.get(data_dir.path) is None:
            self._dirs_syncing[data_dir.path] = False
            work = partial(self._disk.sync_dir, data_dir.path)
            self.syncer.run(work, partial(self._dir_synced, data_dir))
        else:
            self._dirs_syncing[data_dir.path] = True

    def _dir_synced(self, data_dir: DataDir, error: OSError | None) -> None:
        again = self._dirs_syncing.pop(data_dir.path)
        if error is not None:
            self.dir_failed(data_dir, error)
        elif again:
            self._sync_dir_soon(data_dir)

    def dir_of(self, log: LogState) -> DataDir:
        return next(data_dir for data_dir in self.dirs if data_dir.directory_id == log.dir_id)

    def choose_dir(self, dir_id: bytes | None) -> DataDir:
        """The directory of this id; without one, that with the fewest logs, cordoned ones last. KafkaError
        KAFKA_STORAGE_ERROR if it is offline.
        """
        online = [d for d in self.dirs if not d.offline and (dir_id is None or d.directory_id == dir_id)]
        if not online:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "No log directory is online.")
        open_ = [d for d in online if d.path not in self.cordoned]
        # The controller places nothing on a broker without an open one; what it placed before has to be somewhere.
        online = open_ or online
        if len(online) == 1:
            return online[0]
        counts = {d.directory_id: 0 for d in online}
        for log in self._all():
            if log.dir_id in counts:
                counts[log.dir_id] += 1
        return min(online, key=lambda d: counts[d.directory_id])

    def _files_removed(self, log: LogState, paths: list[str]) -> None:
        if paths:
            self._doom(log.config.file_delete_delay_ms, paths, False)

    def _doom(self, delay_ms: int, paths: list[str], directories: bool) -> None:
        self._ticked_ms = self._ticked_ms or self._wall_ms
        deadline = self._now_ms(self._wall_ms) + delay_ms
        heappush(self._doomed, (deadline, next(self._dooms), paths, directories))

    def _now_ms(self, wall_ms: int) -> int:
        return self._passed_ms + max(0, wall_ms - (self._ticked_ms or wall_ms))


def _remove_trees(disk: Disk, paths: list[str]) -> None:
    for path in paths:
        try:
            disk.rmtree(path)
        except FileNotFoundError:
            continue


def _ignore(_: OSError | None) -> None:
    """What could not be unlinked is unlinked at the next start; a failed flush has taken its log offline itself."""
