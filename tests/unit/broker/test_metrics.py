"""Counters, and the names and values a scrape shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from odradek.broker import metrics_export
from odradek.broker.metrics import BUCKET_COUNT, ApiMetrics, BrokerMetrics, quantile_ms
from odradek.coordinator.group.classic.group import GroupState
from odradek.coordinator.group.state import GroupMetrics
from odradek.wire.errors import ErrorCode

PRODUCE, FETCH = 0, 1


def fake_node(metrics: BrokerMetrics) -> Any:
    """A node as far as a scrape looks at it: two partitions of `orders`, one led and under-replicated."""
    log = SimpleNamespace(size_bytes=2048, log_start_offset=3, log_end_offset=9, offline=False)
    broken = SimpleNamespace(size_bytes=0, log_start_offset=0, log_end_offset=0, offline=True)
    led = SimpleNamespace(leader=1, replicas=(1, 2), isr=(1,))
    lost = SimpleNamespace(leader=-1, replicas=(1, 2), isr=())
    image = SimpleNamespace(
        topics={"orders": SimpleNamespace(partitions={0: led, 1: lost})},
        brokers={1: SimpleNamespace(fenced=False), 2: SimpleNamespace(fenced=True)},
        features={"metadata.version": 25},
        controller_id=1,
        offset=77,
    )
    group = SimpleNamespace(state=GroupState.STABLE)
    loaded = SimpleNamespace(groups={"g": group, "h": group, "i": SimpleNamespace(state=GroupState.EMPTY)})
    errors = {0: ErrorCode.NONE, 1: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}
    runtime = SimpleNamespace(partitions=lambda: [0, 1], error_of=errors.get, read={0: loaded}.__getitem__)
    return SimpleNamespace(
        groups=SimpleNamespace(runtime=runtime, metrics=GroupMetrics(offset_commits=6)),
        metrics=metrics,
        partitions={("orders", 0): SimpleNamespace(log=log), ("orders", 1): SimpleNamespace(log=broken)},
        connections=[SimpleNamespace(listener="PLAINTEXT"), SimpleNamespace(listener="PLAINTEXT")],
        config=SimpleNamespace(node_id=1),
        image=image,
        stopping=False,
        unfenced=True,
    )


def scrape(metrics: BrokerMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body, kind = metrics_export.render(metrics_export.snapshot(fake_node(metrics)))
    assert kind.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def sample(values: dict[Any, float], name: str, **labels: str) -> float:
    return values[name, frozenset(labels.items())]


def test_a_scrape_has_the_names_dashboards_for_kafka_ask_for() -> None:
    metrics = BrokerMetrics()
    orders = metrics.topic("orders")
    orders.messages_in, orders.bytes_in, orders.bytes_out = 5, 500, 700
    metrics.topic("other").messages_in = 2
    metrics.api(PRODUCE).observe(2_000_000)
    metrics.api(FETCH).observe(1_000_000)
    values = scrape(metrics)
    topics = "kafka_server_brokertopicmetrics_"
    assert sample(values, f"{topics}messagesin_total") == 7
    assert sample(values, f"{topics}messagesin_total", topic="orders") == 5
    assert sample(values, f"{topics}bytesin_total", topic="orders") == 500
    assert sample(values, f"{topics}bytesout_total", topic="orders") == 700
    assert sample(values, "kafka_server_replicamanager_partitioncount") == 2
    assert sample(values, "kafka_server_replicamanager_leadercount") == 1
    assert sample(values, "kafka_server_replicamanager_underreplicatedpartitions") == 1
    assert sample(values, "kafka_server_replicamanager_offlinereplicacount") == 1
    assert sample(values, "kafka_log_log_size", topic="orders", partition="0") == 2048
    assert sample(values, "kafka_log_log_logstartoffset", topic="orders", partition="0") == 3
    assert sample(values, "kafka_log_log_logendoffset", topic="orders", partition="0") == 9
    assert sample(values, "kafka_network_requestmetrics_requests_total", request="Produce") == 1
    assert sample(values, "kafka_network_requestmetrics_requests_total", request="FetchConsumer") == 1
    assert sample(values, "kafka_network_requestmetrics_totaltimems_count", request="Produce") == 1
    assert sample(values, "kafka_network_requestmetrics_totaltimems_sum", request="Produce") == 2
    assert sample(values, "kafka_controller_kafkacontroller_activecontrollercount") == 1
    assert sample(values, "kafka_controller_kafkacontroller_activebrokercount") == 1
    assert sample(values, "kafka_controller_kafkacontroller_fencedbrokercount") == 1
    assert sample(values, "kafka_controller_kafkacontroller_offlinepartitionscount") == 1
    assert sample(values, "kafka_coordinator_group_groupmetadatamanager_numgroups") == 3
    assert sample(values, "kafka_coordinator_group_groupmetadatamanager_numgroupsstable") == 2
    assert sample(values, "kafka_coordinator_group_groupmetadatamanager_numgroupsdead") == 0
    assert sample(values, "kafka_server_group_coordinator_metrics_offset_commit_count_total") == 6
    assert sample(values, "kafka_server_kafkaserver_brokerstate") == 3
    assert sample(values, "kafka_server_socketservermetrics_connection_count", listener="PLAINTEXT") == 2
    assert sample(values, "odradek_request_duration_seconds_count", request="Produce") == 1
    assert sample(values, "process_resident_memory_bytes") > 0


def test_a_fresh_node_can_be_scraped() -> None:
    values = scrape(BrokerMetrics())
    assert sample(values, "kafka_server_brokertopicmetrics_bytesin_total") == 0
    assert not any(name == "kafka_network_requestmetrics_requests_total" for name, _ in values)


def test_openmetrics_is_served_where_it_is_asked_for() -> None:
    metrics = BrokerMetrics()
    metrics.api(PRODUCE).observe(1000)
    metrics.topic('we"ird\n').bytes_in = 1
    found = metrics_export.snapshot(fake_node(metrics))
    body, kind = metrics_export.render(found, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert "kafka_server_brokertopicmetrics_bytesin" in names


def test_a_deleted_topic_goes_and_its_counts_stay_in_the_total() -> None:
    metrics = BrokerMetrics()
    metrics.topic("gone").messages_in = 3
    metrics.topic("here").messages_in = 4
    metrics.drop_topic("gone")
    metrics.drop_topic("never there")
    assert [name for name, _ in metrics.by_topic()] == ["here"]
    assert metrics.all_topics().messages_in == 7
    metrics.topic("gone").messages_in += 1
    assert metrics.all_topics().messages_in == 8


@pytest.mark.parametrize("ns", [0, 1, 1023, 1024, 5_000_000, 1 << 60])
def test_any_duration_has_a_bucket(ns: int) -> None:
    api = ApiMetrics()
    api.observe(ns)
    assert (api.requests, api.time_ns_total, sum(api.buckets)) == (1, ns, 1)
    assert len(api.buckets) == BUCKET_COUNT


@given(st.lists(st.integers(1, 10**11), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_right_within_the_width_of_its_bucket(durations: list[int], quantile: float) -> None:
    api = ApiMetrics()
    for ns in durations:
        api.observe(ns)
    position = min(len(durations) - 1, max(0, round(quantile * len(durations) + 0.499999) - 1))
    exact = sorted(durations)[position] / 1e6
    assert exact / 2 <= quantile_ms(api.buckets, quantile) <= exact * 2


def test_no_requests_have_no_quantile() -> None:
    assert quantile_ms([0] * BUCKET_COUNT, 0.99) == 0.0
