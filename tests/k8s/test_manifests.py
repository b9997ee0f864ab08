"""The manifests of deploy/k8s/, offline: every field is known, and what they say fits together and the product."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from k8s import render
from k8s.pods import Objects, Pod, matches, named, of_kind, pods, write_secrets
from k8s.schema import load, problems
from odradek.broker.config import BrokerConfig
from odradek.broker.health import Health
from odradek.broker.http_server import HttpServer
from odradek.broker.properties import from_environment
from odradek.cli import container, health, pod
from odradek.cli.main import COMMANDS
from odradek.metadata.configs import is_known_broker_config

NOT_KEYS = {
    *("CLUSTER_ID_FILE", "POD_NAME", "POD_NAMESPACE", "POD_ZONE", "HOST_IP"),
    *("ODRADEK_NODE_ID_BASE", "ODRADEK_STOP_GRACE_SECONDS"),
}
"""Variables that `odradek pod` and `odradek container` read themselves."""


@pytest.fixture(params=render.NAMES)
def manifest(request: pytest.FixtureRequest) -> Objects:
    """Each overlay, and the chart with each set of values."""
    return render.kept(request.param)


def config_of(one: Pod, directory: Path) -> BrokerConfig:
    """What the process of this pod makes of its environment; files of the Secret are in `directory`."""
    write_secrets(directory)
    (directory / "zone").write_text("zone-a")
    moved = {
        key: value.replace(one.mounts()["secrets"], str(directory)).replace("/etc/kafka/rack", str(directory))
        for key, value in one.environment().items()
    }
    return container.configure([], pod.of_pod(moved), mounted="/nowhere", data=str(directory / "data"))


# -- Kubernetes ------------------------------------------------------------------------------------------------


def test_every_field_is_one_of_the_api(manifest: Objects) -> None:
    schema = load()
    found = {f"{each['kind']} {each['metadata']['name']}": problems(each, schema) for each in manifest}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.update(replica=3), "StatefulSet.spec.replica: there is no such field"),
        (lambda spec: spec.update(replicas="3"), "StatefulSet.spec.replicas: '3' is no integer"),
        (lambda spec: spec.pop("selector"), "StatefulSet.spec: selector is missing"),
        (
            lambda spec: spec["template"]["spec"]["containers"][0].update(command="odradek pod"),
            "StatefulSet.spec.template.spec.containers[0].command: 'odradek pod' is no list",
        ),
        (
            lambda spec: spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"].update(
                storage="10 GB"
            ),
            "StatefulSet.spec.volumeClaimTemplates[0].spec.resources.requests.storage: '10 GB' is no quantity",
        ),
    ],
)
def test_a_field_that_is_not_is_found(change: Any, said: str) -> None:
    stateful = named(render.kept("production"), "StatefulSet", "kafka")
    change(stateful["spec"])
    assert problems(stateful, load()) == [said]


@pytest.mark.parametrize("name", render.NAMES)
def test_what_is_kept_is_what_the_tools_make(name: str) -> None:
    made = render.render(name)
    if made is None:
        tool = "neither kustomize nor kubectl" if name in render.OVERLAYS else "no helm"
        pytest.skip(f"{tool} here to render {name} anew")

    def key(each: dict[str, Any]) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    assert sorted(render.objects(made), key=key) == sorted(render.kept(name), key=key), (
        "python tests/k8s/render.py renders it anew"
    )


def test_names_are_unique_and_everything_is_in_one_namespace(manifest: Objects) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifest]
    assert len(set(names)) == len(names)
    of_the_cluster = ("Namespace", "ClusterRole", "ClusterRoleBinding")
    assert {each["metadata"].get("namespace") for each in manifest if each["kind"] not in of_the_cluster} == {
        "kafka"
    }


def test_selectors_find_their_pods(manifest: Objects) -> None:
    there = list(pods(manifest))
    for workload in of_kind(manifest, "StatefulSet"):
        spec = workload["spec"]
        assert matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])
        affinity = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or [
            each["podAffinityTerm"] for each in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        ]
        for term in (*terms, *spec["template"]["spec"]["topologySpreadConstraints"]):
            own = [one for one in there if matches(term["labelSelector"]["matchLabels"], one.labels)]
            assert own == [one for one in there if one.workload is workload]
    for service in of_kind(manifest, "Service"):
        chosen = [one for one in there if matches(service["spec"]["selector"], one.labels)]
        assert chosen, f"{service['metadata']['name']} finds no pod"
        for port in service["spec"]["ports"]:
            assert {one.ports().get(port["targetPort"]) for one in chosen} == {port["port"]}
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for each in of_kind(manifest, kind):
            selector = each["spec"].get("selector") or each["spec"]["podSelector"]
            assert any(matches(selector["matchLabels"], one.labels) for one in there), each["metadata"][
                "name"
            ]


def test_what_is_referred_to_is_there(manifest: Objects) -> None:
    for one in pods(manifest):
        named(manifest, "ServiceAccount", one.spec["serviceAccountName"])
        headless = named(manifest, "Service", one.workload["spec"]["serviceName"])
        assert headless["spec"]["clusterIP"] == "None"
        assert headless["spec"]["publishNotReadyAddresses"] is True, (
            "nodes that are not ready find each other"
        )
        volumes = {each["name"] for each in one.spec["volumes"]}
        volumes |= {each["metadata"]["name"] for each in one.workload["spec"]["volumeClaimTemplates"]}
        containers = [*one.spec["containers"], *one.spec.get("initContainers", [])]
        assert {each["name"] for found in containers for each in found["volumeMounts"]} == volumes
    for binding in of_kind(manifest, "ClusterRoleBinding"):
        named(manifest, "ClusterRole", binding["roleRef"]["name"])
        for subject in binding["subjects"]:
            named(manifest, subject["kind"], subject["name"])
            assert subject["namespace"] == "kafka"


def test_containers_may_do_as_little_as_the_restricted_standard_asks_and_less(manifest: Objects) -> None:
    for workload in of_kind(manifest, "StatefulSet"):
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == context["fsGroup"] == 1000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in (*spec["containers"], *spec.get("initContainers", [])):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "cpu" not in each["resources"]["limits"], "a node that is throttled misses heartbeats"


def test_the_internal_port_is_for_nodes_alone(manifest: Objects) -> None:
    policies = of_kind(manifest, "NetworkPolicy")
    for one in pods(manifest):
        mine = [each for each in policies if matches(each["spec"]["podSelector"]["matchLabels"], one.labels)]
        rules = [rule for each in mine for rule in each["spec"].get("ingress", [])]
        assert all(rule.get("ports") for rule in rules), "a rule without ports lets in to every port"
        opened = {port["port"] for rule in rules for port in rule["ports"]}
        assert opened >= set(one.ports())
        for rule in rules:
            if {"internal", one.ports()["internal"]} & {port["port"] for port in rule["ports"]}:
                (source,) = rule["from"]
                assert set(source) == {"podSelector"}
                assert matches(source["podSelector"]["matchLabels"], one.labels)


# -- the product -----------------------------------------------------------------------------------------------


def test_every_variable_is_read_by_the_product(manifest: Objects) -> None:
    for one in pods(manifest):
        for name, value in one.environment().items():
            assert "$(" not in value, f"{name}={value}: the kubelet does not fill it in"
            key = name.removesuffix("_FILE") if name not in NOT_KEYS else name
            if key.startswith("ODRADEK_") and name not in NOT_KEYS:
                assert is_known_broker_config(key.lower().replace("_", "."))
            elif name not in NOT_KEYS:
                (found,) = from_environment({key: value})
                assert is_known_broker_config(found), f"{name} is {found}, which nobody reads"


def test_every_pod_is_a_node_that_the_others_know(manifest: Objects, tmp_path: Path) -> None:
    there = list(pods(manifest))
    configs = {one.name: config_of(one, tmp_path / one.name) for one in there}
    assert len({each.node_id for each in configs.values()}) == len(there)
    voters = {tuple(each.voters) for each in configs.values()}
    assert len(voters) == 1, "all pods have the same voters"
    by_id = {configs[one.name].node_id: one for one in there}
    for node_id, host, port in voters.pop():
        assert by_id[node_id].host == host
        assert (
            configs[by_id[node_id].name].controller_listeners[0].port
            == port
            == by_id[node_id].ports()["internal"]
        )
    for one in there:
        config, ports = configs[one.name], one.ports()
        assert config.internal_address == ("", ports["internal"])
        bound = {each.port for each in (*config.listeners, *config.controller_listeners)}
        assert bound | {ports["internal"], ports["metrics"]} == set(ports.values())
        assert config.odradek_metrics_port == ports["metrics"] and config.odradek_metrics_host == ""
        assert one.mounts()["data"] == container.DATA
        if "broker" in config.roles:
            assert str(config.advertised[0]) == f"PLAINTEXT://{one.host}:{ports['clients']}"


def test_clients_outside_are_told_where_the_service_of_that_broker_is(
    manifest: Objects, tmp_path: Path
) -> None:
    for one in pods(manifest):
        outside = [each for each in config_of(one, tmp_path).advertised if each.name == "EXTERNAL"]
        services = [
            each["spec"] | {"annotations": each["metadata"].get("annotations") or {}}
            for each in of_kind(manifest, "Service")
            if each["spec"]["selector"].get("statefulset.kubernetes.io/pod-name") == one.name
        ]
        assert len(outside) == len(services) <= 1
        for listener, service in zip(outside, services, strict=True):
            assert service["publishNotReadyAddresses"] is True, (
                "who is behind in one partition may lead others"
            )
            (port,) = service["ports"]
            if service["type"] == "NodePort":
                assert (listener.host, listener.port) == (one.host_ip, port["nodePort"])
            else:
                name = service["annotations"]["external-dns.alpha.kubernetes.io/hostname"]
                assert (service["type"], listener.host, listener.port) == ("LoadBalancer", name, port["port"])


def test_the_zone_of_a_machine_is_the_rack_of_its_broker(tmp_path: Path) -> None:
    for name in ("production", "helm-loadbalancer", "helm-everything"):
        for one in pods(render.kept(name)):
            config = config_of(one, tmp_path)
            assert config.broker_rack == ("zone-a" if "broker" in config.roles else None)


def test_probes_ask_what_the_product_answers(manifest: Objects) -> None:
    answered = set(HttpServer(Health(lambda: 0), None, None)._probes)  # type: ignore[arg-type]
    for one in pods(manifest):
        wanted = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
        for name, path in wanted.items():
            assert one.container[name]["httpGet"] == {"path": path, "port": "metrics"}
            assert path in answered
        # A restart because others are missing makes an outage of a pause: only /livez and /startupz kill.
        startup = one.container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, "recovery takes its time"


def test_commands_are_commands_of_the_product(manifest: Objects) -> None:
    for workload in of_kind(manifest, "StatefulSet"):
        spec = workload["spec"]["template"]["spec"]
        for each in (*spec["containers"], *spec.get("initContainers", [])):
            program, command, *options = each["command"]
            assert (program, command) == ("odradek", "pod") and command in COMMANDS
            assert options in ([], [pod.ZONE_OPTION, "/etc/kafka/rack/zone"])
    with (render.HERE.parents[1] / "pyproject.toml").open("rb") as file:
        assert "kafka-topics.sh" in tomllib.load(file)["project"]["scripts"]


def test_the_grace_period_holds_the_wait_and_a_controlled_shutdown(manifest: Objects) -> None:
    for one in pods(manifest):
        program, command, *options = one.container["lifecycle"]["preStop"]["exec"]["command"]
        assert (program, command) == ("odradek", "health")
        asked = health.build_parser().parse_args(options)
        assert asked.probe == "may-stop"
        grace = one.spec["terminationGracePeriodSeconds"]
        assert (
            int(one.environment()["ODRADEK_STOP_GRACE_SECONDS"])
            == grace - asked.wait
            >= container.GRACE_S_MIN
        )


def test_no_disruption_takes_what_min_isr_needs(manifest: Objects, tmp_path: Path) -> None:
    budgets = of_kind(manifest, "PodDisruptionBudget")
    for workload in of_kind(manifest, "StatefulSet"):
        one = Pod(manifest, workload, 0)
        (budget,) = [each for each in budgets if matches(each["spec"]["selector"]["matchLabels"], one.labels)]
        down = budget["spec"]["maxUnavailable"]
        config, replicas = config_of(one, tmp_path), workload["spec"]["replicas"]
        if "broker" in config.roles:
            least = int(config.static["min.insync.replicas"])
            assert config.default_replication_factor <= replicas
            assert config.default_replication_factor - least == (down if replicas > 1 else 0)
            assert config.offsets_topic_replication_factor == config.transaction_state_log_replication_factor
            assert config.transaction_state_log_min_isr == least
        voters = len(config.voters)
        if voters > 1 and "controller" in config.roles:
            assert voters - down >= voters // 2 + 1
        # Nothing is ready before a majority runs, so pods may not wait for each other.
        assert workload["spec"]["podManagementPolicy"] == "Parallel"


def test_settings_of_the_chart_are_settings_of_the_nodes() -> None:
    objects = render.kept("helm-everything")
    environment = Pod(objects, named(objects, "StatefulSet", "kafka"), 0).environment()
    wanted = {
        "KAFKA_LOG_RETENTION_BYTES": "1073741824",
        "KAFKA_LOG_CLEANER_MIN_CLEANABLE_RATIO": "0.25",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "ODRADEK_LOG_LEVEL": "warning",
    }
    assert wanted.items() <= environment.items()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("replicas=3", "set existingSecret (keys cluster-id and internal-secret), or both cluster.id"),
        (f"{render.SECRET},cluster.secret=short", "cluster.secret: 16 characters or more"),
        (f"{render.SECRET},replicas=2", "replicas is 2, and controllers.replicas 3"),
        ("existingSecret=s,stop.waitSeconds=110", "stop.graceSeconds must be 15 more than stop.waitSeconds"),
        (
            "existingSecret=s,external.type=LoadBalancer,external.host=a",
            "external.host must have {ordinal} in it",
        ),
        (r"existingSecret=s,config.node\.id=4", "config: node.id is the chart's to set"),
        ("existingSecret=s,replica=4", "replica"),
        ("existingSecret=s,controllers.replicas=2", "controllers.replicas"),
    ],
)
def test_values_of_the_chart_that_make_no_sense(values: str, said: str) -> None:
    command = render.helm_command()
    if command is None:
        pytest.skip("no helm here")
    done = subprocess.run(
        [*command, "--set", values], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and done.stdout == ""
    assert said in done.stderr


def test_the_chart_and_the_overlays_make_the_same_nodes() -> None:
    """But for what the overlay sets on top."""
    overlay, chart = (
        Pod(objects, named(objects, "StatefulSet", "kafka"), 0)
        for objects in (render.kept("production"), render.kept("helm-default"))
    )
    only = {"POD_ZONE", "KAFKA_REPLICA_SELECTOR_CLASS", "KAFKA_AUTO_CREATE_TOPICS_ENABLE"}
    ours = {key: value for key, value in overlay.environment().items() if key not in only}
    assert ours == chart.environment()
    for name in (
        "command",
        "ports",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "lifecycle",
        "securityContext",
    ):
        assert overlay.container[name] == chart.container[name], name


def test_names_are_those_of_the_usual_guides() -> None:
    for overlay in render.OVERLAYS:
        objects = render.kept(overlay)
        one = Pod(objects, named(objects, "StatefulSet", "kafka"), 0)
        assert one.host == "kafka-0.kafka-headless.kafka.svc.cluster.local"
        assert one.ports()["clients"] == 9092 and one.ports()["internal"] == 9093
        assert one.mounts()["data"] == "/var/lib/kafka/data"
        assert "kafka-bootstrap" in {each["metadata"]["name"] for each in of_kind(objects, "Service")}
