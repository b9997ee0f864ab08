"""All or nothing, and nothing before it is decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from odradek.chaos.history import DRAINED, FAILED, OK, Send
from odradek.chaos.model import Anomaly, Model


def check_transactions(model: Model) -> Iterator[Anomaly]:
    """T1 and T2 of CORRECTNESS.md, as clients see them."""
    yield from _reads(model)
    yield from _torn(model)
    yield from _gaps_between_sends(model)
    yield from _processed(model)


def _reads(model: Model) -> Iterator[Anomaly]:
    for (topic, partition), offset, sighting in model.reads.places():
        send = model.sends.get(sighting.value)
        if send is None:
            continue
        where = f"{send.value} at {topic}-{partition} offset {offset}"
        records = [(topic, partition, offset, send.value)]
        end, committed = model.transaction_of(send), sighting.committed
        if send.outcome == FAILED:
            poll = replace(sighting.poll, records=records)
            yield Anomaly(
                "aborted-read", f"{where} was read, and its producer told that it failed", (send, poll)
            )
        elif end is None or committed is None:
            continue
        elif end.outcome == FAILED:
            poll = replace(committed, records=records)
            yield Anomaly("aborted-read", f"{where} was read, of the aborted {end.id}", (send, end, poll))
        elif 0 < committed.completed < end.invoked:
            yield Anomaly(
                "precommitted-read",
                f"{where} was read before {end.id} asked to be committed",
                (send, end, replace(committed, records=records)),
            )


def _torn(model: Model) -> Iterator[Anomaly]:
    if not model.has_final:
        return
    parts: dict[str, list[Send]] = defaultdict(list)
    for send in model.sends.values():
        if send.transaction is not None and send.outcome == OK:
            parts[send.transaction].append(send)
    for name, sends in parts.items():
        end = model.transaction_of(sends[0])
        if end is None or end.outcome == FAILED:
            continue  # what of an aborted one is there is an aborted read
        there = [send for send in sends if send.value in model.final_values]
        gone = [send for send in sends if send.value not in model.final_values]
        if there and gone:
            yield Anomaly(
                "torn-transaction",
                f"of {name}, {len(there)} records are there, such as {there[0].value}, and {len(gone)} are not, "
                f"such as {gone[0].value}",
                (there[0], gone[0], end),
            )


def _gaps_between_sends(model: Model) -> Iterator[Anomaly]:
    parts: dict[tuple[str, str, int], list[Send]] = defaultdict(list)
    for send in model.sends.values():
        if send.transaction is not None and send.outcome == OK and send.offset is not None:
            parts[send.transaction, send.topic, send.partition].append(send)
    for (name, topic, partition), sends in parts.items():
        offsets = sorted(send.offset for send in sends if send.offset is not None)
        if offsets[-1] - offsets[0] + 1 > len(offsets):
            yield Anomaly(
                "int-send-skip",
                f"{name} has {len(offsets)} records in {topic}-{partition} between {offsets[0]} and {offsets[-1]}",
            )


def _processed(model: Model) -> Iterator[Anomaly]:
    """Consume, transform, produce: of each record that was read, exactly one came out."""
    made: dict[tuple[str, str], list[Send]] = defaultdict(list)
    for value in sorted(model.final_values):
        send = model.sends.get(value)
        if send is not None and send.origin is not None:
            made[send.topic, send.origin].append(send)
    for (topic, origin), sends in made.items():
        if len(sends) > 1:
            text = (
                f"of {origin}, {len(sends)} records are in {topic}: {', '.join(send.value for send in sends)}"
            )
            yield Anomaly("processed-twice", text, tuple(sends))
    for note in model.notes:
        if note.what != DRAINED:
            continue
        sink = note.details["sink"]
        for (topic, partition), offsets in model.final.items():
            if topic != note.target:
                continue
            for offset, value in offsets.items():
                if (sink, value) not in made:
                    text = f"{value} at {topic}-{partition} offset {offset} has nothing in {sink}"
                    yield Anomaly("unprocessed", text, (note,))
