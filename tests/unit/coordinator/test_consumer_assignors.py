"""The server's assignors: balance first, then stickiness; whatever the subscriptions."""

from __future__ import annotations

from random import Random

import pytest

from odradek.coordinator.group.consumer.assignors import (
    Assignment,
    MemberSpec,
    assign_range,
    assign_uniform,
)


def spec(topics: str, assigned: dict[str, set[int]] | None = None, instance: str | None = None) -> MemberSpec:
    """Topics are single letters."""
    had = {name.encode(): frozenset(numbers) for name, numbers in (assigned or {}).items()}
    return MemberSpec(instance, frozenset(name.encode() for name in topics), had)


def counts(**topics: int) -> dict[bytes, int]:
    return {name.encode(): count for name, count in topics.items()}


def check_complete(assignment: Assignment, members: dict[str, MemberSpec], topics: dict[bytes, int]) -> None:
    """Each partition that somebody wants has one owner, who wants it."""
    owners: dict[tuple[bytes, int], str] = {}
    assert assignment.keys() == members.keys()
    for member_id, partitions in assignment.items():
        for topic_id, numbers in partitions.items():
            assert topic_id in members[member_id].topics
            assert numbers, "empty entries are left out"
            for number in numbers:
                assert owners.setdefault((topic_id, number), member_id) == member_id, "two owners"
    wanted = {topic_id for member in members.values() for topic_id in member.topics}
    assert owners.keys() == {(topic_id, n) for topic_id in wanted for n in range(topics[topic_id])}


def sizes(assignment: Assignment) -> dict[str, int]:
    return {member_id: sum(map(len, partitions.values())) for member_id, partitions in assignment.items()}


def test_range_gives_the_same_partition_of_every_topic_to_the_same_member() -> None:
    members = {name: spec("ab") for name in ("m2", "m1", "m3")}
    result = assign_range(members, counts(a=7, b=7), True)
    check_complete(result, members, counts(a=7, b=7))
    assert [sorted(result[name][b"a"]) for name in ("m1", "m2", "m3")] == [[0, 1, 2], [3, 4], [5, 6]]
    assert all(result[name][b"a"] == result[name][b"b"] for name in members)


def test_range_takes_static_members_first_by_their_instances() -> None:
    members = {"a": spec("t"), "z": spec("t", instance="i1"), "y": spec("t", instance="i2")}
    result = assign_range(members, counts(t=3), True)
    assert [result[name][b"t"] for name in ("z", "y", "a")] == [{0}, {1}, {2}]


def test_range_with_more_members_than_partitions_leaves_the_last_ones_without() -> None:
    members = {f"m{i}": spec("t") for i in range(4)}
    result = assign_range(members, counts(t=2), True)
    assert [bool(result[f"m{i}"]) for i in range(4)] == [True, True, False, False]


def test_uniform_keeps_what_may_be_kept() -> None:
    members = {"a": spec("t", {"t": {0, 1, 2, 3, 4, 5}}), "b": spec("t"), "c": spec("t")}
    result = assign_uniform(members, counts(t=6), True)
    check_complete(result, members, counts(t=6))
    assert sizes(result) == {"a": 2, "b": 2, "c": 2}
    assert result["a"][b"t"] < {0, 1, 2, 3, 4, 5}


def test_uniform_moves_nothing_when_a_balanced_member_stays() -> None:
    members = {"a": spec("t", {"t": {0, 3}}), "b": spec("t", {"t": {1, 4}})}
    result = assign_uniform(members, counts(t=6), True)
    assert {0, 3} < result["a"][b"t"]
    assert {1, 4} < result["b"][b"t"]


def test_uniform_drops_topics_that_are_not_wanted_any_more() -> None:
    members = {"a": spec("u", {"t": {0, 1}, "u": {0}})}
    assert assign_uniform(members, counts(u=2), True) == {"a": {b"u": frozenset({0, 1})}}


def test_uniform_without_partitions_gives_everybody_nothing() -> None:
    assert assign_uniform({"a": spec(""), "b": spec("")}, {}, True) == {"a": {}, "b": {}}
    assert assign_uniform({}, {}, True) == {}


def test_uniform_balances_over_different_subscriptions() -> None:
    members = {"a": spec("xy"), "b": spec("y"), "c": spec("xyz")}
    topics = counts(x=6, y=6, z=3)
    result = assign_uniform(members, topics, False)
    check_complete(result, members, topics)
    assert sizes(result) == {"a": 5, "b": 5, "c": 5}


@pytest.mark.parametrize("seed", range(60))
def test_random_groups_are_balanced_and_sticky(seed: int) -> None:
    rng = Random(seed)
    names = "pqrstu"[: rng.randint(1, 6)]
    topics = counts(**{name: rng.randint(1, 12) for name in names})
    homogeneous = seed % 2 == 0
    members: dict[str, MemberSpec] = {}
    for _ in range(12):
        step = rng.choice(("join", "join", "leave", "grow"))
        if step == "leave" and members:
            del members[rng.choice(sorted(members))]
        elif step == "grow":
            topics[rng.choice(sorted(topics))] += 1
        else:
            wanted = names if homogeneous else "".join(rng.sample(names, rng.randint(1, len(names))))
            members[f"m{rng.randrange(1000)}"] = spec(wanted)
        if not members:
            continue
        before = {name: member.assigned for name, member in members.items()}
        result = assign_uniform(members, topics, homogeneous)
        check_complete(result, members, topics)
        _check_balance(result, members)
        _check_stickiness(result, before, members, homogeneous)
        members = {name: MemberSpec(None, member.topics, result[name]) for name, member in members.items()}
        again = assign_uniform(members, topics, homogeneous)
        assert again == result, "an assignment that is balanced stays"


def _check_balance(result: Assignment, members: dict[str, MemberSpec]) -> None:
    """Nobody could hand one of its partitions to another subscriber who has two less."""
    have = sizes(result)
    for giver, partitions in result.items():
        for topic_id in partitions:
            for taker, member in members.items():
                if topic_id in member.topics:
                    assert have[giver] - have[taker] <= 1, (giver, taker, have)


def _check_stickiness(
    result: Assignment, before: Assignment, members: dict[str, MemberSpec], homogeneous: bool
) -> None:
    """With equal subscriptions only what is above a member's fair share moves."""
    if not homogeneous:
        return
    have = sizes(result)
    for member_id in members:
        lost = sum(
            len(numbers - result[member_id].get(topic_id, frozenset()))
            for topic_id, numbers in before[member_id].items()
        )
        had = sum(map(len, before[member_id].values()))
        assert lost == max(0, had - have[member_id])
