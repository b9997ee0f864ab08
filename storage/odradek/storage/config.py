"""What a log is told by its topic's configuration. Kafka's names, units and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from odradek.wire.compression import Codec

UNLIMITED = (1 << 63) - 1
CREATE_TIME = "CreateTime"
LOG_APPEND_TIME = "LogAppendTime"
PRODUCER = "producer"
UNCOMPRESSED = "uncompressed"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Resolved topic configuration of one log; times in ms, sizes in bytes. Kafka's key is the name with dots."""

    segment_bytes: int = 1 << 30
    """`segment.bytes`: no segment grows beyond this, unless one batch alone does."""
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10 * 1024 * 1024
    index_interval_bytes: int = 4096
    retention_ms: int = 7 * 24 * 3600 * 1000
    """-1: unlimited."""
    retention_bytes: int = -1
    """-1: unlimited."""
    cleanup_delete: bool = True
    cleanup_compact: bool = False
    max_message_bytes: int = 1048588
    """`max.message.bytes`: the largest batch, header included."""
    timestamp_type: str = CREATE_TIME
    timestamp_before_max_ms: int = UNLIMITED
    timestamp_after_max_ms: int = 3600 * 1000
    flush_messages: int = UNLIMITED
    flush_ms: int = UNLIMITED
    file_delete_delay_ms: int = 60_000
    compression_type: str = PRODUCER
    """`compression.type`: the codec every batch is kept with, or the one its producer chose."""
    compression_gzip_level: int = -1
    compression_lz4_level: int = 9
    compression_zstd_level: int = 3
    delete_retention_ms: int = 24 * 3600 * 1000
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = UNLIMITED
    min_cleanable_dirty_ratio: float = 0.5

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name.replace('_', '.')}: {value} is below {least}")
        if self.timestamp_type not in (CREATE_TIME, LOG_APPEND_TIME):
            raise ValueError(f"message.timestamp.type: {self.timestamp_type!r} is neither of Kafka's two")

    @property
    def checks_old_timestamps(self) -> bool:
        """Some record may be too old: no header tells, each is looked at."""
        return self.timestamp_type == CREATE_TIME and self.timestamp_before_max_ms < UNLIMITED

    @property
    def roll_ms(self) -> int:
        """Age at which a segment is closed: `segment.ms`, and in time for `max.compaction.lag.ms` (KIP-354)."""
        if self.cleanup_compact and self.max_compaction_lag_ms > 0:
            return min(self.segment_ms, self.max_compaction_lag_ms)
        return self.segment_ms

    def compression_level(self, codec: Codec) -> int | None:
        """`compression.<codec>.level`; None for codecs without levels."""
        if codec is Codec.GZIP:
            return self.compression_gzip_level
        if codec is Codec.LZ4:
            return self.compression_lz4_level
        return self.compression_zstd_level if codec is Codec.ZSTD else None

    @classmethod
    def from_topic_configs(cls, configs: Mapping[str, str]) -> LogConfig:
        """From resolved `topic` configs as strings; keys that do not concern the log are ignored.

        ValueError names the key whose value does not parse.
        """
        values: dict[str, int | str | bool | float] = {}
        for key, text in configs.items():
            if (field := _NUMBERS.get(key)) is not None:
                try:
                    values[field] = int(text)
                except ValueError:
                    raise ValueError(f"{key}: {text!r} is not a number") from None
        if (policy := configs.get("cleanup.policy")) is not None:
            policies = {part.strip() for part in policy.split(",")}
            values["cleanup_delete"] = "delete" in policies
            values["cleanup_compact"] = "compact" in policies
        if (timestamp_type := configs.get("message.timestamp.type")) is not None:
            values["timestamp_type"] = timestamp_type
        if (compression := configs.get("compression.type")) is not None:
            values["compression_type"] = compression
        if (ratio := configs.get("min.cleanable.dirty.ratio")) is not None:
            values["min_cleanable_dirty_ratio"] = float(ratio)
        return cls(**values)  # type: ignore[arg-type]  # names and types are those of the tables below


_NUMBERS = {
    "compression.gzip.level": "compression_gzip_level",
    "compression.lz4.level": "compression_lz4_level",
    "compression.zstd.level": "compression_zstd_level",
    "segment.bytes": "segment_bytes",
    "segment.ms": "segment_ms",
    "segment.jitter.ms": "segment_jitter_ms",
    "segment.index.bytes": "segment_index_bytes",
    "index.interval.bytes": "index_interval_bytes",
    "retention.ms": "retention_ms",
    "retention.bytes": "retention_bytes",
    "max.message.bytes": "max_message_bytes",
    "message.timestamp.before.max.ms": "timestamp_before_max_ms",
    "message.timestamp.after.max.ms": "timestamp_after_max_ms",
    "flush.messages": "flush_messages",
    "flush.ms": "flush_ms",
    "file.delete.delay.ms": "file_delete_delay_ms",
    "delete.retention.ms": "delete_retention_ms",
    "min.compaction.lag.ms": "min_compaction_lag_ms",
    "max.compaction.lag.ms": "max_compaction_lag_ms",
}

_LEAST = {
    "segment_bytes": 14,
    "segment_ms": 1,
    "segment_jitter_ms": 0,
    "segment_index_bytes": 4,
    "index_interval_bytes": 0,
    "retention_ms": -1,
    "retention_bytes": -1,
    "max_message_bytes": 0,
    "timestamp_before_max_ms": 0,
    "timestamp_after_max_ms": 0,
    "flush_messages": 1,
    "flush_ms": 0,
    "file_delete_delay_ms": 0,
}
