"""The hash by which a group notices that its topics have changed: bit for bit Kafka's."""

from __future__ import annotations

from odradek.coordinator.group.consumer.topics import TopicCatalog, topic_hash
from odradek.wire.uuid import uuid_from_string
from unit.coordinator.group_harness import Topics

ODD_NAME = "t\u00f6pic\U0001f600"


def test_hashes_are_those_of_kafkas_library() -> None:
    """The expected numbers are hash4j's, fed as Kafka 4.3 feeds it."""
    counted = bytes(range(1, 17))
    assert topic_hash(ODD_NAME, counted, [["r2", "r1"], [], ["zone-\u00e9"]]) == -1411860662552027270
    negative = b"\xff" * 8 + (7).to_bytes(8, "big")
    assert topic_hash("abc", negative, [[], []]) == -8425494951764134375


def test_a_groups_hash_is_the_one_that_kafka_wrote() -> None:
    """Taken from the record of a group of Kafka 4.3.1 whose topic had this id."""
    topics = Topics(orders=8)
    topics.ids["orders"] = uuid_from_string("mI76WdpvS-iu044qh4qLZA")
    catalog = TopicCatalog(topics)
    assert catalog.hash_of(["orders"]) == -4754559922579060500
    assert catalog.hash_of(["orders", "nowhere"]) == -4754559922579060500
    assert catalog.hash_of([]) == catalog.hash_of(["nowhere"]) == 0


def test_topics_are_taken_by_name_and_remembered_until_they_change() -> None:
    topics = Topics(orders=8, users=4)
    catalog = TopicCatalog(topics)
    before = catalog.hash_of(["users", "orders"])
    assert catalog.hash_of(["orders", "users"]) == before
    topics.partitions["users"] = 5
    assert catalog.hash_of(["orders", "users"]) == before
    catalog.changed({"users"}, created=False)
    assert catalog.hash_of(["orders", "users"]) != before
