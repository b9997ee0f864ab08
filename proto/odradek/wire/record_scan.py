"""The records of a batch as compaction sees them: keys and places, and not an object each. See record_body.py.

Entries are tuples (offset delta, timestamp delta, key, whether the value is null, where the key's length begins, where
the record ends). What lies between the last two is copied as it is when a batch is written anew; only the deltas in
front of it may change.

This module may be compiled (`make compiled`); it works the same without.
"""

from __future__ import annotations

from hashlib import md5

from odradek.wire.errors import ErrorCode, KafkaError

Entry = tuple[int, int, bytes | None, bool, int, int]

_HASH_SIZE = 16
_RECORD_SIZE_MIN = 7


def key_name(key: bytes) -> bytes:
    """What stands for a key in a table: itself if it is short, else its MD5, as in Kafka."""
    return key if len(key) < _HASH_SIZE else md5(key, usedforsecurity=False).digest()


def _invalid(why: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, why)


def scan(data: bytes, count: int) -> list[Entry]:
    """Exactly `count` records that fill `data` exactly. KafkaError INVALID_RECORD for anything else.

    Headers are not looked into. Varints are read in place, one and two bytes of them first: one call per number is
    what would cost.
    """
    total = len(data)
    if count < 0 or count * _RECORD_SIZE_MIN > total:
        raise _invalid(f"{count} records cannot be in {total} bytes")
    entries: list[Entry] = []
    pos = 0
    try:
        for _ in range(count):
            raw = data[pos]
            pos += 1
            if raw >= 0x80:
                byte = data[pos]
                pos += 1
                raw = raw & 0x7F | byte << 7
                if byte >= 0x80:
                    raw, pos = _rest(data, pos, raw & 0x3FFF, 14, 32)
            size = raw >> 1 ^ -(raw & 1)
            end = pos + size
            if size < 0 or end > total:
                raise _invalid(f"a record of {size} bytes, {total - pos} are left")
            pos += 1  # attributes: none are defined
            raw = data[pos]
            pos += 1
            if raw >= 0x80:
                byte = data[pos]
                pos += 1
                raw = raw & 0x7F | byte << 7
                if byte >= 0x80:
                    raw, pos = _rest(data, pos, raw & 0x3FFF, 14, 64)
            timestamp_delta = raw >> 1 ^ -(raw & 1)
            raw = data[pos]
            pos += 1
            if raw >= 0x80:
                byte = data[pos]
                pos += 1
                raw = raw & 0x7F | byte << 7
                if byte >= 0x80:
                    raw, pos = _rest(data, pos, raw & 0x3FFF, 14, 32)
            offset_delta = raw >> 1 ^ -(raw & 1)
            tail = pos
            raw = data[pos]
            pos += 1
            if raw >= 0x80:
                raw, pos = _rest(data, pos, raw & 0x7F, 7, 32)
            size = raw >> 1 ^ -(raw & 1)
            key: bytes | None = None
            if size >= 0:
                key = data[pos : pos + size]
                pos += size
            raw = data[pos]
            pos += 1
            if raw >= 0x80:
                byte = data[pos]
                pos += 1
                raw = raw & 0x7F | byte << 7
                if byte >= 0x80:
                    raw, pos = _rest(data, pos, raw & 0x3FFF, 14, 32)
            size = raw >> 1 ^ -(raw & 1)
            if size > 0:
                pos += size
            if pos >= end:  # at least the number of headers is to come
                raise _invalid("a record ends before its headers")
            entries.append((offset_delta, timestamp_delta, key, size < 0, tail, end))
            pos = end
    except IndexError:
        raise _invalid("the records end early") from None
    if pos != total:
        raise _invalid(f"{total - pos} bytes follow the last record")
    return entries


def _rest(data: bytes, pos: int, raw: int, shift: int, bits: int) -> tuple[int, int]:
    """The rest of a varint: (all of it, still zigzag, position behind it)."""
    while True:
        byte = data[pos]
        pos += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= bits:
            raise _invalid(f"a varint longer than {bits} bits")
    if raw >> bits:
        raise _invalid(f"a varint longer than {bits} bits")
    return raw, pos


def note_keys(
    entries: list[Entry], base_offset: int, first: int, keys: dict[bytes, int], keys_max: int
) -> bool:
    """Last offsets by key, of records from offset `first` on. False when the table is full; what has got into it of
    this batch does no harm, it is later than what the table is complete for.
    """
    for entry in entries:
        key = entry[2]
        offset = base_offset + entry[0]
        if key is not None and offset >= first:
            name = key_name(key)
            if len(keys) >= keys_max and name not in keys:
                return False
            keys[name] = offset
    return True


def kept(
    entries: list[Entry], base_offset: int, end: int, keys: dict[bytes, int], tombstones_go: bool
) -> list[Entry]:
    """What stays: everything from offset `end` on; below it, of each key what is not older than the table says."""
    found: list[Entry] = []
    for entry in entries:
        offset = base_offset + entry[0]
        if offset < end:
            key = entry[2]
            if key is None or offset < keys.get(key_name(key), -1) or (entry[3] and tombstones_go):
                continue
        found.append(entry)
    return found


def join(data: bytes, entries: list[Entry], timestamp_shift: int) -> bytes:
    """The records of these entries, the base timestamp of whose batch has fallen by `timestamp_shift`."""
    parts: list[bytes] = []
    for entry in entries:
        head = b"\0" + _varint(entry[1] + timestamp_shift) + _varint(entry[0])
        parts.append(_varint(len(head) + entry[5] - entry[4]))
        parts.append(head)
        parts.append(data[entry[4] : entry[5]])
    return b"".join(parts)


def _varint(value: int) -> bytes:
    raw = value << 1 ^ value >> 63
    if raw < 0x80:
        return bytes((raw,))
    out = bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)
