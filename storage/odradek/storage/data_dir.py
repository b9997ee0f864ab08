"""One data directory: its lock, identity, clean-shutdown marker and checkpoint files."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from odradek.ports.disk import Disk
from odradek.storage import checkpoints, layout
from odradek.storage.checkpoints import CheckpointError, TopicPartition
from odradek.storage.epoch_starts import EpochStarts, Starts
from odradek.wire.uuid import ZERO_UUID, random_uuid, uuid_from_string, uuid_to_string


class DataDirError(Exception):
    """A data directory cannot be used; the text tells the person at the terminal which, and why."""

    @property
    def is_disk(self) -> bool:
        """Whether the disk is to blame, not what is on it."""
        return isinstance(self.__cause__, OSError)


class DataDir:
    """A path that this process owns while it holds the lock."""

    __slots__ = (
        "_disk", "_release", "broker_epoch", "clean", "cleaner_offsets", "compacted", "directory_id", "epoch_starts",
        "high_watermarks", "known_starts", "log_start_offsets", "notes", "offline", "path", "recovery_points",
        "unopened",
    )  # fmt: skip

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self.path = path
        self.directory_id = ZERO_UUID
        self.clean = False
        """The last process left its marker: every log is whole."""
        self.broker_epoch = -1
        """The epoch for which everything is still here, for the next registration (KIP-966): the one that the marker of
        a clean stop names, or that of a process which ended otherwise while the machine went on. -1: something may be
        missing.
        """
        self.offline = False
        self.recovery_points: dict[TopicPartition, int] = {}
        self.log_start_offsets: dict[TopicPartition, int] = {}
        self.cleaner_offsets: dict[TopicPartition, int] = {}
        """Up to where each log has been compacted."""
        self.compacted: dict[TopicPartition, int] = {}
        """Below this a log may have gaps; noted durably before there are any."""
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.epoch_starts = EpochStarts(disk, self._file(layout.EPOCH_STARTS))
        self.known_starts: Mapping[TopicPartition, Starts] = {}
        """As earlier processes noted them; for those who open logs."""
        self.unopened: set[TopicPartition] = set()
        """Logs that are there but could not be opened."""
        self.notes: list[str] = []
        """What was found damaged and ignored, for a log line."""
        self._release: Callable[[], None] | None = None

    def take(self) -> None:
        """Create and lock the directory. DataDirError if that cannot be."""
        try:
            if self._disk.exists(self.path) and not self._disk.isdir(self.path):
                raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
            if not self._disk.isdir(self.path):
                self._disk.makedirs(self.path)
                self._disk.sync_dir(self.path.rpartition("/")[0] or "/")
            elif not self._disk.exists(self._file(layout.META_PROPERTIES)):
                self._refuse_foreign()
            self._release = self._disk.lock(self._file(layout.LOCK_FILE))
        except OSError as error:
            raise DataDirError(
                f"The data directory {self.path} cannot be used: {error.strerror or error}."
            ) from error
        if self._release is None:
            raise DataDirError(
                f"Failed to acquire lock on file {layout.LOCK_FILE} in {self.path}. Another process is using this "
                "directory: stop that one or choose another directory."
            )

    def _refuse_foreign(self) -> None:
        """Without meta.properties only what a data directory may hold can lie here: nobody's files get company."""
        for name in self._disk.listdir(self.path):
            known = name in layout.DATA_DIR_FILES or (
                self._disk.isdir(self._file(name))
                and (layout.parse_log_dir_name(name) or layout.is_marked_dir(name, layout.DELETE_DIR_SUFFIX))
            )
            if not known and not name.endswith(layout.TEMPORARY_SUFFIX):
                raise DataDirError(
                    f"{self.path} is no data directory: it has no {layout.META_PROPERTIES}, but {name!r}. Choose an "
                    "empty directory, or one that does not exist yet."
                )

    def names(self, *, needed: bool) -> list[str]:
        """What lies in it. Where that cannot be read it is offline; OSError if it is `needed`."""
        if self.offline:
            return []
        try:
            return self._disk.listdir(self.path)
        except OSError as error:
            if needed:
                raise
            self.offline = True
            self.notes.append(f"The data directory {self.path} cannot be read: {error.strerror or error}.")
            return []

    @property
    def is_known(self) -> bool:
        """Whether its id is: a disk that failed at the start may not even tell that."""
        return self.directory_id != ZERO_UUID

    def is_gone(self) -> bool:
        """Whether somebody has removed it, or put something else in its place."""
        there = self._disk.exists
        return not there(self._file(layout.META_PROPERTIES)) and not there(self._file(layout.LOCK_FILE))

    def release(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    def read_meta(self, node_id: int) -> str | None:
        """The cluster id in meta.properties, None if there is no such file. DataDirError if it is not this node's."""
        path = self._file(layout.META_PROPERTIES)
        if not self._disk.exists(path):
            return None
        try:
            values = self._read_properties(path)
            if values.get("version") not in ("0", "1"):
                raise CheckpointError(f"version is {values.get('version')!r}, not 1")
            owner = int(values.get("node.id", values.get("broker.id", str(node_id))))
            if "directory.id" in values:
                self.directory_id = uuid_from_string(values["directory.id"])
        except (ValueError, OSError) as error:
            raise DataDirError(
                f"{path} cannot be read: {error}. Restore the file, or choose another directory."
            ) from error
        if owner != node_id:
            raise DataDirError(
                f"Stored node id {owner} doesn't match node id {node_id} in {path}: this directory belongs to another "
                "node. If you moved it, configure node.id to match."
            )
        return values.get("cluster.id") or None

    def write_meta(self, node_id: int, cluster_id: str, rng: Random) -> None:
        """Make meta.properties complete, drawing a directory id if there is none. Durable."""
        if self.directory_id == ZERO_UUID:
            self.directory_id = random_uuid(rng)
        values = {
            "version": "1",
            "cluster.id": cluster_id,
            "node.id": str(node_id),
            "directory.id": uuid_to_string(self.directory_id),
        }
        path = self._file(layout.META_PROPERTIES)
        try:
            if not self._disk.exists(path) or self._read_properties(path) != values:
                self._disk.write_file_atomic(
                    path, checkpoints.render_properties(values).encode(), durable=True
                )
        except OSError as error:
            raise DataDirError(f"{path} cannot be written: {error.strerror or error}.") from error

    def read_state(self, boot_id: str = "") -> None:
        """Checkpoints and the marker; the marker is removed, durably, before anything can be written.

        A damaged checkpoint counts as missing: recovery then scans more. `boot_id`: as the machine has it now; "" if it
        does not tell.
        """
        self.recovery_points = self._read_offsets(layout.RECOVERY_POINT_CHECKPOINT)
        self.log_start_offsets = self._read_offsets(layout.LOG_START_OFFSET_CHECKPOINT)
        self.cleaner_offsets = self._read_offsets(layout.CLEANER_CHECKPOINT)
        self.compacted = self._read_offsets(layout.COMPACTED)
        self.high_watermarks = self._read_offsets(layout.HIGH_WATERMARK_CHECKPOINT)
        self.known_starts = self.epoch_starts.load()
        marker = self._file(layout.CLEAN_SHUTDOWN_MARKER)
        self.clean = self._disk.exists(marker)
        if not self.clean:
            self._read_registration(boot_id)
            return
        try:
            self.broker_epoch = checkpoints.parse_clean_shutdown(
                self._disk.read_file(marker).decode("utf-8", "replace")
            )
            self._disk.unlink(marker)
            self._disk.sync_dir(self.path)
        except OSError as error:
            raise DataDirError(f"{marker} cannot be removed: {error.strerror or error}.") from error

    def _read_registration(self, boot_id: str) -> None:
        """After kill -9 the page cache has all that was ever handed to it, as long as the machine has not restarted."""
        try:
            text = self._disk.read_file(self._file(layout.REGISTRATION)).decode("utf-8", "replace")
        except OSError:
            return
        noted, epoch = checkpoints.parse_registration(text)
        if boot_id and noted == boot_id:
            self.broker_epoch = epoch

    def note_registration(self, boot_id: str, broker_epoch: int) -> None:
        """OSError. Never fsynced: a loss of power that could take the note makes it void as well."""
        text = checkpoints.render_registration(boot_id, broker_epoch)
        self._disk.write_file_atomic(self._file(layout.REGISTRATION), text.encode(), durable=False)

    def mark_clean(self, broker_epoch: int) -> None:
        text = checkpoints.render_clean_shutdown(broker_epoch)
        self._disk.write_file_atomic(self._file(layout.CLEAN_SHUTDOWN_MARKER), text.encode(), durable=True)

    def forget(self, key: TopicPartition) -> bool:
        """Drop what the checkpoints say of a log that is no more; whether the files have to be written anew."""
        noted = self.recovery_points.pop(key, 0) > 0 or self.log_start_offsets.pop(key, 0) > 0
        self.log_start_offsets.pop(key, None)
        self.cleaner_offsets.pop(key, None)
        self.compacted.pop(key, None)
        self.unopened.discard(key)
        return noted

    def write_points(
        self, points: dict[TopicPartition, int], starts: dict[TopicPartition, int], *, durable: bool
    ) -> None:
        """Recovery points and log starts; what was noted of logs that could not be opened stays. OSError."""
        for old, new in ((self.recovery_points, points), (self.log_start_offsets, starts)):
            new.update((key, old[key]) for key in self.unopened & old.keys())
        self.write_offsets(layout.RECOVERY_POINT_CHECKPOINT, points, durable=durable)
        self.write_offsets(layout.LOG_START_OFFSET_CHECKPOINT, starts, durable=durable)
        self.recovery_points, self.log_start_offsets = points, starts

    def compacted_below(self, key: TopicPartition) -> int:
        return max(self.cleaner_offsets.get(key, 0), self.compacted.get(key, 0))

    def compacted_writer(self) -> Callable[[], None]:
        """What writes that file as it has to be now. Blocking; OSError. One at a time, in the order of the calls."""
        return partial(self.write_offsets, layout.COMPACTED, self.compacted.copy(), durable=True)

    def write_offsets(self, name: str, offsets: Mapping[TopicPartition, int], *, durable: bool) -> None:
        text = checkpoints.render_offsets(offsets)
        self._disk.write_file_atomic(self._file(name), text.encode(), durable=durable)

    def read_topic_id(self, log_dir: str) -> bytes | None:
        """From partition.metadata; None if the file is missing or damaged (the metadata log knows better)."""
        try:
            text = self._disk.read_file(f"{log_dir}/{layout.PARTITION_METADATA}").decode("utf-8", "replace")
            return checkpoints.parse_partition_metadata(text)
        except FileNotFoundError:
            return None
        except CheckpointError as error:
            self.notes.append(f"{log_dir}/{layout.PARTITION_METADATA}: {error}")
            return None

    def write_topic_id(self, log_dir: str, topic_id: bytes) -> None:
        text = checkpoints.render_partition_metadata(topic_id)
        self._disk.write_file_atomic(f"{log_dir}/{layout.PARTITION_METADATA}", text.encode(), durable=False)

    def _read_offsets(self, name: str) -> dict[TopicPartition, int]:
        path = self._file(name)
        try:
            return checkpoints.parse_offsets(self._disk.read_file(path).decode("utf-8", "replace"))
        except FileNotFoundError:
            return {}
        except CheckpointError as error:
            self.notes.append(f"{path}: {error}")
            return {}
        except OSError as error:
            raise DataDirError(f"{path} cannot be read: {error.strerror or error}.") from error

    def _read_properties(self, path: str) -> dict[str, str]:
        return checkpoints.parse_properties(self._disk.read_file(path).decode("utf-8"))

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}"
