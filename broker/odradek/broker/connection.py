"""One client connection without its socket: frames in, responses out, in order, within bounds.

A driver reads from the socket into what `get_buffer` returns, calls `buffer_updated`, and implements `Transport`.
Idle connections own no buffer: all of a node's connections read into one shared buffer, and only an unfinished frame
is kept per connection. Everything that one readable event brought is handled before anything is written: appends of
the event go to disk gathered (`Node.flush`), then its responses leave in one write.

Bounds a stranger meets: `socket.request.max.bytes` for a frame (buffers grow with the bytes that really arrived),
`REQUESTS_WAITING_MAX` unanswered requests, and no request is handled while the peer does not read its responses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Any, Protocol

from odradek.broker.pending import Pending, Response
from odradek.ports.disk import Buffer
from odradek.wire.errors import MalformedMessage
from odradek.wire.primitives import read_tags

REQUESTS_WAITING_MAX = 128
"""Requests of one connection that may await their response before reading stops."""
BUFFER_STEP = 1 << 20
"""A frame's buffer is allocated whole up to here, and doubles with the bytes received above."""
BUFFER_KEPT_MAX = 2 << 20
"""A larger frame buffer is given back after its frame."""
JOIN_MAX = 64 * 1024
"""Buffers up to this size are joined before writing; larger ones are handed over as they are, never copied."""
REQUEST_HEAD_SIZE = 8
PRODUCE_KEY = 0
OTHER_REQUEST_BYTES_MAX = 4 << 20
"""Only Produce carries bulk data. Any other request decodes to many times its size, so it is held shorter."""

_frame = Struct(">i").unpack_from
_short = Struct(">h").unpack_from
_frame_and_head = Struct(">ihhi").unpack_from

Handler = Callable[["Connection", memoryview, int, int, int, int], "Response | Pending | None"]


class Transport(Protocol):
    def write(self, data: Buffer) -> None: ...

    def writelines(self, data: Sequence[Buffer]) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Host(Protocol):
    """What a connection needs of its node."""

    shared_buffer: memoryview
    handlers: dict[int, Handler]
    request_bytes_max: int

    def begin_event(self, connection: Connection) -> None: ...

    def flush(self) -> bool: ...

    def end_event(self, produced: int) -> None: ...

    def connection_opened(self, connection: Connection) -> bool: ...

    def connection_closed(self, connection: Connection) -> None: ...

    def bad_input(self, connection: Connection, reason: str) -> None: ...

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
        self.produced = 0
        """Produce requests of the present event, for the metrics."""
        self.handlers = host.handlers
        self._transport: Transport | None = None
        self._own: bytearray | None = None
        self._own_view: memoryview | None = None
        self._filled = 0
        self._need = 0
        self._in_event = False
        self._waiting: deque[Pending | Response] = deque()
        self._out: list[Buffer] = []
        self._out_large = False
        self._writing_paused = False
        self._reading_paused = False

    # -- driver side ---------------------------------------------------------------------------------------------

    def opened(self, transport: Transport, peer: str) -> None:
        self._transport = transport
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
        self._pump()

    def lost(self) -> None:
        """The socket is gone: everything that waits for it is let go."""
        if self.closed and self._transport is None:
            return
        self.closed = True
        self._transport = None
        for entry in self._waiting:
            if type(entry) is Pending:
                entry.abandon()
        self._waiting.clear()
        self._out.clear()
        self.produce_cache.clear()
        self._release_own()
        self.host.connection_closed(self)

    # -- node side -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close after what was written has left."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.close()

    def pending_completed(self) -> None:
        """A Pending of this connection got its response; outside an event it leaves at once."""
        if not self._in_event and not self.closed:
            self._send()
            self._pump()

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
            if view[pos] == 0:
                return pos + 1
            return read_tags(view, pos)[1]
        except (IndexError, struct_error):
            raise MalformedMessage("the request ends inside its header") from None

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._out

    @property
    def buffered_bytes(self) -> int:
        """Memory this connection holds for an unfinished or unhandled request."""
        return 0 if self._own is None else len(self._own)

    # -- frames --------------------------------------------------------------------------------------------------

    def _event(self, view: memoryview, end: int) -> None:
        """Handle every complete frame in view[:end], keep the rest, write to disk, then answer."""
        self._in_event = True
        self.host.begin_event(self)
        try:
            pos = self._handle_frames(view, end)
            written = self.host.flush()
        finally:
            self._in_event = False
        if self.closed:
            self._send()
            return
        if not written:
            # Responses of this event were prepared before the append failed: none may leave (they would
            # acknowledge what is not in the log). The client sees a lost connection and asks again.
            self._abort()
            return
        if pos < end:
            self._keep(view, pos, end)
        elif self._own is not None:
            self._release_own()
        self._send()
        if self.produced:
            self.host.end_event(self.produced)
            self.produced = 0
        if self._blocked():
            self._pause_reading()

    def _handle_frames(self, view: memoryview, end: int) -> int:
        """The position behind the last frame handled."""
        pos = 0
        if self._blocked():
            return pos
        handlers = self.handlers
        waiting = self._waiting
        out = self._out
        limit = self.host.request_bytes_max
        while end - pos >= 4:
            (size,) = _frame(view, pos)
            if not REQUEST_HEAD_SIZE <= size <= limit:
                self._refuse(f"frame of {size} bytes, allowed are {REQUEST_HEAD_SIZE} to {limit}")
                return end
            frame_end = pos + 4 + size
            if size > OTHER_REQUEST_BYTES_MAX and end - pos >= 6 and _short(view, pos + 4)[0] != PRODUCE_KEY:
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
            elif response is not None:
                waiting.append(response)
                if type(response) is Pending:
                    response.attach(self)
                if len(waiting) >= REQUESTS_WAITING_MAX:
                    break
        return pos

    def _blocked(self) -> bool:
        return self._writing_paused or len(self._waiting) >= REQUESTS_WAITING_MAX

    def _refuse(self, reason: str) -> None:
        """The peer's mistake: what it asked before is still answered, then the connection closes."""
        self.host.bad_input(self, reason)
        self.closed = True

    # -- buffers -------------------------------------------------------------------------------------------------

    def _keep(self, view: memoryview, pos: int, end: int) -> None:
        """Keep the unhandled bytes view[pos:end] in a buffer of this connection, with room for their frame."""
        left = end - pos
        need = 4 + _frame(view, pos)[0] if left >= 4 else 4
        capacity = max(left, min(need, max(BUFFER_STEP, 2 * left)))
        own = self._own
        if own is None or len(own) < capacity:
            own = bytearray(capacity)
            own[:left] = view[pos:end]
        elif pos or own is not view.obj:
            own[:left] = bytes(view[pos:end])  # a copy first: the ranges may overlap
        self._own = own
        # No more room than the frame needs: what follows it is read into the shared buffer again.
        self._own_view = memoryview(own)[:capacity]
        self._filled = left
        self._need = need

    def _grow(self) -> None:
        """The frame is larger than its buffer so far: double it, up to the frame."""
        assert self._own_view is not None
        grown = bytearray(min(self._need, 2 * self._filled))
        grown[: self._filled] = self._own_view[: self._filled]
        self._own, self._own_view = grown, memoryview(grown)

    def _release_own(self) -> None:
        self._own_view = None
        self._filled = 0
        if self._own is not None and (self.closed or len(self._own) > BUFFER_KEPT_MAX):
            self._own = None

    # -- responses -----------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Write every response whose turn has come, in one write."""
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
        if out and transport is not None:
            self._out = []
            if len(out) == 1:
                transport.write(out[0])
            elif large and any(len(buffer) > JOIN_MAX for buffer in out):
                transport.writelines(out)
            else:
                transport.write(b"".join(out))
        if self.closed and transport is not None:
            transport.close()

    def _pump(self) -> None:
        """Go on with kept frames once responses have left, then with reading."""
        if self.closed or self._in_event or self._blocked():
            return
        if self._own_view is not None and self._filled >= self._need:
            self._event(self._own_view, self._filled)
        if self._reading_paused and not self.closed and not self._blocked() and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _abort(self) -> None:
        self.closed = True
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()
