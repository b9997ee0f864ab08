"""Fixtures: a cluster of three nodes that belongs to the test, and a maker of other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.machines import Cluster

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """`make_cluster(nodes=3, controllers=0, **overrides)`: not started yet."""
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made) + 1}", **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Three nodes, running."""
    three = make_cluster()
    three.start()
    return three
