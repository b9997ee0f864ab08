"""Names of the files in a log directory: Kafka's, byte for byte."""

from __future__ import annotations

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TXN_INDEX_SUFFIX = ".txnindex"
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"
TEMPORARY_SUFFIX = ".tmp"

DELETE_DIR_SUFFIX = "-delete"
STRAY_DIR_SUFFIX = "-stray"
FUTURE_DIR_SUFFIX = "-future"

LEADER_EPOCH_CHECKPOINT = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"
RECOVERY_POINT_CHECKPOINT = "recovery-point-offset-checkpoint"
LOG_START_OFFSET_CHECKPOINT = "log-start-offset-checkpoint"
HIGH_WATERMARK_CHECKPOINT = "replication-offset-checkpoint"
CLEANER_CHECKPOINT = "cleaner-offset-checkpoint"
CLEAN_SHUTDOWN_MARKER = ".kafka_cleanshutdown"
META_PROPERTIES = "meta.properties"
REGISTRATION = "odradek-registration"
"""Ours: the epoch in which this node is registered, and the boot of the machine in which it is."""
COMPACTED = "odradek-compacted"
"""Ours: below which offsets compaction may have left gaps. Unlike checkpoints it is never replaced by a file that is
not on the medium yet: without it, a scan would take the gaps for damage.
"""
EPOCH_STARTS = "odradek-epoch-starts"
"""Ours: where leader epochs of the logs here began (epoch_starts.py)."""
LOCK_FILE = ".lock"
MOVE = "odradek-move"
"""Ours: how often this log has come from another directory; of two copies the later counts (futures.py)."""

DATA_DIR_FILES = frozenset(
    (RECOVERY_POINT_CHECKPOINT, LOG_START_OFFSET_CHECKPOINT, HIGH_WATERMARK_CHECKPOINT, CLEAN_SHUTDOWN_MARKER,
     META_PROPERTIES, REGISTRATION, COMPACTED, EPOCH_STARTS, LOCK_FILE, CLEANER_CHECKPOINT, "bootstrap.checkpoint",
     "lost+found", ".DS_Store")
)  # fmt: skip
"""What may lie beside the log directories without being foreign."""

METADATA_LOG_DIR = "__cluster_metadata-0"
"""Belongs to the Raft driver, which opens it itself."""

DIR_NAME_MAX = 255
SEGMENT_SUFFIXES = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)


def file_name(offset: int, suffix: str) -> str:
    """`00000000000000000042.log` and its like."""
    return f"{offset:020d}{suffix}"


def file_offset(name: str) -> int | None:
    """The offset a file is named by, or None if the name does not start with 20 digits and a dot."""
    digits, dot, _ = name.partition(".")
    return int(digits) if dot and len(digits) == 20 and digits.isascii() and digits.isdigit() else None


def log_dir_name(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def parse_log_dir_name(name: str) -> tuple[str, int] | None:
    """(topic, partition) of a directory of a live log; None for anything else."""
    topic, dash, digits = name.rpartition("-")
    if not (topic and dash and digits.isascii() and digits.isdigit()):
        return None
    if len(digits) > 10 or (len(digits) > 1 and digits[0] == "0"):
        return None
    return topic, int(digits)


def marked_dir_name(topic: str, partition: int, unique: str, suffix: str) -> str:
    """`topic-N.<32 hex digits>-delete` (or -future, -stray), the topic cut so that the name fits a file system."""
    tail = f"-{partition}.{unique}{suffix}"
    return topic[: DIR_NAME_MAX - len(tail)] + tail


def is_marked_dir(name: str, suffix: str) -> bool:
    head, dot, tail = name.rpartition(".")
    return bool(head and dot) and tail.endswith(suffix) and len(tail) == 32 + len(suffix)


def future_dir_name(topic: str, partition: int, unique: str) -> str:
    """`topic-N.<32 hex digits>-future`; as in Kafka never cut, so that the topic can be read from it."""
    return f"{log_dir_name(topic, partition)}.{unique}{FUTURE_DIR_SUFFIX}"


def parse_future_dir_name(name: str) -> tuple[str, int] | None:
    """(topic, partition) of a directory of a future log; None for anything else."""
    if not is_marked_dir(name, FUTURE_DIR_SUFFIX):
        return None
    return parse_log_dir_name(name.rpartition(".")[0])
