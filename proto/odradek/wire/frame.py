"""Frames: the 4-byte length and the header around every request and response.

A request header is key, version, correlation id and client id; the client id keeps its old encoding (int16
length) in flexible headers too, so that a node can read the header of any ApiVersions request.
"""

import struct

from odradek.wire.apis import request_header_version, response_header_version
from odradek.wire.errors import MalformedMessage
from odradek.wire.primitives import STRING_LENGTH_MAX, Message, Struct, read_tags

_REQUEST = struct.Struct(">ihhih")
_RESPONSE = struct.Struct(">ii")


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str | None, body: bytes
) -> bytes:
    """A whole frame: length, request header, body."""
    client = b"" if client_id is None else client_id.encode()
    client_length = -1 if client_id is None else len(client)
    tags = b"\0" if request_header_version(api_key, version) == 2 else b""
    size = _REQUEST.size - 4 + len(client) + len(tags) + len(body)
    head = _REQUEST.pack(size, api_key, version, correlation_id, client_length)
    return b"".join((head, client, tags, body))


def encode_response(api_key: int, version: int, correlation_id: int, body: bytes) -> bytes:
    """A whole frame: length, response header, body."""
    if response_header_version(api_key, version):
        return _RESPONSE.pack(len(body) + 5, correlation_id) + b"\0" + body
    return _RESPONSE.pack(len(body) + 4, correlation_id) + body


def encode_answer(response: Message, version: int) -> bytes:
    """The body of a response; error messages, which quote what was asked for, are cut to what a string can hold."""
    try:
        return response.encode(version)
    except ValueError:
        _cut_messages(response)
        return response.encode(version)


def _cut_messages(response: Message) -> None:
    unseen: list[Struct] = [response]
    for each in unseen:
        for name in each.__slots__:
            value = getattr(each, name)
            if name == "error_message" and value is not None:
                setattr(each, name, value.encode()[:STRING_LENGTH_MAX].decode(errors="ignore"))
            elif isinstance(value, list) and value and isinstance(value[0], Struct):
                unseen.extend(value)


def decode_response_header(
    buf: bytes | bytearray | memoryview, api_key: int, version: int, pos: int = 0
) -> tuple[int, int]:
    """Correlation id of the response that starts at `pos` (behind the length), and where its body starts."""
    try:
        (correlation_id,) = struct.unpack_from(">i", buf, pos)
        pos += 4
        if response_header_version(api_key, version):
            _, pos = read_tags(memoryview(buf), pos)
    except (struct.error, IndexError) as error:
        raise MalformedMessage(f"response header: {error}") from error
    return correlation_id, pos
