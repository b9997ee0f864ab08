"""The HTTP endpoint over real sockets: routes, and what a stranger cannot do to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from interop.cluster import PATIENCE_S
from odradek.broker import http_server
from odradek.broker.health import Health, Verdict
from odradek.broker.http_server import HttpServer, NotYet

READY: tuple[bool, list[str]] = (True, [])


async def page(accept: str) -> tuple[bytes, str]:
    return b"numbers for " + accept.encode(), "text/plain"


async def broken(accept: str) -> tuple[bytes, str]:
    raise RuntimeError("no numbers today")


def health_of(readiness: Callable[[], tuple[bool, list[str]]]) -> Health:
    """Of a node that is ready or not, as `readiness` has it at each look."""
    ticks = iter(range(0, 1_000_000, 1_000))
    health = Health(lambda: next(ticks))
    node: Any = SimpleNamespace(readiness=readiness, logs=SimpleNamespace(dirs=[]))
    health.node = node
    return health


async def not_yet(accept: str) -> tuple[bytes, str]:
    raise NotYet


def run(
    test: Callable[[HttpServer, int], Awaitable[None]],
    *,
    readiness: Callable[[], tuple[bool, list[str]]] = lambda: READY,
    health: Health | None = None,
    metrics: http_server.Metrics = page,
    failures: list[Exception] | None = None,
) -> None:
    async def main() -> None:
        seen: list[Exception] = [] if failures is None else failures
        server = HttpServer(health or health_of(readiness), metrics, seen.append)
        await server.listen("127.0.0.1", 0)
        assert server.port is not None
        try:
            await test(server, server.port)
        finally:
            await server.close()

    asyncio.run(main())


async def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), headers, body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *headers, "", "")).encode()


def test_metrics_are_served_in_the_format_asked_for() -> None:
    async def test(server: HttpServer, port: int) -> None:
        status, headers, body = await exchange(
            port, get("/metrics?x=1", "ACCEPT: application/openmetrics-text")
        )
        assert (status, body) == (200, b"numbers for application/openmetrics-text")
        assert headers["content-length"] == str(len(body))

    run(test)


@pytest.mark.parametrize(("live", "ready"), [("/livez", "/readyz"), ("/health/live", "/health/ready")])
def test_live_is_live_and_ready_is_what_the_node_says(live: str, ready: str) -> None:
    state: list[tuple[bool, list[str]]] = [(False, ["the metadata quorum has no leader"])]

    async def test(server: HttpServer, port: int) -> None:
        status, _, body = await exchange(port, get(live))
        assert (status, json.loads(body)) == (200, {"live": True, "reasons": []})
        status, _, body = await exchange(port, get(ready))
        assert status == 503
        assert json.loads(body) == {"ready": False, "reasons": ["the metadata quorum has no leader"]}
        state[0] = READY
        status, _, body = await exchange(port, get(ready))
        assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})

    run(test, readiness=lambda: state[0])


def test_before_the_logs_are_open_probes_say_how_far_that_is() -> None:
    health = Health(lambda: 0)
    health.recovery.progress(3, 12, "orders-2")

    async def test(server: HttpServer, port: int) -> None:
        assert (await exchange(port, get("/livez")))[0] == 200
        status, _, body = await exchange(port, get("/startupz"))
        assert (status, json.loads(body)) == (
            503,
            {
                "started": False,
                "reasons": ["recovering: 3 of 12 logs opened, the last one orders-2"],
                "recovery": {"opened": 3, "logs": 12, "last": "orders-2", "segmentsLeft": 0},
            },
        )
        assert (await exchange(port, get("/readyz")))[0] == 503
        assert (await exchange(port, get("/metrics")))[0] == 503
        node: Any = SimpleNamespace(readiness=lambda: READY, logs=SimpleNamespace(dirs=[]))
        health.node = node
        assert (await exchange(port, get("/startupz")))[0] == 200

    run(test, health=health, metrics=not_yet)


def test_the_active_controller_is_asked_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[Verdict], None]] = []
    came = asyncio.Event()

    def may_stop(_node: Any, done: Callable[[Verdict], None]) -> None:
        asked.append(done)
        came.set()

    monkeypatch.setattr("odradek.broker.may_stop.may_stop", may_stop)
    monkeypatch.setattr(http_server, "VERDICT_KEPT_MS", 60_000)

    async def test(server: HttpServer, port: int) -> None:
        many = [asyncio.create_task(exchange(port, get("/may-stop"))) for _ in range(10)]
        async with asyncio.timeout(PATIENCE_S):
            await came.wait()
        asked[0](Verdict(False, {"may_stop": False, "reasons": ["not now"]}))
        for status, _, body in await asyncio.gather(*many):
            assert (status, json.loads(body)["reasons"]) == (503, ["not now"])
        assert len(asked) == 1

    run(test)


def test_a_node_whose_logs_are_not_open_may_stop() -> None:
    async def test(server: HttpServer, port: int) -> None:
        status, _, body = await exchange(port, get("/may-stop"))
        assert (status, json.loads(body)) == (200, {"may_stop": True, "reasons": []})

    run(test, health=Health(lambda: 0))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/nothing/here"), 404),
        (get("/metrics", method="POST"), 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_what_is_not_a_good_request_gets_an_answer_that_says_so(request_bytes: bytes, status: int) -> None:
    async def test(server: HttpServer, port: int) -> None:
        assert (await exchange(port, request_bytes))[0] == status

    run(test)


def test_head_has_the_length_and_no_body() -> None:
    async def test(server: HttpServer, port: int) -> None:
        status, headers, body = await exchange(port, get("/livez", method="HEAD"))
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0

    run(test)


def test_a_scrape_that_fails_is_an_error_for_the_scraper_only() -> None:
    failures: list[Exception] = []

    async def test(server: HttpServer, port: int) -> None:
        assert (await exchange(port, get("/metrics")))[0] == 500
        assert (await exchange(port, get("/livez")))[0] == 200

    run(test, metrics=broken, failures=failures)
    assert [str(error) for error in failures] == ["no numbers today"]


def test_a_request_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 0.05)

    async def test(server: HttpServer, port: int) -> None:
        assert (await exchange(port, b"GET /metrics HTTP/1.1\r\n"))[0] == 408

    run(test)


def test_connections_beyond_the_limit_are_dropped_and_the_limit_frees_up() -> None:
    async def test(server: HttpServer, port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(http_server.CONNECTIONS_MAX)]
        async with asyncio.timeout(PATIENCE_S):
            while len(server._tasks) < http_server.CONNECTIONS_MAX:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionError):
                if not await reader.read(1):
                    raise ConnectionResetError
        writer.close()
        for _, each in held:
            each.close()
        await asyncio.wait(server._tasks, timeout=PATIENCE_S)
        assert (await exchange(port, get("/livez")))[0] == 200

    run(test)


def test_a_peer_that_hangs_up_half_way_costs_nothing() -> None:
    async def test(server: HttpServer, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /met")
        writer.close()
        await writer.wait_closed()
        assert (await exchange(port, get("/livez")))[0] == 200

    run(test)


def test_a_busy_port_is_a_warning_and_no_endpoint() -> None:
    warnings: list[dict[str, Any]] = []
    log: Any = SimpleNamespace(warning=lambda event, **values: warnings.append({"event": event, **values}))

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config: Any = SimpleNamespace(odradek_metrics_host="127.0.0.1", odradek_metrics_port=port)
            server = await HttpServer.start(config, health_of(lambda: READY), log)
            assert server.port is None
            await server.close()
            assert warnings[0]["address"] == f"127.0.0.1:{port}"
            assert "--metrics-port or odradek.metrics.port" in warnings[0]["event"]
            assert warnings[0]["error"] == "Address already in use"

    asyncio.run(main())
