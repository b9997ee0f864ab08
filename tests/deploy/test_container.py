"""The image, run: a node in a container with a read-only root file system and no capabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from deploy.engine import IMAGE, Container, Engine, await_true, docker, needs_engine
from interop.cluster import free_ports

pytestmark = [needs_engine, pytest.mark.timeout(180)]

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
OTHER_CLUSTER = "4L6g3nShT-eMCtK--X86sw"
OVER_BASE_MAX = 150_000_000
ALONE_OF_THREE = (
    *("-e", f"CLUSTER_ID={CLUSTER}", "-e", "KAFKA_PROCESS_ROLES=broker", "-e", "KAFKA_NODE_ID=5"),
    *("-e", "KAFKA_CONTROLLER_QUORUM_VOTERS=1@nowhere:9093,2@127.0.0.1:1"),
    *("-e", "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER"),
    *("-e", "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://here:9092"),
)
"""A broker whose controllers are nowhere."""
FIRST_INSTRUCTION = "LABEL org.opencontainers.image.title"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.destroy()


def reachable(port: int) -> tuple[str, ...]:
    """Options for a lone node that clients on this machine reach."""
    return (
        "-p", f"127.0.0.1:{port}:9092",
        "-e", "KAFKA_LISTENERS=PLAINTEXT://:9092",
        "-e", f"KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://localhost:{port}",
    )  # fmt: skip


def keep(volume: str) -> tuple[str, ...]:
    return "-v", f"{volume}:/var/lib/kafka/data"


def write(bootstrap: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce("orders", value.encode())
    assert producer.flush(30) == 0


def read(bootstrap: str, count: int) -> list[str]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"])
    found = [message.value().decode() for message in consumer.consume(count, 30)]
    consumer.close()
    return found


def refusal(node: Container) -> str:
    """The one line with which it ended."""
    code, errors = node.await_end()
    assert code == 1, errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("odradek: ")
    return line


def test_clients_of_this_machine_and_data_that_outlives_containers(engine: Engine) -> None:
    (port,) = free_ports(1)
    volume = engine.volume()
    node = engine.container(*reachable(port), *keep(volume))
    node.await_ready()
    write(f"localhost:{port}", "one", "two")
    node.await_healthy()
    assert node.stop() < 10
    assert node.state()["ExitCode"] == 0
    assert "recovered" not in node.output()[0]
    identity = engine.as_root(volume, "cat meta.properties")
    docker("rm", node.name)
    again = engine.container(*reachable(port), *keep(volume))
    again.await_ready()
    assert read(f"localhost:{port}", 2) == ["one", "two"]
    assert engine.as_root(volume, "cat meta.properties") == identity


def test_kill_9_and_a_grace_period_of_nothing_lose_nothing(engine: Engine) -> None:
    (port,) = free_ports(1)
    node = engine.container(*reachable(port))
    node.await_ready()
    write(f"localhost:{port}", "one")
    docker("kill", node.name)
    assert node.state()["ExitCode"] == 137
    docker("start", node.name)
    node.await_ready(times=2)
    write(f"localhost:{port}", "two")
    node.stop(grace_s=0)
    docker("start", node.name)
    node.await_ready(times=3)
    assert read(f"localhost:{port}", 2) == ["one", "two"]


def test_the_tools_have_kafkas_names_and_places(engine: Engine) -> None:
    node = engine.container()
    node.await_ready()
    node.run("kafka-topics.sh", "--create", "--topic", "orders", "--bootstrap-server", "localhost:9092")
    listed = node.run("/opt/kafka/bin/kafka-topics.sh", "--list", "--bootstrap-server", "localhost:9092")
    assert listed.stdout.split() == ["orders"]


def test_it_is_nobody_special(engine: Engine) -> None:
    node = engine.container()
    node.await_ready()
    assert node.run("id", "-u").stdout.strip() == "1000"
    for path in ("/x", "/opt/kafka/x", "/etc/kafka/docker/x"):
        assert "Read-only file system" in node.run("touch", path, check=False).stderr


def test_any_user_id_will_do_as_long_as_its_group_is_0(engine: Engine) -> None:
    node = engine.container("--user", "123456:0")
    node.await_ready()
    assert node.run("id", "-u").stdout.strip() == "123456"


def test_sigterm_ends_a_node_that_waits_for_others(engine: Engine) -> None:
    """Process 1 gets no signal that it does not handle: `docker stop` would take its whole grace period."""
    node = engine.container(*ALONE_OF_THREE)
    await_true(lambda: node.run("odradek", "health", "--live", check=False).returncode == 0, node.output)
    assert node.stop(grace_s=60) < 30
    assert node.state()["ExitCode"] == 0


def test_a_mounted_file_variables_and_arguments(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "server.properties").write_text("num.partitions=2\nlog.retention.hours=7\n")
    (tmp_path / "id").write_text(f"{CLUSTER}\n")
    tmp_path.chmod(0o755)
    node = engine.container(
        *("-v", f"{tmp_path}:/mnt/shared/config:ro", "-e", "CLUSTER_ID_FILE=/mnt/shared/config/id"),
        command=("/etc/kafka/docker/run", "KAFKA_NUM_PARTITIONS=3"),
    )
    assert node.await_ready()["cluster_id"] == CLUSTER
    server = ("--bootstrap-server", "localhost:9092")
    node.run("kafka-topics.sh", "--create", "--topic", "orders", *server)
    described = node.run("kafka-topics.sh", "--describe", "--topic", "orders", *server).stdout
    assert "PartitionCount: 3" in described
    shown = node.run(
        "kafka-configs.sh", "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1", *server
    ).stdout
    assert "log.retention.hours=7" in shown


def test_a_volume_that_belongs_to_somebody_else(engine: Engine) -> None:
    volume = engine.volume()
    # Not empty: the engine gives an empty volume to the user of the image.
    engine.as_root(volume, "mkdir lost+found && chown 0:0 . && chmod 700 .")
    line = refusal(engine.container(*keep(volume)))
    assert "/var/lib/kafka/data is not writable for this process (uid 1000" in line
    assert "chown" in line
    assert engine.files(volume) == {}


def test_a_volume_of_a_node_that_was_run_as_root(engine: Engine) -> None:
    volume = engine.volume()
    node = engine.container(*keep(volume), "--user", "0:0")
    node.await_ready()
    node.stop()
    engine.as_root(volume, "chmod 777 . && find . -type f -exec chmod 644 {} +")
    before = engine.files(volume)
    line = refusal(engine.container(*keep(volume)))
    assert "is not writable for this process (uid 1000" in line
    assert engine.files(volume) == before


def test_a_volume_that_cannot_be_written_to(engine: Engine) -> None:
    volume = engine.volume()
    line = refusal(engine.container("-v", f"{volume}:/var/lib/kafka/data:ro"))
    assert "/var/lib/kafka/data" in line
    assert engine.files(volume) == {}


def test_a_volume_of_another_cluster_or_node_stays_as_it_is(engine: Engine) -> None:
    volume = engine.volume()
    node = engine.container(*keep(volume), "-e", f"CLUSTER_ID={OTHER_CLUSTER}")
    node.await_ready()
    node.stop()
    before = engine.files(volume)
    assert before
    line = refusal(engine.container(*keep(volume), "-e", f"CLUSTER_ID={CLUSTER}"))
    assert OTHER_CLUSTER in line
    line = refusal(engine.container(*keep(volume), "-e", "KAFKA_NODE_ID=2"))
    assert "Stored node id 1 doesn't match node id 2" in line
    assert engine.files(volume) == before


def test_a_volume_that_another_container_uses(engine: Engine) -> None:
    volume = engine.volume()
    node = engine.container(*keep(volume))
    node.await_ready()
    assert "Another process is using this directory" in refusal(engine.container(*keep(volume)))
    assert node.state()["Running"]


def test_a_cluster_without_an_id(engine: Engine) -> None:
    volume = engine.volume()
    line = refusal(engine.container(*keep(volume), *ALONE_OF_THREE, "-e", "CLUSTER_ID="))
    assert "CLUSTER_ID environment variable not set" in line
    assert engine.files(volume) == {}


def test_peers_that_cannot_be_reached(engine: Engine) -> None:
    patience = "KAFKA_INITIAL_BROKER_REGISTRATION_TIMEOUT_MS=2000"
    line = refusal(engine.container(*ALONE_OF_THREE, "-e", patience))
    assert "unable to register with the controller quorum within 2000 ms" in line


def test_what_it_adds_to_its_base(engine: Engine) -> None:
    layers = [
        json.loads(line)
        for line in docker(
            "history", "--no-trunc", "--human=false", "--format", "{{json .}}", IMAGE
        ).stdout.splitlines()
    ]
    ours = next(
        index
        for index, layer in enumerate(layers)
        if layer["CreatedBy"].lstrip("/").find(FIRST_INSTRUCTION) >= 0
    )
    assert sum(int(layer["Size"]) for layer in layers[:ours]) <= OVER_BASE_MAX
