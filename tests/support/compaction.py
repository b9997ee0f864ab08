"""A cleaning from end to end, here and now."""

from __future__ import annotations

from odradek.ports.disk import Disk
from odradek.storage.cleaner import Cleaned, run
from odradek.storage.compaction import Compaction, Dirty
from odradek.storage.log import Log


def swap(compaction: Compaction, cleaned: Cleaned) -> bool:
    """All new segments in their places; False if the log has changed meanwhile."""
    if not compaction.prepare_swap(cleaned):
        return False
    while compaction.swap_next():
        continue
    return compaction.is_done


def clean(log: Log, dirty: Dirty, now_ms: int, table_bytes: int, disk: Disk) -> Cleaned:
    """CleaningError."""
    compaction = Compaction.begin(log, dirty, now_ms, table_bytes)
    cleaned = run(compaction.job, disk)
    assert swap(compaction, cleaned)
    return cleaned
