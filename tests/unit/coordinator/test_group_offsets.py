"""Offsets: limits, expiry, deleted topics. The rest is in the transcripts."""

from __future__ import annotations

import pytest

from odradek.coordinator.group import shard as shard_module
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from unit.coordinator.group_harness import GROUP, Harness, subscription
from unit.coordinator.memory import WALL_START_MS

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def test_metadata_is_measured_as_java_measures_strings() -> None:
    h = Harness(offset_metadata_max_bytes=8)
    assert h.commit_errors({("orders", 0): 1}, metadata="ünïcödé!") == [ErrorCode.NONE]
    assert h.commit_errors({("orders", 0): 1}, metadata="😀😀😀😀") == [ErrorCode.NONE]
    assert h.commit_errors({("orders", 0): 1}, metadata="😀😀😀😀.") == [ErrorCode.OFFSET_METADATA_TOO_LARGE]


def test_null_metadata_is_stored_as_none() -> None:
    h = Harness()
    h.commit({("orders", 0): 1}, metadata=None)
    assert h.fetch([("orders", 0)]).response.groups[0].topics[0].partitions[0].metadata == ""


def test_one_bad_partition_does_not_keep_the_others_from_being_committed() -> None:
    h = Harness()
    errors = h.commit_errors({("orders", 99): 1, ("orders", 0): 5, ("nowhere", 0): 1})
    assert sorted(errors) == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert h.committed() == {("orders", 0): 5}


def test_the_record_carries_the_topic_id_the_leader_epoch_and_the_time() -> None:
    h = Harness()
    h.advance(1_234)
    h.commit({("orders", 3): 42}, metadata="m")
    (record,) = h.writer.records()
    assert record.value == OffsetCommitValue(
        offset=42,
        leader_epoch=5,
        metadata="m",
        commit_timestamp=WALL_START_MS + 1_234,
        topic_id=h.topics.ids["orders"],
    )


def test_one_request_is_one_batch() -> None:
    h = Harness()
    h.commit({("orders", partition): partition for partition in range(8)})
    assert h.writer.batches == 1


def test_an_offset_of_a_topic_that_was_recreated_is_not_given_to_who_asks_by_id() -> None:
    h = Harness()
    h.commit({("orders", 0): 5})
    h.topics.ids["orders"] = b"another topic id"
    fetched = h.fetch([("orders", 0)], version=10).response.groups[0].topics[0].partitions[0]
    assert (fetched.committed_offset, fetched.error_code) == (-1, 0)
    assert h.committed() == {("orders", 0): 5}


def test_all_offsets_by_id_leave_out_topics_without_one() -> None:
    h = Harness()
    h.commit({("orders", 0): 5, ("users", 0): 6})
    del h.topics.ids["users"]
    (group,) = h.fetch(None, version=10).response.groups
    assert [topic.topic_id for topic in group.topics] == [h.topics.ids["orders"]]


# -- expiry ------------------------------------------------------------------------------------------------------


def test_offsets_of_a_simple_group_expire_after_their_last_commit() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.advance(4 * DAY)
    h.commit({("orders", 1): 1})
    h.advance(3 * DAY + 11 * MINUTE)
    assert h.committed() == {("orders", 1): 1}
    h.advance(4 * DAY)
    assert h.committed() == {}
    assert h.state() == "Dead"


def test_offsets_of_a_group_with_members_expire_after_it_became_empty() -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=1_800_000, protocols=[("range", subscription("orders"))])
    h.commit({("orders", 0): 1}, member_id=leader.member_id, generation=1)
    for _ in range(8 * 24 * 2):
        h.advance(30 * MINUTE - 1)
        assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE
    assert h.committed() == {("orders", 0): 1}
    h.leave(leader.member_id)
    h.advance(7 * DAY - 1)
    assert h.committed() == {("orders", 0): 1}
    h.advance(11 * MINUTE)
    assert h.committed() == {}
    assert h.state() == "Dead"


def test_offsets_of_topics_nobody_subscribes_to_any_more_expire_in_a_live_group() -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=1_800_000, protocols=[("range", subscription("orders"))])
    h.commit({("orders", 0): 1, ("users", 0): 1}, member_id=leader.member_id, generation=1)
    for _ in range(7 * 24 * 2 + 4):
        h.advance(30 * MINUTE - 1)
        h.heartbeat(leader.member_id, 1)
    assert h.committed() == {("orders", 0): 1}
    assert h.state() == "Stable"


@pytest.mark.parametrize("metadata", [b"", b"\0\1\x7f\xff\xff\xff"])
def test_where_subscriptions_are_not_known_nothing_expires(metadata: bytes) -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=1_800_000, protocols=[("range", metadata)])
    h.commit({("orders", 0): 1}, member_id=leader.member_id, generation=1)
    for _ in range(8 * 24 * 2):
        h.advance(30 * MINUTE - 1)
        h.heartbeat(leader.member_id, 1)
    assert h.committed() == {("orders", 0): 1}


def test_a_client_may_choose_its_own_retention_in_old_versions() -> None:
    h = Harness()
    h.commit({("orders", 0): 1, ("orders", 1): 1}, retention_ms=60 * MINUTE, version=2)
    h.commit({("users", 0): 1})
    h.advance(59 * MINUTE)
    assert len(h.committed()) == 3
    h.advance(12 * MINUTE)
    assert h.committed() == {("users", 0): 1}


def test_an_empty_group_without_offsets_goes_at_the_next_check() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.leave(leader.member_id)
    h.join()  # an id that is given out does not keep it
    h.advance(10 * MINUTE)
    assert h.state() == "Dead"
    h.successor()
    assert h.state() == "Dead"


def test_expiry_survives_the_coordinator() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.advance(6 * DAY)
    h.successor()
    h.advance(DAY + 11 * MINUTE)
    assert h.committed() == {}


def test_many_tombstones_are_written_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "TOMBSTONES_MAX", 3)
    h = Harness()
    for group in ("a", "b"):
        h.commit({("orders", partition): 1 for partition in range(8)}, group=group)
    batches = h.writer.batches
    h.advance(8 * DAY)
    assert h.committed("a") == h.committed("b") == {}
    assert h.state("a") == h.state("b") == "Dead"
    assert h.writer.batches - batches >= 18 // 3
    assert h.coordinator.metrics.offset_expired == 16


def test_a_refused_expiry_is_tried_again_at_the_next_check() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.advance(7 * DAY - 1)
    h.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    h.advance(10 * MINUTE)
    assert h.committed() == {("orders", 0): 1}
    h.writer.refuse_with = ErrorCode.NONE
    h.advance(10 * MINUTE)
    assert h.committed() == {}


# -- deleted topics ----------------------------------------------------------------------------------------------


def test_offsets_of_deleted_topics_are_forgotten_in_all_groups() -> None:
    h = Harness()
    for group in ("a", "b", "c"):
        h.commit({("orders", 0): 1, ("orders", 1): 1, ("users", 0): 1}, group=group)
    h.coordinator.on_topics_deleted({"orders"})
    assert h.committed("a") == h.committed("b") == h.committed("c") == {("users", 0): 1}
    h.successor()
    assert h.committed("b") == {("users", 0): 1}


def test_offsets_of_the_namesake_of_a_deleted_topic_stay() -> None:
    h = Harness()
    old_id = h.topics.ids["orders"]
    h.commit({("orders", 0): 1})
    h.topics.ids["orders"] = b"another topic id"
    h.commit({("orders", 1): 1})
    h.coordinator.on_topics_deleted({"orders"}, {"orders": old_id})
    assert h.committed() == {("orders", 1): 1}


def test_deleting_a_topic_that_nobody_reads_writes_nothing() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    batches = h.writer.batches
    h.coordinator.on_topics_deleted({"users"})
    assert h.writer.batches == batches


def test_a_partition_that_is_loading_is_left_alone() -> None:
    h = Harness(load=False)
    h.coordinator.runtime.load_begin(h.coordinator.partition_for(GROUP), 0)
    h.coordinator.on_topics_deleted({"orders"})
    assert h.writer.batches == 0
