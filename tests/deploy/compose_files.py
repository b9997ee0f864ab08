"""Compose files as the compose program understands them, as far as ours go: defaults, `extends`, environments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?-)([^{}]*))?\}")


def services(name: str, environment: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services of one file, complete."""
    return {
        service: _complete(COMPOSE / name, body, environment or {})
        for service, body in load(COMPOSE / name, environment or {})["services"].items()
    }


def load(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(interpolate(path.read_text(), environment))
    return found


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """`${NAME-default}`, `${NAME:-default}`, where an empty value counts as none."""

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        given = environment.get(name)
        if given is None or (operator == ":-" and not given):
            return default or ""
        return given

    return _VARIABLE.sub(value, text)


def _complete(path: Path, body: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    extends = body.get("extends")
    if extends is None:
        return body
    parent = load(path.parent / extends["file"], environment)["services"][extends["service"]]
    merged = {**parent, **{key: value for key, value in body.items() if key != "extends"}}
    merged["environment"] = {**parent.get("environment", {}), **body.get("environment", {})}
    return merged
