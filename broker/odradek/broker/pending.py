"""The answer that comes later.

A handler answers a request with bytes, with a sequence of buffers, with None (acks=0), or with a `Pending` that an
event completes: data arriving, a high watermark passing, a timer, a committed metadata record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from odradek.ports.disk import Buffer, FileRange

Part: TypeAlias = Buffer | FileRange
"""Of an answer. Files only on connections that send them (`Connection.sends_files`)."""
Response: TypeAlias = Buffer | Sequence[Part]


class ResponseSink(Protocol):
    """What a Pending tells that it is done: the connection that keeps its place in the order of responses."""

    def pending_completed(self, response: Response | None) -> None: ...


class Pending:
    """One delayed operation. Completed at most once; a second completion is ignored, as timers and events race."""

    __slots__ = ("_sink", "done", "on_abandoned", "response")

    def __init__(self) -> None:
        self.response: Response | None = None
        self.done = False
        self._sink: ResponseSink | None = None
        self.on_abandoned: Callable[[], None] | None = None
        """Called when the client went away first, to leave waiting lists and free memory."""

    def attach(self, sink: ResponseSink) -> None:
        self._sink = sink

    def complete(self, response: Response | None) -> None:
        if self.done:
            return
        self.done = True
        self.response = response
        self.on_abandoned = None
        if self._sink is not None:
            self._sink.pending_completed(response)

    def abandon(self) -> None:
        if self.done:
            return
        self.done = True
        self._sink = None
        if self.on_abandoned is not None:
            self.on_abandoned()
            self.on_abandoned = None
