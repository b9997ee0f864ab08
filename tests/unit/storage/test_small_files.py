"""Formats of the small files, indexes and names, as Kafka writes them."""

from __future__ import annotations

import struct

import pytest

from odradek.storage import checkpoints, layout
from odradek.storage.checkpoints import CheckpointError
from odradek.storage.config import LogConfig
from odradek.storage.epochs import LeaderEpochCache
from odradek.storage.indexes import SegmentIndex, floor_in_file, floor_time_in_file, load_index
from odradek.storage.memory_disk import MemoryDisk


def test_offset_checkpoints_in_kafkas_form() -> None:
    text = "0\n2\na-b 0 7\nt 12 0\n"
    assert checkpoints.parse_offsets(text) == {("a-b", 0): 7, ("t", 12): 0}
    assert checkpoints.render_offsets({("t", 12): 0, ("a-b", 0): 7}) == text
    assert checkpoints.parse_offsets(checkpoints.render_offsets({})) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1\n0\n",
        "0\nx\n",
        "0\n2\nt 0 1\n",
        "0\n1\nt 0\n",
        "0\n1\nt 0 x\n",
        "0\n0\nt 0 1\n",
        "0\n-1\n",
        "0\n1\nt 0 12",
    ],
)
def test_damaged_checkpoints_are_noticed(text: str) -> None:
    with pytest.raises(CheckpointError):
        checkpoints.parse_offsets(text)
    with pytest.raises(CheckpointError):
        checkpoints.parse_pairs(text)


def test_partition_metadata_in_kafkas_form() -> None:
    topic_id = bytes(range(16))
    assert checkpoints.render_partition_metadata(topic_id) == "version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    assert checkpoints.parse_partition_metadata("version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw\n") == topic_id
    for text in ("", "version: 1\ntopic_id: AAECAwQFBgcICQoLDA0ODw", "version: 0\ntopic_id: x", "version: 0"):
        with pytest.raises(CheckpointError):
            checkpoints.parse_partition_metadata(text)


def test_meta_properties_of_java() -> None:
    text = "#\n#Thu Jan 01 00:00:00 UTC 2026\ncluster.id=a\\:b\nnode.id = 1\n\n! no\nversion=1\n"
    assert checkpoints.parse_properties(text) == {"cluster.id": "a:b", "node.id": "1", "version": "1"}


def test_clean_shutdown_marker_in_kafkas_form() -> None:
    assert checkpoints.render_clean_shutdown(7) == '{"version":0,"brokerEpoch":7}'
    assert checkpoints.parse_clean_shutdown('{"version":0,"brokerEpoch":7}') == 7
    for text in ("", "null", "[]", "{}", "{", '{"brokerEpoch":"x"}'):
        assert checkpoints.parse_clean_shutdown(text) == -1


def test_names_of_files_and_directories() -> None:
    assert layout.file_name(42, ".log") == "00000000000000000042.log"
    assert layout.file_offset("00000000000000000042.log") == 42
    for name in (
        "42.log",
        "00000000000000000042",
        "0000000000000000004x.log",
        "００００００００００００００００００４２.log",
    ):
        assert layout.file_offset(name) is None
    assert layout.parse_log_dir_name("a-b-10") == ("a-b", 10)
    for name in ("a", "-1", "a-", "a-x", "a-01", "a-1.f-delete", "a-99999999999"):
        assert layout.parse_log_dir_name(name) is None
    marked = layout.marked_dir_name("t" * 249, 12, "f" * 32, layout.DELETE_DIR_SUFFIX)
    assert len(marked) == 255
    assert layout.is_marked_dir(marked, "-delete") and not layout.is_marked_dir(marked, "-stray")
    assert not layout.is_marked_dir("my.topic-delete", "-delete")


def test_indexes_in_kafkas_form_and_back() -> None:
    index = SegmentIndex()
    for relative, position, time in ((10, 4200, 1000), (20, 8400, 900), (35, 13000, 2000)):
        index.add(relative, position)
        index.add_time(time, relative)
    offsets, times = index.encode_offsets(), index.encode_times()
    assert offsets == struct.pack(">6i", 10, 4200, 20, 8400, 35, 13000)
    assert times == struct.pack(">qiqi", 1000, 10, 2000, 35)
    assert index.offsets[0] == 10  # encoding leaves the index as it was
    again = load_index(offsets + bytes(80), times + bytes(120), 20000)
    assert again is not None
    disk = MemoryDisk()
    disk.write_file_atomic("/o", offsets + bytes(800), durable=False)
    disk.write_file_atomic("/t", times + bytes(1200), durable=False)
    for wanted in range(40):
        floor = max(((r, p) for r, p in ((10, 4200), (20, 8400), (35, 13000)) if r <= wanted), default=None)
        assert index.floor(wanted) == again.floor(wanted) == floor_in_file(disk.open("/o"), wanted) == floor
    for wanted in range(0, 3000, 100):
        floor = max(((t, r) for t, r in ((1000, 10), (2000, 35)) if t <= wanted), default=None)
        assert again.floor_time(wanted) == floor_time_in_file(disk.open("/t"), wanted) == floor


@pytest.mark.parametrize(
    ("offsets", "times"),
    [
        (struct.pack(">4i", 10, 100, 9, 200), b""),
        (struct.pack(">4i", 10, 200, 20, 100), b""),
        (struct.pack(">2i", 10, 5000), b""),
        (struct.pack(">2i", 10, -1), b""),
        (b"", struct.pack(">qiqi", 10, 1, 5, 2)),
    ],
)
def test_an_index_out_of_order_is_not_loaded(offsets: bytes, times: bytes) -> None:
    assert load_index(offsets, times, 1000) is None


def test_an_index_is_cut_with_its_log() -> None:
    index = SegmentIndex()
    for relative in (10, 20, 30):
        index.add(relative, relative * 100)
        index.add_time(relative, relative)
    index.truncate(20, 2000)
    assert (list(index.offsets), list(index.times)) == ([10], [10])


def test_leader_epochs_are_kept_ascending() -> None:
    disk = MemoryDisk()
    cache = LeaderEpochCache(disk, "")
    assert cache.latest == -1
    assert cache.assign(1, 0)
    assert cache.assign(3, 10)
    assert not cache.assign(3, 15)
    assert cache.assign(4, 20)
    assert disk.read_file("/leader-epoch-checkpoint") == b"0\n3\n1 0\n3 10\n4 20\n"
    assert LeaderEpochCache.load(disk, "").entries == cache.entries
    assert [cache.epoch_at(offset) for offset in (0, 9, 10, 25)] == [1, 1, 3, 4]
    assert cache.assign(5, 20)  # nothing was written in epoch 4
    assert cache.entries == [(1, 0), (3, 10), (5, 20)]
    assert cache.assign(5, 12)  # a follower was cut back within an epoch
    assert cache.entries == [(1, 0), (3, 10), (5, 12)]


def test_end_offsets_of_epochs_as_in_kip_101() -> None:
    cache = LeaderEpochCache(MemoryDisk(), "")
    assert cache.end_offset_for(0, 0) == (-1, -1)
    cache.assign(2, 5)
    cache.assign(4, 20)
    expected = {-1: (-1, -1), 0: (0, 5), 1: (1, 5), 2: (2, 20), 3: (2, 20), 4: (4, 33), 5: (-1, -1)}
    assert {epoch: cache.end_offset_for(epoch, 33) for epoch in range(-1, 6)} == expected


def test_leader_epochs_are_cut_at_both_ends() -> None:
    cache = LeaderEpochCache(MemoryDisk(), "")
    for epoch, start in ((1, 0), (2, 10), (3, 20)):
        cache.assign(epoch, start)
    cache.truncate_from_end(20)
    assert (cache.entries, cache.latest) == ([(1, 0), (2, 10)], 2)
    cache.truncate_from_start(15)
    assert cache.entries == [(2, 15)]
    cache.truncate_from_start(15)
    cache.clear()
    assert (cache.entries, cache.latest) == ([], -1)


def test_topic_configs_become_a_log_config() -> None:
    config = LogConfig.from_topic_configs(
        {
            "segment.bytes": "1000",
            "cleanup.policy": "compact, delete",
            "retention.ms": "-1",
            "message.timestamp.type": "LogAppendTime",
            "min.cleanable.dirty.ratio": "0.1",
            "min.insync.replicas": "2",
        }
    )
    assert (config.segment_bytes, config.cleanup_compact, config.cleanup_delete) == (1000, True, True)
    assert (config.retention_ms, config.timestamp_type, config.min_cleanable_dirty_ratio) == (
        -1,
        "LogAppendTime",
        0.1,
    )
    assert LogConfig.from_topic_configs({}) == LogConfig()


@pytest.mark.parametrize(
    ("configs", "names"),
    [
        ({"segment.bytes": "big"}, "segment.bytes"),
        ({"segment.ms": "0"}, "segment.ms"),
        ({"message.timestamp.type": "Never"}, "message.timestamp.type"),
    ],
)
def test_a_bad_topic_config_is_named(configs: dict[str, str], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        LogConfig.from_topic_configs(configs)
