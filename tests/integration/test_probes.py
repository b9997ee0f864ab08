"""What probes say of three real nodes while replicas fall behind and nodes go (broker/README.md, "Probes")."""

from __future__ import annotations

import json

import pytest

from integration.clients import TOPIC, create_topic
from integration.machines import ANSWER_S, PATIENCE_S, TIMEOUT_S, Cluster
from integration.test_throttles import HARDLY, RATE, throttle, write
from interop.cluster import eventually
from odradek.cli.health import PROBES, ask, asked
from odradek.cli.options import ToolError

pytestmark = pytest.mark.timeout(TIMEOUT_S)

RECORDS = 40
"""Of 100 KB each: more than is sent at once however low the rate is."""


def says(cluster: Cluster, node_id: int, probe: str) -> tuple[int, list[str]]:
    """Status and reasons; of a node that does not answer, 0."""
    try:
        status, body = ask("localhost", cluster.layout.node(node_id).metrics_port, PROBES[probe], ANSWER_S)
    except ToolError as error:
        return 0, [str(error)]
    return status, json.loads(body)["reasons"]


def await_said(cluster: Cluster, node_id: int, probe: str, status: int = 200) -> None:
    eventually(lambda: says(cluster, node_id, probe)[0] == status, PATIENCE_S, f"{node_id} is not {probe}")


def await_all(cluster: Cluster, probe: str) -> None:
    for node_id in cluster.ids:
        await_said(cluster, node_id, probe)


def test_a_broker_is_ready_again_when_its_replicas_are_in_sync(cluster: Cluster) -> None:
    create_topic(cluster)
    await_all(cluster, "ready")
    await_all(cluster, "may-stop")
    behind = next(node for node in cluster.ids if node not in (cluster.leader(TOPIC), cluster.controller()))
    others = [node for node in cluster.ids if node != behind]
    throttle(cluster, "follower", HARDLY)
    cluster.kill(behind)
    cluster.await_isr(TOPIC, 2)
    write(cluster, RECORDS)

    def is_needed(node_id: int) -> bool:
        status, reasons = says(cluster, node_id, "may-stop")
        told = " ".join(reasons)
        return status == 503 and f"{TOPIC}-0" in told and "only 1 of 3 controllers would be left" in told

    for node in others:
        await_said(cluster, node, "ready")  # without the one that is behind
        eventually(lambda node=node: is_needed(node), PATIENCE_S, "it is said that it may stop")
    cluster.start(behind, ready=False)

    def lags() -> bool:
        status, reasons = says(cluster, behind, "ready")
        return status == 503 and reasons == [f"replicas not in sync: {TOPIC}-0 (1)"]

    eventually(lambda: cluster.processes[behind].answers(), PATIENCE_S, "it does not serve clients")
    eventually(lags, PATIENCE_S, "a broker that is behind is called ready")
    await_said(cluster, behind, "startup")
    await_said(cluster, behind, "live")
    assert lags()
    throttle(cluster, "follower", 100 * RATE)
    await_all(cluster, "ready")
    cluster.await_isr(TOPIC, 3)
    await_all(cluster, "may-stop")


def test_without_controllers_a_broker_is_alive_and_not_ready(cluster: Cluster) -> None:
    create_topic(cluster)
    last = cluster.ids[0]
    cluster.kill(*cluster.ids[1:])

    def is_cut_off() -> bool:
        status, reasons = says(cluster, last, "ready")
        return status == 503 and "no controller has answered a heartbeat" in reasons[0]

    eventually(is_cut_off, PATIENCE_S, "it is called ready")
    await_said(cluster, last, "live")
    with pytest.raises(ToolError, match="no active controller answers"):
        asked("localhost", cluster.layout.node(last).metrics_port, "may-stop", PATIENCE_S)
    assert is_cut_off()
    cluster.start(cluster.ids[1], ready=False)
    await_said(cluster, last, "ready")
