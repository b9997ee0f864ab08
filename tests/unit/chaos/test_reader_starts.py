"""Where readers begin: at offsets, never at what the client library would look up again later."""

from __future__ import annotations

from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from odradek.chaos.clients import Starts, Topic

TOPICS = [Topic("a", 2), Topic("b", 1)]


class PlayedConsumer:
    """Knows beginnings and ends, of partitions whose leader answers."""

    def __init__(self, silent: set[tuple[str, int]]) -> None:
        self.silent = silent
        self.asked: list[tuple[str, int]] = []
        self.assigned: list[tuple[str, int, int]] = []

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        self.asked.append((partition.topic, partition.partition))
        if self.asked[-1] in self.silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 3, 10 + partition.partition

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned += [(each.topic, each.partition, each.offset) for each in partitions]


def starts(consumer: PlayedConsumer, *, at_end: bool) -> Starts:
    return Starts(cast(Consumer, consumer), TOPICS, at_end=at_end)


def test_readers_begin_at_offsets_not_at_logical_ones() -> None:
    ends, beginnings = PlayedConsumer(set()), PlayedConsumer(set())
    starts(ends, at_end=True).more()
    starts(beginnings, at_end=False).more()
    assert ends.assigned == [("a", 0, 10), ("a", 1, 11), ("b", 0, 10)]
    assert beginnings.assigned == [("a", 0, 3), ("a", 1, 3), ("b", 0, 3)]


def test_a_leader_that_does_not_answer_keeps_nobody_from_reading_the_others() -> None:
    consumer = PlayedConsumer({("a", 1)})
    reader = starts(consumer, at_end=True)
    reader.more()
    assert consumer.assigned == [("a", 0, 10)], (
        "one that is silent ends the round: what is assigned is read now"
    )
    reader.more()
    assert consumer.assigned == [("a", 0, 10), ("b", 0, 10)]
    consumer.silent.clear()
    reader.more()
    reader.more()
    assert consumer.assigned == [("a", 0, 10), ("b", 0, 10), ("a", 1, 11)]
    assert len(consumer.asked) == 5, "what is assigned is not asked for again"
