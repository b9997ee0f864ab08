"""The disk as everything above it sees it: what a simulator replaces.

Writes and reads that touch the page cache are plain synchronous calls. What can wait for the medium (fsync) goes
through `Syncer`, whose completion comes back as a call on the owner's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class FileRange:
    """A part of a file, to be sent without being read into this process.

    Holding it keeps the descriptor open, whatever happens to the file's name and to the `File` it came from.
    """

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self) -> bytes:
        """A copy; errors as `send`."""
        raise NotImplementedError

    def send(self, socket: int, skip: int, length_max: int) -> int:
        """Hand up to `length_max` bytes that follow its first `skip` to a socket, by its descriptor: how many it took.

        BlockingIOError if the socket takes none now. OSError ESTALE once the file was cut, whatever may follow:
        bytes that were promised could be others by now.
        """
        raise NotImplementedError


class File(Protocol):
    """One open file that grows at its end. Offsets and sizes are bytes. Errors are OSError."""

    path: str

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write all buffers at the end, gathered in one call where the system can; the bytes written.

        Either everything is written or OSError is raised; after an error the owner must treat the tail as unknown.
        """
        ...

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; shorter only at the end of the file."""
        ...

    def is_cached(self, position: int, length: int) -> bool:
        """Whether the page cache holds this range, so that a read is expected not to wait for the medium."""
        ...

    def range(self, position: int, length: int) -> FileRange:
        """Bytes that are there, for a socket."""
        ...

    def pwrite(self, data: Buffer, position: int) -> None:
        """Overwrite at `position`; for small fixed-size bookkeeping files, never for logs."""
        ...

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """fsync, blocking. Only recovery, shutdown and a Syncer's worker call it."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are absolute strings with forward slashes."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and appending. FileNotFoundError unless `create`; FileExistsError if `exclusive`."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names, sorted."""
        ...

    def exists(self, path: str) -> bool: ...

    def isdir(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...

    def makedirs(self, path: str) -> None: ...

    def rename(self, old: str, new: str) -> None:
        """Atomic replace of a file, or move of a directory."""
        ...

    def unlink(self, path: str) -> None: ...

    def rmtree(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None:
        """Make creates, renames and deletes inside `path` durable. Blocking."""
        ...

    def settle(self, path: str) -> None:
        """Hint that very many files below `path` are about to be synced: one pass over the medium may serve them all.

        Promises nothing and never fails; each file still has to be synced. Blocking.
        """
        ...

    def read_file(self, path: str) -> bytes: ...

    def write_file_atomic(self, path: str, data: bytes, *, durable: bool) -> None:
        """Write `path`.tmp, rename it over `path`; with `durable`, fsync the file before and the directory after."""
        ...

    def lock(self, path: str) -> Callable[[], None] | None:
        """Take an exclusive lock file; a function that releases it, or None if another process holds it."""
        ...


class Syncer(Protocol):
    """fsync off the owner's thread, in groups: requests for one file that arrive together cost one fsync."""

    def sync(self, file: File, done: Callable[[OSError | None], None]) -> None:
        """`done` is called later on the owner's thread. An fsync that failed is never tried again (ATC'20)."""
        ...

    def run(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Other blocking disk work (unlink, cold reads) off the owner's thread, in submission order."""
        ...
