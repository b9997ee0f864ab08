"""Kafka's own Java client, unmodified; and Kafka's own command-line tools beside ours."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from interop import jvm

SOURCE = Path(__file__).parent / "clients" / "StockClient.java"
SCENARIOS = ("codecs", "fields", "large", "group", "transactions", "admin")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the client, compiled once."""
    try:
        path = jvm.classpath(*jvm.kafka("kafka-clients"), jvm.LOGGER)
        java = jvm.tool("java")
        path = jvm.compile_java(SOURCE, path, tmp_path_factory.mktemp("classes"))
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return [
        java,
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        quiet,
        "-cp",
        path,
        "StockClient",
    ]


def test_the_java_client(bootstrap: str, program: list[str]) -> None:
    """One JVM for all scenarios: starting it takes longer than they do."""
    command = [*program, bootstrap, uuid.uuid4().hex[:8], *SCENARIOS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    passed = [json.loads(line)["passed"] for line in done.stdout.splitlines()]
    assert (passed, done.returncode) == (list(SCENARIOS), 0), done.stderr[-3000:]
