"""The log cleaner of a node: when it looks, by which settings, what it tells.

What it does is in `odradek.storage.log_cleaner`; who does it is a port: processes of their own, or the simulator. A
node without a compacted topic has none of it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from odradek.metadata.config_def import ConfigError, parse
from odradek.metadata.configs import BROKERS, BrokerLayers

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.node import Ports
    from odradek.broker.partition import Partition
    from odradek.storage.cleaner import Cleaned
    from odradek.storage.log import Log
    from odradek.storage.log_cleaner import LogCleaner, Workers
    from odradek.storage.manager import LogManager

FIRST_LOOK_MS = 1_000
"""After the start, when clients have theirs; sooner if `log.cleaner.backoff.ms` says so."""
UNLIMITED = 1e18
"""Bytes per second that nobody reaches; Kafka's default is the largest number there is."""


class LogCompaction:
    """Looks for dirty logs as long as the node runs."""

    def __init__(
        self,
        config: BrokerConfig,
        ports: Ports,
        logs: LogManager,
        partitions: Mapping[tuple[str, int], Partition],
        layers: Callable[[], BrokerLayers],
    ) -> None:
        """`layers`: the broker's settings as they are now."""
        self._ports = ports
        self._log: Any = ports.log
        self._partitions = partitions
        self._layers = layers
        self._logs = logs
        self._workers: Workers | None = None
        self._stopped = False
        self._is_due = False
        self.cleaner: LogCleaner | None = None
        """From the first compacted topic on."""
        self.is_enabled = config.static.get("log.cleaner.enable", "true").strip().lower() != "false"

    def start(self) -> None:
        if self.is_enabled:
            self._wait(min(int(self._setting("log.cleaner.backoff.ms")), FIRST_LOOK_MS))

    def stop(self) -> None:
        """Nothing is begun any more; what is under way comes to nothing."""
        self._stopped = True
        if self.cleaner is not None:
            self.cleaner.stop()

    def is_cleaning(self, key: tuple[str, int]) -> bool:
        return self.cleaner is not None and self.cleaner.is_cleaning(key)

    # -- when ----------------------------------------------------------------------------------------------------

    def _wait(self, delay_ms: int) -> None:
        self._ports.timers.at(self._ports.clock.monotonic_ms() + delay_ms, lambda _now: self._round())

    def _soon(self, work: Callable[[], None]) -> None:
        self._ports.timers.at(self._ports.clock.monotonic_ms(), lambda _now: work())

    def _round(self) -> None:
        """Every `log.cleaner.backoff.ms`; in between, only when something was done."""
        if self._stopped:
            return
        self._wait(max(1, int(self._setting("log.cleaner.backoff.ms"))))
        if self.cleaner is None and any(log.config.cleanup_compact for log in self._logs.logs.values()):
            self.cleaner = self._made()
        if self.cleaner is not None:
            self._configure(self.cleaner)
            self._tick_soon()

    def _tick_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._soon(self._tick)

    def _tick(self) -> None:
        self._is_due = False
        if self.cleaner is not None and not self._stopped and self.cleaner.tick(self._ports.clock.wall_ms()):
            self._tick_soon()

    def _made(self) -> LogCleaner:
        from odradek.storage.log_cleaner import LogCleaner, WorkersHere

        ports = self._ports
        make = ports.cleaners or (lambda: WorkersHere(ports.syncer.run, ports.disk))
        self._workers = make()
        cleaner = LogCleaner(
            self._logs,
            ports.disk,
            ports.syncer.run,
            self._workers,
            self._last_stable_offset,
            ports.clock.monotonic_ms,
        )
        cleaner.later = self._soon
        cleaner.on_cleaned = self._cleaned
        cleaner.on_uncleanable = self._uncleanable
        cleaner.on_broken_off = self._broken_off
        cleaner.on_free = self._tick_soon
        return cleaner

    # -- by which settings ---------------------------------------------------------------------------------------

    def _setting(self, key: str) -> float:
        definition = BROKERS[key]
        try:
            found = parse(definition, self._layers().get(key) or "")
        except ConfigError:  # written by another version
            found = parse(definition, definition.default or "")
        assert isinstance(found, int | float)
        return found

    def _configure(self, cleaner: LogCleaner) -> None:
        from odradek.storage.log_cleaner import CleanerSettings

        threads = int(self._setting("log.cleaner.threads"))
        table_bytes = int(self._setting("log.cleaner.dedupe.buffer.size"))
        load_factor = self._setting("log.cleaner.io.buffer.load.factor")
        cleaner.settings = CleanerSettings(threads, table_bytes, load_factor)
        rate = self._setting("log.cleaner.io.max.bytes.per.second")
        if self._workers is not None:
            self._workers.limit(max(1.0, rate / max(1, threads)) if rate < UNLIMITED else float("inf"))

    def _last_stable_offset(self, log: Log) -> int:
        partition = self._partitions.get(log.key)
        return partition.last_stable_offset if partition is not None and partition.log is log else 0

    # -- what is told --------------------------------------------------------------------------------------------

    def _cleaned(self, log: Log, cleaned: Cleaned, elapsed_ms: int) -> None:
        self._log.info(
            "compacted a log",
            topic=log.topic,
            partition=log.partition,
            below=cleaned.end_offset,
            records=f"{cleaned.records_kept} of {cleaned.records_read}",
            mb_read=round(cleaned.bytes_read / 1e6, 1),
            mb_written=round(cleaned.bytes_written / 1e6, 1),
            seconds=elapsed_ms / 1000,
        )

    def _uncleanable(self, log: Log, reason: str) -> None:
        self._log.warning(
            "a log cannot be compacted, and is left as it is",
            topic=log.topic,
            partition=log.partition,
            reason=reason,
        )

    def _broken_off(self, log: Log, reason: str) -> None:
        self._log.warning(
            "a compaction was broken off and will be tried again",
            topic=log.topic,
            partition=log.partition,
            reason=reason,
        )
