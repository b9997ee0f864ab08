"""Which partition of an internal topic owns a group or transactional id."""

from __future__ import annotations

import struct
from operator import mul

_POWERS = tuple(pow(31, exponent, 1 << 32) for exponent in reversed(range(256)))


def java_string_hash(text: str) -> int:
    """`String.hashCode()` of Java, a signed 32-bit number over UTF-16 units (a character beyond U+FFFF is two)."""
    value: int
    if text.isascii() and len(text) <= len(_POWERS):
        # Each request that names a group or a transactional id asks, and the loop below takes three times as long.
        value = sum(map(mul, text.encode(), _POWERS[len(_POWERS) - len(text) :])) & 0xFFFFFFFF
    else:
        data = text.encode("utf-16-be", "surrogatepass")
        value = 0
        for unit in struct.unpack(f">{len(data) // 2}H", data):
            value = value * 31 + unit & 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value


def partition_for(name: str, partition_count: int) -> int:
    """Kafka's choice: the absolute hash modulo the count, where the one number without an absolute counts as 0."""
    value = java_string_hash(name)
    return (0 if value == -0x80000000 else abs(value)) % partition_count


def utf16_length(text: str) -> int:
    """The length that Java's `String.length()` gives, which is what Kafka's limits on strings count."""
    return len(text) + sum(character > "\uffff" for character in text)
