"""Records that are lost, there twice, elsewhere, or read out of order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from odradek.chaos.history import OK, Poll, Send
from odradek.chaos.model import Anomaly, Model, Partition
from odradek.chaos.reads import Sighting, Step


def check_log(model: Model) -> Iterator[Anomaly]:
    """Everything that shows without looking at transactions or groups."""
    yield from _offsets(model)
    yield from _duplicates(model)
    yield from _missing(model)
    yield from _unknown_values(model)
    yield from _polls(model)
    yield from _sends(model)


def _offsets(model: Model) -> Iterator[Anomaly]:
    for at, offset, sightings in model.reads.contested():
        values = sorted(each.value for each in sightings)
        yield Anomaly(
            "inconsistent-offsets",
            f"{at[0]}-{at[1]} offset {offset} was read as {' and as '.join(values)}",
            tuple(_evidence(each, at, offset) for each in sightings),
        )
    places = _places(model)
    for at, offset, sighting in model.reads.places():
        send = model.sends.get(sighting.value)
        if send is None or send.outcome != OK or send.offset is None:
            continue
        told = (send.topic, send.partition, send.offset)
        if at != told[:2]:
            yield Anomaly(
                "inconsistent-offsets",
                f"{send.value} was acknowledged in {told[0]}-{told[1]} and read in {at[0]}-{at[1]}",
                (send, _evidence(sighting, at, offset)),
            )
        elif offset != told[2] and told not in places.get(send.value, ()):
            yield Anomaly(
                "inconsistent-offsets",
                f"{send.value} was acknowledged at {at[0]}-{at[1]} offset {told[2]} and read at {offset}",
                (send, _evidence(sighting, at, offset)),
            )


def _evidence(sighting: Sighting, at: Partition, offset: int) -> Poll:
    """The poll that shows it, with this record only."""
    return replace(sighting.poll, records=[(*at, offset, sighting.value)])


def _places(model: Model) -> dict[str, set[tuple[str, int, int]]]:
    """Of values that were read at more than one place: where."""
    first: dict[str, tuple[Partition, int]] = {}
    found: dict[str, set[tuple[str, int, int]]] = {}
    for at, offset, sighting in model.reads.places():
        at_first, offset_first = first.setdefault(sighting.value, (at, offset))
        if (at_first, offset_first) != (at, offset):
            found.setdefault(sighting.value, {(*at_first, offset_first)}).add((*at, offset))
    return found


def _duplicates(model: Model) -> Iterator[Anomaly]:
    for value, found in _places(model).items():
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
    for at, offset, sighting in model.reads.places():
        if sighting.value not in model.sends:
            yield Anomaly(
                "unknown-value",
                f"{at[0]}-{at[1]} offset {offset} has {sighting.value!r}, which nobody sent",
                (_evidence(sighting, at, offset),),
            )


def _polls(model: Model) -> Iterator[Anomaly]:
    truth = {at: sorted(offsets) for at, offsets in model.final.items()}
    for step in model.reads.steps():
        yield from _step(model, truth.get(step.at, []), step)


def _step(model: Model, truth: list[int], step: Step) -> Iterator[Anomaly]:
    """From one record that a consumer was given to the next."""
    kind, at = "int-" if step.internal else "", step.at

    def polls() -> tuple[Poll, ...]:
        if step.internal:
            return (model.reads.shown(step.after, at, step.earlier, step.later),)
        return model.reads.shown(step.before, at, step.earlier), model.reads.shown(step.after, at, step.later)

    if step.later <= step.earlier:
        text = f"{at[0]}-{at[1]}: offset {step.later} came after {step.earlier}"
        yield Anomaly(f"{kind}nonmonotonic-poll", text, polls())
        return
    left_out = truth[bisect_right(truth, step.earlier) : bisect_left(truth, step.later)]
    if left_out:
        yield Anomaly(
            f"{kind}poll-skip",
            f"{at[0]}-{at[1]}: {len(left_out)} records between offsets {step.earlier} and {step.later} were left "
            f"out, the first at {left_out[0]}",
            polls(),
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
