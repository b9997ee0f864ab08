"""What Prometheus and an orchestrator see of a node."""

from __future__ import annotations

import urllib.error
import urllib.request

from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from interop.cluster import PATIENCE_S, Node, eventually, port_is_open, unique


def get(node: Node, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(
            f"http://localhost:{node.metrics_port}{path}", timeout=PATIENCE_S
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def value(node: Node, name: str, **labels: str) -> float:
    """One sample; labels not named are summed over."""
    _, text = get(node, "/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = [
        sample.value
        for sample in samples
        if sample.name == name and all(sample.labels.get(label) == wanted for label, wanted in labels.items())
    ]
    assert found, f"no sample {name} {labels}"
    return sum(found)


def start(node: Node) -> None:
    """Start the node and wait for its HTTP server, too, which opens after the clients' port."""
    node.start()
    eventually(
        lambda: port_is_open(node.metrics_port), PATIENCE_S, "nothing listens on the port of the metrics"
    )


def test_traffic_shows_in_the_metrics(own_node: Node) -> None:
    start(own_node)
    topic = unique("measured")
    producer = KafkaProducer(bootstrap_servers=own_node.bootstrap)
    for _ in range(200):
        producer.send(topic, b"x" * 100)
    producer.close()
    eventually(
        lambda: value(own_node, "kafka_server_brokertopicmetrics_messagesin_total", topic=topic) == 200,
        PATIENCE_S,
        "200 messages in did not show",
    )
    assert value(own_node, "kafka_server_brokertopicmetrics_bytesin_total", topic=topic) > 20_000
    assert value(own_node, "kafka_log_log_size", topic=topic) > 20_000
    assert value(own_node, "kafka_server_replicamanager_partitioncount") >= 1


def test_health_endpoints(own_node: Node) -> None:
    start(own_node)
    assert get(own_node, "/health/live")[0] == 200
    eventually(lambda: get(own_node, "/health/ready")[0] == 200, PATIENCE_S, "the node is not ready")
    assert get(own_node, "/nothing")[0] == 404
