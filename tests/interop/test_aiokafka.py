"""aiokafka, unmodified: an asyncio client with its own, older versions of the protocol."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from interop.cluster import PATIENCE_S, unique

CreateTopic = Callable[..., str]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 2 * PATIENCE_S))


async def take(consumer: AIOKafkaConsumer, count: int) -> list[Any]:
    """`count` records."""
    return [await asyncio.wait_for(consumer.getone(), PATIENCE_S) for _ in range(count)]


def test_the_snippet_of_the_introduction(bootstrap: str) -> None:
    topic = unique("my_topic")

    async def scenario() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        try:
            sent = await producer.send_and_wait(topic, b"Super message")
        finally:
            await producer.stop()
        assert (sent.partition, sent.offset) == (0, 0)
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=unique("my-group"), auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async for message in consumer:
                assert message.value == b"Super message"
                break
        finally:
            await consumer.stop()

    run(scenario())


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_with_an_idempotent_producer(
    bootstrap: str, new_topic: CreateTopic, codec: str | None
) -> None:
    topic = new_topic("codec")
    values = [os.urandom(10) * 60 for _ in range(200)]

    async def scenario() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=codec, linger_ms=10
        ) as producer:
            futures = [await producer.send(topic, value, headers=[("n", b"1")]) for value in values]
            assert [(await future).offset for future in futures] == list(range(200))
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
            part = TopicPartition(topic, 0)
            consumer.assign([part])
            await consumer.seek_to_beginning(part)
            records = await take(consumer, 200)
            assert [record.value for record in records] == values
            assert all(record.headers == (("n", b"1"),) for record in records)

    run(scenario())


def test_commit_seek_and_offsets(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group = new_topic("offsets"), unique("group")
    part = TopicPartition(topic, 0)
    base = int(time.time() * 1000) - 3_600_000

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1) as producer:
            for number in range(40):
                await producer.send_and_wait(topic, b"%d" % number, timestamp_ms=base + number)
        settings = {"bootstrap_servers": bootstrap, "group_id": group, "auto_offset_reset": "earliest"}
        async with AIOKafkaConsumer(topic, enable_auto_commit=False, **settings) as consumer:
            await take(consumer, 15)
            await consumer.commit()
            assert await consumer.committed(part) == 15
        async with AIOKafkaConsumer(topic, enable_auto_commit=False, **settings) as consumer:
            assert (await take(consumer, 1))[0].offset == 15
            assert await consumer.beginning_offsets([part]) == {part: 0}
            assert await consumer.end_offsets([part]) == {part: 40}
            found = await consumer.offsets_for_times({part: base + 33})
            assert found[part].offset == 33
            consumer.seek(part, 38)
            assert (await take(consumer, 2))[1].value == b"39"

    run(scenario())


def test_two_members_share_and_one_takes_over(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group = new_topic("shared", 4), unique("group")

    async def scenario() -> None:
        members = [AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group) for _ in range(2)]
        for member in members:
            await member.start()

        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                for member in members:
                    await member.getmany(timeout_ms=100)

        await asyncio.wait_for(
            until(lambda: [len(member.assignment()) for member in members] == [2, 2]), PATIENCE_S
        )
        await members.pop().stop()
        await asyncio.wait_for(until(lambda: len(members[0].assignment()) == 4), PATIENCE_S)
        await members[0].stop()

    run(scenario())


async def until(good: Callable[[Any], bool], ask: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Ask until the answer is good; the scenario's own timeout ends it."""
    while not good(await ask()):  # noqa: ASYNC110  what is waited for happens in another process
        await asyncio.sleep(0.05)


def test_the_admin_client(bootstrap: str) -> None:
    topic = unique("managed")

    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
            await until(lambda names: topic in names, admin.list_topics)
            await admin.create_partitions({topic: NewPartitions(3)})
            await until(
                lambda found: len(found[0]["partitions"]) == 3, lambda: admin.describe_topics([topic])
            )
            await admin.delete_topics([topic])
            await until(lambda names: topic not in names, admin.list_topics)
        finally:
            await admin.close()

    run(scenario())
