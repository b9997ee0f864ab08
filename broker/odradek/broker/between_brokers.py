"""Requests from broker to broker: transaction markers to leaders, partitions of transactions to coordinators.

They travel in Kafka's own encodings and are asked once: who asks knows best whether, and whom, to ask again. What this
broker would ask of itself it just does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odradek.broker.dispatch import check_elements
from odradek.wire.apis import request_class, response_class
from odradek.wire.frame import encode_answer

if TYPE_CHECKING:
    from odradek.controller.gateway import NodeChannel
    from odradek.wire.primitives import Message

Done = Callable[[Any], None]
Serve = Callable[[Any, int, Done], None]
"""(request, version, done): `done(response)` once, at once or later; done(None) if there is no answer to give."""


class BetweenBrokers:
    """Both ends of it. Whoever answers an API says so with `serve`."""

    def __init__(self, node_id: int, channel: NodeChannel | None, warn: Callable[..., None]) -> None:
        """Without a channel this broker knows no other."""
        self._node_id = node_id
        self._channel = channel
        self._warn = warn
        self._served: dict[int, tuple[int, Serve]] = {}

    def serve(self, api_key: int, oldest_version: int, function: Serve) -> None:
        self._served[api_key] = oldest_version, function

    def ask(self, broker_id: int, request: Message, version: int, done: Done) -> None:
        """`done(response)`, perhaps from within; done(None): not reached, not answered in time, nothing to say."""
        key = request.API_KEY
        if broker_id == self._node_id:
            self._serve(request, version, done)
        elif self._channel is None:
            done(None)
        else:

            def answered(body: bytes | None) -> None:
                done(None if body is None else self._decode(key, version, body))

            self._channel.ask(broker_id, key, version, request.encode(version), answered)

    def answer(self, api_key: int, version: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        """Another broker asks."""
        if api_key not in self._served or version < self._served[api_key][0]:
            reply(None)
            return
        try:
            request = request_class(api_key).decode(body, version)
            check_elements(request, len(body))
        except ValueError as error:  # MalformedMessage is one
            self._warn("a request of another broker cannot be read", api_key=api_key, error=str(error))
            reply(None)
            return
        self._serve(
            request,
            version,
            lambda response: reply(None if response is None else encode_answer(response, version)),
        )

    def _serve(self, request: Message, version: int, done: Done) -> None:
        served = self._served.get(request.API_KEY)
        if served is None:
            done(None)
        else:
            served[1](request, version, done)

    def _decode(self, api_key: int, version: int, body: bytes) -> Message | None:
        try:
            response = response_class(api_key).decode(body, version)
            check_elements(response, len(body))
            return response
        except ValueError as error:
            self._warn("an answer of another broker cannot be read", api_key=api_key, error=str(error))
            return None
