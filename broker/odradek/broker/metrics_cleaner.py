"""Kafka's metrics of the log cleaner: `kafka.log:type=LogCleaner` and `type=LogCleanerManager`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.broker.log_compaction import LogCompaction
    from odradek.storage.log_cleaner import LastCleaning

_CLEANER = "kafka_log_logcleaner_"
_MANAGER = "kafka_log_logcleanermanager_"


def gauges(compaction: LogCompaction, now_ms: int) -> dict[str, tuple[str, float]]:
    """Name → help and value. All 0 as long as there is nothing to compact."""
    cleaner = compaction.cleaner
    last: list[LastCleaning] = list(cleaner.last.values()) if cleaner is not None else []
    read = sum(each.bytes_read for each in last)
    written = sum(each.bytes_written for each in last)
    look = cleaner.last_look if cleaner is not None else None
    return {
        f"{_CLEANER}max_buffer_utilization_percent": (
            "How full the key table of a worker was in its last cleaning, the fullest.",
            int(100 * max((each.table_use for each in last), default=0.0)),
        ),
        f"{_CLEANER}cleaner_recopy_percent": (
            "Share of the bytes read that was kept, in the last cleanings.",
            int(100 * written / max(read, 1)),
        ),
        f"{_CLEANER}max_clean_time_secs": (
            "How long the last cleaning of a worker took, the longest.",
            max((each.elapsed_ms for each in last), default=0) // 1000,
        ),
        f"{_CLEANER}max_compaction_delay_secs": (
            "For how long max.compaction.lag.ms has been over for a log.",
            (look.delay_ms if look is not None else 0) // 1000,
        ),
        f"{_CLEANER}deadthreadcount": (
            "Workers that did not live to finish their last cleaning.",
            sum(each.died for each in last),
        ),
        f"{_MANAGER}max_dirty_percent": (
            "Share of the dirtiest log that is not clean.",
            int(100 * look.dirtiest) if look is not None else 0,
        ),
        f"{_MANAGER}time_since_last_run_ms": (
            "Since logs were looked at.",
            now_ms - look.at_ms if look is not None else 0,
        ),
    }


def by_directory(
    compaction: LogCompaction, directories: list[str]
) -> dict[str, tuple[str, dict[str, float]]]:
    """Name → help and value by log directory: what the cleaner has given up."""
    counts = dict.fromkeys(directories, 0.0)
    dirty = dict.fromkeys(directories, 0.0)
    cleaner = compaction.cleaner
    for refused in cleaner.uncleanable.values() if cleaner is not None else ():
        directory = refused.log.dir.rpartition("/")[0]
        if directory in counts:
            counts[directory] += 1
            dirty[directory] += refused.dirty_bytes
    return {
        f"{_MANAGER}uncleanable_partitions_count": ("Logs that cannot be compacted.", counts),
        f"{_MANAGER}uncleanable_bytes": ("Bytes of theirs that should be.", dirty),
    }
