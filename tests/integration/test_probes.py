"""What probes say of three real nodes while replicas fall behind and nodes go (broker/README.md, "Probes")."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.admin import ResourceType

from integration.clients import TOPIC, create_topic
from integration.machines import PATIENCE_S, Cluster
from integration.test_throttles import RATE, alter, write
from interop.cluster import eventually
from odradek.cli.health import PROBES, ask, asked
from odradek.cli.options import ToolError

pytestmark = pytest.mark.timeout(120)

RECORDS = 100
"""Of 100 KB each, at RATE: five seconds behind."""


def says(cluster: Cluster, node_id: int, probe: str) -> tuple[int, list[str]]:
    """Status and reasons."""
    status, body = ask("localhost", cluster.layout.node(node_id).metrics_port, PROBES[probe], 5.0)
    return status, json.loads(body)["reasons"]


def await_all(cluster: Cluster, probe: str) -> None:
    for node_id in cluster.ids:
        eventually(
            lambda node_id=node_id: says(cluster, node_id, probe)[0] == 200, PATIENCE_S, f"not {probe}"
        )


def test_a_broker_is_ready_again_when_its_replicas_are_in_sync(cluster: Cluster) -> None:
    create_topic(cluster)
    await_all(cluster, "ready")
    await_all(cluster, "may-stop")
    behind = next(node for node in cluster.ids if node not in (cluster.leader(TOPIC), cluster.controller()))
    others = [node for node in cluster.ids if node != behind]
    for node in cluster.ids:
        alter(cluster, ResourceType.BROKER, str(node), follower_replication_throttled_rate=str(RATE))
    alter(cluster, ResourceType.TOPIC, TOPIC, follower_replication_throttled_replicas="*")
    cluster.kill(behind)
    cluster.await_isr(TOPIC, 2)
    write(cluster, RECORDS)

    def is_needed(node_id: int) -> bool:
        status, reasons = says(cluster, node_id, "may-stop")
        told = " ".join(reasons)
        return status == 503 and f"{TOPIC}-0" in told and "only 1 of 3 controllers would be left" in told

    for node in others:
        assert says(cluster, node, "ready") == (200, []), "those that are there are ready without it"
        eventually(lambda node=node: is_needed(node), PATIENCE_S, "it is said that it may stop")
    cluster.start(behind, ready=False)

    def lags() -> bool:
        status, reasons = says(cluster, behind, "ready")
        return status == 503 and reasons == [f"replicas not in sync: {TOPIC}-0 (1)"]

    eventually(lambda: cluster.processes[behind].answers(), PATIENCE_S, "it does not serve clients")
    eventually(lags, PATIENCE_S, "a broker that is behind is called ready")
    assert says(cluster, behind, "startup")[0] == says(cluster, behind, "live")[0] == 200
    await_all(cluster, "ready")
    assert len(cluster.partition(TOPIC).isr_nodes) == 3
    await_all(cluster, "may-stop")


def test_without_controllers_a_broker_is_alive_and_not_ready(cluster: Cluster) -> None:
    create_topic(cluster)
    last = cluster.ids[0]
    cluster.kill(*cluster.ids[1:])

    def is_cut_off() -> bool:
        status, reasons = says(cluster, last, "ready")
        return status == 503 and "no controller has answered a heartbeat" in reasons[0]

    eventually(is_cut_off, PATIENCE_S, "it is called ready")
    assert says(cluster, last, "live") == (200, [])
    with pytest.raises(ToolError, match="no active controller answers"):
        asked("localhost", cluster.layout.node(last).metrics_port, "may-stop", 5.0)
    cluster.start(cluster.ids[1], ready=False)
    eventually(lambda: says(cluster, last, "ready")[0] == 200, PATIENCE_S, "not ready with a majority")
