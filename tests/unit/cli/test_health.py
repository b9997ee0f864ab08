"""`odradek health`: what it asks, what it says, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from interop.cluster import PATIENCE_S
from odradek.cli import health, main
from odradek.cli.options import ToolError

Answer = Callable[..., tuple[int, list[bytes]]]


@pytest.fixture
def answer() -> Answer:
    """`answer(bytes)`: a port that gives them to the next caller, and a list of what callers sent."""

    def serve(reply: bytes) -> tuple[int, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        seen: list[bytes] = []

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                seen.append(connection.recv(4096))
                connection.sendall(reply)

        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()[1], seen

    return serve


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks gives a busy machine its time, where a test does not say otherwise."""
    monkeypatch.setattr(health, "TIMEOUT_S", PATIENCE_S)


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{body}\n".encode()


@pytest.mark.parametrize(
    ("argv", "path"),
    [([], "/readyz"), (["--ready"], "/readyz"), (["--live"], "/livez"), (["--startup"], "/startupz")],
)
def test_it_asks_the_probe_and_tells_what_it_says(
    argv: list[str], path: str, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    port, seen = answer(http("200 OK", '{"ready": true, "reasons": []}'))
    assert health.run([*argv, "--port", str(port)]) == 0
    assert capsys.readouterr().out == '{"ready": true, "reasons": []}\n'
    assert seen[0].startswith(f"GET {path} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("variable", ["ODRADEK_METRICS_PORT", "KAFKA_ODRADEK_METRICS_PORT"])
def test_the_address_is_that_of_the_node_in_the_same_environment(variable: str, answer: Answer) -> None:
    port, seen = answer(http("200 OK", "{}"))
    assert health.run([], {variable: str(port), "ODRADEK_METRICS_HOST": "0.0.0.0"}) == 0
    assert b"Host: 127.0.0.1\r\n" in seen[0]


def test_what_is_missing_is_one_line_and_exit_code_1(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    body = '{"ready": false, "reasons": ["the metadata quorum has no leader", "clients are not let in yet"]}'
    port, _ = answer(http("503 Service Unavailable", body))
    assert main.main(["health", "--port", str(port)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "not ready: the metadata quorum has no leader; clients are not let in yet\n"


@pytest.mark.parametrize(
    "reply", [b"", b"\x00\x00\x00\x04oops", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 oops\r\n\r\n"]
)
def test_what_is_no_node_is_called_so(reply: bytes, answer: Answer) -> None:
    port, _ = answer(reply)
    with pytest.raises(ToolError, match=f"what answers at localhost:{port} is no node of Odradek"):
        health.run(["--port", str(port)])


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ToolError, match=f"no probes at localhost:{port}: Connection refused"):
        health.run(["--port", str(port)])


def test_a_node_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ToolError, match="no answer in time"):
            health.run(["--port", str(port), "--timeout", "0.05"])


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_what_is_no_port(port: str) -> None:
    with pytest.raises(ToolError, match=r"odradek\.metrics\.port"):
        health.run([f"--port={port}"])
