"""Whether an object has the fields, types and required fields that Kubernetes' API knows: what its published OpenAPI
document says of the kinds that are used here, kept in `schema.json`.

    python tests/k8s/schema.py SWAGGER_JSON VERSION     writes schema.json anew

SWAGGER_JSON is api/openapi-spec/swagger.json of a release. Unknown fields are errors, as with
`kubectl --validate=strict`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("schema.json")
KINDS = {
    "v1/Namespace": "io.k8s.api.core.v1.Namespace",
    "v1/ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "v1/Secret": "io.k8s.api.core.v1.Secret",
    "v1/Service": "io.k8s.api.core.v1.Service",
    "v1/ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "apps/v1/StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
    "policy/v1/PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "networking.k8s.io/v1/NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "rbac.authorization.k8s.io/v1/ClusterRole": "io.k8s.api.rbac.v1.ClusterRole",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": "io.k8s.api.rbac.v1.ClusterRoleBinding",
}
SERVICE_MONITOR = "monitoring.coreos.com/v1/ServiceMonitor"
"""Of the Prometheus operator, and in no document of Kubernetes: what is used of it, as its API reference has it."""
_SERVICE_MONITOR: dict[str, Any] = {
    "required": ["spec"],
    "fields": {
        "apiVersion": "string",
        "kind": "string",
        "metadata": "#io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "spec": "#ServiceMonitorSpec",
    },
}
_SERVICE_MONITOR_SPEC: dict[str, Any] = {
    "required": ["selector", "endpoints"],
    "fields": {
        "selector": "#io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
        "endpoints": ["#ServiceMonitorEndpoint"],
        "targetLabels": ["string"],
    },
}
_SERVICE_MONITOR_ENDPOINT: dict[str, Any] = {
    "required": [],
    "fields": {"port": "string", "path": "string", "interval": "string"},
}
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")

# A type is "string", "integer", "number", "boolean", "quantity", "int-or-string", "any", "#definition", [items], or
# {"*": values} for a map.


def problems(thing: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What is wrong with an object, each with its path."""
    kind = f"{thing.get('apiVersion')}/{thing.get('kind')}"
    if kind not in schema["kinds"]:
        return [f"{kind} is no kind that schema.json has"]
    return list(_problems(thing, f"#{schema['kinds'][kind]}", schema["definitions"], thing["kind"]))


def _problems(value: Any, kind: Any, definitions: dict[str, Any], path: str) -> list[str]:
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [
            each
            for i, item in enumerate(value)
            for each in _problems(item, kind[0], definitions, f"{path}[{i}]")
        ]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no map"]
        return [
            each
            for key, item in value.items()
            for each in _problems(item, kind["*"], definitions, f"{path}.{key}")
        ]
    if kind.startswith("#"):
        return _problems_of_object(value, definitions[kind[1:]], definitions, path)
    return [] if _fits(value, kind) else [f"{path}: {value!r} is no {kind}"]


def _problems_of_object(
    value: Any, definition: dict[str, Any], definitions: dict[str, Any], path: str
) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no object"]
    found = [f"{path}: {name} is missing" for name in definition["required"] if value.get(name) is None]
    for name, item in value.items():
        if name not in definition["fields"]:
            found.append(f"{path}.{name}: there is no such field")
        elif item is None:
            found.append(f"{path}.{name}: it is null")
        else:
            found += _problems(item, definition["fields"][name], definitions, f"{path}.{name}")
    return found


def _fits(value: Any, kind: str) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return whole
        case "number":
            return whole or isinstance(value, float)
        case "boolean":
            return isinstance(value, bool)
        case "int-or-string":
            return whole or isinstance(value, str)
        case "quantity":
            return whole or (isinstance(value, str) and _QUANTITY.fullmatch(value) is not None)
    return kind == "any"


def load() -> dict[str, Any]:
    with FILE.open(encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    return schema


# -- made from Kubernetes' own document ------------------------------------------------------------------------


def from_openapi(swagger: dict[str, Any], version: str) -> dict[str, Any]:
    """The definitions that KINDS reach, without their prose."""
    all_of_them = swagger["definitions"]
    found: dict[str, Any] = {}
    left = list(KINDS.values())
    while left:
        name = left.pop()
        if name in found:
            continue
        definition = all_of_them[name]
        fields = {key: _type(each) for key, each in definition.get("properties", {}).items()}
        found[name] = {"required": definition.get("required", []), "fields": fields}
        left += re.findall(r'"#([^"]+)"', json.dumps(fields))
    found["ServiceMonitor"] = _SERVICE_MONITOR
    found["ServiceMonitorSpec"] = _SERVICE_MONITOR_SPEC
    found["ServiceMonitorEndpoint"] = _SERVICE_MONITOR_ENDPOINT
    kinds = {**KINDS, SERVICE_MONITOR: "ServiceMonitor"}
    return {"kubernetes": version, "kinds": kinds, "definitions": dict(sorted(found.items()))}


def _type(definition: dict[str, Any]) -> Any:
    reference = definition.get("$ref", "").rpartition("/")[2]
    if reference.endswith(".IntOrString"):
        return "int-or-string"
    if reference.endswith(".Quantity"):
        return "quantity"
    if reference.endswith((".Time", ".MicroTime")):
        return "string"
    if reference.endswith((".FieldsV1", ".RawExtension")):
        return "any"
    if reference:
        return f"#{reference}"
    match definition.get("type"):
        case "array":
            return [_type(definition["items"])]
        case "object" if "additionalProperties" in definition:
            return {"*": _type(definition["additionalProperties"])}
        case "object" | None:
            return "any"
        case simple:
            return simple


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as opened:
        made = from_openapi(json.load(opened), sys.argv[2])
    FILE.write_text(json.dumps(made, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
