"""`odradek start` and `odradek server` up to the configuration they run with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from odradek.broker.config import BrokerConfig, StartupError
from odradek.cli import serve


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[BrokerConfig]:
    """Configurations that a node would have been run with."""
    configs: list[BrokerConfig] = []

    def run(config: BrokerConfig) -> int:
        configs.append(config)
        return 0

    server = ModuleType("odradek.broker.server")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odradek.broker.server", server)
    return configs


def test_start_needs_nothing(started: list[BrokerConfig]) -> None:
    assert serve.run_start([], {}) == 0
    (config,) = started
    assert config.bootstrap() == "localhost:9092"
    assert config.log_dirs == ("data",)
    assert config.odradek_metrics_port == 9644


@pytest.mark.parametrize("run", [serve.run_start, serve.run_server])
def test_help_shows_each_option_beside_its_text(
    run: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["--override", "KEY=VALUE", "set a key of server.properties; may be given again"] in lines


def test_start_takes_options(started: list[BrokerConfig]) -> None:
    options = ["--port", "9192", "--data", "/d", "--advertise", "box", "--metrics-port", "-1"]
    options += ["--log-format", "json", "--override", "num.partitions=4", "--override", "node.id=7"]
    assert serve.run_start(options, {"CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw"}) == 0
    (config,) = started
    assert config.listeners[0].port == 9192
    assert config.bootstrap() == "box:9192"
    assert (config.log_dirs, config.num_partitions, config.node_id) == (("/d",), 4, 7)
    assert (config.odradek_metrics_port, config.odradek_log_format) == (-1, "json")
    assert config.cluster_id == "4L6g3nShT-eMCtK--X86sw"


def test_options_beat_the_environment_and_overrides_beat_both(started: list[BrokerConfig]) -> None:
    environment = {
        "KAFKA_NUM_PARTITIONS": "3",
        "KAFKA_LISTENERS": "PLAINTEXT://:7000",
        "ODRADEK_METRICS_PORT": "1",
    }
    serve.run_start([], environment)
    serve.run_start(["--port", "8000", "--metrics-port", "2"], environment)
    serve.run_start(["--port", "8000", "--override", "listeners=PLAINTEXT://:9000"], environment)
    assert [config.listeners[0].port for config in started] == [7000, 8000, 9000]
    assert [config.bootstrap() for config in started] == [
        "localhost:7000",
        "localhost:8000",
        "localhost:9000",
    ]
    assert [config.odradek_metrics_port for config in started] == [1, 2, 1]
    assert started[0].num_partitions == 3


def test_the_log_level_of_the_image_is_understood(started: list[BrokerConfig]) -> None:
    serve.run_start([], {"KAFKA_LOG4J_ROOT_LOGLEVEL": "WARN"})
    serve.run_start([], {"KAFKA_LOG4J_ROOT_LOGLEVEL": "WARN", "ODRADEK_LOG_LEVEL": "error"})
    assert [config.odradek_log_level for config in started] == ["warning", "error"]


def test_server_reads_the_file_then_the_environment_then_overrides(
    started: list[BrokerConfig], tmp_path: Path
) -> None:
    file = tmp_path / "server.properties"
    file.write_text("# mine\nnode.id=5\nlog.dirs=/one\nnum.partitions=2\nlisteners=PLAINTEXT://h:9092\n")
    overrides = ["--override", "num.partitions=9"]
    assert serve.run_server([str(file), *overrides], {"KAFKA_LOG_DIRS": "/two"}) == 0
    (config,) = started
    assert (config.node_id, config.log_dirs, config.num_partitions) == (5, ("/two",), 9)
    assert config.bootstrap() == "h:9092"
    assert config.odradek_metrics_port == -1
    assert config.offsets_topic_replication_factor == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a=1\nnum.partitions=many\n", "line 2: Invalid value many for configuration num.partitions"),
        (b"a=1\nb=\\uZZZZ\n", "line 2: malformed \\uxxxx escape in the value of b"),
        (b'{"node.id": 1}', "line 1: '{\"node.id\"' is not a key"),
        (b"zookeeper.connect=h:2181\n", "line 1: zookeeper.connect belongs to ZooKeeper"),
        (b"a=" + b"x" * (1 << 20), "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line_and_exit_code_1(
    started: list[BrokerConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    expected: str,
) -> None:
    file = tmp_path / "bad.properties"
    file.write_bytes(content)
    assert serve.run_server([str(file)], {}) == 1
    told = capsys.readouterr().err
    assert told.startswith("odradek: ")
    assert expected in told
    assert told.count("\n") == 1
    assert started == []


def test_a_file_that_is_not_there_and_a_directory_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert serve.run_server([str(tmp_path / "none")], {}) == 1
    assert serve.run_server([str(tmp_path)], {}) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("none: No such file or directory")
    assert told[1].endswith(": Is a directory")


def test_what_the_node_says_at_start_is_told_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: BrokerConfig) -> int:
        raise StartupError("cannot listen on *:9092: the port is in use")

    server = ModuleType("odradek.broker.server")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odradek.broker.server", server)
    assert serve.run_start([], {}) == 1
    assert capsys.readouterr().err == "odradek: cannot listen on *:9092: the port is in use\n"
