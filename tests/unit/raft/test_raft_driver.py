"""The driver with a quorum of one, on a disk that forgets and fails."""

from __future__ import annotations

import errno

import pytest

from odradek.raft.config import RaftConfig
from odradek.raft.log_index import SnapshotId
from odradek.raft.metadata_log import CorruptMetadata
from odradek.raft.quorum_state import QuorumState
from odradek.raft.raft_driver import CommittedBatch, NotLeader
from odradek.raft.snapshots import encode
from odradek.raft.testing.node import METADATA_DIR, WALL_START_MS, DriverNode, single_node, static_voters
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.storage.memory_disk import MemoryDisk

LOG_DIR = f"{METADATA_DIR}/__cluster_metadata-0"
FSYNCS_MAX = 6
"""Of a fresh start: two directories, the vote file and its directory, the log and its directory."""


def started(seed: int = 0, disk: MemoryDisk | None = None, config: RaftConfig | None = None) -> DriverNode:
    node = single_node(seed, disk=disk, config=config)
    node.start()
    node.settle()
    assert node.driver.is_leader
    return node


def restarted(node: DriverNode) -> DriverNode:
    return started(disk=node.disk, config=node.config)


def stored_vote(node: DriverNode) -> QuorumState:
    return QuorumState.decode(node.disk.read_file(f"{LOG_DIR}/quorum-state"))


def test_a_fresh_node_leads_without_a_timeout_and_after_a_handful_of_fsyncs() -> None:
    node = single_node()
    before = node.disk.faults.syncs
    node.start()
    assert not node.driver.is_leader
    node.settle()
    assert node.listener.diary == ["leader 1"]
    assert (node.driver.epoch, node.driver.leader_id, node.listener.leader_id) == (1, 1, 1)
    assert node.disk.faults.syncs - before <= FSYNCS_MAX


def test_the_vote_is_on_disk_before_the_log_has_an_entry() -> None:
    node = single_node()
    node.start()
    while node.driver.end_offset == 0:
        assert node.syncer.step()
    assert stored_vote(node) == QuorumState(1, 1, node.me)


def test_a_record_is_committed_when_it_is_fsynced_and_not_before() -> None:
    node = started()
    last_offset = node.append(b"one", b"two")
    assert node.listener.records == []
    node.settle()
    assert node.listener.records == [b"one", b"two"]
    assert node.listener.next_offset == last_offset + 1 == node.driver.high_watermark


def test_records_appended_while_an_fsync_runs_are_committed_with_the_next() -> None:
    node = started()
    for number in range(50):
        node.append(b"%d" % number)
    before = node.disk.faults.syncs
    node.settle()
    assert node.listener.records == [b"%d" % number for number in range(50)]
    assert node.disk.faults.syncs - before <= 2


def test_everything_is_replayed_once_and_in_order_before_leadership_is_told() -> None:
    node = started()
    for number in range(5):
        node.append(b"%d" % number, b"and")
    node.settle()
    node.stop()
    again = restarted(node)
    assert again.listener.records == node.listener.records
    assert again.listener.diary[-1] == "leader 2"
    assert again.listener.diary.count("leader 2") == 1


def test_nothing_is_shown_at_a_restart_before_the_new_epoch_has_a_durable_entry() -> None:
    node = started()
    node.append(b"old")
    node.settle()
    node.kill()
    again = single_node(disk=node.disk)
    again.start()
    while not again.listener.records:
        assert again.driver.end_offset == 4 or again.driver.high_watermark == 0
        assert again.syncer.step()
    assert again.driver.high_watermark == again.driver.end_offset


def test_an_unsynced_record_that_the_page_cache_kept_is_fsynced_before_it_is_shown() -> None:
    node = started()
    node.append(b"maybe")
    node.kill()
    again = restarted(node)
    assert again.listener.records == [b"maybe"]
    again.crash()
    assert restarted(again).listener.records == [b"maybe"]


@pytest.mark.parametrize("seed", range(60))
def test_power_loss_at_any_moment_loses_nothing_committed_and_repeats_no_epoch(seed: int) -> None:
    node = single_node(seed)
    committed: list[bytes] = []
    epochs: list[int] = []
    number = 0
    for _ in range(4):
        node.start()
        for _ in range(node.rng.randrange(40)):
            if node.driver.is_leader and node.rng.random() < 0.5:
                node.append(*(b"%d" % (number + i) for i in range(node.rng.randrange(1, 4))))
                number += 4
            elif node.driver.is_leader and node.rng.random() < 0.1:
                node.snapshot()
            node.syncer.step()
        assert node.listener.fatal is None
        shown = node.listener.records  # a life that ends early may have shown less than the one before
        assert all(mine == before for mine, before in zip(shown, committed, strict=False))
        committed = max(committed, list(shown), key=len)
        if node.listener.leads:
            epochs.append(node.driver.epoch)
        node.crash() if node.rng.random() < 0.7 else node.kill()
    assert epochs == sorted(set(epochs))
    node.start()
    node.settle()
    assert node.listener.records[: len(committed)] == committed


def workload(node: DriverNode) -> None:
    """Everything that writes: votes, appends, two snapshots, deletion of what they cover."""
    node.start()
    node.settle()
    for number in range(6):
        node.append(b"record %d" % number)
        node.settle()
        if number in (2, 4):
            node.snapshot()
            node.settle()


def count_disk_operations() -> tuple[int, int]:
    node = single_node()
    changes, syncs = node.disk.faults.changes, node.disk.faults.syncs
    workload(node)
    return node.disk.faults.changes - changes, node.disk.faults.syncs - syncs


CHANGES, SYNCS = count_disk_operations()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("number", range(CHANGES))
def test_a_write_that_fails_stops_the_node_and_costs_nothing_committed(number: int, error: int) -> None:
    node = single_node()
    node.disk.faults.error = error
    node.disk.faults.fail_change_at = node.disk.faults.changes + number
    check_fault(node)


@pytest.mark.parametrize("number", range(SYNCS))
def test_an_fsync_that_fails_stops_the_node_and_costs_nothing_committed(number: int) -> None:
    node = single_node()
    node.disk.faults.fail_sync_at = node.disk.faults.syncs + number
    check_fault(node)


def check_fault(node: DriverNode) -> None:
    failed = False
    try:
        workload(node)
    except (OSError, NotLeader):
        failed = True
    assert failed or node.listener.fatal is not None
    assert not node.driver.is_leader
    told = list(node.listener.records)
    node.crash()
    again = restarted(node)
    assert again.listener.records[: len(told)] == told


def test_a_fatal_error_is_told_once_and_ends_appending() -> None:
    node = started()
    node.disk.faults.fail_sync_at = node.disk.faults.syncs
    node.append(b"lost")
    node.settle()
    assert node.listener.fatal is not None and "injected" in node.listener.fatal
    assert node.listener.records == []
    with pytest.raises(NotLeader):
        node.append(b"more")
    assert node.driver._timer is None or not node.driver._timer.active


def test_an_exception_while_applying_stops_the_node() -> None:
    node = started()

    def cannot(batches: list[CommittedBatch]) -> None:
        raise ValueError("cannot apply")

    node.listener.on_commit = cannot  # type: ignore[method-assign]
    node.append(b"poison")
    node.settle()
    assert node.listener.fatal is not None and "cannot apply" in node.listener.fatal
    with pytest.raises(NotLeader):
        node.append(b"more")


def test_the_application_may_append_from_its_callbacks() -> None:
    node = single_node()
    node.start()
    plain_on_leader, plain_on_commit = node.listener.on_leader, node.listener.on_commit

    def on_leader(epoch: int) -> None:
        plain_on_leader(epoch)
        node.append(b"first")

    def on_commit(batches: list[CommittedBatch]) -> None:
        plain_on_commit(batches)
        if len(node.listener.records) < 5:
            node.append(b"next")

    node.listener.on_leader, node.listener.on_commit = on_leader, on_commit  # type: ignore[method-assign]
    node.settle()
    assert node.listener.records == [b"first", *[b"next"] * 4]


def test_only_a_leader_that_has_been_told_so_appends() -> None:
    node = single_node()
    node.start()
    with pytest.raises(NotLeader) as refused:
        node.append(b"early")
    assert refused.value.leader_id == -1


def test_an_empty_batch_and_an_oversized_one_are_refused() -> None:
    node = started()
    for records in ([], [b"x" * (8 << 20)], [b""] * 100_001):
        with pytest.raises(ValueError, match="a batch has"):
            node.driver.append(records)
    node.append(b"x" * (7 << 20))
    node.settle()
    assert len(node.listener.records) == 1


# ---- snapshots


def fill(node: DriverNode, count: int) -> None:
    for number in range(count):
        node.append(b"%d" % number)
    node.settle()


def checkpoints(node: DriverNode) -> list[str]:
    return [name for name in node.disk.listdir(LOG_DIR) if ".checkpoint" in name]


def test_a_node_starts_from_its_newest_snapshot_and_the_log_behind_it() -> None:
    node = started()
    fill(node, 10)
    assert node.snapshot()
    node.settle()
    fill(node, 3)
    node.kill()
    again = restarted(node)
    assert again.listener.diary[0] == "snapshot 13-1"
    assert again.listener.records == node.listener.records


def test_the_log_below_the_oldest_kept_snapshot_is_given_up() -> None:
    node = started()
    for _ in range(4):
        fill(node, 5)
        assert node.snapshot()
        node.settle()
    assert checkpoints(node) == [
        "00000000000000000018-0000000001.checkpoint",
        "00000000000000000023-0000000001.checkpoint",
    ]
    node.stop()
    again = restarted(node)
    assert again.driver.latest_snapshot is not None
    assert again.listener.records == node.listener.records
    fill(again, 1)


def test_only_one_snapshot_is_written_at_a_time_and_none_twice() -> None:
    node = started()
    fill(node, 1)
    assert node.snapshot()
    assert not node.snapshot()
    node.settle()
    assert not node.snapshot()
    assert not node.driver.create_snapshot(0, 0, [b"nothing"])


@pytest.mark.parametrize(("end_offset", "epoch"), [(99, 1), (4, 7), (2, 1)])
def test_a_snapshot_of_a_position_that_the_log_does_not_have_is_refused(end_offset: int, epoch: int) -> None:
    node = started()
    node.append(b"a", b"b")
    node.settle()
    with pytest.raises(ValueError, match=r"a snapshot must end|no batch of epoch"):
        node.driver.create_snapshot(end_offset, epoch, [b"state"])


def test_a_damaged_newest_snapshot_is_set_aside_and_the_older_one_used() -> None:
    node = started()
    for _ in range(2):
        fill(node, 5)
        assert node.snapshot()
        node.settle()
    node.kill()
    node.disk.flip_bit(f"{LOG_DIR}/{checkpoints(node)[-1]}", 100, 3)
    again = restarted(node)
    assert again.listener.diary[0] == "snapshot 8-1"
    assert again.listener.records == node.listener.records
    assert checkpoints(again)[-1].endswith(".checkpoint.corrupt")


def test_a_log_whose_beginning_only_a_damaged_snapshot_holds_is_refused() -> None:
    node = started(config=RaftConfig(snapshots_retained=1))
    fill(node, 5)
    assert node.snapshot()
    node.settle()
    node.driver._log._log.roll(node.clock.wall_ms())  # type: ignore[union-attr]
    fill(node, 5)
    assert node.snapshot()
    node.settle()
    node.kill()
    node.disk.flip_bit(f"{LOG_DIR}/{checkpoints(node)[0]}", 100, 3)
    with pytest.raises(CorruptMetadata, match="no sound snapshot"):
        single_node(disk=node.disk).start()


def test_a_half_written_snapshot_is_removed_at_the_next_start() -> None:
    node = started()
    fill(node, 2)
    partial = f"{LOG_DIR}/00000000000000000004-0000000001.checkpoint.part"
    node.disk.open(partial, create=True).append([b"half"])
    node.kill()
    again = restarted(node)
    assert checkpoints(again) == []
    assert again.listener.records == node.listener.records


def test_the_voters_of_a_bootstrap_snapshot_are_written_into_the_log() -> None:
    node = single_node()
    static = DriverNode(node.me, static_voters(1), disk=node.disk)
    node.disk.makedirs(LOG_DIR)
    bootstrap = b"".join(encode(SnapshotId(0, 0), node.voters, [], WALL_START_MS))
    node.disk.write_file_atomic(f"{LOG_DIR}/{SnapshotId(0, 0).file_name}", bootstrap, durable=True)
    static.start()
    static.settle()
    assert static.driver.end_offset == 3
    fill(static, 1)
    static.kill()
    static.start()
    static.settle()
    assert static.listener.records == [b"0"]


def test_segments_below_the_log_start_are_unlinked_off_the_thread() -> None:
    node = started(config=RaftConfig(snapshots_retained=1))
    fill(node, 5)
    node.driver._log._log.roll(node.clock.wall_ms())  # type: ignore[union-attr]
    fill(node, 5)
    assert node.snapshot()
    node.settle()
    assert [name for name in node.disk.listdir(LOG_DIR) if name.endswith(".log")] == [
        "00000000000000000008.log"
    ]
    node.kill()
    assert restarted(node).listener.records == node.listener.records


# ---- what the directory may look like


def test_a_torn_tail_is_cut() -> None:
    node = started()
    fill(node, 3)
    node.kill()
    node.disk.open(f"{LOG_DIR}/00000000000000000000.log").append([b"\0" * 8 + b"\0\0\0\x40torn"])
    assert restarted(node).listener.records == node.listener.records


def test_damage_in_the_middle_is_refused_with_a_line_that_says_what_to_do() -> None:
    node = started()
    fill(node, 20)
    node.kill()
    node.disk.flip_bit(f"{LOG_DIR}/00000000000000000000.log", 400, 1)
    with pytest.raises(CorruptMetadata, match=r"is damaged at offset \d+.*restore it from a copy"):
        single_node(disk=node.disk).start()


def test_a_lost_vote_file_of_a_quorum_of_one_costs_an_epoch_and_nothing_else() -> None:
    node = started()
    fill(node, 2)
    node.stop()
    node.disk.unlink(f"{LOG_DIR}/quorum-state")
    again = restarted(node)
    assert again.driver.epoch == 2
    assert again.listener.records == node.listener.records


def test_a_lost_vote_file_among_several_voters_is_refused() -> None:
    voters = static_voters(1, 2, 3)
    node = started()
    fill(node, 2)
    node.stop()
    node.disk.unlink(f"{LOG_DIR}/quorum-state")
    _rewrite_without_voters(node)
    with pytest.raises(CorruptMetadata, match="quorum-state is missing"):
        DriverNode(node.me, voters, disk=node.disk).start()


def _rewrite_without_voters(node: DriverNode) -> None:
    """The same log as a static quorum would have written it: no voters record."""
    static = DriverNode(node.me, static_voters(1))
    static.start()
    static.settle()
    fill(static, 2)
    static.stop()
    static.disk.unlink(f"{LOG_DIR}/quorum-state")
    node.disk = static.disk


def test_an_unreadable_vote_file_of_a_quorum_of_one_is_as_good_as_lost() -> None:
    node = started()
    fill(node, 2)
    node.stop()
    node.disk.write_file_atomic(f"{LOG_DIR}/quorum-state", b"{", durable=True)
    again = restarted(node)
    assert again.driver.epoch == 2
    assert again.listener.records == node.listener.records
    assert node.disk.read_file(f"{LOG_DIR}/quorum-state.corrupt") == b"{"


def test_an_unreadable_vote_file_among_several_voters_is_refused() -> None:
    node = started()
    fill(node, 2)
    node.stop()
    _rewrite_without_voters(node)
    node.disk.write_file_atomic(f"{LOG_DIR}/quorum-state", b"{", durable=True)
    with pytest.raises(CorruptMetadata, match=r"quorum-state cannot be read.*or remove"):
        DriverNode(node.me, static_voters(1, 2, 3), disk=node.disk).start()


def test_a_log_of_another_directory_id_is_refused() -> None:
    node = started()
    node.stop()
    other = ReplicaKey(1, b"\x09" * 16)
    with pytest.raises(CorruptMetadata, match="belongs to voter 1 with another directory"):
        DriverNode(other, VoterSet.of([Voter(other)]), disk=node.disk).start()


def test_the_quorum_is_described_as_kafka_describes_it() -> None:
    node = started()
    node.append(b"one")
    node.settle()
    status = node.driver.describe_quorum()
    assert (status.leader_id, status.epoch, status.high_watermark, status.observers) == (1, 1, 4, ())
    (me,) = status.voters
    assert (me.key, me.log_end_offset, me.last_fetch_ms) == (node.me, 4, node.clock.wall_ms())


def test_a_disk_that_is_gone_does_not_keep_a_node_from_stopping() -> None:
    node = started()
    node.append(b"one")
    node.settle()
    node.disk.faults.error = errno.EIO
    node.disk.faults.fail_change_at = node.disk.faults.changes
    node.driver.close()
    node.disk.faults.fail_change_at = None
    node.running = False
    again = restarted(node)
    assert again.listener.records == [b"one"]
