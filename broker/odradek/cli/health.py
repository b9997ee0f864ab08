"""`odradek health`: asks a node's probes, for the health check of a container: exit code 0 or 1.

It runs every few seconds on the machine that it judges, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from odradek.cli.options import ToolError, ToolParser, run_tool

DEFAULT_PORT = 9644
TIMEOUT_S = 3.0
ANSWER_BYTES_MAX = 64 * 1024
PROBES = {"ready": "/readyz", "live": "/livez", "startup": "/startupz", "may-stop": "/may-stop"}
HELP = {
    "ready": "it serves clients, and each of its replicas is in sync (default)",
    "live": "its event loop answers, and a log directory is left",
    "startup": "its logs are open; until then how far that is",
    "may-stop": "the others can do without it: each partition keeps min.insync.replicas, the controllers a majority",
}
AGAIN_S = 0.5
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoProbesError(ToolError):
    """Nobody answers, or somebody else."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0 for yes, 1 for no with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str], environment: Mapping[str, str] | None = None) -> int:
    """Parse, ask, tell."""
    options = build_parser().parse_args(argv)
    host, port = address(options, os.environ if environment is None else environment)
    deadline = time.monotonic() + options.wait
    while True:
        try:
            print(asked(host, port, options.probe, options.timeout))
            return 0
        except ToolError as error:
            gone = isinstance(error, NoProbesError) and options.probe == "may-stop"
            if gone or time.monotonic() >= deadline:
                raise
        time.sleep(AGAIN_S)


def asked(host: str, port: int, probe: str, timeout_s: float) -> str:
    """The body of a yes; ToolError for a no, or for no answer."""
    status, body = ask(host, port, PROBES[probe], timeout_s)
    if status != 200:
        raise ToolError(f"not {probe}: {reasons(body)}")
    return body


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog="odradek health",
        description="Ask a node on this machine how it does. Exit code 0 for well, 1 for not, with a line that says "
        "why. Host and port are those of ODRADEK_METRICS_HOST and ODRADEK_METRICS_PORT.",
    )
    probes = parser.add_mutually_exclusive_group()
    for name, text in HELP.items():
        probes.add_argument(f"--{name}", dest="probe", action="store_const", const=name, help=text)
    parser.set_defaults(probe="ready")
    parser.add_argument("--host", metavar="HOST", help="odradek.metrics.host (default: localhost)")
    parser.add_argument("--port", metavar="PORT", help=f"odradek.metrics.port (default: {DEFAULT_PORT})")
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long an answer may take (default: {TIMEOUT_S:.0f})",
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="ask until it is so, so long (default: 0)"
    )
    return parser


def address(options: Any, environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the node of this environment serves its probes. ToolError for what is no port."""

    def configured(name: str) -> str | None:
        return environment.get(f"ODRADEK_METRICS_{name}") or environment.get(f"KAFKA_ODRADEK_METRICS_{name}")

    host = options.host or configured("HOST") or "localhost"
    port = (options.port or configured("PORT") or str(DEFAULT_PORT)).strip()
    if port == "-1":
        raise ToolError("there are no probes to ask: odradek.metrics.port is -1")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ToolError(
            f"{port} is not the port of a node's probes (odradek.metrics.port): it must be 1 to 65535"
        )
    return LOOPBACK.get(host, host), int(port)


def ask(host: str, port: int, path: str, timeout_s: float) -> tuple[int, str]:
    """Status and body; ToolError if there is no answer. By hand: http.client takes longer to import than this runs."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < ANSWER_BYTES_MAX and (piece := connection.recv(4096)):
                answer += piece
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        hint = "is the node up, and odradek.metrics.port set?"
        raise NoProbesError(f"no probes at {host}:{port}: {why} ({hint})") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not head.startswith(b"HTTP/1.") or not words[1:2] or not words[1].isdigit():
        raise NoProbesError(f"what answers at {host}:{port} is no node of Odradek")
    return int(words[1]), body.decode("utf-8", "replace").strip()


def reasons(body: str) -> str:
    """What the probe said is missing, as one line; anything else as it came, shortened."""
    try:
        return "; ".join(map(str, json.loads(body)["reasons"]))
    except (ValueError, KeyError, TypeError):
        return " ".join(body[:200].split())
