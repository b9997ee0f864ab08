"""Log lines for people and for machines, and the line at start."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest

from odradek.broker.config import BrokerConfig
from odradek.broker.config_builder import build_config, settings_of, zero_config
from odradek.broker.logs import BURST_LINES, Log, configure, startup_line

CLUSTER = "4L6g3nShT-eMCtK--X86sw"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def node_config(**settings: str) -> BrokerConfig:
    keys = {key.replace("_", "."): value for key, value in settings.items()}
    return build_config(zero_config(), settings_of(keys, "test"))


def lines(log: Log) -> list[str]:
    assert isinstance(log.stream, io.StringIO)
    return log.stream.getvalue().splitlines()


def test_a_piped_log_is_one_json_object_a_line() -> None:
    log = Log(stream=io.StringIO())
    log.info("recovered", topic="a\nb", raw=b"\xff", ms=3)
    (line,) = lines(log)
    found = json.loads(line)
    assert found["message"] == "recovered"
    assert (found["level"], found["topic"], found["ms"]) == ("info", "a\nb", 3)
    assert found["time"].endswith("Z")


def test_a_terminal_gets_colour_unless_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = Log(stream=Terminal())
    coloured.warning("careful")
    assert "\x1b[" in lines(coloured)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Log(stream=Terminal())
    plain.warning("careful")
    assert "\x1b[" not in lines(plain)[0]
    assert "careful" in lines(plain)[0]


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_stranger_sent_cannot_forge_a_line(form: str) -> None:
    log = Log(form, stream=io.StringIO())
    log.warning("closed a connection", reason="evil\n12:00:00 [info] all is well")
    assert len(lines(log)) == 1


def test_the_level_keeps_lesser_lines_out() -> None:
    log = Log(level="warning", stream=io.StringIO())
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [json.loads(line)["message"] for line in lines(log)] == ["c", "d"]


def test_an_exception_is_told_with_its_traceback() -> None:
    log = Log(stream=io.StringIO())
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        log.error("failed", exc_info=error)
    found = json.loads(lines(log)[0])
    assert "RuntimeError: why" in found["exception"]
    assert "test_logs.py" in found["exception"]


def test_a_flood_of_one_event_is_thinned_and_counted() -> None:
    now = [0.0]
    log = Log(stream=io.StringIO(), clock=lambda: now[0])
    for _ in range(1000):
        log.limited_warning("closed a connection", reason="bad frame")
    assert len(lines(log)) == BURST_LINES
    log.limited_warning("something else")
    assert len(lines(log)) == BURST_LINES + 1
    now[0] = 1.5
    log.limited_warning("closed a connection", reason="bad frame")
    log.limited_warning("closed a connection", reason="bad frame")
    assert len(lines(log)) == BURST_LINES + 2
    assert json.loads(lines(log)[-1])["suppressed"] == 1000 - BURST_LINES


def test_errors_that_strangers_can_cause_are_thinned_too() -> None:
    log = Log(stream=io.StringIO(), clock=lambda: 0.0)
    for _ in range(1000):
        log.limited_error("a request failed in the node", exc_info=ValueError("bad"))
    assert len(lines(log)) == BURST_LINES
    assert {json.loads(line)["level"] for line in lines(log)} == {"error"}


def test_what_clients_do_as_often_as_they_like_is_thinned_and_needs_its_level() -> None:
    log = Log(stream=io.StringIO(), clock=lambda: 0.0)
    for generation in range(1000):
        log.limited_info("group rebalances", group="g", generation=generation)
    assert len(lines(log)) == BURST_LINES
    assert {json.loads(line)["level"] for line in lines(log)} == {"info"}
    quiet = Log(level="warning", stream=io.StringIO(), clock=lambda: 0.0)
    quiet.limited_info("group rebalances")
    assert lines(quiet) == []


def test_a_closed_stream_costs_the_line_and_nothing_else() -> None:
    stream = io.StringIO()
    log = Log(stream=stream)
    log.info("before")
    stream.close()
    log.info("after")
    log.plain("after")


def test_the_line_at_start_says_what_to_connect_to() -> None:
    log = Log("text", stream=io.StringIO())
    startup_line(node_config(), CLUSTER, 312.4, {}, 9644, log)
    (line,) = lines(log)
    assert "bootstrap.servers=localhost:9092" in line
    assert CLUSTER in line
    assert "0.31 s" in line
    assert "http://127.0.0.1:9644/metrics" in line


def test_the_line_at_start_is_json_for_machines() -> None:
    log = Log("json", stream=io.StringIO())
    config = node_config(listeners="PLAINTEXT://:0", advertised_listeners="PLAINTEXT://h:0")
    startup_line(config, CLUSTER, 312.4, {"PLAINTEXT": 4711}, None, log)
    found = json.loads(lines(log)[0])
    assert found["message"] == "ready"
    assert found["bootstrap_servers"] == "h:4711"
    assert (found["cluster_id"], found["node_id"], found["elapsed_ms"]) == (CLUSTER, 1, 312)
    assert "metrics" not in found


def test_the_configuration_warns_first(capsys: pytest.CaptureFixture[str]) -> None:
    configure(node_config(odradek_log_format="json", foo="1"))
    found: Any = json.loads(capsys.readouterr().out)
    assert found["message"] == "These configurations '[foo]' were supplied but are not used yet."


def test_structlog_is_not_loaded_before_the_first_line() -> None:
    code = (
        "import io, sys; from odradek.broker.logs import Log; log = Log('text', stream=io.StringIO()); "
        "log.plain('x'); log.debug('y'); print('structlog' in sys.modules, 'prometheus_client' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False False\n"
