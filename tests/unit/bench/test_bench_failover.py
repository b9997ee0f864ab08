"""Write gaps are counted from the moment of the failure, whoever was being written to then."""

import pytest
from bench import failover_report
from bench.failover_load import longest_gap
from bench.failover_partitions import produce_request, topics_of
from bench.failover_report import outcomes, tables
from bench.failover_rounds import CONTROLLER, LEADER, STOP, victim_of
from bench.findings import page


def test_a_gap_that_began_before_the_failure_counts_from_the_failure():
    assert longest_gap([1.0, 9.0, 9.5], 5.0) == pytest.approx(4.0)


def test_a_partition_that_was_never_acknowledged_before_has_a_gap_too():
    assert longest_gap([14.0, 14.1], 5.0) == pytest.approx(9.0)


def test_gaps_before_the_failure_do_not_count():
    assert longest_gap([1.0, 4.0, 5.1, 5.2], 5.0) == pytest.approx(0.1)


@pytest.mark.parametrize(("kind", "victim"), [(LEADER, 1), (STOP, 1), (CONTROLLER, 2)])
def test_who_dies(kind, victim):
    assert victim_of(kind, [3, 1, 2], 2) == victim


def test_topics_have_as_many_partitions_as_asked_for():
    assert sum(topics_of(2_500).values()) == 2_500
    assert max(topics_of(2_500).values()) == 1_000


def test_one_request_carries_a_record_to_each_partition():
    request = produce_request([("a", 0), ("b", 3), ("a", 7)])
    assert [(topic.name, [data.index for data in topic.partition_data]) for topic in request.topic_data] == [
        ("a", [0, 7]),
        ("b", [3]),
    ]
    assert request.acks == -1


def results():
    return {
        "machine": {"CPU": "one"},
        "notes": ["a note"],
        "samples": {
            LEADER: {
                "odradek": [{"gap_ms": 50.0, "errors": 0}, {"gap_ms": 4_000.0, "errors": 0}],
                "kafka": [{"gap_ms": 9_100.0, "errors": 0}],
            },
            STOP: {"odradek": [{"gap_ms": 90.0, "errors": 1}]},
            "1000 partitions": {"odradek": [{"error": "BenchError: gone"}]},
        },
    }


def test_medians_worst_rounds_errors_and_failed_rounds_are_held_against_what_is_wanted():
    found = {(one.row, one.text): one.met for one in outcomes(results())}
    assert found == {
        (LEADER, "median 2,025 ms write gap, wanted ≤ 1,000"): False,
        (LEADER, "worst 4,000 ms write gap, wanted ≤ 3,000"): False,
        (STOP, "median 90 ms write gap, wanted ≤ 200"): True,
        (STOP, "median 1 errors shown to the client, wanted ≤ 0"): False,
        (STOP, "worst 1 errors shown to the client, wanted ≤ 0"): False,
        ("1000 partitions", "BenchError: gone"): False,
    }


def test_the_page_has_both_sides():
    text = page(failover_report, "today", results())
    assert "| leader kill -9 | kafka | 1 | 9,100 |" in text
    assert len(tables(results())) == 2
