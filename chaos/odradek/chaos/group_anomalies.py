"""Committed offsets that are lost or fall back by themselves, and partitions with two owners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from odradek.chaos.history import FAILED, OK, UNKNOWN, Assigned, Commit, Fetched
from odradek.chaos.model import Anomaly, Model, Partition

GroupPartition = tuple[str, Partition]


def check_groups(model: Model) -> Iterator[Anomaly]:
    """G1 to G3 of CORRECTNESS.md, as clients see them."""
    commits: dict[GroupPartition, list[Commit]] = defaultdict(list)
    for commit in model.commits:
        if _outcome(model, commit) != FAILED:
            commits[commit.group, (commit.topic, commit.partition)].append(commit)
    fetched: dict[GroupPartition, list[Fetched]] = defaultdict(list)
    for each in model.fetched:
        fetched[each.group, (each.topic, each.partition)].append(each)
    for key, tellings in fetched.items():
        for telling in tellings:
            yield from _told(model, commits.get(key, []), telling)
    for key, found in commits.items():
        yield from _zombies(key, [commit for commit in found if _outcome(model, commit) == OK])
    yield from _owners(model)


def _outcome(model: Model, commit: Commit) -> str:
    """A commit within a transaction takes effect with it."""
    end = model.transaction_of(commit)
    return commit.outcome if end is None or commit.outcome == FAILED else end.outcome


def _effect(model: Model, commit: Commit) -> tuple[int, int]:
    """(not before, certain from): between these the commit takes effect."""
    end = model.transaction_of(commit)
    return (commit.invoked, commit.completed) if end is None else (end.invoked, end.completed)


def _told(model: Model, commits: list[Commit], telling: Fetched) -> Iterator[Anomaly]:
    """A fetched offset is the last commit before it, or one that may have come after or beside that."""
    settled = [
        each for each in commits if _outcome(model, each) == OK and _effect(model, each)[1] < telling.invoked
    ]
    if not settled:
        return
    # The last of those that are certain: whatever took effect before all of it began cannot be the answer.
    last = max(settled, key=lambda each: _effect(model, each)[0])
    began = _effect(model, last)[0]
    possible = {
        each.offset
        for each in commits
        if _effect(model, each)[0] < telling.completed
        and (_outcome(model, each) == UNKNOWN or _effect(model, each)[1] >= began)
    }
    where = f"group {telling.group}, {telling.topic}-{telling.partition}"
    if telling.offset is None:
        yield Anomaly(
            "lost-commit", f"{where}: {last.offset} was committed, and later there was none", (last, telling)
        )
    elif telling.offset not in possible:
        yield Anomaly(
            "offset-fell-back" if telling.offset < last.offset else "lost-commit",
            f"{where}: {last.offset} was committed, and later the group was told {telling.offset}",
            (last, telling),
        )


def _zombies(key: GroupPartition, commits: list[Commit]) -> Iterator[Anomaly]:
    """G3: once a later generation has committed, no earlier one does."""
    newest: Commit | None = None
    known = sorted((each for each in commits if each.generation is not None), key=lambda each: each.completed)
    done = 0
    for commit in sorted(known, key=lambda each: each.invoked):
        while done < len(known) and known[done].completed < commit.invoked:
            if newest is None or (known[done].generation or 0) > (newest.generation or 0):
                newest = known[done]
            done += 1
        if newest is not None and (commit.generation or 0) < (newest.generation or 0):
            group, (topic, partition) = key
            yield Anomaly(
                "zombie-commit",
                f"group {group}, {topic}-{partition}: {commit.process} committed {commit.offset} in generation "
                f"{commit.generation} after {newest.process} had in {newest.generation}",
                (newest, commit),
            )


def _owners(model: Model) -> Iterator[Anomaly]:
    """G1: in one generation, a partition has one owner."""
    owners: dict[tuple[str, int, Partition], Assigned] = {}
    for each in sorted(model.assigned, key=lambda assigned: assigned.at):
        if each.generation is None:
            continue
        for partition in each.partitions:
            key = (each.group, each.generation, (partition[0], partition[1]))
            before = owners.setdefault(key, each)
            if before.owner != each.owner:
                yield Anomaly(
                    "double-owner",
                    f"group {each.group}, generation {each.generation}: {partition[0]}-{partition[1]} belongs to "
                    f"{before.process} and to {each.process}",
                    (before, each),
                )
