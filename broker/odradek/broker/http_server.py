"""Metrics and probes: a small HTTP server beside the broker's own port.

    GET /metrics     Prometheus' text format, or OpenMetrics where it is asked for
    GET /livez       200 as long as the event loop turns; else 503 with the reasons, as the other probes (health.py)
    GET /startupz    200 once the logs are open; until then how far that is
    GET /readyz      200 when the node does all that it should
    GET /may-stop    200 when the others can do without it (may_stop.py)

/health/live and /health/ready are other names of /livez and /readyz. It is there before the logs are open.

It answers one request per connection and gives a stranger little to hold on to: HEAD_BYTES_MAX of request,
REQUEST_TIMEOUT_S to send it and to take the answer, CONNECTIONS_MAX at once. A port that is taken costs a
warning and the endpoint, never the node: two nodes on one machine with default settings both start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from odradek.broker import metrics_export
from odradek.broker.health import VERDICT_KEPT_MS, Health, Verdict

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.logs import Log

HEAD_BYTES_MAX = 8192
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 32

Metrics = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an Accept header to a body and its content type."""

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_PAGE = b"Odradek: /metrics /livez /readyz /startupz /may-stop\n"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class NotYet(Exception):  # noqa: N818 - a state, not a mistake
    """There is no node to tell of yet."""


class HttpServer:
    """`port` is the bound one, None where there is no server."""

    def __init__(self, health: Health, metrics: Metrics, failed: Callable[[Exception], None]) -> None:
        self.port: int | None = None
        self._failed = failed
        self._probes: dict[str, Callable[[], Verdict]] = {
            "/livez": health.live,
            "/health/live": health.live,
            "/startupz": health.started,
            "/readyz": health.ready,
            "/health/ready": health.ready,
        }
        self._health = health
        self._asked: asyncio.Future[Verdict] | None = None
        """What /may-stop heard last, or is going to hear."""
        self._asked_until = 0.0
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, config: BrokerConfig, health: Health, log: Log) -> HttpServer:
        """Serve the numbers of `health.node`, and its health; a busy port is told and left."""

        async def metrics(accept: str) -> tuple[bytes, str]:
            if health.node is not None:
                found = metrics_export.snapshot(health.node)
            elif health.counts is not None:
                found = metrics_export.recovery_snapshot(health.counts)
            else:
                raise NotYet
            loop = asyncio.get_running_loop()
            # Formatting takes some 8 µs a sample: not on the thread that serves requests.
            return await loop.run_in_executor(None, metrics_export.render, found, accept)

        def failed(error: Exception) -> None:
            log.limited_warning("a scrape failed", exc_info=error)

        server = cls(health, metrics, failed)
        host, port = config.odradek_metrics_host, config.odradek_metrics_port
        try:
            await server.listen(host, port)
        except OSError as error:
            log.warning(
                "no metrics and health endpoint: its address cannot be used; choose another port with "
                "--metrics-port or odradek.metrics.port",
                address=f"{host}:{port}",
                error=os.strerror(error.errno) if error.errno else str(error),
            )
        return server

    async def listen(self, host: str, port: int) -> None:
        """OSError if the address cannot be bound."""
        self._server = await asyncio.start_server(self._accepted, host or None, port, limit=HEAD_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S * 2):
                method, status, body, kind = await self._answer(reader)
                writer.write(_head(status, kind, len(body)) + (b"" if method == "HEAD" else body))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):  # the peer went away, or does not read
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, int, bytes, str]:
        """Method, status, body and content type."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "", 431, b"the request is too large\n", TEXT
        except TimeoutError:
            return "", 408, b"the request did not come in time\n", TEXT
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", 400, b"not HTTP/1.x\n", TEXT
        method, target = words[0], words[1]
        if method not in ("GET", "HEAD"):
            return method, 405, b"GET or HEAD only\n", TEXT
        accept = next((line[7:].strip() for line in lines[1:] if line[:7].lower() == "accept:"), "")
        try:
            return method, *await self._route(target.partition("?")[0], accept)
        except NotYet:
            return method, 503, b"the node has no numbers before its logs are open\n", TEXT
        except Exception as error:  # noqa: BLE001  whatever a scrape runs into, the node goes on
            self._failed(error)
            return method, 500, b"the node's log says what failed\n", TEXT

    async def _route(self, path: str, accept: str) -> tuple[int, bytes, str]:
        probe = self._probes.get(path)
        if probe is not None:
            return _told(probe())
        if path == "/may-stop":
            return _told(await self._may_stop())
        if path == "/metrics":
            return 200, *await self._metrics(accept)
        return (200 if path == "/" else 404), _PAGE, TEXT

    async def _may_stop(self) -> Verdict:
        """It asks the active controller: once for all who ask at the same time."""
        node = self._health.node
        if node is None:
            return Verdict(True, {"may_stop": True, "reasons": []})  # nobody relies on it yet
        from odradek.broker.may_stop import may_stop

        loop = asyncio.get_running_loop()
        asked = self._asked
        if asked is None or (asked.done() and loop.time() > self._asked_until):
            asked = self._asked = loop.create_future()
            self._asked_until = loop.time() + VERDICT_KEPT_MS / 1000
            may_stop(node, asked.set_result)
        return await asyncio.shield(asked)


def _told(verdict: Verdict) -> tuple[int, bytes, str]:
    return (200 if verdict.ok else 503), json.dumps(verdict.body).encode() + b"\n", JSON


def _head(status: int, kind: str, length: int) -> bytes:
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("latin-1")
