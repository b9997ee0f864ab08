"""The small files beside a segment, for `dump-log`: indexes checked against the log, producers, transactions."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import IO

from odradek.cli.options import ToolError, warn
from odradek.storage.indexes import OFFSET_ENTRY, TIME_ENTRY
from odradek.storage.producers import ProducerStates, SnapshotError
from odradek.wire.records import HEADER_SIZE, BatchHeader, parse_header, read_records

_TXN_ENTRY = Struct(">hqqqq")
_BATCH_BYTES_MAX = 1 << 30
_Pairs = dict[str, list[tuple[int, int]]]


@dataclass
class Findings:
    """What indexes say and their logs do not, by file."""

    offsets: _Pairs = field(default_factory=dict)
    times: _Pairs = field(default_factory=dict)
    order: _Pairs = field(default_factory=dict)
    missing: _Pairs = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """As Kafka's tool prints them on standard error at its end."""
        for path, pairs in self.offsets.items():
            yield f"Mismatches in :{path}"
            for index, log in pairs:
                yield f"  Index offset: {index}, log offset: {log}"
        for path, pairs in self.times.items():
            yield f"Found timestamp mismatch in :{path}"
            for index, log in pairs:
                yield f"  Index timestamp: {index}, log timestamp: {log}"
        for path, pairs in self.order.items():
            yield f"Found out of order timestamp in :{path}"
            for index, before in pairs:
                yield f"  Index timestamp: {index}, Previously indexed timestamp: {before}"
        for pairs in self.missing.values():
            yield "The following indexed offsets are not found in the log."
            for index, log in pairs:
                yield f"Indexed offset: {index}, found log offset: {log}"


def dump_index(path: str, *, sanity: bool, quiet: bool, findings: Findings) -> None:
    """An offset index; each entry has to name a batch of the log beside it."""
    base = _base(path)
    entries = [
        (base + relative, position)
        for relative, position in OFFSET_ENTRY.iter_unpack(_whole(path, OFFSET_ENTRY))
    ]
    if not entries:
        print(f"{path} is empty.")
        return
    if sanity:
        if entries[-1][0] < base:
            raise ToolError(
                f"Corrupt index found, index file ({path}) has non-zero size but the last offset is {entries[-1][0]} "
                f"which is less than the base offset {base}"
            )
        print(f"{path} passed sanity check.")
        return
    with open(_beside(path, ".log"), "rb") as log:
        for at, (offset, position) in enumerate(entries):
            if at and offset == base:
                return  # Kafka allocates these files ahead: zeros are no entries
            header = next(_headers(log, position), None)
            found = -1 if header is None else header[1].last_offset
            if found != offset:
                findings.offsets.setdefault(os.path.abspath(path), []).append((offset, found))
            if not quiet:
                print(f"offset: {offset} position: {position}")


def dump_time_index(path: str, *, sanity: bool, quiet: bool, findings: Findings) -> None:
    """A time index; each entry has to name the last offset of a batch, and that batch's largest timestamp."""
    base = _base(path)
    entries = [
        (timestamp, base + relative)
        for timestamp, relative in TIME_ENTRY.iter_unpack(_whole(path, TIME_ENTRY))
    ]
    if sanity:
        _check_times(path, base, entries)
        print(f"{path} passed sanity check.")
        return
    index = _whole(_beside(path, ".index"), OFFSET_ENTRY)
    places = [
        (0, 0),
        *((base + relative, position) for relative, position in OFFSET_ENTRY.iter_unpack(index)),
    ]
    places = [place for at, place in enumerate(places) if at < 2 or place[0] > base]
    offsets = [offset for offset, _ in places]
    before = -1
    with open(_beside(path, ".log"), "rb") as log:
        for at, (timestamp, offset) in enumerate(entries):
            if at and offset == base:
                return
            position = places[max(0, bisect_right(offsets, offset) - 1)][1]
            found = next((each for each in _headers(log, position) if each[1].last_offset >= offset), None)
            if found is None or found[1].last_offset != offset:
                last = -1 if found is None else found[1].last_offset
                findings.missing.setdefault(path, []).append((offset, last))
            else:
                largest = _largest_timestamp(log, *found)
                if largest != timestamp:
                    findings.times.setdefault(os.path.abspath(path), []).append((timestamp, largest))
                if before >= timestamp:
                    findings.order.setdefault(os.path.abspath(path), []).append((timestamp, before))
            if not quiet:
                print(f"timestamp: {timestamp} offset: {offset}")
            before = timestamp


def dump_producers(path: str) -> None:
    """A snapshot of producers: who they are, and the last batch of each."""
    states = ProducerStates()
    try:
        with open(path, "rb") as file:
            states.load_snapshot(file.read())
    except SnapshotError as error:
        warn(f"Snapshot {path} is corrupt: {error}")
        return
    for entry in states.entries.values():
        start = entry.transaction_start
        line = (
            f"producerId: {entry.producer_id} producerEpoch: {entry.epoch} "
            f"coordinatorEpoch: {entry.coordinator_epoch} "
            f"currentTxnFirstOffset: {'OptionalLong.empty' if start < 0 else f'OptionalLong[{start}]'} "
            f"lastTimestamp: {entry.last_timestamp} "
        )
        if entry.batches:
            first_sequence, last_sequence, first, last, timestamp = entry.batches[-1]
            line += (
                f"firstSequence: {first_sequence} lastSequence: {last_sequence} lastOffset: {last} "
                f"offsetDelta: {last - first} timestamp: {timestamp}"
            )
        print(line)


def dump_transactions(path: str) -> None:
    """A transaction index: the aborted transactions whose end lies in the segment."""
    for version, producer_id, first, last, stable in _TXN_ENTRY.iter_unpack(_whole(path, _TXN_ENTRY)):
        print(
            f"version: {version} producerId: {producer_id} firstOffset: {first} lastOffset: {last} "
            f"lastStableOffset: {stable}"
        )


def _check_times(path: str, base: int, entries: list[tuple[int, int]]) -> None:
    if not entries:
        return
    (first_time, _), (last_time, last_offset) = entries[0], entries[-1]
    if last_time < first_time:
        raise ToolError(
            f"Corrupt time index found, time index file ({path}) has non-zero size but the last timestamp is "
            f"{last_time} which is less than the first timestamp {first_time}"
        )
    if last_offset < base:
        raise ToolError(
            f"Corrupt time index found, time index file ({path}) has non-zero size but the last offset is "
            f"{last_offset} which is less than the first offset {base}"
        )


def _headers(log: IO[bytes], position: int) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of the batches from a position on."""
    while True:
        log.seek(position)
        head = log.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            return
        header = parse_header(head)
        yield position, header
        position += header.size


def _largest_timestamp(log: IO[bytes], position: int, header: BatchHeader) -> int:
    log.seek(position)
    records = read_records(log.read(header.size), header, limit=_BATCH_BYTES_MAX)
    return max((record.timestamp for record in records), default=-1)


def _whole(path: str, entry: Struct) -> bytes:
    """The file without what is left of an entry at its end."""
    with open(path, "rb") as file:
        data = file.read()
    return data[: len(data) - len(data) % entry.size]


def _beside(path: str, suffix: str) -> str:
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(directory, name.partition(".")[0] + suffix)


def _base(path: str) -> int:
    stem = os.path.basename(path).partition(".")[0]
    if not (stem.isascii() and stem.isdigit()):
        raise ToolError(f"{os.path.basename(path)} does not begin with an offset")
    return int(stem)
