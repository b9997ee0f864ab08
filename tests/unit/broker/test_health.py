"""What a node says to probes: alive, started, ready, and what is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from odradek.broker.health import NAMES_MAX, VERDICT_KEPT_MS, Health, missing_of_broker
from odradek.metadata.image import PartitionImage
from support.node_harness import NodeHarness

ME = 1
SESSION_MS = 3_000


def broker(**changes: Any) -> Any:
    """As much of a Node as readiness looks at; everything is well unless `changes` say otherwise."""
    partitions = changes.pop("partitions", {})
    raft = SimpleNamespace(applied_offset=changes.pop("applied", 7), high_watermark=7)
    silent_ms = changes.pop("silent_ms", 0)
    directories = changes.pop("directories", [("/data", True)])
    node = SimpleNamespace(
        stopping=False,
        unfenced=True,
        listening=True,
        config=SimpleNamespace(node_id=ME, broker_session_timeout_ms=SESSION_MS),
        lifecycle=SimpleNamespace(leaving=changes.pop("leaving", False), unanswered_ms=lambda: silent_ms),
        quorum=SimpleNamespace(raft=raft, has_leader=changes.pop("has_leader", True)),
        replicas=SimpleNamespace(applied_offset=changes.pop("followed", 7)),
        image=SimpleNamespace(
            offset=7,
            topics={"t": SimpleNamespace(partitions={i: state for i, (state, _) in partitions.items()})},
        ),
        partitions={("t", i): SimpleNamespace(is_leader=serves) for i, (_, serves) in partitions.items()},
        log_directories=lambda: directories,
    )
    vars(node).update(changes)
    return node


def missing(**changes: Any) -> list[str]:
    return list(missing_of_broker(broker(**changes)))


def partition(isr: tuple[int, ...], leader: int = 2, **more: Any) -> PartitionImage:
    return PartitionImage(replicas=(1, 2, 3), isr=isr, leader=leader, **more)


def test_a_broker_that_lacks_nothing_is_ready() -> None:
    assert missing(partitions={0: (partition((1, 2, 3)), False), 1: (partition((1,), leader=1), True)}) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stopping": True}, "the node is shutting down"),
        ({"leaving": True}, "the broker is leaving: its leaderships move to others"),
        ({"unfenced": False}, "the broker is not registered and unfenced yet"),
        ({"silent_ms": 3_400}, "no controller has answered a heartbeat for 3.4 s: the broker may be fenced"),
        ({"listening": False}, "clients are not let in yet"),
        ({"directories": [("/a", True), ("/b", False)]}, "log directory /b is offline"),
        ({"followed": 5}, "metadata is applied up to offset 5 of 7"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], reason: str) -> None:
    assert missing(**changes) == [reason]


def test_a_broker_that_is_not_unfenced_says_what_it_waits_for() -> None:
    assert missing(unfenced=False, has_leader=False)[0] == "the metadata quorum has no leader"
    assert missing(unfenced=False, applied=3)[0] == "metadata is applied up to offset 3 of 7"


def test_an_unfenced_broker_stays_ready_while_controllers_are_elected() -> None:
    """Heartbeats tell within a session whether it may be fenced; an election is over before that."""
    assert missing(has_leader=False, silent_ms=SESSION_MS) == []


@pytest.mark.parametrize(
    ("state", "serves", "reason"),
    [
        (partition((2, 3)), False, "replicas not in sync: t-0 (1)"),
        (partition((1, 2, 3), leader=1), False, "partitions to be led here, and not served yet: t-0 (1)"),
        (partition((1,), leader=-1), False, "partitions to be led here, and not served yet: t-0 (1)"),
        (partition((), leader=-1, elr=(1,)), False, "partitions to be led here, and not served yet: t-0 (1)"),
        # Another one must come back first: nothing that happens here would make this broker ready.
        (partition((3,), leader=-1), False, None),
        # The replicas that count are others.
        (partition((2, 3), adding=(1,)), False, None),
        (partition((2, 3), removing=(1,)), False, None),
    ],
)
def test_a_replica_that_the_cluster_could_not_rely_on(
    state: PartitionImage, serves: bool, reason: str | None
) -> None:
    assert missing(partitions={0: (state, serves)}) == ([] if reason is None else [reason])


def test_many_replicas_make_no_long_answer() -> None:
    behind = {i: (partition((2, 3)), False) for i in range(1_000)}
    (reason,) = missing(partitions=behind)
    assert reason.count("t-") == NAMES_MAX
    assert reason.endswith(" and 995 more (1000)")


def test_a_real_node_is_ready_until_it_stops() -> None:
    harness = NodeHarness()
    harness.create_topic("t", 3)
    health = Health(harness.clock.monotonic_ms)
    assert health.live().ok and not health.started().ok and not health.ready().ok
    health.node = harness.node
    assert health.started().ok
    assert health.ready().body == {"ready": True, "reasons": []}
    harness.node.stopping = True
    assert health.ready().ok, "an answer is kept for a moment"
    harness.clock.now_ms += VERDICT_KEPT_MS
    assert health.ready().body == {"ready": False, "reasons": ["the node is shutting down"]}
    assert health.live().ok


def test_a_node_without_any_log_directory_is_not_live() -> None:
    harness = NodeHarness()
    health = Health(harness.clock.monotonic_ms)
    health.node = harness.node
    for directory in harness.node.logs.dirs:
        directory.offline = True
    assert health.live().body == {"live": False, "reasons": ["no log directory is online"]}
