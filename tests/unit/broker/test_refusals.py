"""When refusals by other nodes end this one."""

from __future__ import annotations

from dataclasses import replace

from odradek.broker.refusals import PATIENCE_MS, Refusals
from odradek.metadata.delta import MetadataDelta
from support.node_harness import NodeHarness

NEVER = -1


def test_a_refusal_counts_when_it_has_lasted_long_enough_from_the_first_on() -> None:
    refusals = Refusals()
    refusals.heard(1, "two nodes", 0)
    refusals.heard(1, "two nodes", PATIENCE_MS - 1)
    assert refusals.verdict(NEVER, PATIENCE_MS - 1) is None
    assert refusals.verdict(NEVER, PATIENCE_MS) == "two nodes"


def test_a_refusal_taken_back_does_not_count() -> None:
    refusals = Refusals()
    refusals.heard("host:1", "another cluster", 0)
    refusals.heard("host:1", None, PATIENCE_MS)
    refusals.heard("host:1", "another cluster", PATIENCE_MS + 1)
    assert refusals.verdict(NEVER, PATIENCE_MS + 2) is None


def test_whom_the_leader_answers_goes_on_and_for_a_while_after() -> None:
    refusals = Refusals()
    refusals.heard(2, "another cluster", 0)
    assert refusals.verdict(leader_heard_ms=9 * PATIENCE_MS, now_ms=9 * PATIENCE_MS) is None
    assert refusals.verdict(leader_heard_ms=9 * PATIENCE_MS, now_ms=10 * PATIENCE_MS) == "another cluster"


def test_a_node_started_alone_stops_where_metadata_knows_other_brokers() -> None:
    harness = NodeHarness()
    node, image, said = harness.node, harness.node.image, list[str]()
    node.on_fatal = said.append
    own = image.brokers[node.config.node_id]
    others = replace(image, brokers={each: replace(own, id=each) for each in (node.config.node_id, 2, 3)})
    for _ in range(2):
        node.on_metadata(MetadataDelta(others), others)
    assert len(said) == 1
    assert "belongs to a cluster with the brokers" in said[0]
    assert "2, 3, and this node was started alone" in said[0]
    assert node.image is image
    assert node.stopping
