"""Log lines: coloured for a terminal, one JSON object each for machines.

The format is `odradek.log.format` (or ODRADEK_LOG_FORMAT): `text`, `json`, or `auto`, which looks whether
standard output is a terminal. structlog costs 50 to 75 ms and 10 MB to import, so it is loaded with the first
line that is really written; starting a node writes none but the start-up line, which needs no structlog.

Nothing is logged per request. What strangers can cause goes through `limited_warning` and its like.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
BURST_LINES = 10
"""Lines of one event that a `limited_` method writes at once; after them one per REFILL_S."""
REFILL_S = 1.0
EVENTS_MAX = 64
"""Events that are told apart."""


class Log:
    """A logger that is ready at once. Values are passed by name: `log.info("recovered", topic=…, ms=…)`.

    A stream that cannot be written to (a closed pipe, a full disk) costs the line, never the node.
    """

    def __init__(
        self,
        form: str = "auto",
        level: str = "info",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.json = form == "json" or (form == "auto" and not is_terminal(self.stream))
        self.level = LEVELS[level]
        self._clock = clock
        self._logger: Any = None
        self._buckets: dict[str, list[float]] = {}

    def debug(self, event: str, **values: Any) -> None:
        if self.level <= LEVELS["debug"]:
            self._write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        if self.level <= LEVELS["info"]:
            self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        if self.level <= LEVELS["warning"]:
            self._write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """`exc_info=error` adds the traceback."""
        self._write("error", event, values)

    def limited_info(self, event: str, **values: Any) -> None:
        """A line about what clients do as often as they like."""
        if self.level <= LEVELS["info"] and self._is_allowed(event, values):
            self.info(event, **values)

    def limited_warning(self, event: str, **values: Any) -> None:
        """A warning that somebody outside can cause as often as they like."""
        if self._is_allowed(event, values):
            self.warning(event, **values)

    def limited_error(self, event: str, **values: Any) -> None:
        """The same for an error."""
        if self._is_allowed(event, values):
            self.error(event, **values)

    def _is_allowed(self, event: str, values: dict[str, Any]) -> bool:
        """Whether a line of this event is to be written now.

        The first BURST_LINES of an event are written, then one per REFILL_S, which tells how many were not
        (`suppressed`).
        """
        now = self._clock()
        if event not in self._buckets and len(self._buckets) >= EVENTS_MAX:
            self._buckets.clear()
        bucket = self._buckets.setdefault(event, [float(BURST_LINES), now, 0.0])
        bucket[0] = min(BURST_LINES, bucket[0] + (now - bucket[1]) / REFILL_S)
        bucket[1] = now
        if bucket[0] < 1:
            bucket[2] += 1
            return False
        bucket[0] -= 1
        if bucket[2]:
            values["suppressed"] = int(bucket[2])
            bucket[2] = 0
        return True

    def plain(self, text: str) -> None:
        """A line as it stands."""
        try:
            print(text, file=self.stream, flush=True)
        except (OSError, ValueError):  # a closed pipe; ValueError: a closed file
            return

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        if self._logger is None:
            self._logger = _structlog(self)
        try:
            getattr(self._logger, level)(event, **values)
        except (OSError, ValueError):
            return


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _structlog(log: Log) -> Any:
    import structlog

    processors: list[Any] = [structlog.processors.add_log_level]
    if log.json:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        colors = is_terminal(log.stream) and not os.environ.get("NO_COLOR")
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return structlog.wrap_logger(
        structlog.PrintLogger(log.stream), processors, wrapper_class=structlog.BoundLogger
    )


def configure(config: BrokerConfig) -> Log:
    """The node's logger; what the configuration warned of is its first lines."""
    log = Log(config.odradek_log_format, config.odradek_log_level)
    for warning in config.warnings:
        log.warning(warning)
    return log


def startup_line(
    config: BrokerConfig,
    cluster_id: str,
    elapsed_ms: float,
    bound_ports: Mapping[str, int] | None = None,
    http_port: int | None = None,
    log: Log | None = None,
) -> None:
    """The one line at start: what clients connect to, and where everything is."""
    log = log or Log(config.odradek_log_format, config.odradek_log_level)
    data = ", ".join(os.path.abspath(path) for path in config.log_dirs)
    metrics = f"http://{_connectable(config.odradek_metrics_host)}:{http_port}/metrics" if http_port else None
    bootstrap = config.bootstrap(bound_ports)
    if log.json:
        values: dict[str, Any] = {"bootstrap_servers": bootstrap, "cluster_id": cluster_id}
        values |= {"node_id": config.node_id, "data": data, "elapsed_ms": round(elapsed_ms)}
        if metrics:
            values["metrics"] = metrics
        # By hand, in structlog's shape: clients may connect 75 ms earlier.
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        log.plain(json.dumps({**values, "level": "info", "time": stamp, "message": "ready"}))
        return
    parts = [f"cluster {cluster_id}", f"node {config.node_id}", f"data in {data}"]
    if metrics:
        parts.append(metrics)
    address = f"\x1b[1m{bootstrap}\x1b[0m" if is_terminal(log.stream) else bootstrap
    seconds = elapsed_ms / 1000
    log.plain(f"Odradek is ready after {seconds:.2f} s: bootstrap.servers={address} ({', '.join(parts)})")


def _connectable(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
