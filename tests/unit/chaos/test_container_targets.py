"""Containers and pods are hurt by command lines: what is asked of docker and kubectl, which are played here."""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from interop.cluster import PATIENCE_S
from odradek.chaos import containers, namespaces
from odradek.chaos.containers import ComposeTarget
from odradek.chaos.detour import CHAIN as DETOUR
from odradek.chaos.namespaces import CHAIN
from odradek.chaos.pods import PodsTarget, policy_against
from odradek.chaos.scenario import ScenarioError, parse
from odradek.chaos.target import TargetError, check_possible

Asked = Callable[[], list[str]]


def play(
    program: str, answers: list[tuple[str, int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Asked:
    """Put a program on the path that answers the first of these whose words are in its command line."""
    log = tmp_path / f"{program}.log"
    quoted_log = shlex.quote(str(log))
    lines = ["#!/bin/sh", f'echo "$*" >> {quoted_log}']
    lines.append(f'case "$*" in *" -") {{ cat; echo; }} >> {quoted_log};; esac')
    for words, code, text in answers:
        stream = "" if code == 0 else " >&2"
        lines.append(
            f'case "$* " in *{shlex.quote(words)}*) printf %s {shlex.quote(text)}{stream}; exit {code};; esac'
        )
    path = tmp_path / "bin" / program
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().splitlines() if log.exists() else []


def container(node: int, roles: str = "broker,controller") -> dict[str, Any]:
    listeners = f"PLAINTEXT://kafka-{node}:9092,HOST://localhost:{9091 + node}" if "broker" in roles else ""
    variables = {
        "KAFKA_NODE_ID": node,
        "KAFKA_PROCESS_ROLES": roles,
        "KAFKA_ADVERTISED_LISTENERS": listeners,
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093,HOST://:19092",
    }
    return {
        "Name": f"/p-kafka-{node}-1",
        "Config": {"Env": [f"{key}={value}" for key, value in variables.items()]},
        "Mounts": [{"Destination": "/var/lib/kafka/data", "Source": f"/volumes/{node}"}],
    }


STATE: list[tuple[str, int, str]] = [
    ("{{.State.Running}} {{.State.Restarting}}", 0, "true false\n"),
    ("{{.State.Pid}}", 0, "11 10.0.0.1 127.0.0.1\n22 10.0.0.2 127.0.0.1\n33 10.0.0.3 127.0.0.1\n"),
    ("ps -q", 0, "a b c\n"),
]


def compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, Any]
) -> tuple[ComposeTarget, Asked, Asked]:
    """The target, and what docker and nsenter are asked."""
    found = nodes or (container(1), container(2), container(3))
    asked = play("docker", [*STATE, ("inspect a b c", 0, json.dumps(found))], tmp_path, monkeypatch)
    inside = play("nsenter", [], tmp_path, monkeypatch)
    file = tmp_path / "compose.yaml"
    file.write_text("")
    return ComposeTarget(file, "p"), asked, inside


def test_compose_finds_nodes_and_where_clients_reach_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, asked, _ = compose(
        tmp_path, monkeypatch, container(1), container(2), container(101, "controller")
    )
    assert target.brokers() == [1, 2] and target.controllers() == [101]
    assert target.bootstrap == "localhost:9092,localhost:9093"
    assert asked()[0] == f"compose -f {tmp_path / 'compose.yaml'} -p p ps -q --all"


def test_compose_hurts_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked, _ = compose(tmp_path, monkeypatch)
    before = len(asked())
    target.kill(1)
    target.pause(2)
    target.resume(2)
    target.restart(3)
    assert asked()[before : before + 4] == [
        "kill p-kafka-1-1",
        "pause p-kafka-2-1",
        "unpause p-kafka-2-1",
        "restart -t 30 p-kafka-3-1",
    ]
    assert "exec p-kafka-3-1 odradek health" in asked()[before + 4 :]


def test_compose_asks_a_node_that_publishes_its_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [503, 503, 200]

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0) if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bindings = {"9644/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(server.server_port)}]}
    monkeypatch.setattr(containers, "HEALTH_TIMEOUT_S", PATIENCE_S)
    one = {**container(1), "HostConfig": {"PortBindings": bindings}}
    target, asked, _ = compose(tmp_path, monkeypatch, one)
    before = len(asked())
    target.restart(1)
    assert asked()[before:] == ["restart -t 30 p-kafka-1-1"] and not answers
    server.shutdown()
    server.server_close()


def test_compose_cuts_one_direction_and_heals_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, asked, inside = compose(tmp_path, monkeypatch)
    target.silence([(1, 2), (3, 2)])
    prepared, cut = inside()
    assert prepared.endswith(f"iptables -w -N {CHAIN} && iptables -w -I INPUT -j {CHAIN}")
    assert cut == f"-t 22 -n sh -c iptables -w -A {CHAIN} -s 10.0.0.1,10.0.0.3 -j DROP"
    assert sum("{{.State.Pid}}" in line for line in asked()) == 1, "one look for all"
    target.heal_network()
    healed = inside()[2:]
    assert sorted(line.split(" -n ")[0] for line in healed) == ["-t 11", "-t 22", "-t 33"]
    for line in healed:
        assert f"iptables -w -D INPUT -j {CHAIN}" in line and f"iptables -w -X {CHAIN}" in line
        assert line.endswith(f"! iptables -w -S INPUT | grep -e {CHAIN}"), "and looks whether it is gone"
    target.heal_network()
    assert len(inside()) == 5  # nothing is left to heal


def test_compose_says_where_the_network_could_not_be_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, _ = compose(tmp_path, monkeypatch)
    play("nsenter", [("-t 22", 4, "no such table")], tmp_path, monkeypatch)
    with pytest.raises(TargetError, match=r"p-kafka-2-1: .*iptables -w -N .*: no such table"):
        target.silence([(1, 2), (2, 1)])


def test_compose_leaves_the_network_of_a_container_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, inside = compose(tmp_path, monkeypatch)
    target.silence([(1, 2)])
    play(
        "docker",
        [("{{.State.Pid}}", 0, "11 10.0.0.1 127.0.0.1\n0\n33 10.0.0.3 127.0.0.1\n")],
        tmp_path,
        monkeypatch,
    )
    before = len(inside())
    target.heal_network()
    assert sorted(line.split(" -n ")[0] for line in inside()[before:]) == ["-t 11", "-t 33"]


def test_compose_makes_a_worse_network_with_what_the_kernel_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, inside = compose(tmp_path, monkeypatch)
    monkeypatch.setattr(namespaces, "works", lambda *words: "netem" not in words)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert target.impossible("delay") is None
    assert target.impossible("loss") is None and target.impossible("bandwidth") is None
    target.shape({"loss": 0.1})
    assert inside()[-1].endswith(
        f"iptables -w -A {CHAIN} -m statistic --mode random --probability 0.1 -j DROP"
    )
    target.shape({"kb_per_s": 64})
    assert inside()[-1].endswith("tc qdisc add dev eth0 root tbf rate 512kbit burst 16kb latency 400ms")


def test_compose_uses_netem_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _, inside = compose(tmp_path, monkeypatch)
    monkeypatch.setattr(namespaces, "works", lambda *words: True)
    target.shape({"delay_ms": 50.0, "jitter_ms": 5.0})
    assert inside()[-1].endswith("netem delay 50ms 5ms")
    target.shape({"loss": 0.1})
    assert inside()[-1].endswith("netem loss 10%")


def test_compose_sends_nodes_by_proxies_that_are_late_where_there_is_no_netem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, inside = compose(tmp_path, monkeypatch)
    monkeypatch.setattr(namespaces, "works", lambda *words: "netem" not in words)
    target.shape({"delay_ms": 50.0, "jitter_ms": 5.0})
    (first,) = [line for line in inside() if line.startswith("-t 11 ")]
    assert sum("DNAT" in line for line in inside()) == 3
    ways = [words for words in first.split(" && ") if "DNAT" in words]
    assert len(ways) == 4, "two other nodes, with two ports each; not those for clients"
    assert (
        f"iptables -w -t nat -A {DETOUR} -p tcp -d 10.0.0.2 --dport 9093 -j DNAT --to-destination 127.0.0.1:"
        in first
    )
    target.heal_network()
    for table in ("nat", "filter"):
        begun, ended = (f"-t {table} -{letter} OUTPUT -j {DETOUR}" for letter in "ID")
        assert sum(begun in line for line in inside()) == sum(ended in line for line in inside()) == 3


def hurtable(node: int, place: Path) -> dict[str, Any]:
    found = container(node)
    found["Mounts"].append({"Destination": "/var/lib/kafka/chaos", "Source": str(place)})
    return found


def test_compose_tells_a_node_what_is_wrong_with_its_disk_and_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faults.json").write_text('{"disk": {"mode": "full"}}')
    target, _, _ = compose(tmp_path, monkeypatch, hurtable(1, tmp_path))
    assert target.impossible("failing-disk") is None and target.impossible("clock-jump") is None
    told = lambda: json.loads((tmp_path / "faults.json").read_text())  # noqa: E731
    target.start()
    assert told() == {}, "what a run before left is healed"
    target.clock(1, 3600.0)
    target.disk(1, "slow-disk", {"write_ms": 20, "fsync_ms": 500})
    assert told() == {"clock_offset_s": 3600.0, "disk": {"mode": "slow", "write_ms": 20, "fsync_ms": 500}}
    target.disk(1, None, {})
    assert told() == {"clock_offset_s": 3600.0, "disk": {}}


def test_a_container_that_the_engine_is_about_to_start_again_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, _ = compose(tmp_path, monkeypatch)
    assert target.serves(1)
    play("docker", [("inspect", 0, "true true\n")], tmp_path, monkeypatch)
    assert not target.serves(1)


def test_compose_says_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _, _ = compose(tmp_path, monkeypatch)
    hint = "Start the nodes with -f deploy/compose/chaos.yaml, too"
    assert target.impossible("clock-jump") == f"a container has its machine's clock. {hint}"
    assert target.impossible("slow-disk") == f"a container has its machine's disk. {hint}"
    assert "volumes at /var/lib/kafka/data cannot be written to" in (target.impossible("flipped-byte") or "")
    majority = parse(
        {
            "description": "x",
            "cluster": {"controllers": 3},
            "faults": [{"kind": "kill", "who": "controllers"}],
        },
        "f",
        "f",
    )
    with pytest.raises(ScenarioError, match="needs controllers that are not brokers too"):
        check_possible(majority, target)


def test_compose_without_containers_says_how_to_start_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play("docker", [("ps -q", 0, "")], tmp_path, monkeypatch)
    file = tmp_path / "compose.yaml"
    with pytest.raises(TargetError, match="no such file"):
        ComposeTarget(file)
    file.write_text("")
    with pytest.raises(TargetError, match=rf"no node runs: docker compose -f {file} up -d --wait"):
        ComposeTarget(file)


def test_what_docker_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _, _ = compose(tmp_path, monkeypatch)
    play("docker", [("kill", 1, "no such container")], tmp_path, monkeypatch)
    with pytest.raises(TargetError, match="docker kill p-kafka-1-1: no such container"):
        target.kill(1)


SET = {
    "spec": {
        "replicas": 3,
        "template": {"spec": {"containers": [{"env": [{"name": "ODRADEK_NODE_ID_BASE", "value": "100"}]}]}},
    }
}
PODS: list[tuple[str, int, str]] = [
    ("get statefulset kafka-controller", 0, json.dumps(SET)),
    (
        "get statefulset kafka ",
        0,
        json.dumps({"spec": {"replicas": 2, "template": {"spec": {"containers": [{}]}}}}),
    ),
    ("get pod kafka-0 -o jsonpath={.status.podIP}", 0, "10.1.0.1"),
    ("get pod kafka-1 --ignore-not-found", 0, "Running"),
]


def pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: tuple[str, int, str], **settings: Any
) -> tuple[PodsTarget, Asked]:
    asked = play("kubectl", [*PODS, *more], tmp_path, monkeypatch)
    return PodsTarget("ns", "kafka", "localhost:31092", **settings), asked


def test_pods_have_the_ids_of_their_ordinals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = pods(tmp_path, monkeypatch, controllers="kafka-controller", context="c")
    assert target.brokers() == [0, 1] and target.controllers() == [100, 101, 102]
    assert asked()[0] == "--context c -n ns get statefulset kafka -o json"


def test_pods_are_deleted_and_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = pods(tmp_path, monkeypatch)
    target.kill(1)
    target.revive()
    assert asked()[1:] == [
        "-n ns delete pod kafka-1 --grace-period=0 --force --wait=false",
        "-n ns rollout status statefulset/kafka --timeout=180s",
        "-n ns wait --for=condition=Ready pod/kafka-0 --timeout=180s",
        "-n ns wait --for=condition=Ready pod/kafka-1 --timeout=180s",
    ]
    assert target.serves(1)


def test_pods_are_cut_by_policies_that_are_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, asked = pods(tmp_path, monkeypatch)
    target.silence([(0, 1)])
    policy = json.loads(asked()[-1])
    assert policy == policy_against("kafka-1", ["10.1.0.1"])
    assert policy["spec"]["ingress"] == [
        {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.1.0.1/32"]}}]}
    ]
    target.stop()
    assert asked()[-1] == "-n ns delete networkpolicy odradek-chaos-kafka-1 --ignore-not-found"


def test_pods_say_what_they_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = pods(tmp_path, monkeypatch, ("get networkpolicy", 0, "kafka odradek-chaos-kafka-0"))
    assert "first process" in (target.impossible("pause") or "")
    assert (
        target.impossible("isolate")
        == "NetworkPolicy kafka may allow what is to be cut: delete it for the run"
    )
    assert target.impossible("kill") is None and target.impossible("restart") is None
    assert all(target.impossible(kind) for kind in ("delay", "full-disk", "torn-tail", "clock-jump"))
    with pytest.raises(TargetError, match="give --bootstrap-server"):
        PodsTarget("ns", "kafka", None)
