"""Logs on their way to another directory: copied, promoted, and what a crash in between leaves."""

from __future__ import annotations

from random import Random

import pytest

from odradek.storage import layout
from odradek.storage.config import LogConfig
from odradek.storage.data_dir import DataDirError
from odradek.storage.futures import agreed_end, copy_some
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import simple_batch
from odradek.wire.uuid import uuid_to_string

NOW = 1_700_000_000_000
TOPIC_ID = bytes(range(16))
KEY = ("t", 0)


class Node:
    """Two directories; the log of t-0 is in the first."""

    def __init__(self, **config: int) -> None:
        self.disk = MemoryDisk(3)
        self.config = LogConfig(**config)  # type: ignore[arg-type]
        self.seed = 0
        self.open()
        self.manager.create_log(
            *KEY, TOPIC_ID, self.config, wall_ms=NOW, dir_id=self.manager.dirs[0].directory_id
        )

    def open(self) -> None:
        self.seed += 1
        self.syncer = StepSyncer()
        self.manager = LogManager(self.disk, self.syncer, ["/a", "/b"], rng=Random(self.seed))
        self.manager.start(node_id=1, cluster_id=None)
        self.report = self.manager.open_all(NOW, lambda _topic: self.config)

    def crash(self, *, power: bool = False) -> None:
        if power:
            self.disk.crash()
        else:
            self.disk.kill()
        self.open()

    @property
    def current(self) -> Log:
        return self.manager.logs[KEY]

    @property
    def future(self) -> Log:
        return self.manager.futures.logs[KEY]

    def begin(self) -> Log:
        return self.manager.futures.create(KEY, self.manager.dirs[1], TOPIC_ID)

    def append(self, *values: str, epoch: int = 0) -> None:
        for value in values:
            batch = simple_batch([(b"k", value.encode())], base_offset=0, timestamp=NOW)
            self.current.append_as_leader(memoryview(batch), epoch, NOW)
        self.current.write_staged()

    def copy(self) -> None:
        while copy_some(self.current, self.future, 200, NOW):
            pass

    def close_in(self) -> None:
        self.copy()
        self.manager.futures.prepare(KEY, lambda error: None)
        self.syncer.drain()
        self.future.sync(self.syncer, lambda error: None)
        self.syncer.drain()

    def records(self, log: Log | None = None) -> bytes:
        log = log or self.current
        found = b""
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            result = log.read(offset, 1 << 20, end_offset=log.log_end_offset)
            found += bytes(result.data)
            offset = result.next_offset
        return found

    def dirs(self, root: str) -> list[str]:
        return [name for name in self.disk.listdir(root) if name.startswith("t-0")]


@pytest.fixture
def node() -> Node:
    return Node(segment_bytes=1000)


def test_a_copy_has_the_same_bytes_and_takes_the_place(node: Node) -> None:
    node.append(*"abcdefghijklmnopqrst", epoch=3)
    before = node.records()
    node.begin()
    assert not node.manager.futures.is_ready(KEY)
    node.close_in()
    assert node.manager.futures.is_ready(KEY)
    old = node.current
    log = node.manager.futures.promote(KEY)
    assert node.current is log and old.offline
    assert log.dir == "/b/t-0" and log.dir_id == node.manager.dirs[1].directory_id
    assert node.records() == before
    assert log.epochs.entries == [(3, 0)]
    node.append("u", epoch=3)
    node.syncer.drain()
    node.manager.tick(NOW + 10_000_000)
    node.syncer.drain()
    assert node.dirs("/a") == []
    node.manager.close()
    node.open()
    assert node.current.log_end_offset == 21 and node.current.dir == "/b/t-0"
    assert node.current.topic_id == TOPIC_ID


def test_what_is_not_copied_yet_keeps_it_from_taking_the_place(node: Node) -> None:
    node.append("a", epoch=1)
    node.begin()
    node.close_in()
    node.append("b", epoch=1)
    assert not node.manager.futures.is_ready(KEY)
    node.copy()
    assert node.manager.futures.is_ready(KEY), "what nobody was told to be durable need not be so"
    node.current.sync(node.syncer, lambda error: None)
    assert not node.manager.futures.is_ready(KEY), "an fsync is under way"
    node.syncer.drain()
    assert not node.manager.futures.is_ready(KEY), "the copy is less durable"
    node.close_in()
    node.current.epochs.assign(2, node.current.log_end_offset)
    assert not node.manager.futures.is_ready(KEY), "the start of an epoch is not in the copy"
    node.close_in()
    assert node.manager.futures.is_ready(KEY)


def test_cuts_and_log_starts_are_followed(node: Node) -> None:
    node.append(*"abcdefghij", epoch=1)
    node.begin()
    node.copy()
    node.current.truncate_to(4)
    node.append(*"xyz", epoch=2)
    node.copy()
    assert node.records(node.future) == node.records() and node.future.log_end_offset == 7
    node.current.advance_log_start(5)
    node.copy()
    assert node.future.log_start_offset == 5
    node.current.truncate_fully_and_start_at(50)
    node.append("q", epoch=3)
    node.copy()
    assert (node.future.log_start_offset, node.future.log_end_offset) == (50, 51)


@pytest.mark.parametrize("power", [False, True])
def test_a_restart_goes_on_where_the_copy_was(node: Node, power: bool) -> None:
    node.append(*"abcdefghij", epoch=1)
    node.current.flush_blocking()
    node.begin()
    copy_some(node.current, node.future, 200, NOW)
    taken = node.future.log_end_offset
    assert 0 < taken < 10
    if power:
        node.future.flush_blocking()
    node.crash(power=power)
    assert node.report.foreign == []
    assert node.future.log_end_offset == taken
    node.copy()
    assert node.records(node.future) == node.records()


def test_a_copy_that_tells_another_history_is_cut_before_it_goes_on(node: Node) -> None:
    """The replica was cut and took other records; the process ended before the copy followed."""
    node.append(*"abcdef", epoch=1)
    node.begin()
    node.copy()
    node.current.truncate_to(2)
    node.append(*"wxyz", epoch=2)
    assert agreed_end(node.current, node.future) == 2
    node.crash()
    node.copy()
    assert node.records(node.future) == node.records() and node.future.log_end_offset == 6


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("power", [False, True])
def test_a_crash_at_any_step_of_the_swap_leaves_one_log_with_everything(steps: int, power: bool) -> None:
    node = Node(segment_bytes=1000)
    node.append(*"abcdefghijklmnop", epoch=1)
    node.current.flush_blocking()
    everything = node.records()
    node.begin()
    node.close_in()
    node.manager.futures.promote(KEY)
    durable: list[str] = []
    node.append("q", epoch=1)
    node.current.sync(node.syncer, lambda error: durable.append("q"))
    for _ in range(steps):
        node.syncer.step()
    if not power or durable:
        everything = node.records()
    node.crash(power=power)
    assert not node.report.failed
    assert node.records().startswith(everything)
    node.manager.tick(NOW + 10_000_000)
    node.syncer.drain()
    if KEY in node.manager.futures.logs:
        assert node.dirs("/a") == ["t-0"]
    else:
        assert len(node.dirs("/a")) + len(node.dirs("/b")) == 1


def test_a_damaged_copy_begins_anew(node: Node) -> None:
    node.append(*"abcdefghijklmnop", epoch=1)
    node.current.flush_blocking()
    path = node.begin().dir
    node.copy()
    node.future.flush_blocking()
    node.manager.checkpoint()
    node.disk.kill()
    node.disk.flip_bit(f"{path}/{0:020d}.log", 300, 1)
    node.disk.unlink("/b/recovery-point-offset-checkpoint")
    node.open()
    assert node.future.log_end_offset == 0
    node.copy()
    assert node.records(node.future) == node.records()
    node.manager.tick(NOW)
    node.syncer.drain()
    assert len(node.dirs("/b")) == 1


def test_a_failed_directory_ends_what_was_going_there_and_keeps_it_for_the_next_start(node: Node) -> None:
    node.append(*"abc")
    node.begin()
    node.copy()
    node.manager.dir_failed(node.manager.dirs[1], OSError(5, "EIO"))
    assert node.manager.futures.logs == {} and not node.current.offline
    node.append("d")
    node.manager.close()
    node.open()
    node.copy()
    assert node.future.log_end_offset == 4


def test_the_old_directory_failing_in_the_swap_costs_nothing(node: Node) -> None:
    node.append(*"abc", epoch=1)
    node.begin()
    node.close_in()
    node.manager.dirs[0].offline = True
    node.manager.futures.promote(KEY)
    node.append("d", epoch=1)
    node.syncer.drain()
    assert node.dirs("/a") == ["t-0"], "nothing there can be renamed"
    node.crash()
    assert node.current.dir == "/b/t-0" and node.current.log_end_offset == 4
    assert "t-0" not in node.dirs("/a"), "another move may go there at once"
    node.manager.tick(NOW)
    node.syncer.drain()
    assert node.dirs("/a") == []


def test_held_syncs_are_done_where_the_log_is_then(node: Node) -> None:
    node.append("a", epoch=1)
    node.begin()
    done: list[OSError | None] = []
    node.current.hold_syncs()
    node.current.sync(node.syncer, done.append)
    node.close_in()
    assert done == [] and node.current.recovery_point == 0
    old = node.current
    log = node.manager.futures.promote(KEY)
    old.release_syncs(log)
    node.syncer.drain()
    assert done == [None] and log.recovery_point == 1


def test_a_deleted_partition_takes_its_copy_with_it(node: Node) -> None:
    node.append("a")
    node.begin()
    node.manager.delete_log(*KEY, wall_ms=NOW)
    node.manager.tick(NOW + 10_000_000)
    node.syncer.drain()
    assert node.dirs("/a") == node.dirs("/b") == [] and node.manager.futures.logs == {}


def test_a_copy_of_another_incarnation_goes(node: Node) -> None:
    node.append("a")
    node.manager.futures.create(KEY, node.manager.dirs[1], bytes(16))
    node.crash()
    node.manager.tick(NOW)
    node.syncer.drain()
    assert node.manager.futures.logs == {} and node.dirs("/b") == []


def test_a_name_that_is_too_long_is_refused() -> None:
    node = Node()
    name = "x" * 214
    node.manager.create_log(name, 0, TOPIC_ID, wall_ms=NOW, dir_id=node.manager.dirs[0].directory_id)
    with pytest.raises(KafkaError) as refused:
        node.manager.futures.create((name, 0), node.manager.dirs[1], TOPIC_ID)
    assert refused.value.code is ErrorCode.INVALID_TOPIC_EXCEPTION


def test_new_logs_go_where_the_fewest_are_and_not_to_cordoned_directories(node: Node) -> None:
    manager = node.manager
    assert manager.create_log("u", 0, TOPIC_ID, wall_ms=NOW).dir == "/b/u-0"
    manager.cordoned = frozenset(["/b"])
    assert {manager.create_log("u", index, TOPIC_ID, wall_ms=NOW).dir[:2] for index in (1, 2, 3)} == {"/a"}
    manager.cordoned = frozenset(["/a", "/b"])
    assert manager.create_log("u", 4, TOPIC_ID, wall_ms=NOW).dir == "/b/u-4"


def twins(node: Node) -> None:
    """Both directories have t-0, and no move says why."""
    node.append(*"abc")
    node.current.flush_blocking()
    node.manager.close()
    node.disk.rename("/a", "/away")
    node.open()
    node.manager.create_log(
        *KEY, TOPIC_ID, node.config, wall_ms=NOW, dir_id=node.manager.dirs[1].directory_id
    )
    node.manager.close()
    node.disk.rmtree("/a")
    node.disk.rename("/away", "/a")


def test_two_logs_that_no_move_explains_keep_a_node_from_starting_until_somebody_decides(node: Node) -> None:
    """A directory was unplugged, the partition made anew in another one, and then the directory came back: which one
    has what was acknowledged?
    """
    twins(node)
    with pytest.raises(
        DataDirError, match=r"^Duplicate log directories for t-0 are found in both /b/t-0 and /a/t-0"
    ):
        node.open()
    assert node.dirs("/a") == node.dirs("/b") == ["t-0"]
    node.disk.kill()
    node.disk.rmtree("/b/t-0")
    node.open()
    assert node.current.log_end_offset == 3


def test_of_two_incarnations_of_a_topic_metadata_says_which_counts(node: Node) -> None:
    twins(node)
    path = f"/b/t-0/{layout.PARTITION_METADATA}"
    text = node.disk.read_file(path).decode()
    node.disk.write_file_atomic(
        path, text.replace(uuid_to_string(TOPIC_ID), uuid_to_string(bytes(15) + b"x")).encode(), durable=True
    )
    node.open()
    assert node.current.topic_id == TOPIC_ID
    assert node.report.failed == [("/b/t-0", "t-0 is in /a/t-0 too")]
