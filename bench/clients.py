"""Real clients: librdkafka (confluent-kafka) in this process, Kafka's own performance tools as JVMs.

Here the client works more than the node: these rows say what an application sees. Every run checks that each record
was acknowledged, or came back.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.raw_client import BenchError
from bench.servers import class_path, java

if TYPE_CHECKING:
    from confluent_kafka import Consumer

TIMEOUT_S = 180.0
TOOL_JVM_FLAGS = ("-Xmx512M", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
"""The heap of bin/kafka-producer-perf-test.sh."""
CONSUME_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class ClientResult:
    records: int
    payload: int
    wall_s: float
    client_cpu_s: float
    """In the same time as `wall_s`; of a JVM, estimated from the whole life of its process."""


def rdkafka_produce(bootstrap: str, topic: str, *, records: int, size: int, acks: str) -> ClientResult:
    """librdkafka with its defaults but `acks`; the wall time ends with the last acknowledgement."""
    from confluent_kafka import Producer

    failures: list[str] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({"bootstrap.servers": bootstrap, "acks": acks})
    value = os.urandom(size)
    began, cpu_began = time.perf_counter(), time.process_time()
    left = records
    while left:
        try:
            producer.produce(topic, value, on_delivery=delivered)
            left -= 1
        except BufferError:  # its queue is full: let acknowledgements in
            producer.poll(0.05)
        if failures or time.perf_counter() - began > TIMEOUT_S:
            break
    unsent = producer.flush(TIMEOUT_S)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    if failures or unsent or left:
        raise BenchError(f"{len(failures)} records failed ({failures[:1]}), {unsent + left} were not sent")
    return ClientResult(records, records * size, wall, cpu)


def rdkafka_consume(bootstrap: str, topic: str, *, partitions: int, records: int, size: int) -> ClientResult:
    """librdkafka from the beginning of every partition until `records` are here; time counts from the first ones."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,  # its 1000 ms would be measured: it pauses with a full queue
        }
    )
    deadline = time.monotonic() + TIMEOUT_S
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        received, payload = take(consumer, 1)
        first = received
        began, cpu_began = time.perf_counter(), time.process_time()
        while received < records:
            # Never more than are left: the call waits for all it asks for.
            count, size_taken = take(consumer, min(CONSUME_BATCH, records - received))
            received += count
            payload += size_taken
            if time.monotonic() > deadline:
                raise BenchError(f"{received} of {records} records in {TIMEOUT_S:.0f} s")
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    finally:
        consumer.close()
    if payload != received * size:
        raise BenchError(f"{received} records with {payload} bytes, expected {received * size}")
    timed = received - first
    return ClientResult(timed, timed * size, wall, cpu)


def take(consumer: Consumer, count: int) -> tuple[int, int]:
    """(records, bytes of values) of up to `count` records."""
    messages = consumer.consume(count, 10.0 if count == 1 else 1.0)
    for message in messages:
        if message.error() is not None:
            raise BenchError(f"librdkafka: {message.error()}")
    return len(messages), sum(len(message.value() or b"") for message in messages)


PRODUCED = re.compile(r"(\d+) (?:steady state )?records sent, ([\d.]+) records/sec .* 99\.9th")


def java_produce(
    bootstrap: str, topic: str, *, records: int, size: int, acks: str, warmup: int
) -> ClientResult:
    """ProducerPerformance; its first `warmup` records are sent but not counted."""
    output, busy = run_tool(
        "org.apache.kafka.tools.ProducerPerformance",
        "--topic", topic, "--num-records", str(records + warmup), "--warmup-records", str(warmup),
        "--record-size", str(size), "--throughput", "-1", "--bootstrap-server", bootstrap,
        "--command-property", f"acks={acks}",
    )  # fmt: skip
    rate = parse_producer_output(output, records)
    return ClientResult(records, records * size, records / rate, busy * records / rate)


def parse_producer_output(output: str, records: int) -> float:
    """Records/s of the last summary line, the one behind the warm-up."""
    found = PRODUCED.findall(output)
    if not found or int(found[-1][0]) != records:
        raise BenchError(f"ProducerPerformance did not send {records} records: {output[-300:]}")
    return float(found[-1][1])


def java_consume(bootstrap: str, topic: str, *, records: int, size: int) -> ClientResult:
    """ConsumerPerformance with a new group, from the beginning of the topic."""
    output, busy = run_tool(
        "org.apache.kafka.tools.ConsumerPerformance",
        "--bootstrap-server", bootstrap, "--topic", topic, "--num-records", str(records), "--timeout", "30000",
    )  # fmt: skip
    received, fetch_s = parse_consumer_output(output, records)
    return ClientResult(received, received * size, fetch_s, busy * fetch_s)


def parse_consumer_output(output: str, records: int) -> tuple[int, float]:
    """(records, seconds of fetching without the join of the group) from the tool's CSV."""
    lines = [line.split(", ") for line in output.splitlines() if line.count(",") >= 9]
    if len(lines) < 2:
        raise BenchError(f"ConsumerPerformance printed no result: {output[-300:]}")
    columns = dict(zip(lines[0], lines[-1], strict=False))
    received = int(columns["data.consumed.in.nMsg"])
    if received < records:
        raise BenchError(f"ConsumerPerformance received {received} of {records} records")
    return received, int(columns["fetch.time.ms"]) / 1000


def run_tool(main_class: str, *arguments: str) -> tuple[str, float]:
    """Output of one of Kafka's tools, and the share of a CPU that it took from start to end."""
    command = [java(), *TOOL_JVM_FLAGS, "-cp", class_path(), main_class, *arguments]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    after, wall = os.times(), time.perf_counter() - began
    if done.returncode:
        raise BenchError(f"{main_class.rpartition('.')[2]} failed: {(done.stdout + done.stderr)[-300:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, cpu / wall
