"""Records that are lost, there twice, elsewhere, or read out of order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from odradek.chaos.history import OK, Poll, Send
from odradek.chaos.model import Anomaly, Model, Partition


def check_log(model: Model) -> Iterator[Anomaly]:
    """Everything that shows without looking at transactions or groups."""
    yield from _offsets(model)
    yield from _duplicates(model)
    yield from _missing(model)
    yield from _unknown_values(model)
    yield from _polls(model)
    yield from _sends(model)


def _offsets(model: Model) -> Iterator[Anomaly]:
    for (topic, partition), offsets in model.seen.items():
        for offset, values in offsets.items():
            if len(values) > 1:
                yield Anomaly(
                    "inconsistent-offsets",
                    f"{topic}-{partition} offset {offset} was read as {' and as '.join(sorted(values))}",
                    tuple(values.values()),
                )
            for value, poll in values.items():
                send = model.sends.get(value)
                if send is None or send.outcome != OK or send.offset is None:
                    continue
                told = (send.topic, send.partition, send.offset)
                if (topic, partition) != told[:2]:
                    yield Anomaly(
                        "inconsistent-offsets",
                        f"{value} was acknowledged in {told[0]}-{told[1]} and read in {topic}-{partition}",
                        (send, poll),
                    )
                elif offset != told[2] and told[2] not in _offsets_of(model, value, (topic, partition)):
                    yield Anomaly(
                        "inconsistent-offsets",
                        f"{value} was acknowledged at {topic}-{partition} offset {told[2]} and read at {offset}",
                        (send, poll),
                    )


def _offsets_of(model: Model, value: str, at: Partition) -> list[int]:
    return [offset for offset, values in model.seen[at].items() if value in values]


def _duplicates(model: Model) -> Iterator[Anomaly]:
    places: dict[str, set[tuple[str, int, int]]] = defaultdict(set)
    for (topic, partition), offsets in model.seen.items():
        for offset, values in offsets.items():
            for value in values:
                places[value].add((topic, partition, offset))
    for value, found in places.items():
        if len(found) > 1:
            where = ", ".join(
                f"{topic}-{partition} offset {offset}" for topic, partition, offset in sorted(found)
            )
            send = model.sends.get(value)
            yield Anomaly("duplicate", f"{value} is at {where}", (send,) if send is not None else ())


def _missing(model: Model) -> Iterator[Anomaly]:
    """Acknowledged, and not there in the end: lost if later records of the partition are, else unseen."""
    if not model.has_final:
        return
    last = {at: max(offsets) for at, offsets in model.final.items() if offsets}
    for send in model.sends.values():
        if send.value in model.final_values or not model.visible(send):
            continue
        later = send.offset is not None and last.get((send.topic, send.partition), -1) > send.offset
        yield Anomaly(
            "lost-write" if later else "unseen",
            f"{send.value} was acknowledged at {send.topic}-{send.partition} offset {send.offset} and is not there",
            (send,),
        )


def _unknown_values(model: Model) -> Iterator[Anomaly]:
    for (topic, partition), offsets in model.seen.items():
        for offset, values in offsets.items():
            for value, poll in values.items():
                if value not in model.sends:
                    yield Anomaly(
                        "unknown-value",
                        f"{topic}-{partition} offset {offset} has {value!r}, which nobody sent",
                        (poll,),
                    )


def _polls(model: Model) -> Iterator[Anomaly]:
    truth = {at: sorted(offsets) for at, offsets in model.final.items()}
    position: dict[tuple[str, int, Partition], tuple[int, Poll]] = {}
    for poll in model.polls:
        for at, offsets in _by_partition(poll).items():
            for earlier, later in pairwise(offsets):
                yield from _step(truth.get(at, []), at, earlier, later, "int-", (poll,))
            key = (poll.process, poll.session, at)
            if key in position:
                earlier, before = position[key]
                yield from _step(truth.get(at, []), at, earlier, offsets[0], "", (before, poll))
            position[key] = (offsets[-1], poll)


def _by_partition(poll: Poll) -> dict[Partition, list[int]]:
    found: dict[Partition, list[int]] = {}
    for topic, partition, offset, _ in poll.records:
        found.setdefault((topic, partition), []).append(offset)
    return found


def _step(
    truth: list[int], at: Partition, earlier: int, later: int, kind: str, polls: tuple[Poll, ...]
) -> Iterator[Anomaly]:
    """From one record that a consumer was given to the next."""
    if later <= earlier:
        yield Anomaly(
            f"{kind}nonmonotonic-poll", f"{at[0]}-{at[1]}: offset {later} came after {earlier}", polls
        )
        return
    left_out = truth[bisect_right(truth, earlier) : bisect_left(truth, later)]
    if left_out:
        yield Anomaly(
            f"{kind}poll-skip",
            f"{at[0]}-{at[1]}: {len(left_out)} records between offsets {earlier} and {later} were left out, "
            f"the first at {left_out[0]}",
            polls,
        )


def _sends(model: Model) -> Iterator[Anomaly]:
    """In each producer and partition: what was sent after an acknowledgement stands after what was acknowledged."""
    by_producer: dict[tuple[str, Partition], list[Send]] = defaultdict(list)
    for send in model.sends.values():
        if send.outcome == OK and send.offset is not None:
            by_producer[send.process, (send.topic, send.partition)].append(send)
    for (_, at), sends in by_producer.items():
        acknowledged = sorted(sends, key=lambda send: send.completed)
        highest: Send | None = None
        done = 0
        for send in sorted(sends, key=lambda send: send.invoked):
            while done < len(acknowledged) and acknowledged[done].completed <= send.invoked:
                candidate = acknowledged[done]
                if highest is None or (candidate.offset or 0) > (highest.offset or 0):
                    highest = candidate
                done += 1
            if highest is not None and (send.offset or 0) < (highest.offset or 0):
                yield Anomaly(
                    "nonmonotonic-send",
                    f"{send.value} is at {at[0]}-{at[1]} offset {send.offset}, sent after {highest.value} "
                    f"was acknowledged at {highest.offset}",
                    (highest, send),
                )
