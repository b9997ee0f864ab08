"""Frames that are too large for one message, in parts. No I/O."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from odradek.rpc.v1.common_pb2 import Part, PartFrame

M = TypeVar("M", bound=Message)


class MalformedFrame(ValueError):  # noqa: N818 - what was found
    """The peer's bytes make no sense, or break a bound: its mistake, and the end of the stream."""


def parse(kind: type[M], data: bytes) -> M:
    """A message of a peer. MalformedFrame if the bytes are none of this kind."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedFrame(f"{len(data)} bytes are no {kind.DESCRIPTOR.name}") from error


def split(frame: bytes, message_bytes_max: int) -> list[bytes]:
    """The messages that carry an encoded frame: itself, or its parts in order."""
    if len(frame) <= message_bytes_max:
        return [frame]
    return [
        PartFrame(
            part=Part(data=frame[at : at + message_bytes_max], last=at + message_bytes_max >= len(frame))
        ).SerializeToString()
        for at in range(0, len(frame), message_bytes_max)
    ]


class Assembler:
    """Puts parts together. One per stream and direction."""

    __slots__ = ("_bytes", "_frame_bytes_max", "_pieces")

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._pieces: list[bytes] = []
        self._bytes = 0

    def add(self, part: Part) -> bytes | None:
        """The whole frame once its last part is there. MalformedFrame if it grows too large."""
        data = part.data
        if not data:
            raise MalformedFrame("a part of a frame is empty")
        self._bytes += len(data)
        if self._bytes > self._frame_bytes_max:
            raise MalformedFrame(f"a frame has more than {self._frame_bytes_max} bytes")
        self._pieces.append(data)
        if not part.last:
            return None
        frame = b"".join(self._pieces)
        self._pieces, self._bytes = [], 0
        return frame
