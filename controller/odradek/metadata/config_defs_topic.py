"""Kafka 4.3's topic configurations, and the broker configurations that supply their defaults.

What each means stands in config_docs.py.
"""

from __future__ import annotations

from odradek.metadata.config_def import ConfigType, Rule, define

BOOLEAN, STRING, INT, LONG = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.LONG
DOUBLE, LIST = ConfigType.DOUBLE, ConfigType.LIST
MAX_LONG = 2**63 - 1
CODECS = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")

TOPIC_DEFS = (
    define("cleanup.policy", LIST, "delete", choices=("compact", "delete")),
    define("compression.gzip.level", INT, -1, rule=Rule.GZIP_LEVEL),
    define("compression.lz4.level", INT, 9, low=1, high=17),
    define("compression.type", STRING, "producer", choices=CODECS),
    define("compression.zstd.level", INT, 3, low=-131072, high=22),
    define("delete.retention.ms", LONG, 86400000, low=0),
    define("file.delete.delay.ms", LONG, 60000, low=0),
    define("flush.messages", LONG, MAX_LONG, low=1),
    define("flush.ms", LONG, MAX_LONG, low=0),
    define("follower.replication.throttled.replicas", LIST, "", rule=Rule.THROTTLED_REPLICAS),
    define("index.interval.bytes", INT, 4096, low=0),
    define("internal.segment.bytes", INT, None, internal=True),
    define("leader.replication.throttled.replicas", LIST, "", rule=Rule.THROTTLED_REPLICAS),
    define("local.retention.bytes", LONG, -2, low=-2),
    define("local.retention.ms", LONG, -2, low=-2),
    define("max.compaction.lag.ms", LONG, MAX_LONG, low=1),
    define("max.message.bytes", INT, 1048588, low=0),
    define("message.timestamp.after.max.ms", LONG, 3600000, low=0),
    define("message.timestamp.before.max.ms", LONG, MAX_LONG, low=0),
    define("message.timestamp.type", STRING, "CreateTime", choices=("CreateTime", "LogAppendTime")),
    define("min.cleanable.dirty.ratio", DOUBLE, "0.5", low=0, high=1),
    define("min.compaction.lag.ms", LONG, 0, low=0),
    define("min.insync.replicas", INT, 1, low=1),
    define("preallocate", BOOLEAN, False),
    define("remote.log.copy.disable", BOOLEAN, False),
    define("remote.log.delete.on.disable", BOOLEAN, False),
    define("remote.storage.enable", BOOLEAN, False),
    define("retention.bytes", LONG, -1),
    define("retention.ms", LONG, 604800000, low=-1),
    define("segment.bytes", INT, 1073741824, low=1048576),
    define("segment.index.bytes", INT, 10485760, low=4),
    define("segment.jitter.ms", LONG, 0, low=0),
    define("segment.ms", LONG, 604800000, low=1),
    define("unclean.leader.election.enable", BOOLEAN, False),
)

HOUR_MS = 3_600_000
MINUTE_MS = 60_000

TOPIC_SYNONYMS: dict[str, tuple[tuple[str, int], ...]] = {
    "cleanup.policy": (("log.cleanup.policy", 1),),
    "compression.gzip.level": (("compression.gzip.level", 1),),
    "compression.lz4.level": (("compression.lz4.level", 1),),
    "compression.type": (("compression.type", 1),),
    "compression.zstd.level": (("compression.zstd.level", 1),),
    "delete.retention.ms": (("log.cleaner.delete.retention.ms", 1),),
    "file.delete.delay.ms": (("log.segment.delete.delay.ms", 1),),
    "flush.messages": (("log.flush.interval.messages", 1),),
    "flush.ms": (
        ("log.flush.interval.ms", 1),
        ("log.flush.scheduler.interval.ms", 1),
    ),
    "index.interval.bytes": (("log.index.interval.bytes", 1),),
    "local.retention.bytes": (("log.local.retention.bytes", 1),),
    "local.retention.ms": (("log.local.retention.ms", 1),),
    "max.compaction.lag.ms": (("log.cleaner.max.compaction.lag.ms", 1),),
    "max.message.bytes": (("message.max.bytes", 1),),
    "message.timestamp.after.max.ms": (("log.message.timestamp.after.max.ms", 1),),
    "message.timestamp.before.max.ms": (("log.message.timestamp.before.max.ms", 1),),
    "message.timestamp.type": (("log.message.timestamp.type", 1),),
    "min.cleanable.dirty.ratio": (("log.cleaner.min.cleanable.ratio", 1),),
    "min.compaction.lag.ms": (("log.cleaner.min.compaction.lag.ms", 1),),
    "min.insync.replicas": (("min.insync.replicas", 1),),
    "preallocate": (("log.preallocate", 1),),
    "retention.bytes": (("log.retention.bytes", 1),),
    "retention.ms": (
        ("log.retention.ms", 1),
        ("log.retention.minutes", MINUTE_MS),
        ("log.retention.hours", HOUR_MS),
    ),
    "segment.bytes": (("log.segment.bytes", 1),),
    "segment.index.bytes": (("log.index.size.max.bytes", 1),),
    "segment.jitter.ms": (
        ("log.roll.jitter.ms", 1),
        ("log.roll.jitter.hours", HOUR_MS),
    ),
    "segment.ms": (
        ("log.roll.ms", 1),
        ("log.roll.hours", HOUR_MS),
    ),
    "unclean.leader.election.enable": (("unclean.leader.election.enable", 1),),
}
"""Topic key -> broker keys that give its default, the first one that is set counting, each with its factor to
ms.

The first broker key is the one DescribeConfigs names as the synonym, and the one that can be set dynamically.
"""
