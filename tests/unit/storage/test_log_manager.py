"""Data directories: whose they are, what lies in them, how they are left and taken again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from odradek.storage import checkpoints, layout
from odradek.storage.config import LogConfig
from odradek.storage.data_dir import DataDirError
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.real_disk import RealDisk
from odradek.wire.errors import KafkaError
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
TOPIC_ID = bytes(range(16))
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"


class Node:
    def __init__(self, disk: Any, root: str, dirs: int = 1) -> None:
        self.disk = disk
        self.dirs = [f"{root}/d{number}" for number in range(dirs)]
        self.syncer = StepSyncer()
        self.seed = 0

    def manager(self, node_id: int = 1, cluster_id: str | None = CLUSTER, start: bool = True) -> LogManager:
        self.seed += 1
        manager = LogManager(self.disk, self.syncer, self.dirs, rng=Random(self.seed))
        if start:
            manager.start(node_id=node_id, cluster_id=cluster_id)
        return manager


@pytest.fixture(params=["memory", "real"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    if request.param == "real":
        return Node(RealDisk(), str(tmp_path))
    return Node(MemoryDisk(), "/data")


def append(log: Any, *values: str) -> None:
    batch = simple_batch([(b"k", value.encode()) for value in values], base_offset=0, timestamp=NOW)
    log.append_as_leader(memoryview(batch), 0, NOW)
    log.write_staged()


def test_a_node_keeps_its_cluster_and_directory_ids(node: Node) -> None:
    first = node.manager(cluster_id=None)
    cluster, directory = first.cluster_id, first.dirs[0].directory_id
    assert len(cluster) == 22
    first.close()
    second = node.manager(cluster_id=None)
    assert (second.cluster_id, second.dirs[0].directory_id) == (cluster, directory)
    text = node.disk.read_file(f"{node.dirs[0]}/meta.properties").decode()
    assert "version=1\n" in text
    assert f"cluster.id={cluster}\n" in text


def test_a_directory_of_another_node_or_cluster_is_refused_and_unlocked(node: Node) -> None:
    node.manager(1).close()
    with pytest.raises(DataDirError, match="Stored node id 1 doesn't match node id 2"):
        node.manager(2)
    with pytest.raises(DataDirError, match=f"belongs to cluster {CLUSTER}, and cluster A{{22}} is asked for"):
        node.manager(1, "A" * 22)
    node.manager(1).close()


def test_directories_of_different_clusters_are_not_mixed() -> None:
    disk = MemoryDisk()
    for root, cluster in (("/one", CLUSTER), ("/two", "A" * 22)):
        Node(disk, root).manager(1, cluster).close()
    both = LogManager(disk, StepSyncer(), ["/one/d0", "/two/d0"], rng=Random(1))
    with pytest.raises(DataDirError, match="/one/d0, /two/d0 belong to different clusters"):
        both.start(node_id=1, cluster_id=None)


def test_a_directory_in_use_is_refused(node: Node) -> None:
    first = node.manager()
    with pytest.raises(DataDirError, match="Another process is using this directory"):
        node.manager()
    first.close()
    node.manager().close()


def test_a_damaged_meta_properties_names_the_file(node: Node) -> None:
    node.manager().close()
    path = f"{node.dirs[0]}/meta.properties"
    for text in (
        b"version=1\nnode.id=x\n",
        b"nonsense\n",
        b"version=9\n",
        b"\xff\n",
        b"version=1\ndirectory.id=?\n",
    ):
        node.disk.write_file_atomic(path, text, durable=False)
        with pytest.raises(DataDirError, match=r"meta\.properties"):
            node.manager()


def test_a_path_that_is_a_file_is_refused(node: Node) -> None:
    node.disk.makedirs(node.dirs[0].rpartition("/")[0])
    node.disk.write_file_atomic(node.dirs[0], b"", durable=False)
    with pytest.raises(DataDirError, match="not a directory"):
        node.manager()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    node = Node(RealDisk(), str(tmp_path / "file" / "below"))
    with pytest.raises(DataDirError, match=r"below/d0 cannot be used: Not a directory"):
        node.manager()


def test_a_full_disk_at_the_first_start_is_told() -> None:
    node = Node(MemoryDisk(), "/data")
    node.disk.faults.fail_change_at = 4
    node.disk.faults.error = 28
    with pytest.raises(DataDirError, match=r"meta\.properties cannot be written"):
        node.manager()


@pytest.mark.parametrize("name", ["thesis.odt", ".git", "photos"])
def test_a_directory_with_somebody_elses_files_is_refused_and_left_as_it_is(node: Node, name: str) -> None:
    node.disk.makedirs(node.dirs[0])
    if name.endswith(".odt"):
        node.disk.write_file_atomic(f"{node.dirs[0]}/{name}", b"x", durable=False)
    else:
        node.disk.makedirs(f"{node.dirs[0]}/{name}")
    with pytest.raises(DataDirError, match="is no data directory"):
        node.manager()
    assert node.disk.listdir(node.dirs[0]) == [name]


def test_a_data_directory_without_its_meta_properties_gets_new_ones(node: Node) -> None:
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    manager.close()
    node.disk.unlink(f"{node.dirs[0]}/meta.properties")
    manager = node.manager()
    manager.open_all(NOW)
    assert manager.logs["t", 0].log_end_offset == 1


def test_logs_come_back_after_a_clean_stop_without_recovery(node: Node) -> None:
    manager = node.manager()
    for partition in range(3):
        log = manager.create_log("t", partition, TOPIC_ID, wall_ms=NOW)
        append(log, *"abc"[: partition + 1])
    log.advance_log_start(1)
    manager.close({("t", 0): 1}, broker_epoch=77)
    names = node.disk.listdir(node.dirs[0])
    assert {
        ".kafka_cleanshutdown",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
    } <= set(names)

    manager = node.manager()
    assert manager.clean
    assert manager.dirs[0].broker_epoch == 77
    assert ".kafka_cleanshutdown" not in node.disk.listdir(node.dirs[0])
    seen: list[tuple[int, int, str]] = []
    report = manager.open_all(NOW, progress=lambda *step: seen.append(step))
    assert (report.opened, report.recovered, report.failed) == (3, 0, [])
    assert seen[-1] == (3, 3, "t-2")
    assert {key: log.log_end_offset for key, log in manager.logs.items()} == {
        ("t", 0): 1,
        ("t", 1): 2,
        ("t", 2): 3,
    }
    assert manager.logs["t", 2].log_start_offset == 1
    assert manager.logs["t", 0].topic_id == TOPIC_ID
    assert manager.high_watermarks == {("t", 0): 1}


def test_logs_come_back_after_a_kill() -> None:
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a", "b")
    node.disk.kill()
    manager = node.manager()
    report = manager.open_all(NOW)
    assert (report.opened, report.recovered) == (1, 1)
    assert manager.logs["t", 0].log_end_offset == 2
    assert manager.logs["t", 0].topic_id == TOPIC_ID


def test_a_deleted_log_is_renamed_at_once_and_unlinked_after_the_delay(node: Node) -> None:
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    assert manager.delete_log("t", 0, wall_ms=NOW)
    assert not manager.delete_log("t", 0, wall_ms=NOW)
    [doomed] = [name for name in node.disk.listdir(node.dirs[0]) if name.endswith("-delete")]
    assert doomed.startswith("t-0.")
    again = manager.create_log("t", 0, bytes(16), wall_ms=NOW)
    assert again.log_end_offset == 0
    manager.tick(NOW + 59_000)
    node.syncer.drain()
    assert doomed in node.disk.listdir(node.dirs[0])
    manager.tick(NOW + 60_000)
    node.syncer.drain()
    assert doomed not in node.disk.listdir(node.dirs[0])


def test_a_deletion_cut_short_is_completed_at_the_next_start(node: Node) -> None:
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    manager.delete_log("t", 0, wall_ms=NOW)
    manager.close()
    manager = node.manager()
    manager.open_all(NOW)
    assert manager.logs == {}
    manager.tick(NOW)
    node.syncer.drain()
    assert not [name for name in node.disk.listdir(node.dirs[0]) if name.endswith("-delete")]


def test_a_directory_that_cannot_be_listed_is_offline_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    node = Node(disk, "/data", dirs=2)
    manager = node.manager()
    for index in range(2):
        append(manager.create_log("t", index, TOPIC_ID, wall_ms=NOW), "a")
    manager.close()
    broken = node.dirs[1]
    listed = disk.listdir

    def listdir(path: str) -> list[str]:
        if path == broken:
            raise OSError(5, "Input/output error", path)
        return listed(path)

    manager = node.manager()
    monkeypatch.setattr(disk, "listdir", listdir)
    manager.open_all(NOW)
    assert [data_dir.offline for data_dir in manager.dirs] == [False, True]
    assert "Input/output error" in manager.dirs[1].notes[0]
    assert len(manager.logs) == 1 and manager.complete_epoch == -1


def test_what_is_foreign_is_reported_and_left_alone(node: Node) -> None:
    manager = node.manager()
    manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    manager.close()
    root = node.dirs[0]
    for name in ("photos", "t-01", "-3", "t-x", "__cluster_metadata-0"):
        node.disk.makedirs(f"{root}/{name}")
    node.disk.write_file_atomic(f"{root}/todo.txt", b"x", durable=False)
    manager = node.manager()
    report = manager.open_all(NOW)
    assert list(manager.logs) == [("t", 0)]
    assert sorted(report.foreign) == [
        f"{root}/{name}" for name in ("-3", "photos", "t-01", "t-x", "todo.txt")
    ]
    assert node.disk.exists(f"{root}/todo.txt")


def test_a_log_of_another_topic_id_is_not_handed_out(node: Node) -> None:
    manager = node.manager()
    log = manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    assert manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW) is log
    with pytest.raises(KafkaError, match="INCONSISTENT_TOPIC_ID"):
        manager.create_log("t", 0, bytes(16), wall_ms=NOW)


def test_new_logs_spread_over_directories() -> None:
    node = Node(MemoryDisk(), "/data", dirs=3)
    manager = node.manager()
    for partition in range(9):
        manager.create_log("t", partition, TOPIC_ID, wall_ms=NOW)
    assert [len([n for n in node.disk.listdir(path) if n.startswith("t-")]) for path in node.dirs] == [
        3,
        3,
        3,
    ]


def test_one_failing_disk_takes_only_its_logs_offline() -> None:
    node = Node(MemoryDisk(), "/data", dirs=2)
    manager = node.manager()
    logs = [manager.create_log("t", partition, TOPIC_ID, wall_ms=NOW) for partition in range(4)]
    failed: list[str] = []
    manager.on_dir_failure = lambda data_dir, error: failed.append(data_dir.path)
    node.disk.faults.fail_change_at = node.disk.faults.changes
    node.disk.faults.sticky = False
    with pytest.raises((OSError, KafkaError), match="injected"):
        append(logs[0], "a")
    broken = logs[0].dir.rpartition("/")[0]
    assert failed == [broken]
    assert [log.offline for log in logs] == [log.dir.startswith(broken) for log in logs]
    with pytest.raises(KafkaError, match="KAFKA_STORAGE_ERROR"):
        append(logs[2], "a")
    append(logs[1], "a")
    new = manager.create_log("u", 0, TOPIC_ID, wall_ms=NOW)
    assert not new.dir.startswith(broken)
    assert [path for path, _ in manager.close()] == [broken]
    assert node.disk.exists(f"{logs[1].dir.rpartition('/')[0]}/.kafka_cleanshutdown")
    assert not node.disk.exists(f"{broken}/.kafka_cleanshutdown")


def test_old_segments_go_to_the_delayed_unlink(node: Node) -> None:
    manager = node.manager()
    config = LogConfig(segment_bytes=200, retention_ms=1000)
    log = manager.create_log("t", 0, TOPIC_ID, config, wall_ms=NOW)
    for number in range(10):
        append(log, f"v{number}")
    assert manager.delete_old_segments(NOW + 2000, {("t", 0): 8}) > 0
    assert 0 < log.log_start_offset <= 8
    assert [name for name in node.disk.listdir(log.dir) if name.endswith(".deleted")]
    manager.tick(NOW + 62_000)
    node.syncer.drain()
    assert not [name for name in node.disk.listdir(log.dir) if name.endswith(".deleted")]
    append(log, "more")
    assert log.log_end_offset == 11


def test_damaged_checkpoints_only_mean_a_scan(node: Node) -> None:
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    manager.close()
    for name in (
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
    ):
        node.disk.write_file_atomic(f"{node.dirs[0]}/{name}", b"0\n5\nt 0 9\n", durable=False)
    manager = node.manager()
    report = manager.open_all(NOW)
    assert report.failed == []
    assert manager.logs["t", 0].log_end_offset == 1
    assert len(manager.dirs[0].notes) == 3


def test_idle_producers_expire(node: Node) -> None:
    manager = node.manager()
    log = manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    batch = simple_batch(
        [(b"k", b"v")], base_offset=0, timestamp=NOW, producer_id=1, producer_epoch=0, base_sequence=0
    )
    log.append_as_leader(memoryview(batch), 0, NOW)
    manager.expire_producers(NOW + 999, 1000)
    assert len(log.active_producers()) == 1
    manager.expire_producers(NOW + 1000, 1000)
    assert log.active_producers() == []


def test_flush_ms_is_kept_by_the_tick(node: Node) -> None:
    manager = node.manager()
    log = manager.create_log("t", 0, TOPIC_ID, LogConfig(flush_ms=500), wall_ms=NOW)
    append(log, "a")
    manager.tick(NOW + 499)
    node.syncer.drain()
    assert log.recovery_point == 0
    manager.tick(NOW + 500)
    node.syncer.drain()
    assert log.recovery_point == 1


def test_a_log_that_lost_what_was_synced_leaves_service_until_somebody_decides() -> None:
    """A segment cut at a batch shows no damage; only the recovery point tells. Removing that accepts the loss."""
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    log = manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    append(log, "a")
    size = log.size_bytes
    append(log, "b")
    log.flush_blocking()
    manager.checkpoint()
    node.disk.kill()
    node.disk.open(f"{node.dirs[0]}/t-0/00000000000000000000.log").truncate(size)
    for _ in range(2):
        manager = node.manager()
        assert manager.open_all(NOW).failed == []
        log = manager.logs["t", 0]
        assert (log.readable_end, log.log_end_offset) == (1, 2)
        assert log.read(0, 1000, end_offset=2).next_offset == 1
        with pytest.raises(KafkaError, match="KAFKA_STORAGE_ERROR"):
            append(log, "c")
        manager.close()
    node.disk.unlink(f"{node.dirs[0]}/recovery-point-offset-checkpoint")
    manager = node.manager()
    manager.open_all(NOW)
    append(manager.logs["t", 0], "c")
    assert manager.logs["t", 0].log_end_offset == 2


def test_a_topic_made_anew_does_not_inherit_the_checkpoints_of_its_name() -> None:
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    log = manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    append(log, "a", "b", "c")
    log.flush_blocking()
    log.advance_log_start(2)
    manager.checkpoint({("t", 0): 3})
    manager.delete_log("t", 0, wall_ms=NOW)
    append(manager.create_log("t", 0, bytes(16), wall_ms=NOW), "new")
    node.disk.kill()
    manager = node.manager()
    manager.open_all(NOW)
    log = manager.logs["t", 0]
    assert (log.log_start_offset, log.log_end_offset, log.corrupt_offset) == (0, 1, None)


def test_checkpoints_of_logs_that_could_not_be_opened_are_kept() -> None:
    node = Node(MemoryDisk(), "/data", dirs=2)
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    manager.close()
    [home] = [path for path in node.dirs if node.disk.exists(f"{path}/t-0")]
    [other] = [path for path in node.dirs if path != home]
    node.disk.makedirs(f"{other}/t-0")
    of_another = checkpoints.render_partition_metadata(bytes(15) + b"x")
    node.disk.write_file_atomic(
        f"{other}/t-0/{layout.PARTITION_METADATA}", of_another.encode(), durable=False
    )
    for path in node.dirs:
        node.disk.write_file_atomic(
            f"{path}/recovery-point-offset-checkpoint", b"0\n1\nt 0 1\n", durable=False
        )
    manager = node.manager()
    assert len(manager.open_all(NOW).failed) == 1
    manager.close()
    for path in node.dirs:
        assert node.disk.read_file(f"{path}/recovery-point-offset-checkpoint") == b"0\n1\nt 0 1\n"


def life_of_a_node(node: Node, log_names: list[tuple[str, int]]) -> None:
    """Start, create, append, roll, checkpoint, delete a log, stop."""
    manager = node.manager()
    manager.open_all(NOW)
    for topic, partition in log_names:
        log = manager.create_log(topic, partition, TOPIC_ID, LogConfig(segment_bytes=300), wall_ms=NOW)
        for number in range(6):
            append(log, f"v{number}")
            log.sync(node.syncer, lambda error: None)
            node.syncer.drain()
    manager.checkpoint({})
    manager.delete_log(*log_names[-1], wall_ms=NOW)
    manager.tick(NOW + 100_000)
    node.syncer.drain()
    manager.close()


@pytest.mark.parametrize("power", ["kept", "lost"])
def test_a_failure_at_any_write_or_sync_leaves_directories_that_open_again(power: str) -> None:
    names = [("t", 0), ("u", 3)]
    probe = Node(MemoryDisk(), "/data")
    life_of_a_node(probe, names)
    changes, syncs = probe.disk.faults.changes, probe.disk.faults.syncs
    assert changes > 60 and syncs > 10
    for number in range(changes + syncs):
        node = Node(MemoryDisk(number), "/data")
        node.disk.makedirs("/data")
        node.disk.sync_dir("/")
        if number < changes:
            node.disk.faults.fail_change_at = node.disk.faults.changes + number
        else:
            node.disk.faults.fail_sync_at = node.disk.faults.syncs + number - changes
        with suppress(OSError, KafkaError, DataDirError):
            life_of_a_node(node, names)
        node.disk.crash() if power == "lost" else node.disk.kill()
        node.syncer.forget()
        manager = node.manager()
        report = manager.open_all(NOW)
        assert report.failed == [], number
        for log in manager.logs.values():
            assert log.corrupt_offset is None
            append(log, "again")
        manager.close()


def registered(node: Node, boot_id: str, epoch: int = 7) -> LogManager:
    manager = LogManager(node.disk, node.syncer, node.dirs, rng=Random(5))
    manager.start(node_id=1, cluster_id=CLUSTER, boot_id=boot_id)
    manager.open_all(NOW)
    if epoch >= 0:
        manager.note_registration(epoch)
    return manager


def reopened(node: Node, boot_id: str) -> LogManager:
    return registered(node, boot_id, epoch=-1)


def test_a_killed_process_is_complete_as_long_as_the_machine_goes_on() -> None:
    node = Node(MemoryDisk(), "/data", dirs=2)
    log = registered(node, "boot-1").create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    append(log, "a")
    node.disk.kill()
    assert [each.broker_epoch for each in reopened(node, "boot-1").dirs] == [7, 7]
    node.disk.kill()
    assert [each.broker_epoch for each in reopened(node, "boot-2").dirs] == [-1, -1]
    node.disk.kill()
    assert [each.broker_epoch for each in reopened(node, "").dirs] == [-1, -1]


def test_a_damaged_log_makes_its_directory_incomplete() -> None:
    for damage in ("in the middle", "in the last batch", "in its length", "zeros"):
        node = Node(MemoryDisk(), "/data")
        log = registered(node, "boot-1").create_log("t", 0, TOPIC_ID, wall_ms=NOW)
        append(log, "a")
        append(log, "b")
        path = log.active_segment.path(".log")
        end = node.disk.size(path)
        append(log, "c")
        node.disk.kill()
        if damage == "zeros":
            node.disk.open(path).append([bytes(100)])
        else:
            at = {"in the middle": 70, "in the last batch": end + 65, "in its length": end + 9}[damage]
            node.disk.flip_bit(path, at, 1)
        assert reopened(node, "boot-1").dirs[0].broker_epoch == -1, damage


def test_a_write_that_a_kill_interrupted_leaves_a_directory_complete() -> None:
    """Nobody was told of any of its bytes, and those before it are in the page cache."""
    whole = MemoryDisk()
    log = registered(Node(whole, "/data"), "boot-1").create_log("t", 0, TOPIC_ID, wall_ms=NOW)
    append(log, "a")
    append(log, "b")
    path = log.active_segment.path(".log")
    end = whole.size(path)
    second = whole.open(path).pread(end, 0)[end // 2 :]
    for length in (3, 30, 61, len(second) - 1):
        node = Node(MemoryDisk(), "/data")
        append(registered(node, "boot-1").create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
        node.disk.kill()
        node.disk.open(path).append([second[:length]])
        manager = reopened(node, "boot-1")
        assert manager.complete_epoch == 7, length
        assert manager.logs["t", 0].log_end_offset == 1


def test_a_clean_stop_needs_no_boot_id() -> None:
    node = Node(MemoryDisk(), "/data")
    registered(node, "boot-1").close(broker_epoch=9)
    assert reopened(node, "").dirs[0].broker_epoch == 9


def test_a_stop_before_registration_leaves_the_earlier_epoch() -> None:
    """A node that finds no controller and is stopped again has lost nothing."""
    node = Node(MemoryDisk(), "/data")
    registered(node, "boot-1").close(broker_epoch=9)
    for _ in range(2):
        reopened(node, "boot-2").close()
    assert reopened(node, "boot-2").complete_epoch == 9


def test_a_stop_before_registration_does_not_vouch_for_what_was_lost() -> None:
    for stop in ("clean", "killed"):
        node = Node(MemoryDisk(), "/data")
        log = registered(node, "boot-1").create_log("t", 0, TOPIC_ID, wall_ms=NOW)
        append(log, "a")
        append(log, "b")
        path = log.active_segment.path(".log")
        node.disk.kill()
        node.disk.flip_bit(path, node.disk.size(path) - 3, 1)
        manager = reopened(node, "boot-1")
        manager.close() if stop == "clean" else node.disk.kill()
        assert reopened(node, "boot-1").complete_epoch == -1, stop


def test_all_directories_must_be_complete_for_the_same_epoch() -> None:
    node = Node(MemoryDisk(), "/data", dirs=2)
    registered(node, "boot-1").close(broker_epoch=9)
    manager = reopened(node, "boot-1")
    assert manager.complete_epoch == 9
    manager.dirs[1].broker_epoch = 8
    assert manager.complete_epoch == -1
    manager.dirs[1].broker_epoch = -1
    assert manager.complete_epoch == -1


def test_a_damaged_registration_counts_as_none() -> None:
    node = Node(MemoryDisk(), "/data")
    registered(node, "boot-1")
    for text in (b"", b"{", b"[]", b'{"bootId":"boot-1","brokerEpoch":"x"}', b'{"bootId":7,"brokerEpoch":7}'):
        node.disk.kill()
        node.disk.write_file_atomic(f"{node.dirs[0]}/odradek-registration", text, durable=False)
        manager = reopened(node, "boot-1")
        assert manager.dirs[0].broker_epoch == -1
        assert not manager.open_all(NOW).foreign


def test_a_log_that_is_set_aside_is_no_log_any_more_and_stays(node: Node) -> None:
    manager = node.manager()
    append(manager.create_log("t", 0, TOPIC_ID, wall_ms=NOW), "a")
    manager.set_aside("t", 0)
    assert manager.logs == {}
    append(manager.create_log("t", 0, bytes(16), wall_ms=NOW), "b")
    manager.tick(NOW + 10_000_000)
    node.syncer.drain()
    manager.close()
    manager = node.manager()
    report = manager.open_all(NOW)
    [stray] = report.strays
    assert not report.foreign
    assert stray.endswith("-stray")
    assert node.disk.size(f"{stray}/00000000000000000000.log") > 0
    assert [log.topic_id for log in manager.logs.values()] == [bytes(16)]


def test_a_clock_that_jumps_keeps_no_files_for_ever() -> None:
    """Far ahead for a moment, then back: what is deleted afterwards still goes after its delay."""
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    manager.open_all(NOW)
    year_ms = 365 * 24 * 3_600_000
    for wall_ms in (NOW + year_ms, NOW - 3_600_000):
        manager.tick(wall_ms)
        manager.create_log("t", 0, TOPIC_ID, wall_ms=wall_ms)
        assert manager.delete_log("t", 0, wall_ms=wall_ms)
    node.syncer.drain()
    assert len([name for name in node.disk.listdir("/data/d0") if name.endswith("-delete")]) == 2
    manager.tick(NOW - 3_600_000 + 59_999)
    node.syncer.drain()
    left = [name for name in node.disk.listdir("/data/d0") if name.endswith("-delete")]
    manager.tick(NOW - 3_600_000 + 60_000)
    node.syncer.drain()
    assert len(left) == 2
    assert not [name for name in node.disk.listdir("/data/d0") if name.endswith("-delete")]


def test_a_topic_that_keeps_deleted_files_for_long_holds_up_no_other() -> None:
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    manager.open_all(NOW)
    for topic, delay_ms in (("slow", 10**9), ("quick", 1000)):
        manager.create_log(topic, 0, TOPIC_ID, LogConfig(file_delete_delay_ms=delay_ms), wall_ms=NOW)
        assert manager.delete_log(topic, 0, wall_ms=NOW)
    manager.tick(NOW + 1000)
    node.syncer.drain()
    [left] = [name for name in node.disk.listdir("/data/d0") if name.endswith("-delete")]
    assert left.startswith("slow-0.")


def test_flush_ms_survives_a_clock_that_is_set_back() -> None:
    node = Node(MemoryDisk(), "/data")
    manager = node.manager()
    manager.open_all(NOW)
    log = manager.create_log("t", 0, TOPIC_ID, LogConfig(flush_ms=1000), wall_ms=NOW)
    append(log, "a")
    manager.tick(NOW - 3_600_000)
    node.syncer.drain()
    assert log.recovery_point == 1
    append(log, "b")
    manager.tick(NOW - 3_600_000 + 999)
    node.syncer.drain()
    assert log.recovery_point == 1
    manager.tick(NOW - 3_600_000 + 1000)
    node.syncer.drain()
    assert log.recovery_point == 2
