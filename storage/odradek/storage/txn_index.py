"""Transaction index (34-byte entries) of a segment, in Kafka's format: the aborted transactions whose marker it holds.

A read_committed consumer is told which transactions in what it reads were aborted, and leaves their records out. The
index of the segment that is written to is in memory and saved with the others; recovery makes it anew from the log.
Most segments have none, and then no file either.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

_ENTRY = Struct(">hqqqq")
_VERSION = 0


class AbortedTxn(NamedTuple):
    """One aborted transaction in one partition."""

    producer_id: int
    first_offset: int
    last_offset: int
    """Of its marker."""
    last_stable_offset: int
    """When the marker was written: no later entry begins before it."""


def encode(entries: Iterable[AbortedTxn]) -> bytes:
    return b"".join(_ENTRY.pack(_VERSION, *entry) for entry in entries)


def decode(data: bytes, base_offset: int, end_offset: int) -> list[AbortedTxn] | None:
    """The entries of a segment that holds offsets [base, end); None if they are damaged."""
    if len(data) % _ENTRY.size:
        return None
    entries: list[AbortedTxn] = []
    before = base_offset - 1
    for version, *fields in _ENTRY.iter_unpack(data):
        entry = AbortedTxn(*fields)
        if version != _VERSION or not before < entry.last_offset < end_offset:
            return None
        if not 0 <= entry.first_offset < entry.last_offset or entry.producer_id < 0:
            return None
        before = entry.last_offset
        entries.append(entry)
    return entries
