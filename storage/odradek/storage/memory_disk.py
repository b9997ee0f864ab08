"""A disk in memory that forgets what a real one may forget, and fails where it is told to. Pure and seeded.

What a power loss (`crash`) keeps, of what no fsync covered, is drawn from the seed:
- of bytes appended to a file: a prefix of any length, and in it pages that never reached the medium read as zeros;
- of a truncation or an overwrite: either the old or the new content;
- of creates, renames and unlinks in a directory: a prefix of them, per directory.
`kill` is the end of a process alone: the page cache survives, so everything stays.
"""

from __future__ import annotations

import errno
import posixpath as paths
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random

from odradek.ports.disk import Buffer, Disk, File, FileRange, Syncer

PAGE = 4096


class _FileNode:
    """Content as the page cache has it, and what of it is on the medium."""

    __slots__ = ("cuts", "data", "shadow", "synced", "unsyncable_in")

    def __init__(self) -> None:
        self.data = bytearray()
        self.cuts = 0
        self.unsyncable_in = -1
        """The life of the disk in which an fsync of it failed. The system then takes its pages for clean: another fsync
        says that all is well, and covers nothing (ATC'20).
        """
        self.synced = 0
        """Bytes from the start that are on the medium as they are, unless there is a `shadow`."""
        self.shadow: bytes | None = None
        """The medium's content since the cache overwrote some of it."""

    def rewriting_from(self, position: int) -> None:
        """Before bytes at or after `position` change."""
        if position < self.synced and self.shadow is None:
            self.shadow = bytes(self.data[: self.synced])

    def overwrite(self, data: Buffer, position: int) -> None:
        self.rewriting_from(position)
        if position > len(self.data):
            self.data += bytes(position - len(self.data))
        self.data[position : position + len(data)] = data

    def sync(self) -> None:
        self.synced = len(self.data)
        self.shadow = None

    def lose_power(self, rng: Random) -> None:
        if self.shadow is not None and rng.random() < 0.5:
            self.data = bytearray(self.shadow)
        elif self.shadow is None and len(self.data) > self.synced:
            kept = rng.randint(self.synced, len(self.data))
            if rng.random() < 0.3:
                kept = rng.choice((self.synced, len(self.data)))
            del self.data[kept:]
            self._drop_pages(rng)
        self.sync()

    def _drop_pages(self, rng: Random) -> None:
        first = -(-self.synced // PAGE) * PAGE
        if first < len(self.data) and rng.random() < 0.3:
            for start in range(first, len(self.data), PAGE):
                if rng.random() < 0.3:
                    end = min(start + PAGE, len(self.data))
                    self.data[start:end] = bytes(end - start)


class _DirNode:
    """Entries as the cache has them, as the medium has them, and the changes between."""

    __slots__ = ("durable", "entries", "journal")

    def __init__(self) -> None:
        self.entries: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}
        self.journal: list[dict[str, _Node | None]] = []

    def change(self, changes: dict[str, _Node | None]) -> None:
        _apply(self.entries, changes)
        self.journal.append(changes)

    def sync(self) -> None:
        self.durable = dict(self.entries)
        self.journal.clear()

    def lose_power(self, rng: Random) -> None:
        for changes in self.journal[: rng.randint(0, len(self.journal))]:
            _apply(self.durable, changes)
        self.entries = dict(self.durable)
        self.journal.clear()
        for node in self.entries.values():
            node.lose_power(rng)


_Node = _FileNode | _DirNode


def _apply(entries: dict[str, _Node], changes: dict[str, _Node | None]) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class WritePoint(Enum):
    """A call that changes what is on the disk, or what of it survives."""

    WRITE = "write"
    TRUNCATE = "truncate"
    CREATE = "create"
    MKDIR = "mkdir"
    RENAME = "rename"
    UNLINK = "unlink"
    FSYNC = "fsync"
    DIRSYNC = "dirsync"


Watch = Callable[[WritePoint, str, Callable[[float], None]], None]
"""Called before each write point with its path; what it raises happens in its place. The last argument does a part of
a write (0 to 1) and nothing at other points.
"""


def _nothing(_: float) -> None:
    """Other calls than writes happen or do not."""


class Faults:
    """What goes wrong, and when. Counts every change to the disk, so that a test can fail each one in turn."""

    def __init__(self, rng: Random, watch: Watch | None = None) -> None:
        self.rng = rng
        self.watch = watch
        """Sees every write point, in this life of the disk and the next ones."""
        self.on_read: Callable[[str], None] | None = None
        """Called with the path before content is read; what it raises happens in its place."""
        self.changes = 0
        """Writes, truncations, creates, renames, unlinks so far."""
        self.syncs = 0
        self.fail_change_at: int | None = None
        """The number of the change that fails (0: the next one after construction)."""
        self.fail_sync_at: int | None = None
        self.error = errno.EIO
        self.sticky = True
        """Everything after the first failure fails as well, as on a dead or full disk."""

    def change(self, point: WritePoint, path: str, partly: Callable[[float], None] = _nothing) -> bool:
        """Whether this change must fail."""
        if self.watch is not None:
            self.watch(point, path, partly)
        number, self.changes = self.changes, self.changes + 1
        return self._hits(self.fail_change_at, number)

    def check(self, point: WritePoint, path: str) -> None:
        if self.change(point, path):
            raise OSError(self.error, "injected", path)

    def sync(self, point: WritePoint, path: str) -> None:
        if self.watch is not None:
            self.watch(point, path, _nothing)
        number, self.syncs = self.syncs, self.syncs + 1
        if self._hits(self.fail_sync_at, number):
            raise OSError(errno.EIO, "injected", path)

    def _hits(self, at: int | None, number: int) -> bool:
        return at is not None and (number >= at if self.sticky else number == at)


class MemoryRange(FileRange):
    """There is no socket that could take it but for those of tests, which `read`."""

    def __init__(self, node: _FileNode, position: int, length: int) -> None:
        self._node = node
        self._cuts = node.cuts
        self._position = position
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self) -> bytes:
        if self._cuts != self._node.cuts:
            raise OSError(errno.ESTALE, "the file was cut")
        return bytes(self._node.data[self._position : self._position + self._length])

    def send(self, socket: int, skip: int, length_max: int) -> int:
        raise OSError(errno.EINVAL, "no descriptor")


class MemoryFile(File):
    """A handle. All handles die with `crash` and `kill`."""

    __slots__ = ("_disk", "_life", "_node", "path")

    def __init__(self, disk: MemoryDisk, node: _FileNode, path: str) -> None:
        self._disk = disk
        self._node = node
        self._life = disk.life
        self.path = path

    def _live(self) -> _FileNode:
        if self._life != self._disk.life:
            raise OSError(errno.EBADF, "the handle is closed", self.path)
        return self._node

    def append(self, buffers: Sequence[Buffer]) -> int:
        node, faults = self._live(), self._disk.faults
        data = b"".join(buffers)

        def partly(share: float) -> None:
            node.data += data[: int(len(data) * share)]

        if faults.change(WritePoint.WRITE, self.path, partly):
            node.data += data[: faults.rng.randint(0, len(data))]
            raise OSError(faults.error, "injected", self.path)
        node.data += data
        return len(data)

    def pread(self, length: int, position: int) -> bytes:
        if self._disk.faults.on_read is not None:
            self._disk.faults.on_read(self.path)
        return bytes(self._live().data[position : position + length])

    def is_cached(self, position: int, length: int) -> bool:
        return True

    def range(self, position: int, length: int) -> MemoryRange:
        return MemoryRange(self._live(), position, length)

    def pwrite(self, data: Buffer, position: int) -> None:
        node = self._live()

        def partly(share: float) -> None:
            node.overwrite(memoryview(data)[: int(len(data) * share)], position)

        if self._disk.faults.change(WritePoint.WRITE, self.path, partly):
            raise OSError(self._disk.faults.error, "injected", self.path)
        node.overwrite(data, position)

    def size(self) -> int:
        return len(self._live().data)

    def truncate(self, size: int) -> None:
        node = self._live()
        self._disk.faults.check(WritePoint.TRUNCATE, self.path)
        node.rewriting_from(size)
        node.cuts += 1
        if size < len(node.data):
            del node.data[size:]
        else:
            node.data += bytes(size - len(node.data))

    def sync(self) -> None:
        node = self._live()
        try:
            self._disk.faults.sync(WritePoint.FSYNC, self.path)
        except OSError:
            node.unsyncable_in = self._disk.life
            raise
        if node.unsyncable_in != self._disk.life:
            node.sync()

    def close(self) -> None:
        self._life = -1


class MemoryDisk(Disk):
    """A file system in memory. `faults` decides what fails."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = Random(seed)
        self.faults = Faults(self.rng)
        self.life = 0
        self._root = _DirNode()
        self._locks: dict[str, object] = {}

    # Faults -----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Power loss: unsynced changes are lost in part or in whole, handles and locks are gone."""
        self.kill()
        self._root.lose_power(self.rng)

    def kill(self) -> None:
        """The process dies, the machine does not: handles and locks are gone, all content stays."""
        self.life += 1
        self._locks.clear()
        self.faults = Faults(self.rng, self.faults.watch)

    def flip_bit(self, path: str, position: int, bit: int) -> None:
        """Damage the medium and the cache alike."""
        self._file(path).data[position] ^= 1 << bit

    # Disk -------------------------------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> MemoryFile:
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None:
            if not (create or exclusive):
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self.faults.check(WritePoint.CREATE, path)
            node = _FileNode()
            parent.change({name: node})
        elif exclusive:
            raise FileExistsError(errno.EEXIST, "the file exists", path)
        if isinstance(node, _DirNode):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        return MemoryFile(self, node, path)

    def listdir(self, path: str) -> list[str]:
        return sorted(self._dir(path).entries)

    def exists(self, path: str) -> bool:
        try:
            self._node(path)
        except OSError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        try:
            return isinstance(self._node(path), _DirNode)
        except OSError:
            return False

    def size(self, path: str) -> int:
        return len(self._file(path).data)

    def makedirs(self, path: str) -> None:
        node = self._root
        for name in _parts(path):
            below = node.entries.get(name)
            if below is None:
                self.faults.check(WritePoint.MKDIR, path)
                below = _DirNode()
                node.change({name: below})
            if not isinstance(below, _DirNode):
                raise FileExistsError(errno.EEXIST, "a file", path)
            node = below

    def rename(self, old: str, new: str) -> None:
        node = self._node(old)
        (source, name), (target, new_name) = self._parent(old), self._parent(new)
        there = target.entries.get(new_name)
        if isinstance(there, _DirNode) and there.entries:
            raise OSError(errno.ENOTEMPTY, "the directory is not empty", new)
        self.faults.check(WritePoint.RENAME, old)
        if source is target:
            source.change({name: None, new_name: node})
        else:
            target.change({new_name: node})
            source.change({name: None})

    def unlink(self, path: str) -> None:
        self._file(path)
        self.faults.check(WritePoint.UNLINK, path)
        parent, name = self._parent(path)
        parent.change({name: None})

    def rmtree(self, path: str) -> None:
        self._dir(path)
        self.faults.check(WritePoint.UNLINK, path)
        parent, name = self._parent(path)
        parent.change({name: None})

    def sync_dir(self, path: str) -> None:
        node = self._dir(path)
        self.faults.sync(WritePoint.DIRSYNC, path)
        node.sync()

    def settle(self, path: str) -> None:
        """Nothing to hurry."""

    def read_file(self, path: str) -> bytes:
        if self.faults.on_read is not None:
            self.faults.on_read(path)
        return bytes(self._file(path).data)

    def write_file_atomic(self, path: str, data: bytes, *, durable: bool) -> None:
        temporary = path + ".tmp"
        file = self.open(temporary, create=True)
        file.truncate(0)
        file.append([data])
        if durable:
            file.sync()
        self.rename(temporary, path)
        if durable:
            self.sync_dir(paths.dirname(path))

    def lock(self, path: str) -> Callable[[], None] | None:
        if path in self._locks:
            return None
        self.open(path, create=True)
        token = self._locks[path] = object()

        def release() -> None:
            if self._locks.get(path) is token:
                del self._locks[path]

        return release

    # Nodes ------------------------------------------------------------------------------------------------------

    def _node(self, path: str) -> _Node:
        node: _Node = self._root
        for name in _parts(path):
            if not isinstance(node, _DirNode):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            below = node.entries.get(name)
            if below is None:
                raise FileNotFoundError(errno.ENOENT, "no such file or directory", path)
            node = below
        return node

    def _dir(self, path: str) -> _DirNode:
        node = self._node(path)
        if not isinstance(node, _DirNode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return node

    def _file(self, path: str) -> _FileNode:
        node = self._node(path)
        if not isinstance(node, _FileNode):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        return node

    def _parent(self, path: str) -> tuple[_DirNode, str]:
        head, name = paths.split(path)
        return self._dir(head), name


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


class StepSyncer(Syncer):
    """A syncer that works when told to: `step` does the oldest request, `drain` all. One thread, no surprises."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[], None], Callable[[OSError | None], None]]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def sync(self, file: File, done: Callable[[OSError | None], None]) -> None:
        self._queue.append((file.sync, done))

    def run(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        self._queue.append((work, done))

    def step(self) -> bool:
        """Do the oldest request and complete it; False if there is none."""
        if not self._queue:
            return False
        work, done = self._queue.popleft()
        try:
            work()
        except OSError as error:
            done(error)
        else:
            done(None)
        return True

    def drain(self) -> None:
        while self.step():
            pass

    def forget(self) -> None:
        """The process died: nothing of what was queued happens."""
        self._queue.clear()
