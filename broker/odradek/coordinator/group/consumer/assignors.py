"""The server's assignors, by name: who of a group shall have which partitions.

    range    of each topic a contiguous range for each member that wants it, in the order of instance and member ids:
             partition n of topics with equally many partitions goes to the same member (co-partitioning)
    uniform  numbers of partitions that differ by one at most; what a member has, it keeps if it may

Both look at numbers only: neither Kafka 4.3 nor this goes by racks (what Kafka's first assignors did of it was taken
out again). Topics are ids, and only such as exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from odradek.coordinator.group.consumer.member import Partitions

PASSES_MAX = 16
"""Rounds over all topics until an assignment with differing subscriptions is taken as it is."""


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """What an assignor may know of a member."""

    instance_id: str | None
    topics: frozenset[bytes]
    """What it subscribes to."""
    assigned: Partitions
    """Its target until now."""


Members: TypeAlias = Mapping[str, MemberSpec]
Counts: TypeAlias = Mapping[bytes, int]
"""How many partitions each topic has."""
Assignment: TypeAlias = dict[str, Partitions]
"""A target for every member."""
Assignor: TypeAlias = Callable[[Members, Counts, bool], Assignment]
"""The last argument says that all members want the same topics."""
_Work: TypeAlias = dict[str, dict[bytes, set[int]]]

# -- range -------------------------------------------------------------------------------------------------------


def assign_range(members: Members, counts: Counts, homogeneous: bool) -> Assignment:
    order = sorted(members, key=lambda each: _range_order(each, members[each]))
    result: dict[str, dict[bytes, frozenset[int]]] = {member_id: {} for member_id in order}
    for topic_id, wanting in _subscribers(order, members).items():
        quota, extra = divmod(counts[topic_id], len(wanting))
        start = 0
        for place, member_id in enumerate(wanting):
            end = start + quota + (1 if place < extra else 0)
            if end > start:
                result[member_id][topic_id] = frozenset(range(start, end))
            start = end
    return dict(result)


def _range_order(member_id: str, member: MemberSpec) -> tuple[bool, str]:
    """Static members first, whose instance ids survive their restarts."""
    return member.instance_id is None, member.instance_id or member_id


def _subscribers(order: Sequence[str], members: Members) -> dict[bytes, list[str]]:
    subscribers: dict[bytes, list[str]] = {}
    for member_id in order:
        for topic_id in members[member_id].topics:
            subscribers.setdefault(topic_id, []).append(member_id)
    return subscribers


# -- uniform -----------------------------------------------------------------------------------------------------


def assign_uniform(members: Members, counts: Counts, homogeneous: bool) -> Assignment:
    if not members:
        return {}
    kept, free = _kept(members, counts)
    if homogeneous:
        _fill_equally(kept, free, sum(counts.values()))
    else:
        _fill_by_topic(kept, free, members, counts)
    return {
        member_id: {topic_id: frozenset(numbers) for topic_id, numbers in topics.items() if numbers}
        for member_id, topics in kept.items()
    }


def _kept(members: Members, counts: Counts) -> tuple[_Work, dict[bytes, set[int]]]:
    """What members have and still want, and what nobody has."""
    free = {topic_id: set(range(count)) for topic_id, count in counts.items()}
    kept: _Work = {}
    for member_id, member in members.items():
        mine = kept[member_id] = {}
        for topic_id, numbers in member.assigned.items():
            if topic_id in member.topics:
                left = free[topic_id]
                mine[topic_id] = {number for number in numbers if number in left}
                left -= mine[topic_id]
    return kept, free


def _fill_equally(kept: _Work, free: dict[bytes, set[int]], total: int) -> None:
    """Everybody gets the same number, and those that have most already one of the partitions left over."""
    quota, extra = divmod(total, len(kept))
    sizes = {member_id: sum(map(len, topics.values())) for member_id, topics in kept.items()}
    loose = [(topic_id, number) for topic_id in sorted(free) for number in sorted(free[topic_id])]
    hungry: list[tuple[str, int]] = []
    for place, member_id in enumerate(sorted(kept, key=lambda each: -sizes[each])):
        room = quota + (1 if place < extra else 0) - sizes[member_id]
        if room < 0:
            loose += _give_up(kept[member_id], -room)
        elif room > 0:
            hungry.append((member_id, room))
    at = 0
    for member_id, room in hungry:
        for topic_id, number in loose[at : at + room]:
            kept[member_id].setdefault(topic_id, set()).add(number)
        at += room
    assert at == len(loose), "a partition without a member"


def _give_up(topics: dict[bytes, set[int]], count: int) -> list[tuple[bytes, int]]:
    """The last of the topics of which it has most: the rest stays even."""
    given: list[tuple[bytes, int]] = []
    sizes = [(-len(numbers), topic_id) for topic_id, numbers in topics.items()]
    heapify(sizes)
    for _ in range(count):
        size, topic_id = heappop(sizes)
        number = max(topics[topic_id])
        topics[topic_id].remove(number)
        given.append((topic_id, number))
        heappush(sizes, (size + 1, topic_id))
    return given


def _fill_by_topic(kept: _Work, free: dict[bytes, set[int]], members: Members, counts: Counts) -> None:
    """Topic by topic, those with most partitions for each subscriber first: what is free goes to who has least, then
    from who has most to who has least, over all topics again until nothing moves."""
    subscribers = _subscribers(list(members), members)
    sizes = {member_id: sum(map(len, topics.values())) for member_id, topics in kept.items()}
    order = sorted(
        (topic_id for topic_id in counts if topic_id in subscribers),
        key=lambda each: (-counts[each] / len(subscribers[each]), len(subscribers[each]), each),
    )
    for topic_id in order:
        if not free[topic_id]:
            continue
        waiting = [(sizes[member_id], place) for place, member_id in enumerate(subscribers[topic_id])]
        heapify(waiting)
        for number in sorted(free[topic_id]):
            size, place = heappop(waiting)
            member_id = subscribers[topic_id][place]
            kept[member_id].setdefault(topic_id, set()).add(number)
            sizes[member_id] += 1
            heappush(waiting, (size + 1, place))
    for _ in range(PASSES_MAX):
        moved = [_balance(topic_id, subscribers[topic_id], kept, sizes) for topic_id in order]
        if not any(moved):
            return


def _balance(topic_id: bytes, wanting: list[str], kept: _Work, sizes: dict[str, int]) -> bool:
    """Move partitions of one topic while one subscriber has at least two more (of all topics) than another."""
    loads = [sizes[member_id] for member_id in wanting]
    if max(loads) - min(loads) < 2:
        return False
    least = [(sizes[member_id], place) for place, member_id in enumerate(wanting)]
    most = [(-sizes[each], place) for place, each in enumerate(wanting) if kept[each].get(topic_id)]
    heapify(least)
    heapify(most)
    moved = False
    while most:
        size, place = heappop(most)
        giver = wanting[place]
        if -size != sizes[giver]:
            if kept[giver].get(topic_id):
                heappush(most, (-sizes[giver], place))
            continue
        while least and least[0][0] != sizes[wanting[least[0][1]]]:
            _, stale = heappop(least)
            heappush(least, (sizes[wanting[stale]], stale))
        low, taker_place = least[0]
        if -size - low < 2:
            return moved
        taker = wanting[taker_place]
        number = max(kept[giver][topic_id])
        kept[giver][topic_id].remove(number)
        kept[taker].setdefault(topic_id, set()).add(number)
        sizes[giver] -= 1
        sizes[taker] += 1
        moved = True
        if kept[giver][topic_id]:
            heappush(most, (-sizes[giver], place))
        heappush(most, (-sizes[taker], taker_place))
    return moved


ASSIGNORS: Mapping[str, Assignor] = {"uniform": assign_uniform, "range": assign_range}
"""What `group.consumer.assignors` may name. Kafka takes Java classes as well."""
