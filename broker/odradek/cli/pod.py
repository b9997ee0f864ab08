"""`odradek pod`: the first process of a StatefulSet's pod. It is `odradek container` that knows which of several it is.

    POD_NAME                    from the downward API (else the host name): kafka-2 has the ordinal 2
    ODRADEK_NODE_ID_BASE        node.id is this plus the ordinal; 0 if it is not set
    KAFKA_ADVERTISED_LISTENERS, KAFKA_CONTROLLER_QUORUM_VOTERS
                                may say {ordinal}, {ordinal+31090}, and {POD_NAMESPACE} or any other variable; what
                                Kubernetes fills in itself, $(VARIABLE), it does not fill in in a ConfigMap
    KAFKA_PROCESS_ROLES         broker,controller: a pod that is not among the voters is a broker only, so that the set
                                can grow. controller: all pods must be among the voters
    POD_ZONE                    from the downward API: the pod's label topology.kubernetes.io/zone, that of its machine
                                from Kubernetes 1.35 on; it becomes broker.rack

Before, labels of machines are no part of the downward API: `odradek pod --zone FILE`, of an init container, asks the
Kubernetes API, and writes the zone into FILE, from where KAFKA_BROKER_RACK_FILE takes it. Its service account must be
allowed to `get` nodes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from odradek.broker.config import StartupError

ZONE_LABEL = "topology.kubernetes.io/zone"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
API_TIMEOUT_S = 10.0
API_BYTES_MAX = 4 << 20
ZONE_OPTION = "--zone"
_POD = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?-(0|[1-9][0-9]{0,8})", re.ASCII)
_PLACE = re.compile(r"\{([^{}]*)\}")
_FILLED = ("KAFKA_ADVERTISED_LISTENERS", "KAFKA_CONTROLLER_QUORUM_VOTERS")
_OF_BROKERS = ("KAFKA_ADVERTISED_LISTENERS", "KAFKA_BROKER_RACK_FILE", "POD_ZONE")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_ORDINAL = re.compile(r"ordinal(?:\+([0-9]{1,9}))?", re.ASCII)


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """The exit code, once the node has stopped; of `--zone`, when the file is written."""
    if "--help" in argv:
        print(__doc__)
        return 0
    variables = os.environ if environment is None else environment
    try:
        if argv and argv[0] == ZONE_OPTION:
            if len(argv) != 2:
                raise StartupError(f"{ZONE_OPTION} expects one argument, the file to write")
            write_zone(argv[1], variables)
            return 0
        mine = of_pod(variables)
    except StartupError as error:
        print(f"odradek: {error}", file=sys.stderr, flush=True)
        return 1
    from odradek.cli.container import run as run_container

    return run_container(argv, mine)


def of_pod(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of this pod's container: what is the same for all pods, with what is this one's. StartupError."""
    found = dict(environment)
    ordinal = ordinal_of(found)
    node_id = _number(found, "ODRADEK_NODE_ID_BASE") + ordinal
    told = found.get("KAFKA_NODE_ID", "").strip()
    if told and told != str(node_id):
        raise StartupError(
            f"KAFKA_NODE_ID={told}, and the name of this pod makes it node {node_id}: leave KAFKA_NODE_ID out"
        )
    found["KAFKA_NODE_ID"] = str(node_id)
    if _words(found.get("KAFKA_PROCESS_ROLES", "")) == ["controller"]:
        for key in _OF_BROKERS:  # a ConfigMap of both
            found.pop(key, None)
    for key in _FILLED:
        if key in found:
            found[key] = filled(key, found[key], ordinal, environment)
    if zone := found.pop("POD_ZONE", "").strip():
        found.setdefault("KAFKA_BROKER_RACK", zone)
    if _is_empty(found.get("KAFKA_BROKER_RACK_FILE", "")):
        del found["KAFKA_BROKER_RACK_FILE"]  # a machine without a zone
    return as_broker(found, node_id) if not _is_voter(found, node_id) else found


def _is_empty(path: str) -> bool:
    try:
        return bool(path) and os.path.getsize(path) == 0
    except OSError:
        return False  # whoever reads it says why it cannot be read


def ordinal_of(environment: Mapping[str, str]) -> int:
    """Of a StatefulSet's pod. StartupError for a name without one."""
    variable = next((name for name in ("POD_NAME", "HOSTNAME") if environment.get(name)), None)
    if variable is None:
        raise StartupError("POD_NAME is not set: let the downward API give it metadata.name")
    matched = _POD.fullmatch(environment[variable])
    if matched is None:
        raise StartupError(
            f"{variable}={environment[variable]} does not end in an ordinal, such as kafka-0: odradek pod is for the "
            "pods of a StatefulSet, and odradek container for others"
        )
    return int(matched[1])


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "").strip() or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise StartupError(f"{name}={environment[name]}: expected a number, 0 or more")
    return int(text)


def filled(key: str, text: str, ordinal: int, environment: Mapping[str, str]) -> str:
    """`text` with its places in braces filled in. StartupError for one that has no meaning."""

    def fill(place: re.Match[str]) -> str:
        name = place[1].replace(" ", "")
        if matched := _ORDINAL.fullmatch(name):
            return str(ordinal + int(matched[1] or 0))
        if not _VARIABLE.fullmatch(name):
            raise StartupError(
                f"{key}: {place[0]} is neither {{ordinal}}, {{ordinal+NUMBER}} nor {{VARIABLE}}"
            )
        value = environment.get(name, "").strip()
        if not value:
            raise StartupError(f"{key} names {place[0]}, and there is no variable {name}")
        return f"[{value}]" if ":" in value and "[" not in value else value  # an IPv6 address before its port

    return _PLACE.sub(fill, text)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _is_voter(environment: Mapping[str, str], node_id: int) -> bool:
    """Whether it is one of controller.quorum.voters; True where nobody is named."""
    voters = _words(environment.get("KAFKA_CONTROLLER_QUORUM_VOTERS", ""))
    return not voters or str(node_id) in {voter.partition("@")[0] for voter in voters}


def as_broker(environment: Mapping[str, str], node_id: int) -> dict[str, str]:
    """Without the role of a controller, and its listeners. StartupError where that leaves no role."""
    found = dict(environment)
    roles = _words(found.get("KAFKA_PROCESS_ROLES", ""))
    if roles == ["controller"]:
        raise StartupError(
            f"this pod is node {node_id}, which is not among KAFKA_CONTROLLER_QUORUM_VOTERS "
            f"({found['KAFKA_CONTROLLER_QUORUM_VOTERS']}): a StatefulSet of controllers has as many replicas as that "
            "list has entries"
        )
    found["KAFKA_PROCESS_ROLES"] = "broker"
    names = {name.upper() for name in _words(found.get("KAFKA_CONTROLLER_LISTENER_NAMES", ""))}
    for key in ("KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"):
        if key in found:
            kept = [each for each in _words(found[key]) if each.partition("://")[0].upper() not in names]
            found[key] = ",".join(kept)
    return found


# -- the zone --------------------------------------------------------------------------------------------------


def write_zone(path: str, environment: Mapping[str, str], account: str = ACCOUNT) -> None:
    """Into a file; an empty one, and a line that says so, for a machine without a zone. StartupError."""
    node = environment.get("NODE_NAME", "")
    if not node:
        raise StartupError("NODE_NAME is not set: let the downward API give it spec.nodeName")
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise StartupError("KUBERNETES_SERVICE_HOST is not set: this is no pod of Kubernetes")
    zone = zone_of(ask_node(f"https://{f'[{host}]' if ':' in host else host}:{port}", node, account))
    if not zone:
        print(f"odradek: the node {node} has no label {ZONE_LABEL}: this broker has no rack", file=sys.stderr)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(zone)
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}") from error


def zone_of(node: Any) -> str:
    """The zone among the labels of a Node object; "" without one."""
    metadata = node.get("metadata") if isinstance(node, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    zone = labels.get(ZONE_LABEL) if isinstance(labels, dict) else None
    return zone if isinstance(zone, str) else ""


def ask_node(api: str, node: str, account: str) -> Any:
    """A Node object of the Kubernetes API at the URL `api`. StartupError says what is missing."""
    import ssl
    import urllib.error
    import urllib.parse
    import urllib.request

    try:
        with open(f"{account}/token", encoding="ascii") as file:
            token = file.read().strip()
        context = ssl.create_default_context(cafile=f"{account}/ca.crt") if api.startswith("https") else None
    except (OSError, ValueError) as error:
        raise StartupError(f"no token of a service account at {account}: {error}") from error
    request = urllib.request.Request(f"{api}/api/v1/nodes/{urllib.parse.quote(node, safe='')}")
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=API_TIMEOUT_S, context=context) as answer:
            return json.loads(answer.read(API_BYTES_MAX))
    except urllib.error.HTTPError as error:
        hint = (
            ": a ClusterRole must allow its service account to get nodes" if error.code in (401, 403) else ""
        )
        raise StartupError(
            f"the Kubernetes API answers {error.code} when asked for the node {node}{hint}"
        ) from error
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise StartupError(
            f"the Kubernetes API at {api} does not tell of the node {node}: {error}"
        ) from error
