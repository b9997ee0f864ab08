"""Starts of leader epochs: durable in groups, in a file of the data directory; the files of the logs follow."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from odradek.storage import epoch_starts
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
TOPIC_ID = bytes(range(16))
NOTED = "/data/odradek-epoch-starts"


class Node:
    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.syncer = StepSyncer()
        self.manager = self.opened()

    def opened(self) -> LogManager:
        manager = LogManager(self.disk, self.syncer, ["/data"], rng=Random(1))
        manager.start(node_id=1, cluster_id="MkU3OEVBNTcwNTJENDM2Qg")
        manager.open_all(NOW)
        self.manager = manager
        return manager

    def log(self, index: int = 0) -> Log:
        return self.manager.create_log("t", index, TOPIC_ID, wall_ms=NOW)

    def lead(self, index: int, epoch: int) -> list[OSError | None]:
        done: list[OSError | None] = []
        self.log(index).assign_epoch(epoch, self.syncer, done.append)
        return done

    def checkpoint_file(self, index: int = 0) -> bytes:
        return self.disk.read_file(f"/data/t-{index}/leader-epoch-checkpoint")


def append(log: Any, epoch: int) -> None:
    batch = simple_batch([(b"k", b"v")], base_offset=0, timestamp=NOW)
    log.append_as_leader(memoryview(batch), epoch, NOW)
    log.write_staged()


def test_what_comes_up_during_an_fsync_shares_the_next() -> None:
    node = Node()
    before = node.disk.faults.syncs
    done = [node.lead(index, 3) for index in range(50)]
    assert not any(done)
    node.syncer.drain()
    assert done == [[None]] * 50
    assert node.disk.faults.syncs - before == 3, "the file and its name, then the other 49"
    node.disk.crash()
    assert len(node.disk.read_file(NOTED).splitlines()) == 50


def test_nobody_is_told_before_it_is_durable() -> None:
    node = Node()
    done = node.lead(0, 3)
    node.disk.crash()
    assert done == []
    assert not node.disk.exists(NOTED) or node.disk.read_file(NOTED) == b""


@pytest.mark.parametrize("failing", ["append", "sync"])
def test_a_disk_that_fails_takes_the_directory_offline(failing: str) -> None:
    node = Node()
    failed: list[str] = []
    node.manager.on_dir_failure = lambda data_dir, error: failed.append(data_dir.path)
    log = node.log()
    if failing == "append":
        node.disk.faults.fail_change_at = node.disk.faults.changes + 1
    else:
        node.disk.faults.fail_sync_at = node.disk.faults.syncs + 1
    done = node.lead(0, 3)
    assert done == [], "not from within the call"
    node.syncer.drain()
    assert [type(error) for error in done] == [OSError]
    assert log.offline
    assert failed == ["/data"]


def test_the_files_of_the_logs_follow_in_slices() -> None:
    node = Node()
    told: list[int] = []
    node.manager.on_unsaved_epochs = lambda: told.append(1)
    for index in range(5):
        node.lead(index, 3)
    node.syncer.drain()
    assert told == [1], "once, until all are saved"
    assert not node.disk.exists("/data/t-0/leader-epoch-checkpoint")
    assert node.manager.save_epochs(2)
    assert node.checkpoint_file(1) == b"0\n1\n3 0\n"
    assert not node.disk.exists("/data/t-2/leader-epoch-checkpoint")
    assert not node.manager.save_epochs(8)
    assert node.checkpoint_file(4) == b"0\n1\n3 0\n"


def test_no_recovery_point_passes_a_start_that_is_not_saved() -> None:
    node = Node()
    log = node.log()
    append(log, 0)
    node.manager.save_epochs(8)
    log.assign_epoch(3, node.syncer, lambda error: None)
    append(log, 3)
    log.flush_blocking()
    node.manager.checkpoint()
    assert log.recovery_point == 2
    assert b"t 0 1\n" in node.disk.read_file("/data/recovery-point-offset-checkpoint")
    node.disk.kill()
    assert node.opened().logs["t", 0].epochs.entries == [(0, 0), (3, 1)], "from the batches"


def damaged_checkpoint(node: Node, text: bytes) -> None:
    node.disk.write_file_atomic("/data/t-0/leader-epoch-checkpoint", text, durable=True)


def test_what_the_log_has_lost_of_its_epochs_comes_back_if_the_batches_agree() -> None:
    node = Node()
    for epoch in (1, 2, 4):
        node.lead(0, epoch)
        append(node.log(), epoch)
        node.syncer.drain()
    node.lead(0, 7)
    node.syncer.drain()
    assert node.log().epochs.entries == [(1, 0), (2, 1), (4, 2), (7, 3)]
    node.manager.close()
    damaged_checkpoint(node, b"0\n2\n1 0\n4 2\n")
    manager = node.opened()
    assert manager.logs["t", 0].epochs.entries == [(1, 0), (2, 1), (4, 2)], "no batch is of epoch 7"
    manager.save_epochs(8)
    assert node.checkpoint_file() == b"0\n3\n1 0\n2 1\n4 2\n"


def test_what_a_later_leader_has_replaced_does_not_come_back() -> None:
    node = Node()
    append(node.log(), 0)
    node.lead(0, 3)
    append(node.log(), 3)
    node.syncer.drain()
    log = node.log()
    log.truncate_to(1)
    log.assign_epoch(5, node.syncer, lambda error: None)
    append(log, 5)
    node.syncer.drain()
    node.disk.kill()
    assert b"t 0 3 1\n" in node.disk.read_file(NOTED)
    assert node.opened().logs["t", 0].epochs.entries == [(0, 0), (5, 1)]


def test_torn_and_foreign_lines_count_for_nothing() -> None:
    node = Node()
    append(node.log(), 0)
    node.lead(0, 3)
    append(node.log(), 3)
    node.syncer.drain()
    node.manager.close()
    damaged_checkpoint(node, b"0\n1\n0 0\n")
    node.disk.write_file_atomic(NOTED, b"\xff\nt 0 x 1\nt 0 3 1\nt 0 9", durable=True)
    manager = node.opened()
    assert manager.logs["t", 0].epochs.entries == [(0, 0), (3, 1)]
    manager.logs["t", 0].assign_epoch(4, node.syncer, lambda error: None)
    node.syncer.drain()
    assert node.disk.read_file(NOTED).endswith(b"t 0 9\nt 0 4 2\n")


def test_a_file_that_is_large_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_starts, "BYTES_MAX", 300)
    node = Node()
    for epoch in range(60):
        node.lead(epoch % 3, epoch)
        node.syncer.drain()
    assert node.disk.size(NOTED) > 300
    node.manager.tick(NOW)
    done = node.lead(0, 99)
    node.syncer.drain()
    assert done == [None]
    assert node.disk.read_file(NOTED) == b"t 0 99 0\n"
    node.lead(1, 100)
    node.syncer.drain()
    node.disk.crash()
    assert node.disk.read_file(NOTED) == b"t 0 99 0\n\nt 1 100 0\n"
    assert node.checkpoint_file(1) == b"0\n1\n58 0\n", "durable, as they were when the file began anew"
    assert node.checkpoint_file(2) == b"0\n1\n59 0\n"


def test_a_log_that_is_damaged_before_a_segment_without_index_is_opened() -> None:
    node = Node()
    log = node.log()
    for _ in range(3):
        append(log, 0)
    log.roll(NOW)
    append(log, 0)
    node.lead(0, 1)
    append(log, 1)
    node.syncer.drain()
    node.disk.kill()
    node.disk.flip_bit("/data/t-0/00000000000000000000.log", 75 + 65, 3)
    for suffix in (".index", ".timeindex"):
        if node.disk.exists(f"/data/t-0/00000000000000000003{suffix}"):
            node.disk.unlink(f"/data/t-0/00000000000000000003{suffix}")
    reopened = node.opened().get("t", 0)
    assert reopened is not None
    assert (reopened.readable_end, reopened.log_end_offset) == (2, 5)
