"""From a frame to the function that answers it.

Produce and Fetch have handlers of their own. Every other API is a plain function

    def create_topics(node: Node, context: RequestContext, request: CreateTopicsRequest, done: Done) -> None

which calls `done(response)` once, at once or later; `generic` wraps it with the generated codec. A function may raise
KafkaError where the response has one error code for the whole request (`error_response` builds it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from odradek.broker.pending import Pending, Response
from odradek.wire.apis import request_class, response_class
from odradek.wire.errors import MalformedMessage
from odradek.wire.frame import encode_answer, encode_response
from odradek.wire.primitives import Struct

if TYPE_CHECKING:
    from odradek.broker.connection import Connection
    from odradek.broker.node import Node

ELEMENTS_MAX = 50_000
"""What one request may name: topics, partitions, groups, resources and so on, nested ones included. Handlers answer
in one go, at some microseconds for each, and everybody else waits meanwhile."""
UNCHECKED_BYTES = 8192
"""A message of this size cannot name too much."""

Done: TypeAlias = Callable[[Any], None]
Function: TypeAlias = "Callable[[Node, RequestContext, Any, Done], None]"


@dataclass(slots=True)
class RequestContext:
    """Who asks, and how."""

    client_id: str
    client_host: str
    listener: str
    api_version: int
    connection: Connection


def generic(node: Node, api_key: int, function: Function, versions: range) -> Any:
    """A connection handler around a function on decoded messages."""
    metrics = node.metrics.api(api_key)
    clock_ns = node.clock.monotonic_ns
    codec: list[Any] = []

    def handle(
        connection: Connection, view: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> Response | Pending | None:
        began = clock_ns()
        if version not in versions:
            raise MalformedMessage(
                f"version {version} is not served (versions {versions.start}-{versions.stop - 1})"
            )
        if not codec:
            codec.extend((request_class(api_key), response_class(api_key)))
        flexible = version >= codec[0].FLEXIBLE_FROM
        pos = connection.skip_header(view, start, flexible)
        request = codec[0].decode(view[:end], version, pos)
        check_elements(request, end - pos)
        context = RequestContext(
            connection.client_id, connection.peer_host, connection.listener, version, connection
        )
        pending = Pending()

        def done(response: Any) -> None:
            metrics.observe(clock_ns() - began)
            try:
                body = encode_answer(response, version)
            except ValueError as error:  # our bug, maybe in the midst of a commit: it costs this connection
                node.handler_failed(connection, api_key, version, error)
                connection.abort()
                return
            pending.complete(encode_response(api_key, version, correlation_id, body))

        function(node, context, request, done)
        return pending.response if pending.done else pending

    return handle


def check_elements(message: Struct, size: int) -> None:
    """MalformedMessage if a message, of `size` bytes, names more than ELEMENTS_MAX things."""
    if size <= UNCHECKED_BYTES:
        return
    left = ELEMENTS_MAX
    unseen = [message]
    for struct in unseen:
        for name in struct.__slots__:
            value = getattr(struct, name)
            if isinstance(value, list) and value:
                left -= len(value)
                if left < 0:
                    raise MalformedMessage(f"it names more than {ELEMENTS_MAX} things")
                if isinstance(value[0], Struct):
                    unseen.extend(value)
