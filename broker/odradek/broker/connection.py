"""One client connection without its socket: frames in, responses out, in order, within bounds.

A driver reads from the socket into what `get_buffer` returns, calls `buffer_updated`, and implements `Transport`.
Idle connections own no buffer: all of a node's connections read into one shared buffer, and only an unfinished frame
is kept per connection. Everything that one readable event brought is handled before anything is written: appends of
the event go to disk gathered (`Node.flush`), then its responses leave in one write.

Bounds a stranger meets: `socket.request.max.bytes` for a frame, whose buffer grows with the bytes that really arrive,
as long as the node has memory for requests (backpressure.py); `REQUESTS_WAITING_MAX` unanswered requests; and no
request is handled while the peer does not read its responses, or after others have waited for their turn long enough.

Nothing here runs inside another connection's event: a Pending that completes puts its connection into `Host.ready`,
and whoever ends an event goes on with those that are ready, one after the other.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Any, Protocol

from odradek.broker.backpressure import SMALL_FRAME, RequestMemory, ResponseMemory
from odradek.broker.pending import Part, Pending, Response
from odradek.ports.disk import Buffer, FileRange
from odradek.wire.errors import MalformedMessage
from odradek.wire.primitives import read_tags

REQUESTS_WAITING_MAX = 128
"""Requests of one connection that may await their response before reading stops."""
BUFFER_STEP = 16 * 1024
"""A frame's buffer is allocated whole up to here and multiplies with the bytes received above: ten thousand peers may
have begun a frame."""
JOIN_MAX = 64 * 1024
"""Buffers up to this size are joined before writing; larger ones are handed over as they are, never copied."""
REQUEST_HEAD_SIZE = 8
HEADER_TAGS_MAX = 100
TIMED_FROM = 8192
"""Produce requests up to this size take microseconds; after any other it is asked whether the event lasts too long."""
PRODUCE_KEY = 0
OTHER_REQUEST_BYTES_MAX = 1 << 20
"""Only Produce carries bulk data. Any other request decodes to many times its size, so it is held shorter."""
UNSENT_WHEN_FULL = 64 * 1024
"""Unsent bytes above which a connection waits while the node has no room for responses."""

PEER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)

_frame = Struct(">i").unpack_from
_short = Struct(">h").unpack_from
_frame_and_head = Struct(">ihhi").unpack_from

Handler = Callable[["Connection", memoryview, int, int, int, int], "Response | Pending | None"]


def _other_protocol(start: bytes) -> str:
    """What a client that does not speak Kafka's protocol seems to speak; people take one port for another."""
    if start[:2] == b"\x16\x03":
        return " (it looks like TLS, and this listener is PLAINTEXT)"
    if start in (b"GET ", b"HEAD", b"POST", b"PUT "):
        return " (it looks like HTTP, and this listener speaks Kafka's protocol)"
    return ""


class Transport(Protocol):
    def write(self, data: Buffer) -> None: ...

    def writelines(self, data: Sequence[Buffer]) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class FileOutlet(Protocol):
    """The way out for responses that contain parts of files, beside the transport: file_sender.py."""

    unsent: int

    def send(self, parts: Sequence[Part]) -> bool:
        """Send all of it; False if it cannot. While `unsent`, nothing else is written; then `Connection.files_sent`."""
        ...

    def close(self) -> None: ...


class Host(Protocol):
    """What a connection needs of its node."""

    shared_buffer: memoryview
    handlers: dict[int, Handler]
    request_bytes_max: int
    unsent_bytes_max: int
    request_memory: RequestMemory
    response_memory: ResponseMemory
    ready: deque[Connection]
    """Connections that can go on once the present event is over."""

    def begin_event(self, connection: Connection) -> None: ...

    def flush(self) -> bool: ...

    def end_event(self, produced: int) -> None: ...

    def lasts_too_long(self) -> bool: ...

    def run_ready(self) -> None: ...

    def run_later(self, connection: Connection) -> None: ...

    def connection_opened(self, connection: Connection) -> bool: ...

    def connection_closed(self, connection: Connection) -> None: ...

    def bad_input(self, connection: Connection, reason: str) -> None: ...

    def send_failed(self, connection: Connection, error: OSError) -> None: ...

    def handler_failed(
        self, connection: Connection, api_key: int, version: int, error: Exception
    ) -> None: ...


class Connection:
    """Sans-IO. Single-threaded; every method is called by the driver or by a completed Pending."""

    def __init__(self, host: Host, listener: str) -> None:
        self.host = host
        self.listener = listener
        self.peer = ""
        self.peer_host = ""
        self.client_id = ""
        self._client_id_bytes = b""
        self.software = ("", "")
        self.closed = False
        self.last_active_ms = 0
        self.produce_cache: dict[bytes, Any] = {}
        self.produce_prefix_length = 0
        self.refused_batches: dict[tuple[str, int], Any] = {}
        """See `api/produce_behind.py`."""
        self.produced = 0
        """Produce requests of the present event, for the metrics."""
        self.handlers = host.handlers
        self._transport: Transport | None = None
        self._files: FileOutlet | None = None
        self.sends_files = False
        """Whether a response may contain parts of files."""
        self._own: bytearray | None = None
        self._own_view: memoryview | None = None
        self._filled = 0
        self._need = 0
        self._reserved = 0
        """What it holds of the node's memory for requests; only large frames ask for it."""
        self._awaiting_memory = False
        self._in_event = False
        self._is_ready = False
        self._waiting: deque[Pending | Response] = deque()
        self._out: list[Part] = []
        self._held = 0
        """Bytes of completed responses that wait for their turn or for the end of the event."""
        self._handed = 0
        """Bytes given to the transport since the connection was opened."""
        self.unsent = 0
        """Bytes held, or given to the transport and not taken by the system, when last looked at."""
        self._writing_paused = False
        self._reading_paused = False
        self._stopped = False
        self._seen = 0
        self.at_eof = False
        """The peer sends no more, and waits for answers to what it has sent."""

    # -- driver side ---------------------------------------------------------------------------------------------

    def opened(self, transport: Transport, peer: str, files: FileOutlet | None = None) -> None:
        self._transport = transport
        self._files = files
        self.sends_files = files is not None
        self.peer = peer
        self.peer_host = "/" + peer.rpartition(":")[0]
        if not self.host.connection_opened(self):
            self.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._own_view is None:
            return self.host.shared_buffer
        return self._own_view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        if self._own_view is None:
            self._event(self.host.shared_buffer, nbytes)
            return
        self._filled += nbytes
        if self._filled >= self._need:
            self._event(self._own_view, self._filled)
        elif self._filled == len(self._own_view):
            self._grow()

    def pause_writing(self) -> None:
        """The peer does not read: stop handling its requests until it does."""
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self.proceed()
        self.host.run_ready()

    def eof(self) -> bool:
        """The peer sends no more; whether it still gets answers to what it has sent (a half-closed connection)."""
        self.at_eof = bool(self._waiting or self._held or self._is_sending_files) and not self.closed
        return self.at_eof

    def lost(self) -> None:
        """The socket is gone: everything that waits for it is let go."""
        if self.closed and self._transport is None:
            return
        self.closed = True
        self._transport = None
        if self._files is not None:
            self._files.close()
            self._files = None
        for entry in self._waiting:
            if type(entry) is Pending:
                entry.abandon()
        self._waiting.clear()
        self._out.clear()
        self._held = 0
        self.count_unsent()
        self.produce_cache.clear()
        self.refused_batches.clear()
        self._release_own()
        self._release_memory()
        self.host.connection_closed(self)
        self.host.run_ready()

    # -- node side -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close after what was written has left."""
        if not self.closed:
            self.closed = True
            if self._transport is not None and not self._in_event and not self._is_sending_files:
                self._transport.close()

    def stop_reading(self) -> None:
        """The node stops: what it has done is still answered, what it has not begun never will be."""
        self._stopped = True
        self._pause_reading()

    def abort(self) -> None:
        """Close at once, whatever was written."""
        self.closed = True
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    def files_sent(self) -> None:
        """The peer has taken the response that contained files: those behind it may follow."""
        self.count_unsent()
        if self.closed:
            self._send()
        else:
            self.proceed()
        self.host.run_ready()

    def files_failed(self, error: OSError) -> None:
        """A part of a response has left and the rest cannot: the peer must see that it is not whole."""
        if error.errno not in PEER_GONE:
            self.host.send_failed(self, error)
        self.abort()

    def pending_completed(self, response: Response | None) -> None:
        """A Pending of this connection got its response, which leaves when the present event is over."""
        if response is not None and not self.closed:
            self._held += _size(response)
            self.count_unsent()
        if not self._in_event:  # its own event sends what is complete when it ends
            self._make_ready()

    def proceed(self) -> None:
        """Go on after an event elsewhere: send what is complete, handle what had to wait."""
        self._is_ready = False
        if not self._in_event and not self.closed:
            self._send()
            self._pump()

    def memory_granted(self) -> None:
        """The frame that waited for room may go on being received."""
        self._awaiting_memory = False
        self._reserved = self._capacity()
        self._enlarge(self._reserved)
        self._make_ready()

    def count_unsent(self) -> None:
        """Find out how much of the responses the peer has not taken, and tell the node."""
        transport = self._transport
        unsent = self._held + (transport.get_write_buffer_size() if transport is not None else 0)
        if self._files is not None:
            unsent += self._files.unsent
        change = unsent - self.unsent
        if change:
            self.unsent = unsent
            self.host.response_memory.moved(self, change)

    def has_moved(self) -> bool:
        """Whether parts of a request arrived, or of a response left, since this was last asked."""
        self.count_unsent()
        seen = self.taken_bytes + self.received_bytes
        moved = seen != self._seen
        self._seen = seen
        return moved

    @property
    def taken_bytes(self) -> int:
        """What the system has taken of the responses so far, when last looked at."""
        return self._handed + self._held - self.unsent

    @property
    def received_bytes(self) -> int:
        """What has arrived of the frame being received."""
        return self._filled

    def skip_header(self, view: memoryview, start: int, flexible: bool) -> int:
        """Where the body of the request whose header begins at `start` begins; notes who the client says it is."""
        try:
            (length,) = _short(view, start + 8)
            pos = start + 10
            if length > 0:
                raw = view[pos : pos + length]
                pos += length
                if raw != self._client_id_bytes:
                    self._client_id_bytes = bytes(raw)
                    self.client_id = str(self._client_id_bytes, "utf-8", "replace")
            if not flexible:
                return pos
            count = view[pos]
            if count == 0:
                return pos + 1
            if count > HEADER_TAGS_MAX:
                raise MalformedMessage("too many tagged fields in the request header")
            return read_tags(view, pos)[1]
        except (IndexError, struct_error):
            raise MalformedMessage("the request ends inside its header") from None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing from this node; bytes may still be on their way."""
        return not self._waiting and not self._held and not self._awaiting_memory

    @property
    def buffered_bytes(self) -> int:
        """Memory this connection holds for an unfinished or unhandled request."""
        return 0 if self._own is None else len(self._own)

    # -- frames --------------------------------------------------------------------------------------------------

    def _event(self, view: memoryview, end: int) -> None:
        """Handle every complete frame in view[:end], keep the rest, write to disk, then answer."""
        host = self.host
        self._in_event = True
        host.begin_event(self)
        try:
            pos = self._handle_frames(view, end)
            written = host.flush()
        finally:
            self._in_event = False
        if not written:
            # Responses of this event were prepared before the append failed: none may leave (they would
            # acknowledge what is not in the log). The client sees a lost connection and asks again.
            self.abort()
        elif self.closed:
            self._send()
        else:
            self._keep(view, pos, end)
            self._send()
            if self._blocked():
                self._pause_reading()
            elif pos < end and self._filled >= self._need:
                # Its turn is over, or it was blocked by what has just left: the others come first.
                self._pause_reading()
                if not self._is_ready:
                    self._is_ready = True
                    host.run_later(self)
        if self.produced:
            host.end_event(self.produced)
            self.produced = 0
        if host.ready:
            host.run_ready()

    def _handle_frames(self, view: memoryview, end: int) -> int:
        """The position behind the last frame handled."""
        pos = 0
        if self._blocked():
            return pos
        handlers = self.handlers
        waiting = self._waiting
        out = self._out
        limit = self.host.request_bytes_max
        held = 0
        held_max = UNSENT_WHEN_FULL if self.host.response_memory.is_full else self.host.unsent_bytes_max
        try:
            while end - pos >= 4:
                (size,) = _frame(view, pos)
                if not REQUEST_HEAD_SIZE <= size <= limit:
                    guess = _other_protocol(bytes(view[pos : pos + 4]))
                    self._refuse(f"frame of {size} bytes, allowed are {REQUEST_HEAD_SIZE} to {limit}{guess}")
                    return end
                frame_end = pos + 4 + size
                if (
                    size > OTHER_REQUEST_BYTES_MAX
                    and end - pos >= 6
                    and _short(view, pos + 4)[0] != PRODUCE_KEY
                ):
                    self._refuse(f"request of {size} bytes, API key {_short(view, pos + 4)[0]}")
                    return end
                if frame_end > end:
                    break
                _, api_key, version, correlation_id = _frame_and_head(view, pos)
                handler = handlers.get(api_key)
                if handler is None:
                    self._refuse(f"unknown API key {api_key}")
                    return end
                try:
                    response = handler(self, view, pos + 4, frame_end, version, correlation_id)
                except MalformedMessage as error:
                    self._refuse(f"malformed request, API key {api_key} version {version}: {error}")
                    return end
                except Exception as error:  # noqa: BLE001  a bug in one handler must not take the node down
                    self.host.handler_failed(self, api_key, version, error)
                    self.closed = True
                    return end
                pos = frame_end
                if type(response) is bytes and not waiting:
                    out.append(response)
                    held += len(response)
                elif response is not None:
                    waiting.append(response)
                    if isinstance(response, Pending):
                        response.attach(self)
                    else:
                        held += _size(response)
                    if len(waiting) >= REQUESTS_WAITING_MAX:
                        break
                elif self.closed:
                    return end
                if held > held_max or ((api_key or size > TIMED_FROM) and self.host.lasts_too_long()):
                    break
        finally:
            self._held += held
        return pos

    def _blocked(self) -> bool:
        if self._writing_paused or len(self._waiting) >= REQUESTS_WAITING_MAX:
            return True
        if self.unsent <= UNSENT_WHEN_FULL and self._held <= UNSENT_WHEN_FULL:
            return False
        return self._held > self.host.unsent_bytes_max or self.host.response_memory.is_full

    def _refuse(self, reason: str) -> None:
        """The peer's mistake: what it asked before is still answered, then the connection closes."""
        self.host.bad_input(self, reason)
        self.closed = True

    # -- buffers -------------------------------------------------------------------------------------------------

    def _keep(self, view: memoryview, pos: int, end: int) -> None:
        """Keep the unhandled bytes view[pos:end] in a buffer of this connection, with room for their frame."""
        if pos:
            self._release_memory()  # that of the frame that was handled
        left = end - pos
        if not left:
            if self._own is not None:
                self._release_own()
            return
        # Of a frame whose API is not known yet, only as much as tells it.
        self._need = 4 + _frame(view, pos)[0] if left >= 6 else 6
        self._filled = left
        old = self._own
        if pos or old is None or view.obj is not old:
            memory = self.host.request_memory
            self._own = memory.buffer(self._capacity() if self._may_hold() else left)
            self._own[:left] = view[pos:end]
            if old is not None:
                memory.give_back(old)
        # No more room than the frame needs: what follows it is read into the shared buffer again.
        self._own_view = memoryview(self._own)[: max(left, self._need)]  # type: ignore[arg-type]
        if left < self._need and left == len(self._own_view) and not self._awaiting_memory:
            self._grow()

    def _capacity(self) -> int:
        """How large a buffer the frame shall have, with what has arrived of it so far."""
        filled = self._filled
        return max(filled, min(self._need, max(BUFFER_STEP, (4 if filled < SMALL_FRAME else 2) * filled)))

    def _may_hold(self) -> bool:
        """Whether there is memory for `_capacity` bytes; if not, reading stops until `memory_granted`."""
        if self._need <= SMALL_FRAME or self._filled >= self._need:
            return True
        capacity = self._capacity()
        if capacity <= self._reserved:
            return True
        if self.host.request_memory.grow(self, self._need, capacity - self._reserved):
            self._reserved = capacity
            return True
        self._awaiting_memory = True
        self._pause_reading()
        return False

    def _grow(self) -> None:
        """The frame is larger than its buffer so far."""
        if self._may_hold():
            self._enlarge(self._capacity())

    def _enlarge(self, capacity: int) -> None:
        assert self._own is not None
        memory = self.host.request_memory
        grown = memory.buffer(capacity)
        grown[: self._filled] = memoryview(self._own)[: self._filled]
        memory.give_back(self._own)
        self._own = grown
        self._own_view = memoryview(grown)[: max(self._filled, self._need)]

    def _release_own(self) -> None:
        self._own_view = None
        self._filled = 0
        if self._own is not None:
            self.host.request_memory.give_back(self._own)
            self._own = None

    def _release_memory(self) -> None:
        if self._reserved or self._awaiting_memory:
            self._reserved = 0
            self._awaiting_memory = False
            self.host.request_memory.release(self, self._need)

    # -- responses -----------------------------------------------------------------------------------------------

    @property
    def _is_sending_files(self) -> bool:
        return self._files is not None and self._files.unsent > 0

    def _send(self) -> None:
        """Write every response whose turn has come, in one write."""
        if self._files is not None and self._files.unsent:
            return  # `files_sent` comes back here
        waiting = self._waiting
        out = self._out
        large = False
        while waiting:
            entry = waiting[0]
            response: Response | None
            if isinstance(entry, Pending):
                if not entry.done:
                    break
                response = entry.response
            else:
                response = entry
            waiting.popleft()
            if response is None:
                continue
            if type(response) is tuple or type(response) is list:
                out.extend(response)
                large = True
            else:
                out.append(response)  # type: ignore[arg-type]
        transport = self._transport
        if transport is None:
            return
        if out:
            self._out = []
            if large and self._files is not None:
                self._write_files(transport, self._files, out)
                if self._files is None or self._files.unsent:
                    return
            else:
                self._write(transport, out, large)  # type: ignore[arg-type]
        if self.closed or (self.at_eof and not waiting):
            self.closed = True
            transport.close()

    def _write_files(self, transport: Transport, files: FileOutlet, out: list[Part]) -> None:
        """Files among the buffers, perhaps. What the transport has not got rid of comes first."""
        if not any(isinstance(part, FileRange) for part in out):
            self._write(transport, out, True)  # type: ignore[arg-type]
            return
        size = sum(map(len, out))
        if transport.get_write_buffer_size() or not files.send(out):
            try:
                copies = [part.read() if isinstance(part, FileRange) else part for part in out]
            except OSError as error:
                self.files_failed(error)
                return
            self._write(transport, copies, True)
            return
        self._held -= size
        self._handed += size
        if self.unsent or files.unsent:
            self.count_unsent()

    def _write(self, transport: Transport, out: list[Buffer], large: bool) -> None:
        if len(out) == 1:
            size = len(out[0])
            transport.write(out[0])
        elif large and any(len(buffer) > JOIN_MAX for buffer in out):
            size = sum(map(len, out))
            transport.writelines(out)
        else:
            joined = b"".join(out)
            size = len(joined)
            transport.write(joined)
        self._held -= size
        self._handed += size
        if self.unsent or transport.get_write_buffer_size():
            self.count_unsent()

    def _pump(self) -> None:
        """Go on with kept frames once responses have left, then with reading."""
        if self.closed or self._stopped or self._in_event or self._blocked() or self._awaiting_memory:
            return
        if self._own_view is not None and self._filled >= self._need:
            self._event(self._own_view, self._filled)
        if (
            self._reading_paused
            and not self.closed
            and not self._is_ready
            and not self._awaiting_memory
            and not self._blocked()
            and self._transport is not None
        ):
            self._reading_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.closed and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _make_ready(self) -> None:
        if not self._is_ready and not self.closed:
            self._is_ready = True
            self.host.ready.append(self)


def _size(response: Response) -> int:
    if type(response) is tuple or type(response) is list:
        return sum(map(len, response))
    return len(response)
