"""Fixtures of the interop tests: one node for all tests of a process, or the cluster that the environment names.

`ODRADEK_TEST_BOOTSTRAP=host:port` runs the same tests against another cluster, such as a real Apache Kafka; tests that
must kill or inspect the node then skip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop import real_kafka
from interop.cluster import ENVIRONMENT, Node, unique

CreateTopic = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the clients' own code is warned about is not our business."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a running cluster of one node."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        yield given
        return
    node = Node(tmp_path_factory.mktemp("node"))
    node.start()
    try:
        yield node.bootstrap
    finally:
        node.stop()


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[Node]:
    """A node that belongs to the test, which may kill it. Not started yet."""
    if os.environ.get(ENVIRONMENT):
        pytest.skip(f"{ENVIRONMENT} names a cluster that this test must not kill")
    node = Node(tmp_path / "own")
    try:
        yield node
    finally:
        node.kill()


@pytest.fixture(scope="session")
def kafka_tools() -> None:
    """Apache Kafka's own tools can be run here (`real_kafka.run_tool`)."""
    try:
        real_kafka.java()
        real_kafka.libs()
    except real_kafka.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture
def new_topic(bootstrap: str) -> Iterator[CreateTopic]:
    """Creates a topic of a unique name: `new_topic("orders", partitions=3, **{"cleanup.policy": "compact"})`."""
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create(prefix: str = "topic", partitions: int = 1, **configs: str) -> str:
        name = unique(prefix)
        spec = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        admin.create_topics({name: spec}, wait_for_metadata=True)
        return name

    yield create
    admin.close()
