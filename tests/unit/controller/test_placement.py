from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.controller.placement import UsableBroker, place
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from unit.controller.controller_harness import Harness, directory


def brokers(count: int, racks: int = 0, fenced: tuple[int, ...] = ()) -> list[UsableBroker]:
    """Brokers 0, 1 …, dealt over racks r0, r1 …."""
    return [UsableBroker(n, f"r{n % racks}" if racks else None, n in fenced) for n in range(count)]


CLUSTERS = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "c"]), st.booleans()), min_size=1, max_size=12
).map(lambda rows: [UsableBroker(number, *row) for number, row in enumerate(rows)])


@given(CLUSTERS, st.integers(1, 6), st.integers(1, 40), st.integers())
def test_replicas_are_distinct_and_the_first_is_not_fenced(
    cluster: list[UsableBroker], replicas: int, partitions: int, seed: int
) -> None:
    unfenced = {broker.id for broker in cluster if not broker.fenced}
    if replicas > len(cluster) or not unfenced:
        with pytest.raises(KafkaError):
            place(cluster, partitions, replicas, Random(seed))
        return
    for chosen in place(cluster, partitions, replicas, Random(seed)):
        assert len(set(chosen)) == replicas
        assert chosen[0] in unfenced
        assert set(chosen) <= {broker.id for broker in cluster}


@given(st.integers(2, 4), st.integers(1, 3), st.integers())
def test_replicas_sit_on_different_racks_while_there_are_any(racks: int, each: int, seed: int) -> None:
    cluster = brokers(racks * each, racks)
    for chosen in place(cluster, 50, racks, Random(seed)):
        assert len({cluster[broker].rack for broker in chosen}) == racks


@given(st.integers(1, 9), st.integers(1, 3), st.integers())
def test_leaders_are_spread_evenly(count: int, rounds: int, seed: int) -> None:
    leaders = Counter(chosen[0] for chosen in place(brokers(count), count * rounds, 1, Random(seed)))
    assert set(leaders.values()) == {rounds}


@given(st.integers())
def test_replicas_are_spread_evenly_over_racks(seed: int) -> None:
    cluster = brokers(6, 3)
    load = Counter(broker for chosen in place(cluster, 600, 3, Random(seed)) for broker in chosen)
    assert max(load.values()) - min(load.values()) <= 60


@given(st.integers())
def test_fenced_brokers_are_taken_last(seed: int) -> None:
    cluster = brokers(5, 1, fenced=(0, 3))
    for chosen in place(cluster, 30, 3, Random(seed)):
        assert set(chosen) == {1, 2, 4}
    for chosen in place(cluster, 30, 4, Random(seed)):
        assert {1, 2, 4} < set(chosen)
        assert chosen[3] in (0, 3)


def test_the_same_seed_gives_the_same_placement() -> None:
    cluster = brokers(7, 3)
    assert place(cluster, 50, 3, Random(5)) == place(list(reversed(cluster)), 50, 3, Random(5))
    assert place(cluster, 50, 3, Random(5)) != place(cluster, 50, 3, Random(6))


@pytest.mark.parametrize(
    ("cluster", "replicas", "text"),
    [
        (brokers(3), 0, "Invalid replication factor 0: the replication factor must be positive."),
        (
            brokers(2, fenced=(0, 1)),
            1,
            "All brokers are currently fenced, or have all their log directories cordoned.",
        ),
        ([], 1, "All brokers are currently fenced, or have all their log directories cordoned."),
        (
            brokers(2),
            3,
            "The target replication factor of 3 cannot be reached because only 2 broker(s) are registered or some "
            "brokers have all their log directories cordoned.",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused_in_kafkas_words(
    cluster: list[UsableBroker], replicas: int, text: str
) -> None:
    with pytest.raises(KafkaError) as caught:
        place(cluster, 1, replicas, Random(1))
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_REPLICATION_FACTOR, text)


def test_topics_and_more_partitions_of_them_spread_over_three_racks() -> None:
    harness = Harness(seed=5)
    for broker_id in range(9):
        harness.start_broker(broker_id, rack=f"r{broker_id % 3}")
    assert harness.create("a", partitions=9, factor=3).error_code == ErrorCode.NONE
    grown = harness.call(CreatePartitionsRequest([CreatePartitionsTopic("a", 18, None)]))
    assert grown.results[0].error_code == ErrorCode.NONE
    partitions = harness.image.topics["a"].partitions.values()
    for partition in partitions:
        assert {broker_id % 3 for broker_id in partition.replicas} == {0, 1, 2}
        assert partition.isr == partition.replicas
        assert partition.leader == partition.replicas[0]
        assert partition.directories == tuple(map(directory, partition.replicas))
    leaderships = Counter(partition.leader for partition in partitions)
    replicas = Counter(broker_id for partition in partitions for broker_id in partition.replicas)
    assert max(leaderships.values()) <= 4
    assert 4 <= min(replicas.values()) <= max(replicas.values()) <= 8
