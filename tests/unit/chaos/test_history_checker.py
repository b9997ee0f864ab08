"""The checker names every anomaly in a history that has it, and none in a history that has none."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from odradek.chaos.checker import ALLOWED, ERRORS, check
from odradek.chaos.history import (
    DRAINED,
    FAILED,
    OK,
    UNKNOWN,
    Assigned,
    Commit,
    Event,
    Fetched,
    HistoryError,
    Note,
    Poll,
    Recorder,
    Send,
    Transaction,
    parse,
)

T = "orders"


def sent(
    value: str, offset: int | None, at: int, *, partition: int = 0, outcome: str = OK, **more: Any
) -> Send:
    return Send("producer", T, partition, value, outcome, offset, at, at + 5, **more)


def poll(at: int, *records: tuple[int, str], partition: int = 0, session: int = 0, **more: Any) -> Poll:
    return Poll("consumer", session, at, [(T, partition, offset, value) for offset, value in records], **more)


def final(*records: tuple[int, str], partition: int = 0) -> Poll:
    found = [(T, partition, offset, value) for offset, value in records]
    return Poll("last", 0, 10_000, found, final=True)


def ended(name: str, at: int, outcome: str = OK) -> Transaction:
    return Transaction("producer", name, outcome, at, at + 5)


def committed(offset: int, at: int, *, process: str = "a", outcome: str = OK, **more: Any) -> Commit:
    return Commit(process, "group", T, 0, offset, outcome, at, at + 5, **more)


def told(offset: int | None, at: int) -> Fetched:
    return Fetched("a", "group", T, 0, offset, at, at + 5)


def names(*events: Event) -> set[str]:
    """Of the errors and the allowed anomalies."""
    return set(check(events).counts)


def shows(name: str, *events: Event) -> None:
    """Exactly this anomaly, whatever the order of the events."""
    assert names(*events) == {name}
    assert names(*reversed(events)) == {name}


def base() -> list[Event]:
    """Three records, sent, polled and read in the end."""
    return [
        sent("x", 0, 0),
        sent("y", 1, 10),
        sent("z", 2, 20),
        poll(50, (0, "x"), (1, "y")),
        poll(60, (2, "z")),
        final((0, "x"), (1, "y"), (2, "z")),
    ]


def test_sound_history_is_valid() -> None:
    verdict = check([*base(), committed(2, 70), told(2, 80), Note(1, "kill", "2")])
    assert verdict.valid
    assert not verdict.anomalies
    assert (verdict.sends[OK], verdict.reads, verdict.commits) == (3, 6, 1)


def test_unknown_sends_may_be_there_or_not() -> None:
    for last in (final((0, "x")), final((0, "x"), (1, "y"))):
        assert not names(sent("x", 0, 0), sent("y", None, 10, outcome=UNKNOWN), last)


def test_without_a_last_reading_or_records_nothing_is_valid() -> None:
    assert not check([sent("x", 0, 0), poll(50, (0, "x"))]).valid
    assert not check([]).valid


def test_lost_write() -> None:
    shows("lost-write", sent("x", 0, 0), sent("y", 1, 10), final((1, "y")))


def test_unseen() -> None:
    shows("unseen", sent("x", 0, 0), sent("y", 1, 10), final((0, "x")))


def test_duplicate() -> None:
    shows("duplicate", sent("x", 0, 0), final((0, "x"), (1, "x")))


def test_duplicate_in_another_partition() -> None:
    assert "duplicate" in names(sent("x", 0, 0), final((0, "x")), final((0, "x"), partition=1))


def test_inconsistent_offsets_between_readers() -> None:
    shows(
        "inconsistent-offsets",
        sent("x", None, 0, outcome=UNKNOWN),
        sent("y", None, 10, outcome=UNKNOWN),
        poll(50, (0, "x")),
        final((0, "y")),
    )


def test_inconsistent_offsets_between_producer_and_reader() -> None:
    shows("inconsistent-offsets", sent("x", 0, 0), final((1, "x")))
    shows("inconsistent-offsets", sent("x", 0, 0, partition=1), final((0, "x")))


def test_unknown_value() -> None:
    shows("unknown-value", sent("x", 0, 0), final((0, "x"), (1, "never sent")))


def test_int_poll_skip() -> None:
    events = base()
    events[3] = poll(50, (0, "x"), (2, "z"))
    events[4] = poll(60, session=1)
    shows("int-poll-skip", *events)


def test_int_nonmonotonic_poll() -> None:
    events = base()
    events[3] = poll(50, (1, "y"), (0, "x"))
    events[4] = poll(60, (2, "z"), session=1)
    shows("int-nonmonotonic-poll", *events)


def test_poll_skip() -> None:
    events = base()
    events[3] = poll(50, (0, "x"))
    shows("poll-skip", *events)


def test_nonmonotonic_poll() -> None:
    shows("nonmonotonic-poll", *base(), poll(70, (2, "z")))


def test_consumer_with_new_partitions_may_jump() -> None:
    assert not names(*base(), poll(70, (0, "x"), session=1))


def test_another_order_of_sends_in_flight_is_no_anomaly() -> None:
    first = replace(sent("x", 1, 0), completed=30)
    assert not names(first, sent("y", 0, 10), final((0, "y"), (1, "x")))


def test_nonmonotonic_send() -> None:
    shows("nonmonotonic-send", sent("x", 1, 0), sent("y", 0, 10), final((0, "y"), (1, "x")))


def test_aborted_read() -> None:
    shows(
        "aborted-read", sent("x", 0, 0, transaction="t"), ended("t", 30, FAILED), poll(60, (0, "x")), final()
    )


def test_aborted_read_of_a_refused_record() -> None:
    shows("aborted-read", sent("x", None, 0, outcome=FAILED), final((0, "x")))


def test_reader_of_everything_may_see_aborted_records() -> None:
    seen = poll(60, (0, "x"), committed_only=False)
    assert not names(sent("x", 0, 0, transaction="t"), ended("t", 30, FAILED), seen, final())


def test_precommitted_read() -> None:
    events = [sent("x", 0, 0, transaction="t"), ended("t", 30), final((0, "x"))]
    shows("precommitted-read", *events, poll(20, (0, "x")))
    assert not names(*events, poll(31, (0, "x")))


def test_torn_transaction() -> None:
    parts = [sent("x", 0, 0, transaction="t"), sent("y", 0, 10, partition=1, transaction="t")]
    shows("torn-transaction", *parts, ended("t", 30, UNKNOWN), final((0, "x")))
    assert not names(*parts, ended("t", 30, UNKNOWN), final())
    assert not names(*parts, ended("t", 30, UNKNOWN), final((0, "x")), final((0, "y"), partition=1))


def test_transaction_that_nobody_committed_must_not_be_seen() -> None:
    assert names(sent("x", 0, 0, transaction="t"), final((0, "x"))) == {"aborted-read"}
    assert not names(sent("x", 0, 0, transaction="t"), final())


def test_end_of_an_event_takes_the_place_of_its_beginning() -> None:
    begun = replace(sent("x", None, 0, outcome=UNKNOWN), completed=0)
    assert not names(begun, final())
    assert names(begun, sent("x", 0, 0), sent("y", 1, 10), final((1, "y"))) == {"lost-write"}
    asked = replace(ended("t", 30, UNKNOWN), completed=0)
    assert check([sent("x", 0, 0, transaction="t"), asked, ended("t", 30)]).transactions == {OK: 1}
    trying = replace(committed(2, 70, outcome=UNKNOWN), completed=0)
    assert not names(*base(), committed(1, 60), trying, told(1, 90))
    assert names(*base(), committed(1, 60), trying, committed(2, 70), told(1, 90)) == {"offset-fell-back"}


def test_lost_record_of_a_committed_transaction() -> None:
    parts = [sent("x", 0, 0, transaction="t"), sent("y", 0, 10, partition=1, transaction="t")]
    assert names(*parts, ended("t", 30), final((0, "x"))) == {"torn-transaction", "unseen"}


def moved(value: str, offset: int, origin: str) -> Send:
    return Send("mover", "out", 0, value, OK, offset, 100, 105, origin=origin)


def drained(*records: tuple[int, str]) -> list[Event]:
    """What is in the sink in the end, after everything was worked off."""
    found = [("out", 0, offset, value) for offset, value in records]
    return [Poll("last", 1, 10_000, found, final=True), Note(9_000, DRAINED, T, {"sink": "out"})]


def test_processed_once() -> None:
    sends = [sent("x", 0, 0), moved("x'", 0, "x")]
    assert not names(*sends, final((0, "x")), *drained((0, "x'")))


def test_processed_twice() -> None:
    sends = [sent("x", 0, 0), moved("x'", 0, "x"), moved("x''", 1, "x")]
    shows("processed-twice", *sends, final((0, "x")), *drained((0, "x'"), (1, "x''")))


def test_unprocessed() -> None:
    sends = [sent("x", 0, 0), sent("y", 1, 10), moved("y'", 0, "y")]
    shows("unprocessed", *sends, final((0, "x"), (1, "y")), *drained((0, "y'")))


def test_int_send_skip_is_allowed() -> None:
    events = [
        sent("x", 0, 0, transaction="t"),
        sent("between", 1, 5),
        sent("y", 2, 10, transaction="t"),
        ended("t", 30),
        final((0, "x"), (1, "between"), (2, "y")),
    ]
    shows("int-send-skip", *events)
    assert check(events).valid


def test_lost_commit() -> None:
    shows("lost-commit", *base(), committed(2, 70), told(None, 90))
    shows("lost-commit", *base(), committed(2, 70), told(7, 90))


def test_offset_fell_back() -> None:
    shows("offset-fell-back", *base(), committed(1, 70), committed(2, 80), told(1, 90))


def test_client_may_commit_lower() -> None:
    assert not names(*base(), committed(2, 70), committed(1, 80), told(1, 90))


def test_commit_of_unknown_outcome_may_be_told() -> None:
    events = [*base(), committed(2, 70), committed(1, 60, outcome=UNKNOWN)]
    assert not names(*events, told(1, 90))
    assert not names(*events, told(2, 90))


def test_offsets_of_a_transaction_count_from_its_commit() -> None:
    events = [*base(), committed(1, 70), committed(2, 80, transaction="t")]
    assert not names(*events, ended("t", 85, FAILED), told(1, 100))
    assert not names(*events, ended("t", 85), told(2, 100))
    assert names(*events, ended("t", 85), told(1, 100)) == {"offset-fell-back"}
    assert names(*events, ended("t", 85, FAILED), told(2, 100)) == {"lost-commit"}


def test_double_owner() -> None:
    shows(
        "double-owner",
        *base(),
        Assigned("a", "a", "group", [(T, 0)], 70, generation=3),
        Assigned("b", "b", "group", [(T, 0)], 80, generation=3),
    )
    assert not names(
        *base(),
        Assigned("a", "a", "group", [(T, 0)], 70, generation=3),
        Assigned("b", "b", "group", [(T, 0)], 80, generation=4),
    )


def test_static_member_that_comes_back_is_no_other_owner() -> None:
    assert not names(
        *base(),
        Assigned("a.1", "a", "group", [(T, 0)], 70, generation=3),
        Assigned("a.2", "a", "group", [(T, 0)], 80, generation=3),
    )


def test_zombie_commit() -> None:
    later = committed(2, 80, process="b", generation=4)
    shows("zombie-commit", *base(), committed(1, 70, generation=3), later, committed(2, 90, generation=3))
    assert not names(*base(), committed(1, 70, generation=3), later, committed(2, 82, generation=3))


def test_every_anomaly_has_a_history_here() -> None:
    shown = re.findall(r'shows\(\s*"([a-z-]+)"', Path(__file__).read_text())
    assert ERRORS.keys() | ALLOWED.keys() == set(shown)


def test_histories_are_written_and_read() -> None:
    events: list[Event] = [
        *base(),
        ended("t", 30),
        committed(2, 70),
        told(None, 80),
        Assigned("a", "a", "group", [(T, 0)], 90),
        Note(100, "kill", "1", {"signal": 9}),
    ]
    file = io.StringIO()
    recorder = Recorder(file)
    for event in events:
        recorder.add(event)
    assert list(parse(file.getvalue().splitlines())) == events


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"kind":"send"}', '{"kind":"note","at":1,"what":"x","more":1}']
)
def test_lines_that_are_no_events_are_named(line: str) -> None:
    with pytest.raises(HistoryError, match="line 2"):
        list(parse(['{"kind":"note","at":1,"what":"x"}', line]))
