"""The runtime with a shard that only counts: order, waiting, failures, fencing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from odradek.coordinator import runtime as runtime_module
from odradek.coordinator.runtime import CoordinatorRuntime, Outcome
from odradek.coordinator.timeline import Timeline, TimelineDict
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode, KafkaError
from unit.coordinator.memory import MemoryLog, VirtualClock


@dataclass
class Put:
    key: str
    value: int | None

    def encode(self) -> tuple[bytes, bytes | None]:
        return self.key.encode(), None if self.value is None else b"%d" % self.value


class Table:
    """A shard that is one dictionary."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.timeline = Timeline()
        self.entries: TimelineDict[str, int] = TimelineDict(self.timeline)
        self.events: list[str] = []

    def load(self, key: bytes, value: bytes | None) -> None:
        self.replay(Put(key.decode(), None if value is None else int(value)))

    def replay(self, record: Put) -> None:
        if record.value is None:
            self.entries.remove(record.key)
        else:
            self.entries[record.key] = record.value

    def on_loaded(self) -> None:
        self.events.append("loaded")

    def on_unloaded(self) -> None:
        self.events.append("unloaded")


class Runtime:
    """A loaded partition 0 and a writer that holds what is appended."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.writer = MemoryLog()
        self.failed: list[int] = []
        self.answers: list[Any] = []
        self.runtime = CoordinatorRuntime(
            Table,
            self.writer,
            self.timers,
            self.clock,
            write_timeout_ms=5_000,
            on_failed=self.failed.append,
        )
        assert self.runtime.load_begin(0, 3)
        self.runtime.load_end(0)
        self.writer.holding = True

    def shard(self) -> Table:
        return self.runtime.read(0)

    def run(self, operation: Callable[[Table], Outcome[Any]]) -> None:
        self.runtime.write(0, operation, self.answers.append, self.answers.append)

    def put(self, key: str, value: int, answer: Any = None) -> None:
        self.run(lambda shard: Outcome(answer or f"{key}={value}", [Put(key, value)]))

    def look(self, key: str) -> None:
        self.run(lambda shard: Outcome(f"saw {shard.entries.get(key)}"))


def test_a_partition_that_is_about_to_be_loaded_is_no_reason_to_look_elsewhere() -> None:
    r = Runtime()
    assert r.runtime.error_of(1) is ErrorCode.NOT_COORDINATOR
    r.runtime.is_coming = lambda partition: partition == 1
    assert r.runtime.error_of(1) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert r.runtime.error_of(2) is ErrorCode.NOT_COORDINATOR
    assert r.runtime.error_of(0) is ErrorCode.NONE


def test_an_answer_waits_for_its_commit_and_the_committed_view_with_it() -> None:
    r = Runtime()
    r.put("a", 1)
    assert r.answers == []
    assert r.shard().entries.get("a") == 1
    assert r.shard().entries.get_committed("a") is None
    r.writer.release()
    assert r.answers == ["a=1"]
    assert r.shard().entries.get_committed("a") == 1


def test_an_operation_without_records_waits_for_what_it_has_seen() -> None:
    r = Runtime()
    r.look("a")
    r.put("a", 1)
    r.look("a")
    r.put("a", 2)
    assert r.answers == ["saw None"]
    r.writer.release(count=1)
    assert r.answers == ["saw None", "a=1", "saw 1"]


def test_a_later_commit_covers_earlier_ones() -> None:
    r = Runtime()
    r.put("a", 1)
    r.put("b", 2)
    done = r.writer.held[1]
    done(0)
    assert r.answers == ["a=1", "b=2"]


def test_a_write_that_is_refused_at_once_never_was() -> None:
    r = Runtime()
    r.put("a", 1)
    r.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    r.put("a", 2)
    assert r.answers == [ErrorCode.NOT_ENOUGH_REPLICAS]
    assert r.shard().entries.get("a") == 1
    r.writer.refuse_with = ErrorCode.NONE
    r.put("b", 3)
    r.writer.release()
    assert r.answers[1:] == ["a=1", "b=3"]


def test_a_write_of_unknown_fate_stands_until_a_later_commit_covers_it() -> None:
    r = Runtime()
    r.put("a", 1)
    r.writer.release(ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
    assert r.answers == [ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND]
    assert r.shard().entries.get("a") == 1
    assert r.shard().entries.get_committed("a") is None
    r.put("b", 2)
    r.writer.release()
    assert r.shard().entries.get_committed("a") == 1


def test_answers_time_out_in_the_order_they_began_to_wait() -> None:
    r = Runtime()
    r.put("a", 1)
    r.clock.now_ms = 3_000
    r.put("b", 2)
    r.clock.now_ms = 5_000
    r.timers.advance(5_000)
    assert r.answers == [ErrorCode.REQUEST_TIMED_OUT]
    r.clock.now_ms = 8_000
    r.timers.advance(8_000)
    assert r.answers == [ErrorCode.REQUEST_TIMED_OUT] * 2
    r.writer.release()
    assert r.shard().entries.get_committed("b") == 2
    assert len(r.answers) == 2


def test_a_lost_write_fails_the_partition_until_it_is_loaded_again() -> None:
    r = Runtime()
    shard = r.shard()
    r.put("a", 1)
    r.put("b", 1)
    r.writer.release(ErrorCode.KAFKA_STORAGE_ERROR)
    assert r.answers == [ErrorCode.NOT_COORDINATOR] * 2
    assert r.failed == [0]
    assert shard.events == ["loaded", "unloaded"]
    r.look("a")
    assert r.answers[2:] == [ErrorCode.NOT_COORDINATOR]
    assert not r.runtime.load_begin(0, 2)
    assert r.runtime.load_begin(0, 3)
    r.runtime.load_record(0, b"a", b"1")
    r.runtime.load_end(0)
    r.look("a")
    assert r.answers[3:] == ["saw 1"]


def test_an_error_of_the_operation_leaves_no_trace() -> None:
    r = Runtime()

    def refuse(shard: Table) -> Outcome[None]:
        shard.entries["a"] = 1
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)

    r.run(refuse)
    assert r.answers == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert r.shard().entries.get("a") is None
    assert len(r.shard().timeline) == 0


def test_the_step_after_the_write_runs_before_the_answer_and_learns_the_outcome() -> None:
    r = Runtime()
    steps: list[Any] = []
    r.run(lambda shard: Outcome("done", [Put("a", 1)], written=steps.append))
    r.writer.release()
    r.writer.refuse_with = ErrorCode.NOT_LEADER_OR_FOLLOWER
    r.run(lambda shard: Outcome("done", [Put("a", 2)], written=steps.append))
    assert steps == [ErrorCode.NONE, ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_records_that_only_keep_the_state_are_not_replayed() -> None:
    r = Runtime()

    def decide(shard: Table) -> Outcome[str]:
        shard.entries["a"] = 7
        return Outcome("kept", [Put("b", 8)], replay=False)

    r.run(decide)
    assert r.shard().entries.get("a") == 7
    assert r.shard().entries.get("b") is None
    r.writer.release()
    assert r.shard().entries.get_committed("a") == 7


def test_who_calls_back_from_an_answer_is_served_after_it() -> None:
    r = Runtime()
    order: list[str] = []

    def first(_: Any) -> None:
        r.runtime.write(0, lambda shard: Outcome("inner"), order.append, order.append)
        order.append("outer")

    r.runtime.write(0, lambda shard: Outcome("x"), first, order.append)
    assert order == ["outer", "inner"]


def test_a_chain_of_calls_from_answers_does_not_grow_the_stack() -> None:
    r = Runtime()
    count = 0

    def again(_: Any) -> None:
        nonlocal count
        count += 1
        if count < 5_000:
            r.runtime.write(0, lambda shard: Outcome("x"), again, again)

    again(None)
    assert count == 5_000


def test_partitions_that_do_not_serve_say_why() -> None:
    r = Runtime()
    assert r.runtime.error_of(1) is ErrorCode.NOT_COORDINATOR
    r.runtime.load_begin(1, 0)
    assert r.runtime.error_of(1) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    r.runtime.load_end(1)
    assert r.runtime.error_of(1) is ErrorCode.NONE
    r.runtime.unload(1)
    assert r.runtime.error_of(1) is ErrorCode.NOT_COORDINATOR
    r.runtime.unload(1)
    with pytest.raises(KafkaError):
        r.runtime.read(1)


def test_an_old_epoch_neither_loads_nor_unloads() -> None:
    r = Runtime()
    assert not r.runtime.load_begin(0, 3)
    assert not r.runtime.load_begin(0, 2)
    r.runtime.unload(0, 3)
    assert r.runtime.error_of(0) is ErrorCode.NONE
    r.runtime.unload(0, 4)
    assert r.runtime.error_of(0) is ErrorCode.NOT_COORDINATOR


def test_a_leader_that_stays_leader_keeps_its_state() -> None:
    r = Runtime()
    r.put("a", 1)
    assert not r.runtime.load_begin(0, 5)
    r.runtime.load_record(0, b"a", b"9")
    r.runtime.load_end(0)
    r.writer.release()
    assert r.answers == ["a=1"]
    assert r.shard().entries.get_committed("a") == 1
    assert r.shard().events == ["loaded"]


def test_a_new_epoch_while_loading_begins_anew() -> None:
    r = Runtime()
    r.runtime.load_begin(1, 0)
    r.runtime.load_record(1, b"a", b"1")
    assert r.runtime.load_begin(1, 1)
    r.runtime.load_end(1)
    assert r.runtime.read(1).entries.get("a") is None


def test_damage_in_the_log_fails_the_load() -> None:
    r = Runtime()
    r.runtime.load_begin(1, 0)
    r.runtime.load_record(1, b"a", b"not a number")
    r.runtime.load_record(1, b"a", b"1")
    r.runtime.load_end(1)
    assert r.runtime.error_of(1) is ErrorCode.NOT_COORDINATOR


def test_what_completes_after_the_unload_changes_nothing() -> None:
    r = Runtime()
    r.put("a", 1)
    r.look("a")
    r.runtime.unload(0)
    assert r.answers == [ErrorCode.NOT_COORDINATOR] * 2
    assert r.runtime.load_begin(0, 9)
    r.runtime.load_end(0)
    r.writer.release()
    assert len(r.answers) == 2
    assert r.shard().entries.get("a") is None
    assert r.timers.next_deadline_ms() is None


def test_too_many_waiting_answers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "WAITERS_MAX", 2)
    r = Runtime()
    for number in range(3):
        r.put("a", number)
    assert r.answers == [ErrorCode.COORDINATOR_NOT_AVAILABLE]


def test_a_record_that_cannot_be_written_down_is_a_refused_write() -> None:
    class TooLong(Put):
        def encode(self) -> tuple[bytes, bytes | None]:
            raise ValueError("beyond the format")

    r = Runtime()
    r.run(lambda shard: Outcome("done", [TooLong("a", 1)]))
    assert r.answers == [ErrorCode.UNKNOWN_SERVER_ERROR]
    assert r.shard().entries.get("a") is None
    r.put("a", 2)
    r.writer.release()
    assert r.answers[1:] == ["a=2"]
