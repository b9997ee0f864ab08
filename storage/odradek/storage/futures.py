"""Logs on their way to another data directory of the same node (KIP-113), in `topic-0.<32 hex digits>-future`.

A future log takes what the current one has, and then its place. Who copies is somebody else (the broker); here is what
happens to directories. What a crash may leave of a move from A to B, and what the next start makes of it:

    A: topic-0              B: topic-0.…-future       the copy goes on where it was
    A: topic-0              B: topic-0, a later move  B counts: A's is what was left behind
    A: topic-0.…-delete     B: topic-0                done

`odradek-move` in the directory counts moves. It is on the medium before the log gets its name, and stays: what is left
behind has always moved less often. (Kafka, which does not count, refuses to start.) Two logs that have moved equally
often are no trace of a move: a directory was away while its partition was made anew in another one, or somebody has
copied files. Which of them has what was acknowledged nobody can tell here, and a person decides, as with Kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from odradek.ports.disk import Disk
from odradek.storage import layout
from odradek.storage.config import LogConfig
from odradek.storage.data_dir import DataDir, DataDirError
from odradek.storage.log import Log, sync_paths
from odradek.storage.state import NO_LIMIT
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.uuid import ZERO_UUID, random_uuid

if TYPE_CHECKING:
    from odradek.storage.checkpoints import TopicPartition
    from odradek.storage.manager import LogManager


Found = tuple[DataDir, str, "TopicPartition"]
"""(data directory, name in it, topic and partition)."""


class FutureLogs:
    """Owned by the manager. `logs`: future logs by (topic, partition), next to the manager's current ones."""

    def __init__(self, manager: LogManager, disk: Disk) -> None:
        self.logs: dict[TopicPartition, Log] = {}
        self._manager = manager
        self._disk = disk

    def without_left_behind(self, found: list[Found]) -> list[Found]:
        """A log that is in two directories was on its way when the last process ended: the one that moved later counts.
        The other is renamed at once, for another move may come there. DataDirError if no move explains it.
        """
        moves: dict[TopicPartition, list[int]] = {}
        twice = {key for key, count in Counter(key for _, _, key in found).items() if count > 1}
        for data_dir, name, key in found:
            if key in twice:
                moves.setdefault(key, []).append(moves_of(self._disk, f"{data_dir.path}/{name}"))
        kept = []
        for data_dir, name, key in found:
            path = f"{data_dir.path}/{name}"
            if key in twice and moves_of(self._disk, path) < max(moves[key]):
                self._remove(data_dir, path, key)
            else:
                kept.append((data_dir, name, key))
        _refuse_unexplained([each for each in kept if each[2] in twice])
        return kept

    def reopen(self, data_dir: DataDir, name: str, key: TopicPartition, config: LogConfig) -> None:
        """One that an earlier process had begun. What cannot be opened, or is there twice, goes: it is but a copy."""
        manager = self._manager
        path = f"{data_dir.path}/{name}"
        try:
            current = manager.logs.get(key)
            if key in self.logs or (current is not None and current.dir_id == data_dir.directory_id):
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "it was left behind")
            log = manager.open_log(data_dir, path, key, config, clean=data_dir.clean)
            log.topic_id = data_dir.read_topic_id(path)
        except (OSError, KafkaError):
            self._remove(data_dir, path, key)
            return
        if current is not None and log.topic_id == current.topic_id and log.readable_end < NO_LIMIT:
            self._discard(log)
            self._begin_anew(key, data_dir, current)
        elif current is not None and log.topic_id == current.topic_id:
            self.logs[key] = log
            current.lowest_cut = agreed_end(current, log)
        elif current is not None:
            self._discard(log)
        else:
            # Its current log may be in a directory that is offline: it waits for that.
            log.close_files()

    def _begin_anew(self, key: TopicPartition, data_dir: DataDir, current: Log) -> None:
        """The copy was damaged. If the disk does not take another one, it has told so."""
        with suppress(KafkaError):
            self.create(key, data_dir, current.topic_id or ZERO_UUID)

    def create(self, key: TopicPartition, data_dir: DataDir, topic_id: bytes) -> Log:
        """An empty one. KafkaError KAFKA_STORAGE_ERROR; INVALID_TOPIC_EXCEPTION if there can be no such directory."""
        assert key not in self.logs
        manager = self._manager
        name = layout.future_dir_name(*key, random_uuid(manager.rng).hex())
        if len(name) > layout.DIR_NAME_MAX:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic name is too long.")
        current = manager.logs[key]
        path = f"{data_dir.path}/{name}"
        try:
            manager.forget_noted(data_dir, key)
            log = manager.open_log(data_dir, path, key, current.config, clean=False)
            log.topic_id = topic_id
            data_dir.write_topic_id(path, topic_id)
            if log.log_end_offset < current.log_start_offset:
                log.truncate_fully_and_start_at(current.log_start_offset)
        except OSError as error:
            manager.dir_failed(data_dir, error)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{key[0]}-{key[1]}: {error}") from error
        self.logs[key] = log
        return log

    def delete(self, key: TopicPartition) -> None:
        """The move is given up."""
        log = self.logs.pop(key, None)
        if log is not None:
            self._discard(log)

    def _discard(self, log: Log) -> None:
        self._manager.retire(log)
        self._remove(self._manager.dir_of(log), log.dir, log.key)

    def _remove(self, data_dir: DataDir, path: str, key: TopicPartition) -> None:
        """Renamed first: a move that was given up must not go on with the next start."""
        try:
            self._manager.rename_away(data_dir, path, key, layout.DELETE_DIR_SUFFIX, 0)
        except OSError as error:
            self._manager.dir_failed(data_dir, error)

    def drop_of(self, data_dir: DataDir) -> None:
        """That directory is offline: what is there stays for the next start."""
        for key in [key for key, log in self.logs.items() if log.dir_id == data_dir.directory_id]:
            self._manager.retire(self.logs.pop(key))

    # Taking the place of the current one ---------------------------------------------------------------------------

    def prepare(self, key: TopicPartition, done: Callable[[OSError | None], None]) -> None:
        """Have on the medium what the next start has to know of the copy besides its records."""
        current, future = self._manager.logs[key], self.logs[key]
        path = f"{future.dir}/{layout.MOVE}"
        try:
            future.epochs.copy_from(current.epochs)
            count = moves_of(self._disk, current.dir) + 1
            self._disk.write_file_atomic(path, f"{count}\n".encode(), durable=False)
        except OSError as error:
            future.fail(error)
            done(error)
            return
        files = [path, f"{future.dir}/{layout.LEADER_EPOCH_CHECKPOINT}"]
        self._manager.syncer.run(partial(sync_paths, self._disk, files, [future.dir]), done)

    def is_ready(self, key: TopicPartition) -> bool:
        """Whether it could take the place now: it has all that the current one has, as durably as that."""
        current, future = self._manager.logs[key], self.logs[key]
        return (
            current.written_end_offset == current.log_end_offset == future.written_end_offset
            and current.log_start_offset == future.log_start_offset
            and future.recovery_point >= current.recovery_point
            and future.epochs.entries == current.epochs.entries
            and not (current.is_syncing or future.is_syncing or current.offline or future.offline)
        )

    def promote(self, key: TopicPartition) -> Log:
        """The future log is the current one from now on; `is_ready` is true. KafkaError KAFKA_STORAGE_ERROR.

        A log that waits for an fsync has to call `sync`: the name is not durable yet.
        """
        manager = self._manager
        current, future = manager.logs[key], self.logs[key]
        source, target = manager.dir_of(current), manager.dir_of(future)
        before = future.dir
        try:
            future.move_to(f"{target.path}/{layout.log_dir_name(*key)}")
        except OSError as error:
            manager.dir_failed(target, error)
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{key[0]}-{key[1]}: {error}") from error
        del self.logs[key]
        manager.renamed(before, future.dir)
        manager.logs[key] = future
        # Questions under way are answered to those who asked.
        future.producers.verifying = current.producers.verifying
        left_behind = current.dir
        manager.retire(current)
        manager.hand_over_cleaner_offset(key, source, target)
        work = partial(self._disk.sync_dir, target.path)
        manager.syncer.run(work, partial(self._named, key, future, target, left_behind, source))
        return future

    def _named(
        self, key: TopicPartition, log: Log, target: DataDir, left_behind: str, source: DataDir,
        error: OSError | None,
    ) -> None:  # fmt: skip
        """The new name is durable: the old copy may go."""
        manager = self._manager
        if error is not None:
            manager.dir_failed(target, error)
        if target.offline or source.offline:
            return
        try:
            manager.rename_away(
                source, left_behind, key, layout.DELETE_DIR_SUFFIX, log.config.file_delete_delay_ms
            )
        except OSError as failure:
            manager.dir_failed(source, failure)


def _refuse_unexplained(found: list[Found]) -> None:
    """Of two incarnations of a topic, metadata will tell which one is of today."""
    first: dict[TopicPartition, tuple[str, bytes | None]] = {}
    for data_dir, name, key in found:
        path = f"{data_dir.path}/{name}"
        topic_id = data_dir.read_topic_id(path)
        other, other_id = first.setdefault(key, (path, topic_id))
        if other != path and (topic_id == other_id or None in (topic_id, other_id)):
            raise DataDirError(
                f"Duplicate log directories for {key[0]}-{key[1]} are found in both {path} and {other}. It is likely "
                "because log directory failure happened while broker was replacing current replica with future "
                "replica. Recover broker from this failure by manually deleting one of the two directories for this "
                "partition. It is recommended to delete the partition in the log directory that is known to have "
                "failed recently."
            )


def copy_some(current: Log, future: Log, bytes_max: int, wall_ms: int) -> int:
    """Do to the copy what was done to the log, and take up to `bytes_max` of what it lacks; how much that was.

    KafkaError: the log cannot be read there (CORRUPT_MESSAGE), or a disk has failed (KAFKA_STORAGE_ERROR). OSError: the
    same of the copy.
    """
    if future.config is not current.config:
        future.set_config(current.config)
    cut, current.lowest_cut = current.lowest_cut, NO_LIMIT
    start = current.log_start_offset
    if future.log_end_offset < start or cut <= start < future.log_end_offset:
        future.truncate_fully_and_start_at(start, wall_ms)
    elif cut < future.log_end_offset:
        future.truncate_to(cut)
    if future.log_start_offset < start:
        future.advance_log_start(start)
    if future.log_end_offset >= current.written_end_offset:
        return 0
    found = current.read(future.log_end_offset, bytes_max, end_offset=current.written_end_offset)
    future.append_as_follower(memoryview(found.data), wall_ms)
    future.write_staged()
    return len(found.data)


def agreed_end(one: Log, other: Log) -> int:
    """Up to where two copies tell the same history of leader epochs."""
    end = min(one.log_end_offset, other.log_end_offset)
    begin = max(one.log_start_offset, other.log_start_offset)
    starts = sorted({start for log in (one, other) for _, start in log.epochs.entries if begin < start < end})
    for offset in (begin, *starts):
        if one.epochs.epoch_at(offset) != other.epochs.epoch_at(offset):
            return min(offset, end)
    return end


def moves_of(disk: Disk, directory: str) -> int:
    """How often the log in `directory` has moved."""
    try:
        return int(disk.read_file(f"{directory}/{layout.MOVE}"))
    except (FileNotFoundError, ValueError):
        return 0
