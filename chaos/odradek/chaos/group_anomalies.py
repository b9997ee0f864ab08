"""Committed offsets that are lost or fall back by themselves, and partitions with two owners."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from odradek.chaos.history import FAILED, OK, Assigned, Commit, Fetched
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
        past = _Past(model, commits.get(key, []))
        for telling in tellings:
            yield from _told(past, telling)
    for key, found in commits.items():
        yield from _zombies(key, [commit for commit in found if _outcome(model, commit) == OK])
    yield from _owners(model)


class _Past:
    """The commits of one partition, for questions about any time."""

    def __init__(self, model: Model, commits: list[Commit]) -> None:
        self._by_offset: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
        """(not before, certain from, whether it may also come at any later time)"""
        settled = []
        for commit in commits:
            start, end = _effect(model, commit)
            certain = _outcome(model, commit) == OK
            self._by_offset[commit.offset].append((start, end, not certain))
            if certain:
                settled.append((end, start, commit))
        settled.sort(key=lambda each: each[0])
        self._ends = [end for end, _, _ in settled]
        self._latest: list[tuple[int, Commit]] = []
        """Of the commits up to each end: the one that began last, and when."""
        for _, start, commit in settled:
            best = self._latest[-1] if self._latest else (-1, commit)
            self._latest.append((start, commit) if start > best[0] else best)

    def last(self, before: int) -> tuple[int, Commit] | None:
        """Of the commits that are certain by then, the one that began last, and when: what took effect before that
        cannot be what the group is told.
        """
        count = bisect_left(self._ends, before)
        return self._latest[count - 1] if count else None

    def possible(self, offset: int, began: int, until: int) -> bool:
        """Whether a commit of this offset may have been the last one, at some time between."""
        return any(
            start < until and (open_ended or end >= began)
            for start, end, open_ended in self._by_offset.get(offset, ())
        )


def _outcome(model: Model, commit: Commit) -> str:
    """A commit within a transaction takes effect with it."""
    end = model.transaction_of(commit)
    return commit.outcome if end is None or commit.outcome == FAILED else end.outcome


def _effect(model: Model, commit: Commit) -> tuple[int, int]:
    """(not before, certain from): between these the commit takes effect."""
    end = model.transaction_of(commit)
    return (commit.invoked, commit.completed) if end is None else (end.invoked, end.completed)


def _told(past: _Past, telling: Fetched) -> Iterator[Anomaly]:
    """A fetched offset is the last commit before it, or one that may have come after or beside that."""
    found = past.last(telling.invoked)
    if found is None:
        return
    began, last = found
    where = f"group {telling.group}, {telling.topic}-{telling.partition}"
    if telling.offset is None:
        text = f"{where}: {last.offset} was committed, and later there was none"
        yield Anomaly("lost-commit", text, (last, telling))
    elif not past.possible(telling.offset, began, telling.completed):
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
