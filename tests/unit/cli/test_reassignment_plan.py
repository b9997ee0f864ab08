"""What `kafka-reassign-partitions` works out without a cluster."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from odradek.cli.options import ToolError
from odradek.cli.reassignment_plan import (
    Part,
    Plan,
    Replica,
    as_json,
    checked,
    moves_of,
    parse_brokers,
    parse_plan,
    parse_topics,
    place,
    throttled_replicas,
)


def entry(**values: Any) -> dict[str, Any]:
    return {"topic": "t", "partition": 0, "replicas": [1, 2]} | values


def plan(*entries: dict[str, Any]) -> Plan:
    return parse_plan(json.dumps({"partitions": list(entries), "version": 1}))


def test_a_plan_has_replicas_and_the_directories_that_somebody_cares_about() -> None:
    found = plan(entry(), entry(partition=1, log_dirs=["any", "/b"]))
    assert found.replicas == {Part("t", 0): [1, 2], Part("t", 1): [1, 2]}
    assert found.directories == {Replica(2, "t", 1): "/b"}
    assert found.topics == ["t"]
    text = as_json(found.replicas, found.directories)
    assert text == (
        '{"version":1,"partitions":['
        '{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["any","any"]},'
        '{"topic":"t","partition":1,"replicas":[1,2],"log_dirs":["any","/b"]}]}'
    )
    assert parse_plan(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Error: The input string is not a valid JSON"),
        ("[]", "Error: The input string is not a valid JSON"),
        ('{"version": 2}', "Error: Not supported version field value 2"),
        ("{}", "Error: Partition reassignment list cannot be empty"),
        (json.dumps({"partitions": [entry(replicas=[])]}), "Error: Partition replica list cannot be empty"),
        (
            json.dumps({"partitions": [entry(), entry()]}),
            "Error: Partition reassignment contains duplicate topic partitions: t-0",
        ),
        (
            json.dumps({"partitions": [entry(replicas=[1, 1])]}),
            "Error: Partition replica lists may not contain duplicate entries: t-0 contains multiple entries for 1",
        ),
        (
            json.dumps({"partitions": [entry(log_dirs=["/a"])]}),
            "Error: Size of replicas list [1, 2] is different from size of log dirs list [/a] for partition t-0",
        ),
        (
            json.dumps({"partitions": [{"topic": "t"}]}),
            'Error: Each entry needs a "partition" that is a number',
        ),
        (json.dumps({"partitions": [entry(replicas=["1"])]}), 'Error: "replicas" has something else in it'),
    ],
)
def test_what_is_no_plan_is_refused_on_standard_output(text: str, said: str) -> None:
    with pytest.raises(ToolError) as refused:
        checked(parse_plan(text))
    assert str(refused.value).startswith(said)
    assert refused.value.to_stdout


def test_topics_and_brokers() -> None:
    assert parse_topics('{"topics": [{"topic": "b"}, {"topic": "a"}], "version": 1}') == ["b", "a"]
    assert parse_brokers("3,1") == [3, 1]
    with pytest.raises(ToolError, match=r"List of topics to reassign contains duplicate entries: \[a\]"):
        parse_topics('{"topics": [{"topic": "a"}, {"topic": "a"}]}')
    with pytest.raises(ToolError, match=r"Broker list contains duplicate entries: \[1\]"):
        parse_brokers("1,2,1")
    with pytest.raises(ToolError, match="no list of broker ids"):
        parse_brokers("one")


def test_who_is_throttled() -> None:
    """Sources of what is under way go on being sources; who has the replica already takes nothing."""
    ongoing = {Part("t", 0): {"replicas": [1, 2, 3], "adding_replicas": [3], "removing_replicas": [1]}}
    current = {Part("t", 0): [1, 2, 3], Part("t", 1): [1, 2]}
    moves = moves_of(ongoing, {Part("t", 0): [3, 4], Part("t", 1): [2, 3]}, current)
    assert throttled_replicas(moves) == {"t": ("0:1,0:2,1:1,1:2", "0:3,0:4,1:3")}


@pytest.mark.parametrize("seed", range(20))
def test_proposals_are_even_and_keep_replicas_apart(seed: int) -> None:
    current = {Part("t", index): [1, 2, 3] for index in range(12)}
    found = place(current, dict.fromkeys((1, 2, 3, 4), None), Random(seed))
    assert all(len(set(replicas)) == 3 for replicas in found.values())
    assert {[replicas[0] for replicas in found.values()].count(broker) for broker in (1, 2, 3, 4)} == {3}
    racks = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"}
    for replicas in place(current, racks, Random(seed)).values():
        assert {racks[broker] for broker in replicas} == {"a", "b", "c"}


def test_what_cannot_be_proposed() -> None:
    current = {Part("t", 0): [1, 2]}
    with pytest.raises(ToolError, match="Replication factor: 2 larger than available brokers: 1"):
        place(current, {1: None}, Random(1))
    with pytest.raises(ToolError, match="Not all brokers have rack information"):
        place(current, {1: "a", 2: None}, Random(1))
    assert place({Part("t", 0): [7]}, {1: None}, Random(1)) == {Part("t", 0): [1]}
