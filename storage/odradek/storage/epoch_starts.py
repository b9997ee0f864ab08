"""Where leader epochs began, noted durably before a leader serves: one file for all logs of a data directory.

A broker that dies gives thousands of partitions a leader elsewhere at once. A start in a file of each log would cost
two fsyncs a partition; here whatever came up while an fsync ran is one write and one fsync. The log's own
`leader-epoch-checkpoint`, which Kafka reads as well, follows in the background (`LogManager.save_epochs`); no recovery
point passes a start that is not in it.

At the next start an entry counts only if the batch at its offset carries its epoch: what a later leader has replaced
does not come back. So the file may keep what is outdated, and is begun anew once it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from odradek.ports.disk import Disk, File, Syncer
from odradek.storage.checkpoints import TopicPartition

Done = Callable[[OSError | None], None]
Starts = Sequence[tuple[int, int]]
"""(epoch, start offset), in the order in which they were noted."""

BYTES_MAX = 1 << 20
"""A larger file is begun anew."""


class EpochStarts:
    """`path` is in the data directory, which is locked. The owner's thread calls everything."""

    __slots__ = ("_dir", "_disk", "_file", "_kept", "_path", "_queued", "_under_way", "_waiting", "size")

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._dir = path.rpartition("/")[0]
        self._file: File | None = None
        self.size = 0
        self._queued: list[str] = []
        self._waiting: list[Done] = []
        self._under_way = False
        self._kept: list[str] | None = None
        """What was noted since `begin_anew`."""

    def load(self) -> Mapping[TopicPartition, Starts]:
        """What earlier processes noted. A line that does not parse was torn: nobody was told that it is durable."""
        found: dict[TopicPartition, list[tuple[int, int]]] = {}
        try:
            text = self._disk.read_file(self._path).decode("utf-8", "replace")
        except FileNotFoundError:
            return found
        self.size = len(text)
        for line in text.split("\n")[:-1]:
            try:
                topic, partition, epoch, start = line.split(" ")
                found.setdefault((topic, int(partition)), []).append((int(epoch), int(start)))
            except ValueError:
                continue
        return found

    def note(self, key: TopicPartition, epoch: int, start: int, syncer: Syncer, done: Done) -> None:
        """Call `done` later, once it is durable, or with why it is not; then nothing may rely on this disk."""
        self._queued.append(f"{key[0]} {key[1]} {epoch} {start}\n")
        self._waiting.append(done)
        if not self._under_way:
            self._commit(syncer)

    def _commit(self, syncer: Syncer) -> None:
        self._under_way = True
        lines, self._queued = self._queued, []
        waiting, self._waiting = self._waiting, []
        if self._kept is not None:
            self._kept += lines
        committed = partial(self._committed, syncer, waiting)
        try:
            first = self._file is None
            file = self._opened()
            self.size += file.append(["".join(lines).encode()])
        except OSError as failure:
            error = failure
            syncer.run(lambda: None, lambda _: committed(error))
            return
        if first:
            syncer.run(partial(_sync_with_name, self._disk, file, self._dir), committed)
        else:
            syncer.sync(file, committed)

    def _opened(self) -> File:
        if self._file is None:
            self._file = self._disk.open(self._path, create=True)
            if self.size:  # a torn line must not swallow the next one
                self._file.append([b"\n"])
        return self._file

    def _committed(self, syncer: Syncer, waiting: list[Done], error: OSError | None) -> None:
        self._under_way = False
        if self._queued:
            self._commit(syncer)
        for done in waiting:
            done(error)

    # A file that has grown too large -----------------------------------------------------------------------------

    @property
    def is_large(self) -> bool:
        return self.size > BYTES_MAX and self._kept is None

    @property
    def is_idle(self) -> bool:
        """No fsync of it is under way."""
        return not self._under_way

    def begin_anew(self) -> None:
        """From now on `finish` needs to keep what is noted; the rest is being made durable elsewhere."""
        self._kept = list(self._queued)

    def finish(self) -> None:
        """Everything noted before `begin_anew` is durable elsewhere. Blocking; OSError."""
        assert self._kept is not None and self.is_idle
        text = "".join(self._kept)
        self._kept = None
        self._disk.write_file_atomic(self._path, text.encode(), durable=True)
        self.close()
        self.size = len(text)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _sync_with_name(disk: Disk, file: File, directory: str) -> None:
    file.sync()
    disk.sync_dir(directory)
