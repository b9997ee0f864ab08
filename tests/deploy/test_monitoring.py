"""What Prometheus and Grafana ask for is what a node tells."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer
from prometheus_client.parser import text_string_to_metric_families

from deploy.compose_files import COMPOSE, services
from deploy.first_process import First
from interop.cluster import PATIENCE_S

MONITORING = COMPOSE / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "odradek.json"
OF_PROMETHEUS = {"up": {"instance", "job"}}
WORDS = {
    "by", "sum", "max", "rate", "label_values", "histogram_quantile", "$__rate_interval", "instance", "job",
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard()["templating"]["list"]:
        yield variable["query"]["query"]
    for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """Metrics, and labels by which they are chosen or summed."""
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    bare = re.sub(r"\"[^\"]*\"", "", expression)
    for listed in re.findall(r"\bby \(([^)]*)\)", bare):
        labels |= {label.strip() for label in listed.split(",")}
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[[^]]*\]", "", bare)
    return {name for name in re.findall(r"\b[a-z_]\w*\b", bare) if name not in WORDS}, labels


@pytest.fixture
def told(first: First) -> dict[str, set[str]]:
    """Names of the samples of a node that has served clients, with their labels."""
    variables = {"KAFKA_LISTENERS": "PLAINTEXT://127.0.0.1:0", "ODRADEK_METRICS_PORT": "0"}
    line = first.serve(**variables)
    bootstrap = {"bootstrap.servers": line["bootstrap_servers"]}
    producer = Producer(bootstrap)
    producer.produce("orders", b"placed")
    assert producer.flush(PATIENCE_S) == 0
    consumer = Consumer({**bootstrap, "group.id": "audit", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"])
    assert consumer.consume(1, PATIENCE_S)
    with urllib.request.urlopen(line["metrics"], timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    consumer.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_asked_for_is_told_with_its_labels(told: dict[str, set[str]]) -> None:
    known = {**{name: labels | {"instance", "job"} for name, labels in told.items()}, **OF_PROMETHEUS}
    asked = [names_and_labels(expression) for expression in expressions()]
    assert {name for names, _ in asked for name in names} - known.keys() == set()
    for names, labels in asked:
        for name in names:
            assert labels <= known[name], name


def test_expressions_are_taken_apart_rightly() -> None:
    names, labels = names_and_labels(
        'sum by (le, request) (rate(a_bucket{topic!="",instance=~"$i"}[5m])) > 0'
    )
    assert names == {"a_bucket"}
    assert labels == {"le", "request", "topic", "instance"}


def test_panels_have_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in every:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_everything_asks_the_datasource_that_is_provisioned() -> None:
    source = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yaml").read_text())["datasources"][
        0
    ]
    used = {panel["datasource"]["uid"] for panel in panels()}
    used |= {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert used == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_the_dashboard_lies_where_grafana_looks() -> None:
    provider = yaml.safe_load((MONITORING / "grafana/dashboards/odradek.yaml").read_text())["providers"][0]
    grafana = services("compose.yaml")["grafana"]
    mounted = {volume.split(":")[1]: MONITORING / volume.split(":")[0] for volume in grafana["volumes"]}
    assert mounted[provider["options"]["path"]] == Path(MONITORING / "grafana/dashboards")
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


@pytest.mark.parametrize("name", ["compose.yaml", "separate.yaml"])
def test_every_node_is_scraped(name: str) -> None:
    scraped: set[str] = set()
    for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]:
        for static in job.get("static_configs", []):
            scraped |= set(static["targets"])
        for looked_up in job.get("dns_sd_configs", []):
            scraped |= {f"{host}:{looked_up['port']}" for host in looked_up["names"]}
    nodes = {service for service in services(name) if service not in ("prometheus", "grafana")}
    assert {f"{service}:9644" for service in nodes} <= scraped
