"""`odradek pod`: what the pods of a StatefulSet have in common, and what makes one of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from odradek.broker.config import StartupError
from odradek.cli.container import configure
from odradek.cli.pod import ask_node, of_pod, run, write_zone, zone_of

VOTERS = "0@kafka-0.kafka-headless:9093,1@kafka-1.kafka-headless:9093,2@kafka-2.kafka-headless:9093"
COMMON = {
    "CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qg",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": VOTERS,
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,EXTERNAL://:9094,CONTROLLER://:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka-{ordinal}.kafka-headless:9092,EXTERNAL://10.0.0.7:{ordinal+31090}",
}


def pod(name: str, **more: str) -> dict[str, str]:
    return of_pod({**COMMON, "POD_NAME": name, **more})


def config(name: str, **more: str) -> Any:
    return configure([], pod(name, **more), mounted="/nowhere", data="/nowhere/data")


def test_the_ordinal_makes_the_node() -> None:
    made = config("kafka-2")
    assert made.node_id == 2
    assert made.roles == {"broker", "controller"}
    assert [str(each) for each in made.advertised] == [
        "PLAINTEXT://kafka-2.kafka-headless:9092",
        "EXTERNAL://10.0.0.7:31092",
    ]


def test_a_pod_beyond_the_voters_is_a_broker_only() -> None:
    made = config("kafka-3")
    assert (made.node_id, made.roles) == (3, {"broker"})
    assert {each.name for each in made.listeners} == {"PLAINTEXT", "EXTERNAL"}
    assert made.controller_listeners == ()
    assert made.internal_address == ("", 9093), "other nodes reach it where they reach the others"


def test_controllers_of_their_own_have_ids_of_their_own() -> None:
    named = {
        "ODRADEK_NODE_ID_BASE": "100",
        "KAFKA_PROCESS_ROLES": "controller",
        "KAFKA_LISTENERS": "CONTROLLER://:9093",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "100@c-0.c:9093,101@c-1.c:9093,102@c-2.c:9093",
    }
    common = {**COMMON, "KAFKA_BROKER_RACK_FILE": "/etc/kafka/rack/zone"}  # both are of brokers only
    made = configure([], of_pod({**common, **named, "POD_NAME": "kafka-controller-1"}), mounted="/nowhere")
    assert (made.node_id, made.roles) == (101, {"controller"})
    with pytest.raises(StartupError, match="node 103, which is not among KAFKA_CONTROLLER_QUORUM_VOTERS"):
        of_pod({**common, **named, "POD_NAME": "kafka-controller-3"})


def test_addresses_may_name_variables_of_the_downward_api() -> None:
    made = pod(
        "kafka-1",
        POD_NAMESPACE="streams",
        HOST_IP="fd00::7",
        KAFKA_CONTROLLER_QUORUM_VOTERS="1@kafka-1.kafka-headless.{POD_NAMESPACE}.svc:9093",
        KAFKA_ADVERTISED_LISTENERS="PLAINTEXT://{POD_NAME}.kafka-headless.{POD_NAMESPACE}.svc:9092,EXTERNAL://{HOST_IP}:1",
    )
    assert made["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka-1.kafka-headless.streams.svc:9093"
    assert made["KAFKA_ADVERTISED_LISTENERS"] == (
        "PLAINTEXT://kafka-1.kafka-headless.streams.svc:9092,EXTERNAL://[fd00::7]:1"
    )


def test_the_host_name_will_do() -> None:
    assert of_pod({"HOSTNAME": "kafka-11"})["KAFKA_NODE_ID"] == "11"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kafka", "POD_NAME=kafka does not end in an ordinal, such as kafka-0"),
        ("kafka-7d9c5b6f4-x2x9q", "does not end in an ordinal"),
        ("kafka-01", "does not end in an ordinal"),
        ("kafka-9999999999", "does not end in an ordinal"),
        ("-1", "does not end in an ordinal"),
        ("kafka-²", "does not end in an ordinal"),
    ],
)
def test_a_name_without_an_ordinal(name: str, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        pod(name)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"KAFKA_NODE_ID": "7"},
            "KAFKA_NODE_ID=7, and the name of this pod makes it node 1: leave KAFKA_NODE_ID out",
        ),
        ({"ODRADEK_NODE_ID_BASE": "ten"}, "ODRADEK_NODE_ID_BASE=ten: expected a number, 0 or more"),
        (
            {"KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka-{index}:9092"},
            "{index} is neither {ordinal}, {ordinal+NUM",
        ),
        (
            {"KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://k:{ordinal*2}"},
            "{ordinal*2} is neither",
        ),
        (
            {"KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://{HOST_IP}:9092"},
            "KAFKA_ADVERTISED_LISTENERS names {HOST_IP}, and there is no variable HOST_IP",
        ),
    ],
)
def test_what_makes_no_sense(more: dict[str, str], said: str) -> None:
    with pytest.raises(StartupError) as told:
        pod("kafka-1", **more)
    assert said in str(told.value)


def test_a_mistake_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], {}) == 1
    assert run(["--zone"], {}) == 1
    assert run(["--zone", "/nowhere/zone"], {"NODE_NAME": "machine-1"}) == 1
    assert capsys.readouterr().err.splitlines() == [
        "odradek: POD_NAME is not set: let the downward API give it metadata.name",
        "odradek: --zone expects one argument, the file to write",
        "odradek: KUBERNETES_SERVICE_HOST is not set: this is no pod of Kubernetes",
    ]


# -- the zone --------------------------------------------------------------------------------------------------


@contextmanager
def kubernetes(status: int, body: str, seen: list[Any]) -> Iterator[str]:
    """An API server that knows one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing into the test's output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def account(tmp_path: Path) -> str:
    (tmp_path / "token").write_text("secret-token\n")
    return str(tmp_path)


def test_the_zone_may_be_a_label_of_the_pod() -> None:
    assert config("kafka-0", POD_ZONE="eu-1a").broker_rack == "eu-1a"
    assert config("kafka-0", POD_ZONE="eu-1a", KAFKA_BROKER_RACK="mine").broker_rack == "mine"
    assert config("kafka-0", POD_ZONE="").broker_rack is None, "a label that is not there is empty"


def test_the_zone_is_that_of_the_machine(account: str) -> None:
    node = {"kind": "Node", "metadata": {"labels": {"topology.kubernetes.io/zone": "eu-central-1b"}}}
    seen: list[Any] = []
    with kubernetes(200, json.dumps(node), seen) as api:
        assert zone_of(ask_node(api, "machine/1", account)) == "eu-central-1b"
    assert seen == [("/api/v1/nodes/machine%2F1", "Bearer secret-token")]


@pytest.mark.parametrize(
    "node", [{}, {"metadata": {}}, {"metadata": {"labels": {}}}, [], None, {"metadata": []}]
)
def test_a_machine_without_a_zone(node: Any) -> None:
    assert zone_of(node) == ""


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            403,
            "{}",
            "answers 403 when asked for the node m: a ClusterRole must allow its service account to get nodes",
        ),
        (404, "{}", "answers 404 when asked for the node m"),
        (200, "oops", "does not tell of the node m"),
    ],
)
def test_an_api_that_does_not_tell(status: int, body: str, said: str, account: str) -> None:
    with kubernetes(status, body, []) as api, pytest.raises(StartupError, match=said):
        ask_node(api, "m", account)


def test_the_zone_is_a_file_that_the_rack_is_taken_from(
    tmp_path: Path, account: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []
    labels = {"topology.kubernetes.io/zone": "b"}

    def node(*address: str) -> Any:
        asked.append(address)
        return {"metadata": {"labels": labels}}

    monkeypatch.setattr("odradek.cli.pod.ask_node", node)
    kubernetes_says = {
        "NODE_NAME": "m",
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    zone = tmp_path / "zone"
    write_zone(str(zone), kubernetes_says, account)
    assert asked == [("https://[fd00::1]:443", "m", account)]
    assert config("kafka-0", KAFKA_BROKER_RACK_FILE=str(zone)).broker_rack == "b"
    labels.clear()
    write_zone(str(zone), kubernetes_says, account)
    assert (
        "the node m has no label topology.kubernetes.io/zone: this broker has no rack"
        in capsys.readouterr().err
    )
    assert config("kafka-0", KAFKA_BROKER_RACK_FILE=str(zone)).broker_rack is None
    with pytest.raises(StartupError, match="cannot write"):
        write_zone(str(tmp_path / "no" / "zone"), kubernetes_says, account)


def test_no_service_account(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no token of a service account"):
        ask_node("http://127.0.0.1:1", "m", str(tmp_path / "nothing"))
