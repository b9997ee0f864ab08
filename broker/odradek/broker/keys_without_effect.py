"""Keys that Kafka knows and that change nothing here, so that whoever sets one to another value is told.

What works differently does not need them: there are no pools of threads, requests wait in no purgatory, replication
pushes what it has instead of fetching in intervals, the metadata log is cut at each snapshot. Others belong to what is
not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping

from odradek.metadata.configs import BROKERS

PREFIXES = ("remote.", "share.coordinator.", "group.share.", "group.streams.", "delegation.token.")
KEYS = frozenset(
    (
        "alter.log.dirs.replication.quota.window.num",
        "alter.log.dirs.replication.quota.window.size.seconds",
        "background.threads",
        "config.providers",
        "controller.quorum.append.linger.ms",
        "controller.quota.window.num",
        "controller.quota.window.size.seconds",
        "controller.socket.timeout.ms",
        "delete.records.purgatory.purge.interval.requests",
        "early.start.listeners",
        "fetch.purgatory.purge.interval.requests",
        "follower.fetch.last.tiered.offset.enable",
        "group.coordinator.append.linger.ms",
        "group.coordinator.background.threads",
        "group.coordinator.cached.buffer.max.bytes",
        "group.coordinator.threads",
        "kafka.metrics.polling.interval.secs",
        "kafka.metrics.reporters",
        "log.cleaner.io.buffer.size",
        "log.dir.failure.timeout.ms",
        "log.preallocate",
        "max.connection.creation.rate",
        "metadata.log.segment.bytes",
        "metadata.log.segment.ms",
        "metadata.max.idle.interval.ms",
        "metadata.max.retention.bytes",
        "metadata.max.retention.ms",
        "metrics.num.samples",
        "metrics.recording.level",
        "metrics.sample.window.ms",
        "num.io.threads",
        "num.network.threads",
        "num.replica.alter.log.dirs.threads",
        "num.replica.fetchers",
        "offsets.load.buffer.size",
        "offsets.topic.compression.codec",
        "principal.builder.class",
        "producer.purgatory.purge.interval.requests",
        "queued.max.requests",
        "quota.window.num",
        "quota.window.size.seconds",
        "replica.fetch.backoff.ms",
        "replica.fetch.max.bytes",
        "replica.fetch.min.bytes",
        "replica.fetch.response.max.bytes",
        "replica.socket.receive.buffer.bytes",
        "replica.socket.timeout.ms",
        "replication.quota.window.num",
        "replication.quota.window.size.seconds",
        "share.fetch.purgatory.purge.interval.requests",
        "telemetry.max.bytes",
        "transaction.state.log.load.buffer.size",
        "transaction.two.phase.commit.enable",
    )
)
IN_KAFKAS_FILE = ("share.coordinator.state.topic.min.isr", "share.coordinator.state.topic.replication.factor")
"""Set there to fit a single node."""


def without_effect(settings: Mapping[str, str]) -> list[str]:
    """Which of these settings ask for something other than the default, in vain."""
    known = [key for key in settings if key in KEYS or (key in BROKERS and key.startswith(PREFIXES))]
    changed = (key for key in known if settings[key].strip() != (BROKERS[key].default or ""))
    return sorted(key for key in changed if key not in IN_KAFKAS_FILE)
