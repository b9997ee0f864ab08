"""The manifests' own commands, environments, probes and hooks with real processes, as a StatefulSet would use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.engine import needs_engine
from integration.clients import TOPIC, Writer, read
from interop.cluster import eventually, unique
from k8s import render
from k8s.container_pods import ContainerCluster, ContainerPod
from k8s.local_pods import PATIENCE_S, LocalCluster, LocalPod
from k8s.pods import named

Cluster = LocalCluster | ContainerCluster
AnyPod = LocalPod | ContainerPod


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    made = LocalCluster(render.kept("dev"), tmp_path)
    yield made
    made.destroy()


@pytest.fixture(params=["processes", pytest.param("containers", marks=needs_engine)])
def any_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """The overlay dev, on this machine or in containers of the image that is tested."""
    manifest = render.kept("dev")
    local = request.param == "processes"
    made = (
        LocalCluster(manifest, tmp_path) if local else ContainerCluster(manifest, tmp_path, unique("odradek"))
    )
    yield made
    made.destroy()


def brokers(cluster: Cluster, count: int = 3) -> list[Any]:
    workload = named(cluster.manifest, "StatefulSet", "kafka")
    return [cluster.pod(workload, ordinal) for ordinal in range(count)]


def heard(pod: AnyPod, probe: str) -> tuple[int, dict[str, Any]]:
    """What the probe says, however long a busy machine takes to say it: the kubelet would ask again, too."""

    def said() -> tuple[int, dict[str, Any]] | None:
        status, body = pod.says(probe)
        return (status, body) if status else None

    return eventually(said, PATIENCE_S, f"{probe}: nobody answers") or (0, {})


def clients_of(pods: list[AnyPod]) -> Any:
    """What the clients of the integration tests want to know of a cluster."""
    return SimpleNamespace(bootstrap=",".join(each.outside for each in pods), at_end=[])


def create_topic(pod: AnyPod) -> None:
    """The command of the usual guides, in the pod."""
    words = "kafka-topics.sh --bootstrap-server kafka-0.kafka-headless.kafka.svc.cluster.local:9092 --create"
    done = pod.run([*words.split(), "--topic", TOPIC, "--partitions", "3"])
    assert (done.returncode, done.stdout) == (0, f"Created topic {TOPIC}.\n"), done.stderr


def test_a_stateful_set_starts_rolls_and_grows_while_clients_write(any_cluster: Cluster) -> None:
    first, *others = pods = brokers(any_cluster)
    first.start()
    eventually(lambda: first.says("startupProbe")[0] == 200, PATIENCE_S, "not started")
    status, said = heard(first, "readinessProbe")
    assert status == 503 and "the broker is not registered and unfenced yet" in said["reasons"]
    assert heard(first, "livenessProbe")[0] == 200, "who waits for others is not restarted"
    for each in others:  # podManagementPolicy: Parallel
        each.start()
    for each in pods:
        each.await_ready()
    create_topic(first)
    clients = clients_of(pods)
    writer = Writer(clients, TOPIC, partitions=3)
    try:
        writer.await_more()
        for each in reversed(pods):  # a rolling update: the highest ordinal first, the next when it is ready
            hook = each.pre_stop()
            assert (hook.returncode, hook.stderr) == (0, "")
            assert each.stop() == 0
            each.start()
            each.await_ready()
        writer.await_more()
        # kubectl scale --replicas=4: no voter, so a broker only.
        fourth = any_cluster.pod(first.pod.workload, 3)
        fourth.start()
        fourth.await_ready()
        at = ["--bootstrap-server", "kafka-0.kafka-headless.kafka.svc.cluster.local:9092"]
        assert len(first.run(["kafka-cluster.sh", "list-endpoints", *at]).stdout.splitlines()) == 1 + 4
        # And back: no replica is there.
        assert fourth.pre_stop().returncode == 0
        assert fourth.stop() == 0
        gone = first.run(["kafka-cluster.sh", "unregister", *at, "--id", "3"])
        assert (gone.returncode, gone.stdout) == (0, "Broker 3 is no longer registered.\n"), gone.stderr
        again = first.run(["kafka-cluster.sh", "unregister", *at, "--id", "3"])
        assert again.returncode == 1 and "Broker ID 3 is not currently registered" in again.stderr
        # A second node must wait to go: replicas and controllers would be too few.
        assert pods[2].stop() == 0
        because = [f"{TOPIC}-0", "only 1 of 3 controllers would be left, which is no majority"]
        eventually(
            lambda: all(why in first.pre_stop_says() for why in because),
            PATIENCE_S,
            "it is told that it may stop",
        )
        pods[2].start()
        pods[2].await_ready()
        writer.finish()
    finally:
        writer.abandon()
    found = read(clients, TOPIC, 3, count=len(writer.acknowledged))
    assert sum(map(len, found.values())) == len(writer.acknowledged) == writer.sent


def test_separate_controllers(tmp_path: Path) -> None:
    cluster = LocalCluster(render.kept("separate-controllers"), tmp_path)
    try:
        pods = brokers(cluster)
        controllers = [
            cluster.pod(named(cluster.manifest, "StatefulSet", "kafka-controller"), ordinal)
            for ordinal in range(3)
        ]
        for each in (*pods, *controllers):
            each.start()
        for each in (*pods, *controllers):
            each.await_ready()
        create_topic(pods[0])
        hook = controllers[1].pre_stop()
        assert hook.returncode == 0, hook.stderr
        assert controllers[1].stop() == 0
        pods[0].await_ready()
        # Not in the list of voters.
        fourth = cluster.pod(controllers[0].pod.workload, 3)
        fourth.start()
        code, line = fourth.await_end()
        assert code == 1 and "node 103, which is not among KAFKA_CONTROLLER_QUORUM_VOTERS" in line
    finally:
        cluster.destroy()


def test_what_is_wrong_with_a_pod_is_one_line_and_exit_code_1(cluster: LocalCluster) -> None:
    first, second, third = brokers(cluster)
    first.start(POD_NAME="kafka-7d9c5b6f4-x2x9q")
    assert first.await_end()[1].startswith(
        "odradek: POD_NAME=kafka-7d9c5b6f4-x2x9q does not end in an ordinal"
    )
    (first.secrets / "cluster-id").rename(first.secrets / "aside")
    first.start()
    code, line = first.await_end()
    assert code == 1 and line.startswith("odradek: CLUSTER_ID_FILE: cannot read")
    assert not first.data.exists(), "nothing is formatted"
    (first.secrets / "aside").rename(first.secrets / "cluster-id")
    first.start()
    eventually(lambda: first.says("startupProbe")[0] == 200, PATIENCE_S, "not started")
    assert first.stop() == 0
    # The volume of another pod, and then of another cluster.
    second.data.parent.mkdir(parents=True)
    first.data.rename(second.data)
    second.start()
    code, line = second.await_end()
    assert code == 1 and "node" in line and str(second.data) in line
    (first.secrets / "cluster-id").write_text("MkU3OEVBNTcwNTJENDM2Qg")
    second.data.rename(first.data)
    first.start()
    code, line = first.await_end()
    assert code == 1 and "belongs to cluster 5L6g3nShT-eMCtK--X86sw" in line
    (first.secrets / "cluster-id").write_text("5L6g3nShT-eMCtK--X86sw")
    first.start(ODRADEK_STOP_GRACE_SECONDS="5")
    code, line = first.await_end()
    assert code == 1 and "ODRADEK_STOP_GRACE_SECONDS=5: a controlled shutdown may take" in line
    # A secret that is another one than the others'.
    (first.secrets / "internal-secret").write_text("short")
    third.start()
    code, line = third.await_end()
    assert code == 1 and "a secret has 16 to 4096 bytes, not 5" in line
