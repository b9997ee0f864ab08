"""The transaction coordinator beyond what transcripts can show: slow and failing logs, markers, loading, time.

T3 to T6 of the correctness list have a random load of their own in `test_transaction_random.py`.
"""

from __future__ import annotations

import pytest

from odradek.coordinator.transaction.add_partitions import HOLD_ALONE_MS, HOLD_TOGETHER_MS
from odradek.coordinator.transaction.completion import RETRY_MAX_MS, RETRY_MIN_MS
from odradek.coordinator.transaction.state import EPOCH_MAX
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from odradek.wire.messages.describe_transactions import DescribeTransactionsRequest
from odradek.wire.messages.list_transactions import ListTransactionsRequest
from unit.coordinator.memory import Answer
from unit.coordinator.transaction_harness import (
    ORDERS,
    PARTITIONS,
    TX,
    USERS,
    TransactionHarness,
    Written,
)

CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
DAY_MS = 86_400_000


def begun(harness: TransactionHarness) -> tuple[int, int]:
    """A producer with a transaction open in two partitions."""
    producer = harness.init()
    assert harness.add(producer, ORDERS, USERS) is ErrorCode.NONE
    return producer


# -- markers -----------------------------------------------------------------------------------------------------


def test_a_commit_writes_prepare_then_markers_then_complete() -> None:
    harness = TransactionHarness()
    producer_id, epoch = begun(harness)
    assert harness.end((producer_id, epoch)) == (producer_id, epoch + 1)
    assert harness.states_in_log() == ["Empty", "Ongoing", "PrepareCommit", "CompleteCommit"]
    assert harness.markers.written == [
        Written(ORDERS, producer_id, epoch + 1, 0, True, 2),
        Written(USERS, producer_id, epoch + 1, 0, True, 2),
    ]


def test_no_marker_is_written_before_prepare_is_committed() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.writer.holding = True
    answer = harness.ask_end(producer)
    assert answer.waits
    assert harness.markers.tries == 0
    harness.writer.release()
    assert answer.error is ErrorCode.NONE
    assert len(harness.markers.written) == 2


def test_the_answer_does_not_wait_for_markers() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    assert harness.ask_end(producer).error is ErrorCode.NONE
    assert harness.state() == "PrepareCommit"
    harness.markers.release()
    assert harness.state() == "CompleteCommit"


def test_while_markers_are_written_everybody_has_to_come_again() -> None:
    harness = TransactionHarness()
    producer_id, epoch = begun(harness)
    harness.markers.holding = True
    harness.end((producer_id, epoch))
    bumped = (producer_id, epoch + 1)
    waiting = harness.ask_add(bumped, ORDERS)
    assert waiting.waits
    assert harness.add(bumped) is CONCURRENT
    assert harness.offsets(bumped).error is CONCURRENT
    assert harness.ask_init().error is CONCURRENT
    assert harness.ask_init(producer=bumped).error is CONCURRENT
    assert harness.ask_end((producer_id, epoch)).error is CONCURRENT
    assert harness.ask_end((producer_id, epoch), commit=False).error is ErrorCode.INVALID_TXN_STATE
    assert harness.ask_end(bumped).error is ErrorCode.PRODUCER_FENCED
    assert harness.ask_end(bumped, version=4).error is CONCURRENT
    assert harness.ask_end(bumped, version=4, commit=False).error is ErrorCode.INVALID_TXN_STATE
    assert harness.coordinator.verify_partitions(TX, *bumped, [ORDERS]) == {ORDERS: CONCURRENT}
    harness.markers.release()
    assert not waiting.waits
    assert harness.state() == "Ongoing"


def test_the_next_transaction_waits_for_the_end_of_the_last_one_but_not_for_long() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    producer = harness.end(producer)
    waiting = harness.ask_add(producer, ORDERS)
    harness.advance(HOLD_ALONE_MS - 1)
    assert waiting.waits
    harness.advance(1)
    (topic,) = waiting.response.results_by_topic_v3_and_below
    assert topic.results_by_partition[0].partition_error_code == CONCURRENT
    harness.markers.errors.clear()
    waiting = harness.ask_add(producer, ORDERS)
    harness.advance(RETRY_MAX_MS)
    assert harness.state() == "Ongoing"


def test_a_request_of_several_transactions_waits_less() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    producer = harness.end(producer)
    topics = [AddPartitionsToTxnTopic("orders", [0])]
    request = AddPartitionsToTxnRequest(
        transactions=[
            AddPartitionsToTxnTransaction(TX, *producer, False, topics),
            AddPartitionsToTxnTransaction("other", *harness.init("other"), False, topics),
        ]
    )
    answer = Answer()
    harness.coordinator.add_partitions_to_txn(5, request, answer)
    assert answer.waits
    harness.advance(HOLD_TOGETHER_MS)
    assert not answer.waits


def test_who_waits_for_an_end_is_told_when_the_coordinator_goes() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    waiting = harness.ask_add(harness.end(producer), ORDERS)
    harness.coordinator.runtime.unload(harness.coordinator.partition_for(TX))
    (topic,) = waiting.response.results_by_topic_v3_and_below
    assert topic.results_by_partition[0].partition_error_code == ErrorCode.NOT_COORDINATOR


def test_the_next_producer_id_is_known_before_the_markers_are_written() -> None:
    harness = TransactionHarness()
    producer_id, _ = harness.init()
    for _ in range(EPOCH_MAX - 1):
        _, epoch = harness.init()
    assert epoch == EPOCH_MAX - 1
    assert harness.add((producer_id, epoch), ORDERS) is ErrorCode.NONE
    harness.markers.holding = True
    following = harness.end((producer_id, epoch))
    assert following == (producer_id + 1, 0)
    waiting = harness.ask_add(following, ORDERS)
    assert harness.coordinator.verify_partitions(TX, *following, [ORDERS]) == {ORDERS: CONCURRENT}
    harness.markers.release()
    assert not waiting.waits
    assert harness.known().producer_id == following[0]
    assert harness.state() == "Ongoing"


def test_description_tells_which_partitions_still_wait_for_their_marker() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    harness.end(producer)
    answer = Answer()
    harness.coordinator.describe_transactions(0, DescribeTransactionsRequest([TX]), answer)
    (state,) = answer.response.transaction_states
    assert [(topic.topic, topic.partitions) for topic in state.topics] == [("users", [1])]


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.TRANSACTION_COORDINATOR_FENCED,
        ErrorCode.UNKNOWN_SERVER_ERROR,
    ],
    ids=lambda error: error.name,
)
def test_markers_that_fail_are_tried_again_alone_and_with_backoff(error: ErrorCode) -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = error
    harness.end(producer)
    assert [marker.partition for marker in harness.markers.written] == [ORDERS]
    harness.advance(60_000)
    assert harness.state() == "PrepareCommit"
    least, most = 60_000 // RETRY_MAX_MS, 60_000 // RETRY_MAX_MS + 10
    assert least <= harness.markers.tries <= most
    del harness.markers.errors[USERS]
    harness.advance(RETRY_MAX_MS)
    assert harness.state() == "CompleteCommit"
    assert [marker.partition for marker in harness.markers.written] == [ORDERS, USERS]


def test_the_first_retry_is_soon() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    harness.end(producer)
    harness.markers.errors.clear()
    harness.advance(RETRY_MIN_MS)
    assert harness.state() == "CompleteCommit"


def test_partitions_that_were_deleted_need_no_marker() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    del harness.topics.partitions["users"]
    harness.end(producer)
    assert harness.state() == "CompleteCommit"
    assert [marker.partition for marker in harness.markers.written] == [ORDERS]


def test_a_topic_deleted_while_its_marker_fails_no_longer_holds_the_transaction() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    harness.end(producer)
    harness.advance(5_000)
    assert harness.state() == "PrepareCommit"
    del harness.topics.partitions["users"]
    harness.advance(RETRY_MAX_MS)
    assert harness.state() == "CompleteCommit"


def test_a_partition_with_a_newer_epoch_of_the_producer_is_passed_over() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.INVALID_PRODUCER_EPOCH
    harness.end(producer, commit=False)
    assert harness.state() == "CompleteAbort"


def test_a_marker_without_an_answer_is_written_again() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    harness.end(producer)
    (take,) = harness.markers.held
    harness.markers.held.clear()
    harness.markers.holding = False
    (completion,) = (
        completion
        for index in range(PARTITIONS)
        for completion in harness.coordinator.runtime.read(index).completions.values()
    )
    completion._answered({})
    harness.advance(RETRY_MIN_MS)
    assert harness.state() == "CompleteCommit"
    take()  # the answer of the first one comes after all
    assert harness.state() == "CompleteCommit"
    assert harness.states_in_log().count("CompleteCommit") == 1


# -- the log -----------------------------------------------------------------------------------------------------


def test_while_a_record_is_on_its_way_everybody_has_to_come_again() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.writer.holding = True
    first = harness.ask_end(producer)
    assert harness.ask_end(producer).error is CONCURRENT
    assert harness.ask_init().error is CONCURRENT
    assert harness.add(producer, ("orders", 3)) is CONCURRENT
    assert harness.coordinator.verify_partitions(TX, *producer, [ORDERS]) == {ORDERS: ErrorCode.NONE}
    harness.writer.release()
    assert first.error is ErrorCode.NONE


def test_the_first_start_of_an_id_is_one_at_a_time() -> None:
    harness = TransactionHarness()
    harness.writer.holding = True
    first = harness.ask_init()
    assert harness.ask_init().error is CONCURRENT
    assert harness.add((1_000, 0)) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    harness.writer.release()
    assert first.error is ErrorCode.NONE


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_a_refused_append_leaves_everything_as_it_was(refused: ErrorCode, told: ErrorCode) -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.writer.refuse_with = refused
    assert harness.ask_end(producer).error is told
    assert harness.add(producer, ("orders", 3)) is told
    assert harness.ask_init().error is told
    assert harness.ask_init("other").error is told
    harness.writer.refuse_with = ErrorCode.NONE
    assert harness.known().producer_epoch == producer[1]
    assert harness.end(producer) == (producer[0], producer[1] + 1)
    assert harness.state() == "CompleteCommit"


def test_a_refused_last_record_is_written_later() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    harness.end(producer)
    harness.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    harness.markers.release()
    harness.advance(5_000)
    assert harness.state() == "PrepareCommit"
    harness.writer.refuse_with = ErrorCode.NONE
    harness.advance(RETRY_MAX_MS)
    assert harness.state() == "CompleteCommit"
    assert harness.markers.tries == 1


def test_prepare_that_is_committed_after_its_answer_timed_out_still_ends_the_transaction() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.writer.holding = True
    answer = harness.ask_end(producer)
    harness.advance(harness.config.write_timeout_ms)
    assert answer.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert harness.ask_end(producer).error is CONCURRENT
    assert harness.markers.tries == 0
    harness.writer.holding = False
    harness.writer.release()
    harness.advance(RETRY_MAX_MS)
    assert harness.state() == "CompleteCommit"
    assert harness.ask_end(producer).error is ErrorCode.NONE


def test_complete_that_is_committed_late_is_written_once() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.holding = True
    harness.end(producer)
    harness.writer.holding = True
    harness.markers.release()
    harness.advance(harness.config.write_timeout_ms * 3)
    harness.writer.release()
    assert harness.state() == "CompleteCommit"
    assert harness.states_in_log().count("CompleteCommit") == 1


def test_a_lost_write_means_to_load_again_and_the_log_decides() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    partition = harness.coordinator.partition_for(TX)
    harness.writer.holding = True
    answer = harness.ask_end(producer)
    harness.writer.release(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert answer.error is ErrorCode.NOT_COORDINATOR
    assert harness.failed_partitions == [partition]
    harness.writer.holding = False
    harness.load(partition)
    assert harness.state() == "CompleteCommit"


# -- loading -----------------------------------------------------------------------------------------------------


def test_before_and_while_a_partition_loads_nobody_is_served() -> None:
    harness = TransactionHarness(load=False)
    assert harness.ask_init().error is ErrorCode.NOT_COORDINATOR
    partition = harness.coordinator.partition_for(TX)
    assert harness.coordinator.runtime.load_begin(partition, 0)
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.ask_init().error is loading
    assert harness.ask_end((1, 0)).error is loading
    assert harness.add((1, 0)) is loading
    assert harness.coordinator.verify_partitions(TX, 1, 0, [ORDERS]) == {ORDERS: loading}
    answer = Answer()
    harness.coordinator.list_transactions(2, ListTransactionsRequest(), answer)
    assert answer.error is loading
    harness.coordinator.runtime.load_end(partition)
    assert harness.ask_init().error is ErrorCode.NONE


@pytest.mark.parametrize("commit", [True, False])
def test_a_successor_ends_what_was_prepared_just_so(commit: bool) -> None:
    harness = TransactionHarness()
    producer_id, epoch = begun(harness)
    harness.markers.holding = True
    harness.end((producer_id, epoch), commit=commit)
    late = harness.markers.held
    harness.markers.held = []
    harness.markers.holding = False
    harness.successor()
    assert harness.state() == ("CompleteCommit" if commit else "CompleteAbort")
    assert {marker.commit for marker in harness.markers.written} == {commit}
    assert {marker.coordinator_epoch for marker in harness.markers.written} == {1}
    for take in late:
        take()
    assert {marker.commit for marker in harness.markers.written} == {commit}
    assert harness.end((producer_id, epoch), commit=commit) == (producer_id, epoch + 1)


def test_a_successor_has_the_state_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    done = harness.init("done")
    harness.add(done, transactional_id="done")
    harness.end(done, transactional_id="done")
    before = {name: harness.records(name)[-1].encode() for name in (TX, "done")}
    harness.successor()
    for name, record in before.items():
        shard = harness.coordinator.runtime.read(harness.coordinator.partition_for(name))
        assert shard.record(name, harness.known(name)).encode() == record
    assert harness.end(producer) == (producer[0], producer[1] + 1)


def test_markers_carry_the_epoch_of_a_coordinator_that_stays() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    partition = harness.coordinator.partition_for(TX)
    assert not harness.coordinator.runtime.load_begin(partition, 7)
    harness.end(producer)
    assert {marker.coordinator_epoch for marker in harness.markers.written} == {7}


def test_unloading_answers_who_waits_and_stops_every_timer() -> None:
    harness = TransactionHarness()
    producer = begun(harness)
    harness.markers.errors[USERS] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    harness.end(producer)
    harness.writer.holding = True
    answer = harness.ask_init("other")
    for partition in range(PARTITIONS):
        harness.coordinator.runtime.unload(partition)
    assert answer.error is ErrorCode.NOT_COORDINATOR
    assert len(harness.timers) == 0


def test_a_damaged_record_is_never_served() -> None:
    harness = TransactionHarness(load=False)
    harness.coordinator.runtime.load_begin(0, 0)
    harness.coordinator.runtime.load_record(0, b"\0\0\0\3abc", b"\0\1\0")
    harness.coordinator.runtime.load_end(0)
    assert harness.coordinator.runtime.error_of(0) is ErrorCode.NOT_COORDINATOR


def test_records_of_versions_from_the_future_are_skipped() -> None:
    harness = TransactionHarness(load=False)
    harness.coordinator.runtime.load_begin(0, 0)
    harness.coordinator.runtime.load_record(0, b"\0\7\0\3abc", b"what")
    harness.coordinator.runtime.load_record(0, b"\0\0\0\3abc", b"\0\7what")
    harness.coordinator.runtime.load_end(0)
    assert harness.coordinator.runtime.error_of(0) is ErrorCode.NONE


# -- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_transaction_past_its_timeout_is_aborted_under_another_epoch(version: int) -> None:
    harness = TransactionHarness(version=version, abort_interval_ms=1_000)
    producer_id, epoch = begun(harness)
    harness.advance(9_000)
    assert harness.state() == "Ongoing"
    harness.advance(3_000)
    assert harness.state() == "CompleteAbort"
    assert {(marker.commit, marker.producer_epoch) for marker in harness.markers.written} == {
        (False, epoch + 1)
    }
    assert harness.ask_end((producer_id, epoch), version=4).error is ErrorCode.PRODUCER_FENCED


def test_more_partitions_do_not_prolong_a_transaction() -> None:
    harness = TransactionHarness(abort_interval_ms=1_000)
    producer = begun(harness)
    harness.advance(8_000)
    assert harness.add(producer, ("orders", 5)) is ErrorCode.NONE
    harness.advance(4_000)
    assert harness.state() == "CompleteAbort"


def test_each_transaction_has_its_time() -> None:
    harness = TransactionHarness(abort_interval_ms=1_000)
    producer = begun(harness)
    harness.advance(8_000)
    producer = harness.end(producer)
    assert harness.add(producer) is ErrorCode.NONE
    harness.advance(8_000)
    assert harness.state() == "Ongoing"
    harness.advance(4_000)
    assert harness.state() == "CompleteAbort"


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_a_clock_that_jumps_ends_nothing_and_keeps_nothing_open(jump_ms: int) -> None:
    harness = TransactionHarness(abort_interval_ms=1_000)
    begun(harness)
    harness.clock.wall_offset_ms += jump_ms
    harness.advance(8_000)
    assert harness.state() == "Ongoing"
    harness.advance(4_000)
    assert harness.state() == "CompleteAbort"


def test_a_successor_gives_no_transaction_more_than_its_time() -> None:
    harness = TransactionHarness(abort_interval_ms=1_000)
    begun(harness)
    harness.advance(8_000)
    harness.successor()
    harness.advance(4_000)
    assert harness.state() == "CompleteAbort"
    producer = harness.init()
    assert harness.add(producer) is ErrorCode.NONE
    harness.clock.wall_offset_ms -= DAY_MS
    harness.successor()
    harness.advance(12_000)
    assert harness.state() == "CompleteAbort"


def test_a_fence_that_cannot_be_written_bumps_the_epoch_once() -> None:
    harness = TransactionHarness()
    _, epoch = begun(harness)
    harness.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    for _ in range(3):
        assert harness.ask_init().error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    harness.writer.refuse_with = ErrorCode.NONE
    assert harness.ask_init().error is CONCURRENT
    assert harness.known().producer_epoch == epoch + 1


def test_ids_that_are_not_used_expire_and_open_transactions_do_not() -> None:
    harness = TransactionHarness(abort_interval_ms=2**31 - 1)
    begun(harness)
    harness.init("idle")
    harness.advance(6 * DAY_MS)
    assert harness.states_in_log("idle") == ["Empty"]
    harness.advance(DAY_MS + 2 * 3_600_000)
    assert harness.states_in_log("idle") == ["Empty", "tombstone"]
    assert harness.states_in_log() == ["Empty", "Ongoing"]
    answer = Answer()
    harness.coordinator.describe_transactions(0, DescribeTransactionsRequest(["idle"]), answer)
    assert answer.response.transaction_states[0].error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert harness.init("idle")[1] == 0


def test_many_expired_ids_go_in_batches_until_none_is_left() -> None:
    harness = TransactionHarness()
    for number in range(2_500):
        harness.init(f"id-{number}")
    for partition in range(PARTITIONS):
        harness.coordinator.runtime.unload(partition)
    harness.coordinator = harness.make()
    harness.coordinator.partition_count = PARTITIONS
    harness.epoch += 1
    harness.load_all()
    harness.advance(8 * DAY_MS)
    left = [len(harness.coordinator.runtime.read(partition).transactions) for partition in range(PARTITIONS)]
    assert left == [0] * PARTITIONS


# -- producer ids --------------------------------------------------------------------------------------------------


def test_a_producer_id_that_takes_its_time() -> None:
    harness = TransactionHarness()
    harness.producer_ids.holding = True
    first, second = harness.ask_init(), harness.ask_init()
    assert first.waits
    assert second.waits
    harness.producer_ids.release()
    assert (first.response.producer_id, first.response.producer_epoch) == (1_000, 0)
    assert (second.response.producer_id, second.response.producer_epoch) == (1_000, 1)


def test_without_a_producer_id_there_is_none() -> None:
    harness = TransactionHarness()
    harness.producer_ids.error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.ask_init().error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert harness.ask_init(None).error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def test_without_a_transactional_id_any_broker_answers() -> None:
    harness = TransactionHarness(load=False)
    assert harness.ask_init(None).response.producer_id == 1_000


def test_the_coordinator_goes_while_a_producer_id_is_allocated() -> None:
    harness = TransactionHarness()
    harness.producer_ids.holding = True
    answer = harness.ask_init()
    harness.coordinator.runtime.unload(harness.coordinator.partition_for(TX))
    harness.producer_ids.release()
    assert answer.error is ErrorCode.NOT_COORDINATOR


# -- brokers -------------------------------------------------------------------------------------------------------


def test_a_request_of_many_transactions_is_answered_when_all_are() -> None:
    harness = TransactionHarness()
    names = [f"tx-{number}" for number in range(20)]
    producers = {name: harness.init(name) for name in names}
    harness.writer.holding = True
    request = AddPartitionsToTxnRequest(
        transactions=[
            AddPartitionsToTxnTransaction(
                name, *producers[name], False, [AddPartitionsToTxnTopic("orders", [0, 1])]
            )
            for name in names
        ]
    )
    answer = Answer()
    harness.coordinator.add_partitions_to_txn(5, request, answer)
    harness.writer.release(count=19)
    assert answer.waits
    harness.writer.release()
    assert {result.transactional_id for result in answer.response.results_by_transaction} == set(names)
    assert {harness.state(name) for name in names} == {"Ongoing"}
    assert harness.known(names[0]).client_version == 2


def test_an_empty_request_is_answered() -> None:
    harness = TransactionHarness()
    answer = Answer()
    harness.coordinator.add_partitions_to_txn(5, AddPartitionsToTxnRequest(), answer)
    assert answer.response.results_by_transaction == []


# -- transaction.version -------------------------------------------------------------------------------------------


def test_the_log_has_the_version_that_every_broker_can_read() -> None:
    old = TransactionHarness(version=0)
    begun(old)
    assert {value[:2] for log in old.writer.logs.values() for _, value in log if value} == {b"\0\0"}
    assert old.end((1_000, 0), version=4) == (-1, -1)
    old.version = 2
    old.successor()
    assert old.known().previous_producer_id == -1
    assert old.add((1_000, 0)) is ErrorCode.NONE
    assert old.end((1_000, 0)) == (1_000, 1)
    assert old.records()[-1].version == 1


def test_a_record_too_long_for_its_format_is_refused() -> None:
    harness = TransactionHarness()
    assert harness.ask_init("x" * 32_767).error is ErrorCode.NONE
    assert harness.ask_init("x" * 32_768).error is ErrorCode.UNKNOWN_SERVER_ERROR
    assert harness.ask_init("x" * 32_768).error is ErrorCode.UNKNOWN_SERVER_ERROR
