"""The Dockerfile and what it copies, without an engine."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

from odradek.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: name and arguments, continuations joined."""
    lines = [
        line
        for line in (ROOT / "deploy/docker/Dockerfile").read_text().splitlines()
        if line[:1] not in ("#", "")
    ]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [line.partition(" ") for line in text.splitlines()]
    return [(name, rest.strip()) for name, _, rest in found]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def value(name: str) -> str:
    return next(rest for each, rest in final_stage() if each == name)


def is_in_context(path: str) -> bool:
    """By .dockerignore: the last pattern that fits decides."""
    taken = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        if any(fnmatch.fnmatch(part, pattern) for part in (path, *map(str, Path(path).parents))):
            taken = line.startswith("!")
    return taken


def test_the_base_is_an_argument_of_every_stage() -> None:
    found = instructions()
    assert found[0][0] == "ARG"
    assert found[0][1].startswith("BASE_IMAGE=")
    stages = [rest for name, rest in found if name == "FROM"]
    assert [stage.split()[0] for stage in stages] == ["${BASE_IMAGE}"] * 2


def test_the_label_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert value("ARG") == f"VERSION={project['version']}"


def test_it_does_not_run_as_root() -> None:
    assert int(value("USER")) > 0


def test_data_secrets_and_configuration_are_volumes() -> None:
    assert json.loads(value("VOLUME")) == ["/var/lib/kafka/data", "/etc/kafka/secrets", "/mnt/shared/config"]


def test_what_runs_in_it_is_there() -> None:
    copied = {rest.split()[-1]: rest.split()[0] for name, rest in final_stage() if name == "COPY"}
    (first,) = json.loads(value("CMD"))
    assert (ROOT / copied[first]).stat().st_mode & 0o111
    program, command = json.loads(value("HEALTHCHECK").partition("CMD ")[2])
    assert program == "odradek"
    assert command in COMMANDS


def test_process_1_gets_the_signals() -> None:
    """No shell in front of it, which would keep them to itself."""
    assert value("CMD").startswith("[")
    assert value("STOPSIGNAL") == "SIGTERM"


def test_the_context_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in [*wheel["only-include"], *wheel.get("force-include", {})]:
        assert is_in_context(f"{package}/x.py"), package
    for name in (
        "pyproject.toml",
        "constraints.txt",
        project["project"]["readme"],
        "LICENSE",
        "deploy/docker/run",
    ):
        assert is_in_context(name), name


def test_the_context_has_nothing_else() -> None:
    for name in (".git/config", ".venv/bin/python", "tests/x.py", "data/meta.properties", ".env"):
        assert not is_in_context(name), name


def test_tools_have_the_names_of_kafkas_scripts() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    tools = {name for name in scripts if name.startswith("kafka-")}
    assert {name for name in tools if f"{name.removesuffix('.sh')}.sh" not in tools} == set()
