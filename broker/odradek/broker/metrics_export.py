"""The node's numbers under the names Kafka's Prometheus exporters give them.

Names are those of the JMX exporter's example rules (`kafka-2_0_0.yml`) and of Strimzi's, so that dashboards
made for Kafka work. What Kafka has no name for starts with `odradek_`.

`snapshot` reads the node on its own thread and is quick (plain attributes); `render` formats in any other
thread. prometheus_client takes 65 ms and 14 MB to import, so only `render` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from odradek.broker import metrics_cleaner, metrics_directories, metrics_transactions
from odradek.broker.metrics import quantile_ms
from odradek.coordinator.group.classic.group import GroupState
from odradek.wire.apis import APIS
from odradek.wire.errors import ErrorCode

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from odradek.broker.controller_process import ControllerProcess
    from odradek.broker.metrics import BrokerMetrics, TopicMetrics
    from odradek.broker.node import Node
    from odradek.coordinator.group_coordinator import GroupCoordinator
    from odradek.storage.opening import RecoveryProgress

QUANTILES = (0.5, 0.75, 0.95, 0.98, 0.99, 0.999)
HISTOGRAM_BITS = range(14, 36)
"""Buckets told as such: 16 µs to 34 s, each twice the one before it."""

_TOPIC_COUNTERS = {
    "messagesin": ("messages_in", "Messages appended."),
    "bytesin": ("bytes_in", "Bytes appended."),
    "bytesout": ("bytes_out", "Bytes fetched."),
    "totalproducerequests": ("produce_requests", "Produce requests, one per topic named in them."),
    "totalfetchrequests": ("fetch_requests", "Fetch requests, one per topic named in them."),
    "failedproducerequests": ("failed_produce", "Produce requests answered with an error."),
    "failedfetchrequests": ("failed_fetch", "Fetch requests answered with an error."),
}
_COORDINATOR = "kafka_server_group_coordinator_metrics_"
_RECOVERY_GAUGES = {
    "remaininglogstorecover": "Logs that are not open yet.",
    "remainingsegmentstorecover": "Segments that are still to be scanned.",
}
_PARTITION_GAUGES = {
    "size": "Bytes on disk.",
    "logstartoffset": "First offset that can be read.",
    "logendoffset": "Offset the next message gets.",
}
BROKER_RUNNING, BROKER_SHUTTING_DOWN, BROKER_STARTING, BROKER_RECOVERY = 3, 6, 1, 2
"""Kafka's BrokerState."""


@dataclass(slots=True)
class Snapshot:
    """Everything one scrape tells, read in one go."""

    all_topics: tuple[int, ...] = ()
    """In the order of _TOPIC_COUNTERS."""
    topics: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    partitions: list[tuple[str, int, tuple[int, int, int]]] = field(default_factory=list)
    """Topic, partition, values in the order of _PARTITION_GAUGES."""
    apis: list[tuple[str, int, int, int, list[int]]] = field(default_factory=list)
    """Name, requests, errors, total ns, buckets."""
    gauges: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Name → help and value."""
    connections: dict[str, int] = field(default_factory=dict)
    """By listener."""
    by_directory: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict)
    """Name → help, and value by log directory."""
    counters: dict[str, tuple[str, int]] = field(default_factory=dict)
    recovery: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Data directory → logs and segments that are left to recover; nothing once all are."""


def recovery_snapshot(progress: RecoveryProgress) -> Snapshot:
    """Of a node whose logs are not open yet. Any thread may call this."""
    state = BROKER_RECOVERY if progress.logs_left else BROKER_STARTING
    found = Snapshot(all_topics=(0,) * len(_TOPIC_COUNTERS), gauges=_state_gauge(state))
    for path, logs in list(progress.logs_left.items()):
        found.recovery[path] = logs, progress.segments_left.get(path, 0)
    return found


def snapshot(node: Node | ControllerProcess) -> Snapshot:
    """Read the node. Only its own thread may call this."""
    from odradek.broker.node import Node

    found = Snapshot()
    _count(node.metrics, found)
    for (topic, index), partition in node.partitions.items():
        log = partition.log
        values = (log.size_bytes, log.log_start_offset, log.log_end_offset)
        found.partitions.append((topic, index, values))
    for connection in node.connections:
        found.connections[connection.listener] = found.connections.get(connection.listener, 0) + 1
    found.gauges = {
        **_replica_gauges(node),
        **_controller_gauges(node),
        **_broker_gauges(node),
    }
    if node.groups is None:
        return found
    found.gauges.update(_group_gauges(node.groups))
    if isinstance(node, Node):
        found.gauges.update(metrics_transactions.gauges(node))
        found.gauges.update(metrics_cleaner.gauges(node.compaction, node.monotonic_ms()))
        directories = [path for path, _ in node.log_directories()]
        found.by_directory = metrics_cleaner.by_directory(node.compaction, directories)
        found.by_directory.update(metrics_directories.by_directory(node))
        found.gauges.update(metrics_directories.gauges(node))
        found.counters.update(metrics_transactions.counters(node))
    done = node.groups.metrics
    found.counters[f"{_COORDINATOR}offset_commit_count"] = ("Offsets committed.", done.offset_commits)
    found.counters[f"{_COORDINATOR}offset_expiration_count"] = ("Offsets expired.", done.offset_expired)
    found.counters[f"{_COORDINATOR}offset_deletion_count"] = ("Offsets deleted.", done.offset_deletions)
    found.counters[f"{_COORDINATOR}group_completed_rebalance_count"] = (
        "Rebalances completed.",
        done.completed_rebalances,
    )
    return found


def _count(metrics: BrokerMetrics, found: Snapshot) -> None:
    def values(topic: TopicMetrics) -> tuple[int, ...]:
        return tuple(getattr(topic, attribute) for attribute, _ in _TOPIC_COUNTERS.values())

    found.all_topics = values(metrics.all_topics())
    found.topics = [(name, values(topic)) for name, topic in metrics.by_topic()]
    for key, api in sorted(metrics.apis.items()):
        if api.requests or api.errors:
            name = APIS[key].name if key in APIS else str(key)
            found.apis.append((name, api.requests, api.errors, api.time_ns_total, list(api.buckets)))
    found.counters = {
        "odradek_connections_opened": ("Connections accepted.", metrics.connections_opened),
        "odradek_bad_requests": ("Connections closed for what they sent.", metrics.bad_requests),
    }


def _replica_gauges(node: Node | ControllerProcess) -> dict[str, tuple[str, float]]:
    from odradek.broker.node import Node

    leaders = under_replicated = under_min_isr = offline = lag = 0
    image, node_id = node.image, node.config.node_id
    for (topic, index), partition in node.partitions.items():
        offline += partition.log.offline
        known = image.topics.get(topic)
        state = known.partitions.get(index) if known is not None else None
        if state is None or state.leader != node_id:
            continue
        leaders += 1
        under_replicated += len(state.isr) < len(state.replicas)
    if isinstance(node, Node):
        offline += len(node.replicas.offline)
        under_min_isr, lag = node.replication.under_min_isr(), node.replication.max_lag()
    manager = "kafka_server_replicamanager_"
    return {
        f"{manager}partitioncount": ("Partitions on this broker.", len(node.partitions)),
        f"{manager}leadercount": ("Partitions this broker leads.", leaders),
        f"{manager}underreplicatedpartitions": (
            "Led partitions with replicas out of sync.",
            under_replicated,
        ),
        f"{manager}underminisrpartitioncount": (
            "Led partitions with fewer in-sync replicas than min.insync.replicas.",
            under_min_isr,
        ),
        f"{manager}offlinereplicacount": ("Partitions in a failed directory.", offline),
        "kafka_server_replicafetchermanager_maxlag": (
            "Offsets by which this broker's replicas are behind their leaders' high watermarks, the worst.",
            lag,
        ),
    }


def _controller_gauges(node: Node | ControllerProcess) -> dict[str, tuple[str, float]]:
    image = node.image
    partitions = [state for topic in image.topics.values() for state in topic.partitions.values()]
    fenced = sum(broker.fenced for broker in image.brokers.values())
    controller = "kafka_controller_kafkacontroller_"
    active = image.controller_id == node.config.node_id
    return {
        f"{controller}activecontrollercount": ("1 where the active controller is.", int(active)),
        f"{controller}activebrokercount": ("Brokers that are not fenced.", len(image.brokers) - fenced),
        f"{controller}fencedbrokercount": ("Registered brokers that are fenced.", fenced),
        f"{controller}globaltopiccount": ("Topics of the cluster.", len(image.topics)),
        f"{controller}globalpartitioncount": ("Partitions of the cluster.", len(partitions)),
        f"{controller}offlinepartitionscount": (
            "Partitions without a leader.",
            sum(state.leader < 0 for state in partitions),
        ),
        f"{controller}preferredreplicaimbalancecount": (
            "Partitions not led by their first replica.",
            sum(state.leader != state.replicas[0] for state in partitions if state.replicas),
        ),
        "kafka_server_metadataloader_currentmetadataversion": (
            "Finalized metadata.version.",
            image.features.get("metadata.version", 0),
        ),
        "kafka_server_broker_metadata_metrics_last_applied_record_offset": (
            "Offset of the newest metadata this broker has applied.",
            image.offset,
        ),
    }


def _group_gauges(coordinator: GroupCoordinator) -> dict[str, tuple[str, float]]:
    """Groups of the partitions of __consumer_offsets that are led here."""
    states = dict.fromkeys((state.value for state in GroupState), 0)
    runtime = coordinator.runtime
    for partition in runtime.partitions():
        if runtime.error_of(partition) is not ErrorCode.NONE:  # still loading
            continue
        for group in runtime.read(partition).groups.values():
            states[group.state.value] += 1
    manager = "kafka_coordinator_group_groupmetadatamanager_numgroups"
    found: dict[str, tuple[str, float]] = {manager: ("Consumer groups.", sum(states.values()))}
    for state, count in states.items():
        found[manager + state.lower()] = (f"Consumer groups in state {state}.", count)
    return found


def _broker_gauges(node: Node | ControllerProcess) -> dict[str, tuple[str, float]]:
    state = BROKER_SHUTTING_DOWN if node.stopping else BROKER_RUNNING if node.unfenced else BROKER_STARTING
    return _state_gauge(state)


def _state_gauge(state: int) -> dict[str, tuple[str, float]]:
    text = "1 starting, 2 recovering its logs, 3 running, 6 shutting down."
    return {"kafka_server_kafkaserver_brokerstate": (text, state)}


def render(found: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The body and its content type, in the format the scraper accepts. Not for the node's own thread."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(found))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Collector:
    """prometheus_client's collector protocol over one snapshot."""

    def __init__(self, found: Snapshot) -> None:
        self._found = found

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._topics()
        yield from self._partitions()
        yield from self._requests()
        yield from self._single()
        if self._found.recovery:
            yield from self._recovery()

    def _recovery(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for at, (name, text) in enumerate(_RECOVERY_GAUGES.items()):
            family = GaugeMetricFamily(f"kafka_log_logmanager_{name}", text, labels=("dir",))
            for path, values in self._found.recovery.items():
                family.add_metric((path,), values[at])
            yield family

    def _topics(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily

        for at, (name, (_, text)) in enumerate(_TOPIC_COUNTERS.items()):
            full = f"kafka_server_brokertopicmetrics_{name}"
            family = CounterMetricFamily(full, f"{text} Without a topic: of all of them.")
            family.add_sample(f"{full}_total", {}, self._found.all_topics[at])
            for topic, values in self._found.topics:
                family.add_sample(f"{full}_total", {"topic": topic}, values[at])
            yield family

    def _partitions(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for at, (name, text) in enumerate(_PARTITION_GAUGES.items()):
            family = GaugeMetricFamily(f"kafka_log_log_{name}", text, labels=("topic", "partition"))
            for topic, index, values in self._found.partitions:
                family.add_metric((topic, str(index)), values[at])
            yield family

    def _requests(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            HistogramMetricFamily,
            SummaryMetricFamily,
        )

        network = "kafka_network_requestmetrics_"
        requests = CounterMetricFamily(f"{network}requests", "Requests answered.", labels=("request",))
        errors = CounterMetricFamily(f"{network}errors", "Requests that failed.", labels=("request",))
        totals = SummaryMetricFamily(f"{network}totaltimems", "Time to answer, ms.")
        seconds = HistogramMetricFamily(
            "odradek_request_duration_seconds",
            "From a request read to its response written.",
            labels=("request",),
        )
        for name, count, failed, time_ns, buckets in self._found.apis:
            seconds.add_metric((name,), _cumulative(buckets), time_ns / 1e9)
            for alias in (name, "FetchConsumer") if name == "Fetch" else (name,):
                requests.add_metric((alias,), count)
                errors.add_metric((alias,), failed)
                _add_summary(totals, {"request": alias}, count, time_ns, buckets)
        yield from (requests, errors, totals, seconds)

    def _single(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        for name, (text, value) in self._found.gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        for name, (text, values) in self._found.by_directory.items():
            gauge = GaugeMetricFamily(name, text, labels=("logDirectory",))
            for directory, value in values.items():
                gauge.add_metric((directory,), value)
            yield gauge
        for name, (text, count) in self._found.counters.items():
            yield CounterMetricFamily(name, text, value=count)
        family = GaugeMetricFamily(
            "kafka_server_socketservermetrics_connection_count", "Open connections.", labels=("listener",)
        )
        for listener, open_now in sorted(self._found.connections.items()):
            family.add_metric((listener,), open_now)
        yield family


def _add_summary(
    family: Metric, labels: Mapping[str, str], count: int, time_ns: int, buckets: list[int]
) -> None:
    for quantile in QUANTILES:
        value = quantile_ms(buckets, quantile)
        family.add_sample(family.name, {**labels, "quantile": str(quantile)}, value)
    family.add_sample(f"{family.name}_count", dict(labels), count)
    family.add_sample(f"{family.name}_sum", dict(labels), time_ns / 1e6)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets: how many took at most so many seconds."""
    bounds = [(repr((1 << bits) / 1e9), float(sum(buckets[: bits + 1]))) for bits in HISTOGRAM_BITS]
    return [*bounds, ("+Inf", float(sum(buckets)))]
