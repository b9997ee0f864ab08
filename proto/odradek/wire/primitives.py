"""What the generated message code stands on: base classes, and Kafka's types of variable length.

Reading functions take the buffer and a position and give the value and the next position. They check every
length against what is left in the buffer before they allocate. Beyond the end they raise `MalformedMessage`,
`struct.error` or `IndexError`; `Message.read` turns all of these into `MalformedMessage`.
"Compact" is Kafka's flexible encoding: an unsigned varint of length + 1, where 0 stands for null (KIP-482).
Negative old-style lengths of nullable fields mean null whatever their value, as in Kafka.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar

from odradek.wire.errors import MalformedMessage

Buffer = bytes | memoryview
B = TypeVar("B")
T = TypeVar("T")
ZERO = bytes(16)
NEVER = 32767
"""`FLEXIBLE_FROM` of a message without flexible versions, and the end of an open version range."""
STRING_LENGTH_MAX = 0x7FFF
UNSET: Any = object()
"""Default of list and struct parameters: a fresh one is made for each instance."""

_i16 = struct.Struct(">h")
_i32 = struct.Struct(">i")
_unpack_i16 = _i16.unpack_from
_unpack_i32 = _i32.unpack_from
_pack_i16 = _i16.pack
_pack_i32 = _i32.pack
_FEW = 17
"""Arrays of fewer int32 have a `struct` of their own each: lists of replicas are short and plenty."""
_UNPACK_I32S = [struct.Struct(f">{count}i").unpack_from for count in range(_FEW)]
_PACK_I32S = [struct.Struct(f">i{count}i").pack for count in range(_FEW)]
_PACK_COMPACT_I32S = [struct.Struct(f">B{count}i").pack for count in range(_FEW)]
_NULL_I16 = b"\xff\xff"
_NULL_I32 = b"\xff\xff\xff\xff"


class UnsupportedVersion(ValueError):  # noqa: N818 - the name of Kafka's exception
    """A message has no such version, or a field is set that the version cannot carry."""


class Struct:
    """Base of all generated structures: equality by value, a readable `repr`, and nothing else.

    They are plain classes with `__slots__` and a written-out `__init__` instead of dataclasses: creating a
    class costs 6 µs instead of 280 µs (CPython 3.11), which the start-up of a node would feel.
    """

    __slots__: tuple[str, ...] = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name in self.__slots__
            if name != "unknown_tagged_fields" or self.unknown_tagged_fields  # type: ignore[attr-defined]
        )
        return f"{type(self).__name__}({', '.join(shown)})"


Reader = Callable[[Any, int], tuple[Any, int]]
Writer = Callable[[Any, bytearray], None]


class Message(Struct):
    """Base of the generated top-level messages: picks the function of the version, and guards it."""

    __slots__ = ()

    API_KEY: ClassVar[int] = -1
    """Key of the API; -1 for what is not a request or response."""
    RECORD_TYPE: ClassVar[int] = -1
    """Type number of a coordinator's record key or value; -1 for everything else."""
    MIN_VERSION: ClassVar[int] = 0
    MAX_VERSION: ClassVar[int] = 0
    FLEXIBLE_FROM: ClassVar[int] = NEVER
    ZERO_COPY: ClassVar[bool] = False
    """Whether the message has `records` fields, which are decoded to slices of the caller's buffer."""
    READERS: ClassVar[tuple[Reader, ...]] = ()
    WRITERS: ClassVar[tuple[Writer, ...]] = ()

    def encode(self, version: int) -> bytes:
        """The message in Kafka's encoding. See `write` for the errors."""
        out = bytearray()
        self.write(out, version)
        return bytes(out)

    def write(self, out: bytearray, version: int) -> None:
        """Appends the message to `out`.

        `UnsupportedVersion` when the version is unknown or cannot carry a field that is set; `ValueError` for
        values outside the range of their type, and for null where the version knows none.
        """
        index = version - self.MIN_VERSION
        if index < 0 or version > self.MAX_VERSION:
            raise unsupported_version(type(self), version)
        try:
            self.WRITERS[index](self, out)
        except struct.error as error:
            raise ValueError(f"{type(self).__name__} version {version}: {error}") from error

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, version: int, pos: int = 0) -> Self:
        """The message that starts at `pos`; bytes behind it are ignored, as in Kafka. Errors as in `read`."""
        return cls.read(data, pos, version)[0]

    @classmethod
    def read(cls, data: bytes | bytearray | memoryview, pos: int, version: int) -> tuple[Self, int]:
        """The message that starts at `pos`, and the position behind it.

        `MalformedMessage` when the bytes are not such a message; `UnsupportedVersion` (a `ValueError`) for a
        version that the message does not have.
        """
        index = version - cls.MIN_VERSION
        if index < 0 or version > cls.MAX_VERSION:
            raise unsupported_version(cls, version)
        buf: Buffer
        if cls.ZERO_COPY:
            buf = data if type(data) is memoryview else memoryview(data)
        else:
            buf = data if type(data) is bytes else bytes(data)
        try:
            message, end = cls.READERS[index](buf, pos)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise MalformedMessage(f"{cls.__name__} version {version}: {error}") from error
        return message, end


def unsupported_version(cls: type[Message], version: int) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"{cls.__name__} has versions {cls.MIN_VERSION} to {cls.MAX_VERSION}, not version {version}"
    )


def unsupported_field(name: str, versions: str) -> UnsupportedVersion:
    return UnsupportedVersion(f"{name} is set, but version {versions} cannot carry it")


def null_field(name: str) -> ValueError:
    return ValueError(f"{name} is None, but this version has no null for it")


def bad_uuid(name: str) -> ValueError:
    return ValueError(f"{name} is not 16 bytes long")


# Lengths -----------------------------------------------------------------------------------------------


def read_uvarint(buf: Buffer, pos: int) -> tuple[int, int]:
    """An unsigned 32-bit varint: at most 5 bytes."""
    value = buf[pos]
    if value < 0x80:
        return value, pos + 1
    value &= 0x7F
    shift = 7
    while True:
        pos += 1
        byte = buf[pos]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise MalformedMessage("varint of more than 5 bytes")
    if value > 0xFFFFFFFF:
        raise MalformedMessage("varint of more than 32 bits")
    return value, pos + 1


def write_uvarint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def uvarint(value: int) -> bytes:
    """`value` as an unsigned varint, for what is written by hand. Fetch asks for each partition: no call in between."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _too_long(count: int, left: int) -> MalformedMessage:
    return MalformedMessage(f"{count} elements announced with {left} bytes left")


def _unexpected_null() -> MalformedMessage:
    return MalformedMessage("null in a field that has no null")


def read_array_length(buf: Buffer, pos: int, size_min: int) -> tuple[int, int]:
    """Count of an array whose elements take at least `size_min` bytes each."""
    (count,) = _unpack_i32(buf, pos)
    pos += 4
    if count * size_min > len(buf) - pos:
        raise _too_long(count, len(buf) - pos)
    if count < 0:
        raise _unexpected_null()
    return count, pos


def read_nullable_array_length(buf: Buffer, pos: int, size_min: int) -> tuple[int, int]:
    """Like `read_array_length`; negative for null."""
    (count,) = _unpack_i32(buf, pos)
    pos += 4
    if count * size_min > len(buf) - pos:
        raise _too_long(count, len(buf) - pos)
    return count, pos


def read_compact_array_length(buf: Buffer, pos: int, size_min: int) -> tuple[int, int]:
    count, pos = read_uvarint(buf, pos)
    if count == 0:
        raise _unexpected_null()
    if (count - 1) * size_min > len(buf) - pos:
        raise _too_long(count - 1, len(buf) - pos)
    return count - 1, pos


def read_compact_nullable_array_length(buf: Buffer, pos: int, size_min: int) -> tuple[int, int]:
    count, pos = read_uvarint(buf, pos)
    if (count - 1) * size_min > len(buf) - pos:
        raise _too_long(count - 1, len(buf) - pos)
    return count - 1, pos


def write_array_length(out: bytearray, items: Sequence[object]) -> None:
    out += _pack_i32(len(items))


def write_compact_array_length(out: bytearray, items: Sequence[object]) -> None:
    write_uvarint(out, len(items) + 1)


def write_nullable_array_length(out: bytearray, items: Sequence[object] | None) -> None:
    out += _NULL_I32 if items is None else _pack_i32(len(items))


def write_compact_nullable_array_length(out: bytearray, items: Sequence[object] | None) -> None:
    write_uvarint(out, 0 if items is None else len(items) + 1)


# Strings -----------------------------------------------------------------------------------------------


def _string(buf: Buffer, pos: int, length: int) -> tuple[str, int]:
    end = pos + length
    if end > len(buf) or length > STRING_LENGTH_MAX:
        raise MalformedMessage(f"string of {length} bytes with {len(buf) - pos} bytes left")
    return str(buf[pos:end], "utf-8"), end


def read_string(buf: Buffer, pos: int) -> tuple[str, int]:
    (length,) = _unpack_i16(buf, pos)
    if length < 0:
        raise _unexpected_null()
    return _string(buf, pos + 2, length)


def read_nullable_string(buf: Buffer, pos: int) -> tuple[str | None, int]:
    (length,) = _unpack_i16(buf, pos)
    if length < 0:
        return None, pos + 2
    return _string(buf, pos + 2, length)


def read_compact_string(buf: Buffer, pos: int) -> tuple[str, int]:
    length = buf[pos]
    if length < 0x80:
        pos += 1
    else:
        length, pos = read_uvarint(buf, pos)
    if length == 0:
        raise _unexpected_null()
    return _string(buf, pos, length - 1)


def read_compact_nullable_string(buf: Buffer, pos: int) -> tuple[str | None, int]:
    length, pos = read_uvarint(buf, pos)
    if length == 0:
        return None, pos
    return _string(buf, pos, length - 1)


def _utf8(value: str) -> bytes:
    data = value.encode()
    if len(data) > STRING_LENGTH_MAX:
        raise ValueError(f"string of {len(data)} bytes: at most {STRING_LENGTH_MAX} fit")
    return data


def write_string(out: bytearray, value: str) -> None:
    data = _utf8(value)
    out += _pack_i16(len(data))
    out += data


def write_nullable_string(out: bytearray, value: str | None) -> None:
    if value is None:
        out += _NULL_I16
    else:
        write_string(out, value)


def write_compact_string(out: bytearray, value: str) -> None:
    data = _utf8(value)
    length = len(data) + 1
    if length < 0x80:
        out.append(length)
    else:
        write_uvarint(out, length)
    out += data


def write_compact_nullable_string(out: bytearray, value: str | None) -> None:
    if value is None:
        out.append(0)
    else:
        write_compact_string(out, value)


# Bytes and records -------------------------------------------------------------------------------------


def _bytes(buf: Buffer, pos: int, length: int) -> tuple[bytes, int]:
    end = pos + length
    if end > len(buf):
        raise MalformedMessage(f"{length} bytes announced with {len(buf) - pos} bytes left")
    return bytes(buf[pos:end]), end


def read_bytes(buf: Buffer, pos: int) -> tuple[bytes, int]:
    (length,) = _unpack_i32(buf, pos)
    if length < 0:
        raise _unexpected_null()
    return _bytes(buf, pos + 4, length)


def read_nullable_bytes(buf: Buffer, pos: int) -> tuple[bytes | None, int]:
    (length,) = _unpack_i32(buf, pos)
    if length < 0:
        return None, pos + 4
    return _bytes(buf, pos + 4, length)


def read_compact_bytes(buf: Buffer, pos: int) -> tuple[bytes, int]:
    length, pos = read_uvarint(buf, pos)
    if length == 0:
        raise _unexpected_null()
    return _bytes(buf, pos, length - 1)


def read_compact_nullable_bytes(buf: Buffer, pos: int) -> tuple[bytes | None, int]:
    length, pos = read_uvarint(buf, pos)
    if length == 0:
        return None, pos
    return _bytes(buf, pos, length - 1)


def write_bytes(out: bytearray, value: bytes | bytearray | memoryview) -> None:
    out += _pack_i32(len(value))
    out += value


def write_nullable_bytes(out: bytearray, value: bytes | bytearray | memoryview | None) -> None:
    if value is None:
        out += _NULL_I32
    else:
        write_bytes(out, value)


def write_compact_bytes(out: bytearray, value: bytes | bytearray | memoryview) -> None:
    write_uvarint(out, len(value) + 1)
    out += value


def write_compact_nullable_bytes(out: bytearray, value: bytes | bytearray | memoryview | None) -> None:
    if value is None:
        out.append(0)
    else:
        write_compact_bytes(out, value)


def _records(buf: memoryview, pos: int, length: int) -> tuple[memoryview, int]:
    end = pos + length
    if end > len(buf):
        raise MalformedMessage(f"{length} bytes of records announced with {len(buf) - pos} bytes left")
    return buf[pos:end], end


def read_nullable_records(buf: memoryview, pos: int) -> tuple[memoryview | None, int]:
    """Record batches, not copied: a slice of the buffer."""
    (length,) = _unpack_i32(buf, pos)
    if length < 0:
        return None, pos + 4
    return _records(buf, pos + 4, length)


def read_compact_nullable_records(buf: memoryview, pos: int) -> tuple[memoryview | None, int]:
    length, pos = read_uvarint(buf, pos)
    if length == 0:
        return None, pos
    return _records(buf, pos, length - 1)


def read_compact_records(buf: memoryview, pos: int) -> tuple[memoryview, int]:
    length, pos = read_uvarint(buf, pos)
    if length == 0:
        raise _unexpected_null()
    return _records(buf, pos, length - 1)


# Elements of arrays: the count is read and checked before ----------------------------------------------


def read_structs(
    buf: B, pos: int, count: int, read: Callable[[B, int], tuple[T, int]]
) -> tuple[list[T], int]:
    items = []
    for _ in range(count):
        item, pos = read(buf, pos)
        items.append(item)
    return items, pos


def read_ints(buf: Buffer, pos: int, count: int, code: str, size: int) -> tuple[list[int], int]:
    return list(struct.unpack_from(f">{count}{code}", buf, pos)), pos + count * size


def read_i32s(buf: Buffer, pos: int) -> tuple[list[int], int]:
    """A whole array of int32, count included: the most common array by far."""
    (count,) = _unpack_i32(buf, pos)
    if 0 <= count < _FEW:
        return list(_UNPACK_I32S[count](buf, pos + 4)), pos + 4 + 4 * count
    count, pos = read_array_length(buf, pos, 4)
    return read_ints(buf, pos, count, "i", 4)


def read_compact_i32s(buf: Buffer, pos: int) -> tuple[list[int], int]:
    count = buf[pos] - 1
    if 0 <= count < _FEW:
        return list(_UNPACK_I32S[count](buf, pos + 1)), pos + 1 + 4 * count
    count, pos = read_compact_array_length(buf, pos, 4)
    return read_ints(buf, pos, count, "i", 4)


def read_uuids(buf: Buffer, pos: int, count: int) -> tuple[list[bytes], int]:
    end = pos + 16 * count
    return [bytes(buf[i : i + 16]) for i in range(pos, end, 16)], end


def read_strings(buf: Buffer, pos: int, count: int) -> tuple[list[str], int]:
    items = []
    for _ in range(count):
        item, pos = read_string(buf, pos)
        items.append(item)
    return items, pos


def read_compact_strings(buf: Buffer, pos: int, count: int) -> tuple[list[str], int]:
    items = []
    for _ in range(count):
        item, pos = read_compact_string(buf, pos)
        items.append(item)
    return items, pos


def write_ints(out: bytearray, items: Sequence[int], code: str) -> None:
    out += struct.pack(f">{len(items)}{code}", *items)


def write_i32s(out: bytearray, items: Sequence[int]) -> None:
    """A whole array of int32, count included."""
    count = len(items)
    if count < _FEW:
        out += _PACK_I32S[count](count, *items)
    else:
        out += struct.pack(f">i{count}i", count, *items)


def write_compact_i32s(out: bytearray, items: Sequence[int]) -> None:
    count = len(items)
    if count < _FEW:
        out += _PACK_COMPACT_I32S[count](count + 1, *items)
    else:
        write_uvarint(out, count + 1)
        out += struct.pack(f">{count}i", *items)


def write_uuids(out: bytearray, items: Sequence[bytes]) -> None:
    for item in items:
        if len(item) != 16:
            raise bad_uuid("an element of an array")
        out += item


def write_strings(out: bytearray, items: Sequence[str]) -> None:
    for item in items:
        write_string(out, item)


def write_compact_strings(out: bytearray, items: Sequence[str]) -> None:
    for item in items:
        write_compact_string(out, item)


# Tagged fields (KIP-482) -------------------------------------------------------------------------------


def read_tags(buf: Buffer, pos: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Where each tagged field of a structure starts and ends.

    Order is not demanded, and of a repeated tag the last one counts, as in Kafka's own reader.
    """
    tags: dict[int, tuple[int, int]] = {}
    count, pos = read_uvarint(buf, pos)
    for _ in range(count):
        tag, pos = read_uvarint(buf, pos)
        size, pos = read_uvarint(buf, pos)
        end = pos + size
        if end > len(buf):
            raise MalformedMessage(f"tagged field of {size} bytes with {len(buf) - pos} bytes left")
        tags[tag] = (pos, end)
        pos = end
    return tags, pos


def unknown_tags(buf: Buffer, tags: dict[int, tuple[int, int]]) -> dict[int, bytes] | None:
    """The fields that are left when those we know are taken out; None when there are none."""
    return {tag: bytes(buf[start:end]) for tag, (start, end) in tags.items()} if tags else None


def bad_tag(tag: int) -> MalformedMessage:
    return MalformedMessage(f"tagged field {tag} does not have the size that it announces")


def write_tags(
    out: bytearray, known: Sequence[tuple[int, bytearray]], unknown: dict[int, bytes] | None
) -> None:
    """All tagged fields of a structure in the order of their tags."""
    fields: list[tuple[int, bytes | bytearray]] = [*known]
    if unknown:
        taken = {tag for tag, _ in known}
        for unknown_field in unknown.items():
            if unknown_field[0] in taken:
                raise ValueError(f"unknown_tagged_fields has tag {unknown_field[0]}, which is a known one")
            fields.append(unknown_field)
        fields.sort(key=lambda field: field[0])
    write_uvarint(out, len(fields))
    for tag, value in fields:
        write_uvarint(out, tag)
        write_uvarint(out, len(value))
        out += value
