"""What nodes ask the active controller that Kafka has no request for. It travels as Kafka's requests do, but
under API keys that no listener for clients serves.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, ClassVar

from odradek.wire import apis
from odradek.wire.primitives import Buffer, Message, Reader, Writer

BROKER_UNREACHABLE = 30_001

_REQUEST = Struct(">iq")
_RESPONSE = Struct(">h")


class BrokerUnreachableRequest(Message):
    """The operating system refused a connection to this incarnation of a broker."""

    __slots__ = ("broker_epoch", "broker_id")
    API_KEY = BROKER_UNREACHABLE

    def __init__(self, broker_id: int = -1, broker_epoch: int = -1) -> None:
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch

    def _write(self, out: bytearray) -> None:
        out += _REQUEST.pack(self.broker_id, self.broker_epoch)

    @classmethod
    def _read(cls, buf: Buffer, pos: int) -> tuple[BrokerUnreachableRequest, int]:
        return cls(*_REQUEST.unpack_from(buf, pos)), pos + _REQUEST.size

    WRITERS: ClassVar[tuple[Writer, ...]] = (_write,)


class BrokerUnreachableResponse(Message):
    """NONE whether the broker was fenced for it or not; STALE_BROKER_EPOCH, NOT_CONTROLLER."""

    __slots__ = ("error_code",)
    API_KEY = BROKER_UNREACHABLE

    def __init__(self, error_code: int = 0) -> None:
        self.error_code = error_code

    def _write(self, out: bytearray) -> None:
        out += _RESPONSE.pack(self.error_code)

    @classmethod
    def _read(cls, buf: Buffer, pos: int) -> tuple[BrokerUnreachableResponse, int]:
        return cls(*_RESPONSE.unpack_from(buf, pos)), pos + _RESPONSE.size

    WRITERS: ClassVar[tuple[Writer, ...]] = (_write,)


def _readers(cls: Any) -> tuple[Reader, ...]:
    return (cls._read,)


BrokerUnreachableRequest.READERS = _readers(BrokerUnreachableRequest)
BrokerUnreachableResponse.READERS = _readers(BrokerUnreachableResponse)


def request_class(api_key: int) -> type[Message]:
    """Kafka's, and those above. KeyError for any other key."""
    return BrokerUnreachableRequest if api_key == BROKER_UNREACHABLE else apis.request_class(api_key)


def response_class(api_key: int) -> type[Message]:
    return BrokerUnreachableResponse if api_key == BROKER_UNREACHABLE else apis.response_class(api_key)
