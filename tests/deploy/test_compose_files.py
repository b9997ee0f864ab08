"""The compose files without an engine: each node accepts its configuration, and all of them make one cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose_files import COMPOSE, interpolate, services
from odradek.broker.config import BrokerConfig, StartupError
from odradek.chaos.node import CONTAINER_PLACE
from odradek.cli.container import GRACE_S_MIN, configure
from odradek.metadata.configs import is_known_broker_config

FILES = ("compose.yaml", "separate.yaml")
MONITORING = {"prometheus", "grafana"}


def nodes(name: str, **environment: str) -> dict[str, dict[str, Any]]:
    return {
        service: body for service, body in services(name, environment).items() if service not in MONITORING
    }


def configuration(body: dict[str, Any], tmp_path: Path) -> BrokerConfig:
    # What is empty after interpolation is an empty text to compose, and nothing to a reader of YAML.
    variables = {key: "" if value is None else str(value) for key, value in body["environment"].items()}
    return configure([], variables, mounted="/nowhere", data=str(tmp_path), hostname=lambda: body["hostname"])


@pytest.mark.parametrize("name", FILES)
def test_nodes_accept_their_configuration(name: str, tmp_path: Path) -> None:
    configs = {service: configuration(body, tmp_path) for service, body in nodes(name).items()}
    assert len({config.node_id for config in configs.values()}) == len(configs)
    assert len({config.cluster_id for config in configs.values()}) == 1
    for service, config in configs.items():
        assert not config.warnings, service
        assert not config.alone
        assert {key for key in config.static if not is_known_broker_config(key)} == set()
        if "broker" in config.roles:
            assert {each.host for each in config.advertised} == {service, "localhost"}


@pytest.mark.parametrize("name", FILES)
def test_voters_are_the_controllers_under_their_names(name: str, tmp_path: Path) -> None:
    configs = {service: configuration(body, tmp_path) for service, body in nodes(name).items()}
    controllers = {
        (config.node_id, service, config.controller_listeners[0].port)
        for service, config in configs.items()
        if "controller" in config.roles
    }
    for config in configs.values():
        assert {(voter.node_id, voter.host, voter.port) for voter in config.voters} == controllers


@pytest.mark.parametrize("name", FILES)
def test_the_host_reaches_each_broker_at_the_port_it_advertises(name: str, tmp_path: Path) -> None:
    published = []
    for service, body in nodes(name, PORT_1="29092", HOST="example.com").items():
        config = configuration(body, tmp_path)
        if "broker" not in config.roles:
            assert "ports" not in body
            continue
        outside = next(each for each in config.advertised if each.name == "HOST")
        inside = next(each for each in config.listeners if each.name == "HOST")
        assert outside.host == "example.com"
        assert f"{outside.port}:{inside.port}" in body["ports"], service
        published += [port.rpartition(":")[0] for port in body["ports"]]
    assert len(set(published)) == len(published) == 6


@pytest.mark.parametrize("name", FILES)
def test_containers_may_do_little(name: str) -> None:
    for service, body in nodes(name).items():
        assert body["read_only"] is True, service
        assert body["cap_drop"] == ["ALL"]
        assert body["volumes"] == [f"{service}:/var/lib/kafka/data"]
        assert int(body["stop_grace_period"].removesuffix("s")) >= GRACE_S_MIN


@pytest.mark.parametrize("name", FILES)
def test_every_broker_can_be_hurt_beside_chaos_yaml(name: str) -> None:
    hurt = yaml.safe_load((COMPOSE / "chaos.yaml").read_text())
    brokers = {
        service
        for service, body in nodes(name).items()
        if "broker" in body["environment"]["KAFKA_PROCESS_ROLES"]
    }
    assert set(hurt["services"]) == brokers
    volumes = [volume.split(":") for body in hurt["services"].values() for volume in body["volumes"]]
    assert {volume for volume, _ in volumes} == set(hurt["volumes"]), "each has one of its own"
    assert {path for _, path in volumes} == {str(CONTAINER_PLACE)}


def test_a_small_grace_period_is_refused_before_anything_starts(tmp_path: Path) -> None:
    body = nodes("compose.yaml", STOP_GRACE_SECONDS="10")["kafka-1"]
    assert body["stop_grace_period"] == "10s"
    with pytest.raises(StartupError, match="Let stop_grace_period"):
        configuration(body, tmp_path)


def test_an_empty_cluster_id_reaches_the_nodes_as_none(tmp_path: Path) -> None:
    body = nodes("compose.yaml", CLUSTER_ID="")["kafka-1"]
    with pytest.raises(StartupError, match="CLUSTER_ID environment variable not set"):
        configuration(body, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_mounted_files_are_there(name: str) -> None:
    for service in MONITORING:
        for volume in services(name)[service]["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (COMPOSE / "monitoring" / source).exists(), volume


def compose_program() -> list[str] | None:
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    alone = shutil.which("docker-compose")
    return [alone] if alone else None


@pytest.mark.parametrize("name", FILES)
def test_the_compose_program_reads_them_as_these_tests_do(name: str) -> None:
    program = compose_program()
    if program is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    surroundings = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    command = [*program, "-f", str(COMPOSE / name), "--profile", "monitoring", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=surroundings)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)["services"]
    ours = services(name)
    assert read.keys() == ours.keys()
    for service, body in ours.items():
        environment = {key: str(value) for key, value in body.get("environment", {}).items()}
        assert {
            key: str(value) for key, value in (read[service].get("environment") or {}).items()
        } == environment


def test_interpolation_is_that_of_compose() -> None:
    assert interpolate("${A:-x} ${A-y} ${B:-z} ${C}", {"A": "", "B": "b"}) == "x  b "
