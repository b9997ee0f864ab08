"""What replication needs of its surroundings, and what a simulator replaces: streams, and a way to the controller.

A stream delivers messages whole, in order and once, until it ends; it may end at any time, and then anything that was
under way is lost. All calls, in both directions, are made on the owner's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from odradek.replication.messages import FetchDown, FetchUp
from odradek.wire.messages.alter_partition import AlterPartitionRequest, AlterPartitionResponse

# The follower's end ---------------------------------------------------------------------------------------------


class Stream(Protocol):
    """A stream to a leader. What is sent before it is established waits in it."""

    def send(self, message: FetchUp) -> None:
        """Never blocks, never raises; on a stream that has ended it does nothing."""
        ...

    def close(self) -> None:
        """No event follows, neither a message nor `closed`."""
        ...


class StreamEvents(Protocol):
    """What a stream tells its follower."""

    def received(self, message: FetchDown) -> None: ...

    def closed(self, reason: str) -> None:
        """The stream has ended or could not be established. Once; never from within `connect` or `send`."""
        ...


class ReplicationTransport(Protocol):
    def connect(self, leader_id: int, events: StreamEvents) -> Stream:
        """Begin to dial a broker. Returns at once; a failure is told by `events.closed`.

        Each call makes a stream of its own. There is no retry in it: its user backs off and calls again.
        """
        ...


# The leader's end -----------------------------------------------------------------------------------------------


class DownStream(Protocol):
    """A stream that a follower opened."""

    @property
    def writable(self) -> bool:
        """Whether the transport wants more. False while it holds too much that the network has not taken."""
        ...

    def send(self, message: FetchDown) -> None:
        """Never blocks, never raises; on a stream that has ended it does nothing. Allowed while not `writable`."""
        ...

    def close(self) -> None:
        """No event follows."""
        ...


class UpEvents(Protocol):
    """What a stream tells its leader."""

    def received(self, message: FetchUp) -> None: ...

    def drained(self) -> None:
        """`writable` is true again."""
        ...

    def closed(self) -> None:
        """The stream has ended. Once; never from within `send`."""
        ...


Accept = Callable[[DownStream], UpEvents]
"""What the transport calls for each stream that arrives: `ReplicationDriver.accept`."""


# The controller -------------------------------------------------------------------------------------------------

Altered = Callable[[AlterPartitionResponse | None], None]


class ControllerPort(Protocol):
    def alter_partition(self, request: AlterPartitionRequest, version: int, done: Altered) -> None:
        """Ask the active controller once. `done` with its answer, or with None if there was none in time.

        None means *unknown*: the request may have been applied, or be applied later. Nobody between here and the
        controller may send the request a second time: an answer must be the answer to the only attempt.
        """
        ...
