"""Ranges of files to sockets without a copy: sendfile(2), and what to do while a socket takes no more.

The event loop's transports know no files. A connection that has one to send uses a second descriptor of its socket,
and this module while it lasts; everything else still goes through the transport. Which sockets take bytes again is told
by one epoll of its own, of which the loop sees only one descriptor: to wait costs one call (EPOLLONESHOT), where
`add_writer` and `remove_writer` would cost six.

Linux only. Elsewhere, and on connections that encrypt, answers are copies (`Log.read`).
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from odradek.ports.disk import Buffer, FileRange

if TYPE_CHECKING:
    import asyncio

IS_SUPPORTED = hasattr(select, "epoll") and hasattr(socket, "MSG_MORE")
TURN_BYTES_MAX = 2 << 20
"""A peer that takes bytes as fast as they come lets others have their turn after so many."""
_EVENTS_MAX = 256


class FileSenders:
    """All connections of a loop that have sent a file, by descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptors_max: int) -> None:
        self.loop = loop
        self._descriptors_max = descriptors_max
        self._epoll = select.epoll()
        self._by_fd: dict[int, FileSender] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, _EVENTS_MAX):
            if (sender := self._by_fd.get(fd)) is not None:
                sender.go_on()

    def socket_for(self, sender: FileSender, fd: int) -> socket.socket | None:
        """A second descriptor of the socket `fd`; None if there is none left."""
        if len(self._by_fd) >= self._descriptors_max:
            return None
        try:
            sock = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            return None
        sock.setblocking(False)
        self._epoll.register(sock.fileno(), select.EPOLLONESHOT)
        self._by_fd[sock.fileno()] = sender
        return sock

    def wait(self, fd: int) -> None:
        """Call `go_on` once the socket takes more."""
        self._epoll.modify(fd, select.EPOLLOUT | select.EPOLLONESHOT)

    def unregister(self, fd: int) -> None:
        del self._by_fd[fd]
        if not self._epoll.closed:  # the node stops, and a connection outlived its patience
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def close(self) -> None:
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class FileSender:
    """The way out of one connection for answers that contain files, one call of `send` at a time."""

    __slots__ = (
        "_fd",
        "_on_failure",
        "_on_sent",
        "_parts",
        "_senders",
        "_skip",
        "_socket",
        "_turn",
        "unsent",
    )

    def __init__(
        self,
        senders: FileSenders,
        fd: int,
        on_sent: Callable[[], None],
        on_failure: Callable[[OSError], None],
    ) -> None:
        """`fd`: the socket; not used after `close`. `on_sent`: a `send` that was not done at once has been."""
        self._senders = senders
        self._fd = fd
        self._on_sent = on_sent
        self._on_failure = on_failure
        self._socket: socket.socket | None = None
        self._parts: deque[Buffer | FileRange] = deque()
        self._skip = 0
        """Bytes of the first part that are gone."""
        self._turn = False
        """Whether a turn of its own is already asked for."""
        self.unsent = 0

    def send(self, parts: Sequence[Buffer | FileRange]) -> bool:
        """Send all of it, now or as the peer takes it; False if there is no descriptor for that.

        Nothing else may write to the socket while `unsent`.
        """
        assert not self._parts, "one answer after the other"
        if self._socket is None:
            self._socket = self._senders.socket_for(self, self._fd)
            if self._socket is None:
                return False
        self._parts.extend(parts)
        self.unsent = sum(map(len, parts))
        self._push()
        return True

    def go_on(self) -> None:
        """The socket may take more."""
        self._turn = False
        if self._parts and self._push():
            self._on_sent()

    def _push(self) -> bool:
        """As much as the socket takes; whether that was all."""
        assert self._socket is not None
        parts, sock = self._parts, self._socket
        fd = sock.fileno()
        left = TURN_BYTES_MAX
        try:
            while parts:
                part = parts[0]
                if left <= 0:
                    if not self._turn:
                        self._turn = True
                        self._senders.loop.call_soon(self.go_on)
                    return False
                skip = self._skip
                size = len(part)
                if isinstance(part, FileRange):
                    sent = part.send(fd, skip, left)
                else:
                    more = socket.MSG_MORE if len(parts) > 1 else 0
                    sent = sock.send(memoryview(part)[skip:] if skip else part, more)
                self.unsent -= sent
                left -= sent
                skip += sent
                if skip == size:
                    self._skip = 0
                    parts.popleft()
                    continue
                self._skip = skip
                if left > 0:  # it did not take all that it was offered
                    break
            else:
                return True
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
            return False
        self._senders.wait(fd)
        return False

    def _fail(self, error: OSError) -> None:
        self._let_go()
        self._on_failure(error)

    def _let_go(self) -> None:
        self._parts.clear()
        self._skip = self.unsent = 0

    def close(self) -> None:
        """The connection is gone, and with it what was not sent."""
        self._let_go()
        if self._socket is not None:
            self._senders.unregister(self._socket.fileno())
            self._socket.close()
            self._socket = None
