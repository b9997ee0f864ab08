"""What of a log is sent without a second look at it: nothing that was not checked, nothing that may have changed."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest
from crc32c import crc32c

from odradek.storage import reads, segment
from odradek.storage.batch import CRC_START, parse_header
from odradek.storage.config import LogConfig
from odradek.storage.trust import RANGES_MAX, Checked

LARGE = LogConfig(segment_bytes=1 << 20)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log of some KB has something to send."""
    monkeypatch.setattr(reads, "RANGE_MIN", 100)


def filled(bench: Any, count: int = 60, config: LogConfig = LARGE, seed: int = 1) -> Any:
    """Batches of one to three records and of 100 bytes to 6 KB: several index entries, and batches larger than one."""
    rng = random.Random(seed)
    log = bench.open(config)
    for _ in range(count):
        values = ["x" * rng.choice((20, 200, 2000)) for _ in range(rng.randint(1, 3))]
        bench.append(log, *values)
    return log


def unchecked(bench: Any, log: Any, **options: Any) -> Any:
    """The same log in a process that has seen nothing of it."""
    log.close()
    return bench.open(log.config, clean=True, recovery_point=log.log_end_offset, **options)


def read_everything(log: Any) -> None:
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        offset = log.read(offset, 5000, end_offset=log.written_end_offset).next_offset


def ends(data: bytes) -> list[int]:
    """Where each batch ends; whole batches and nothing else."""
    found = []
    position = 0
    while position < len(data):
        header = parse_header(data, position)
        position += header.size
        assert header.crc == crc32c(data[position - header.size + CRC_START : position])
        found.append(header.last_offset + 1)
    return found


@pytest.mark.parametrize("segment_bytes", [1 << 20, 20_000])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_range_is_what_a_read_would_return(bench: Any, segment_bytes: int, reopened: bool) -> None:
    log = filled(bench, config=LogConfig(segment_bytes=segment_bytes))
    if reopened:
        log = unchecked(bench, log)
        read_everything(log)
    assert len(log.segments) == 1 or segment_bytes == 20_000
    rng = random.Random(2)
    found = 0
    for _ in range(400):
        offset = rng.randrange(log.log_end_offset)
        limit = rng.choice((100, 1000, 3000, 10_000, 1 << 20))
        end_offset = rng.choice((log.log_end_offset, rng.randrange(log.log_end_offset + 1), offset + 1))
        log._forget_positions()
        expected = log.read(offset, limit, end_offset=end_offset)
        if rng.random() < 0.5:
            log._forget_positions()
        result = log.read_range(offset, limit, end_offset=end_offset)
        if result is None:
            assert len(expected.data) < 100 or limit < 100
            continue
        found += 1
        assert result.data.read() == bytes(expected.data)
        assert len(result.data) == len(expected.data)
        assert result.next_offset == expected.next_offset
    assert found > 200


def test_what_this_process_wrote_needs_no_second_look(bench: Any) -> None:
    log = filled(bench)
    result = log.read_range(0, 1 << 20, end_offset=log.log_end_offset)
    assert len(result.data) == log.size_bytes
    assert ends(result.data.read())[-1] == log.log_end_offset


def test_what_an_earlier_process_wrote_is_checked_first(bench: Any) -> None:
    log = unchecked(bench, filled(bench))
    end = log.log_end_offset
    assert log.read_range(0, 1 << 20, end_offset=end) is None
    seen = log.read(0, 5000, end_offset=end)
    result = log.read_range(0, 1 << 20, end_offset=end)
    assert result.next_offset == seen.next_offset, "no further than was looked at"
    log.read(seen.next_offset, 1 << 20, end_offset=end)
    assert log.read_range(0, 1 << 20, end_offset=end).next_offset == end
    bench.append(log, "y" * 500)
    assert log.read_range(0, 1 << 20, end_offset=end + 1).next_offset == end + 1, "and what was written since"


def test_damage_is_never_sent(memory_bench: Any, refused: Callable[..., Any]) -> None:
    bench = memory_bench
    log = unchecked(bench, filled(bench))
    path = log.segments[0].path(".log")
    position = bench.disk.size(path) // 2
    bench.disk.flip_bit(path, position, 3)
    with refused("CORRUPT_MESSAGE"):
        read_everything(log)
    for offset in range(log.log_end_offset):
        result = log.read_range(offset, 1 << 20, end_offset=log.log_end_offset)
        if result is not None:
            assert result.next_offset <= log.corrupt_offset
            assert bench.disk.read_file(path).index(result.data.read()) + len(result.data) <= position


def test_belief_ends_after_a_while(bench: Any) -> None:
    log = filled(bench)
    end = log.log_end_offset
    assert log.read_range(0, 1 << 20, end_offset=end) is not None
    log._pool.forget_checks()
    assert log.read_range(0, 1 << 20, end_offset=end) is None
    bench.append(log, "z" * 200)
    assert log.read_range(end, 1 << 20, end_offset=end + 1) is not None, (
        "what was written afterwards is checked"
    )
    assert log.read_range(0, 1 << 20, end_offset=end) is None
    log.read(0, 1 << 20, end_offset=end)
    assert log.read_range(0, 1 << 20, end_offset=end) is not None


def test_what_has_left_the_page_cache_is_checked_again_and_its_neighbours_with_it(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(bench)
    end = log.log_end_offset
    evicted = [5000]
    kind = type(log.segments[0].file)

    def is_cached(file: Any, position: int, length: int) -> bool:
        return not any(position <= page < position + length for page in evicted)

    monkeypatch.setattr(kind, "is_cached", is_cached)
    assert log.read_range(0, 1 << 20, end_offset=end) is None
    evicted.clear()  # the kernel has read it back, and more around it
    for offset in (0, end // 2):
        assert log.read_range(offset, 1 << 20, end_offset=end) is None
    read_everything(log)
    assert log.read_range(0, 1 << 20, end_offset=end) is not None


@pytest.mark.parametrize("how", ["read", "seek"])
def test_a_look_that_brings_pages_back_ends_the_belief(
    bench: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A read of bytes that nobody believes reads ahead into bytes that somebody does."""
    log = unchecked(bench, filled(bench))
    end = log.log_end_offset
    later = log.read(end // 2, 5000, end_offset=end)
    assert log.read_range(end // 2, 1 << 20, end_offset=end) is not None
    kind = type(log.segments[0].file)
    monkeypatch.setattr(kind, "is_cached", lambda *_: False)
    if how == "read":
        log.read(0, 1000, end_offset=end)
    else:
        log._forget_positions()
        log.batch_base_before(later.next_offset)
    monkeypatch.setattr(kind, "is_cached", lambda *_: True)
    assert log.read_range(end // 2, 1 << 20, end_offset=end) is None


def test_a_range_does_not_survive_a_cut_and_new_bytes_are_believed(bench: Any) -> None:
    log = filled(bench)
    end = log.log_end_offset
    result = log.read_range(0, 1 << 20, end_offset=end)
    log.truncate_to(end // 2)
    with pytest.raises(OSError, match="cut") as error:
        result.data.read()
    assert error.value.errno == errno.ESTALE
    bench.append(log, "n" * 300)
    again = log.read_range(0, 1 << 20, end_offset=log.log_end_offset)
    assert ends(again.data.read())[-1] == log.log_end_offset


def test_a_cut_takes_the_belief_from_what_was_read_above_it(bench: Any) -> None:
    log = unchecked(bench, filled(bench))
    read_everything(log)
    cut = log.batch_base_before(log.log_end_offset // 2)
    log.truncate_to(cut)
    result = log.read_range(0, 1 << 20, end_offset=log.log_end_offset)
    assert result.next_offset == cut
    assert len(result.data) == log.size_bytes


def test_a_range_outlives_its_segment(bench: Any) -> None:
    log = filled(bench, config=LogConfig(segment_bytes=20_000, retention_ms=-1, retention_bytes=0))
    result = log.read_range(0, 1 << 20, end_offset=log.log_end_offset)
    before = result.data.read()
    assert log.delete_old_segments(bench.now) > 0
    assert log.log_start_offset > 0
    assert result.data.read() == before


def test_a_range_outlives_the_eviction_of_its_descriptor(bench: Any) -> None:
    log = filled(bench)
    result = log.read_range(0, 1 << 20, end_offset=log.log_end_offset)
    before = result.data.read()
    log.close_files()
    assert result.data.read() == before


def test_a_damaged_index_does_not_end_a_range_inside_a_batch(bench: Any) -> None:
    log = filled(bench, count=120, config=LogConfig(segment_bytes=60_000))
    read_everything(log)
    first = log.segments[0]
    path = first.path(".index")
    good = bench.disk.read_file(path)
    assert len(good) > 80
    rng = random.Random(3)
    for _ in range(100):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        segment.overwrite(bench.disk, path, bytes(bad))
        log._forget_positions()
        log._hints[0] = (first, 0)
        result = log.read_range(0, rng.choice((3000, 10_000, 30_000)), end_offset=log.log_end_offset)
        if result is not None:
            assert ends(result.data.read())[-1] == result.next_offset
    bench.disk.unlink(path)
    log._hints[0] = (first, 0)
    assert log.read_range(0, 1 << 20, end_offset=log.log_end_offset) is not None


@pytest.mark.parametrize("padding", [0, 4000])
def test_positions_are_found_in_an_index_file_of_any_shape(bench: Any, padding: int) -> None:
    from bisect import bisect_left

    from odradek.storage.indexes import OFFSET_ENTRY, floor_position_in_file

    rng = random.Random(4)
    for shape in (1, 3, 600, 5000):
        positions = sorted(rng.sample(range(1, 1 << 24), shape))
        if shape == 5000:
            positions = [at * at // 8 + at + 1 for at in range(shape)]  # nothing like the proportion
        path = f"{bench.dir}-{shape}"
        file = bench.disk.open(path, create=True)
        file.append([b"".join(OFFSET_ENTRY.pack(at, position) for at, position in enumerate(positions))])
        file.append([bytes(padding)])
        for wanted in [0, 1, positions[0], positions[-1], positions[-1] + 1, *rng.choices(positions, k=50)]:
            at = bisect_left(positions, wanted) - 1
            expected = (at, positions[at]) if at >= 0 else None
            assert floor_position_in_file(file, wanted, positions[-1] + 1000) == expected
        file.close()


def test_an_empty_index_says_nothing(bench: Any) -> None:
    from odradek.storage.indexes import floor_position_in_file

    file = bench.disk.open(f"{bench.dir}-empty", create=True)
    assert floor_position_in_file(file, 100, 200) is None


def test_checked_bytes_are_exactly_those_that_were_told() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        written = rng.randint(0, 300)
        checked, model, era = Checked(written), set(range(0)), 0
        for _ in range(60):
            what = rng.random()
            if what < 0.5 and written:
                start = rng.randrange(written)
                end = rng.randint(start + 1, min(written, start + 40))
                checked.add(start, end, era, written)
                model |= set(range(start, end))
            elif what < 0.7:
                model |= set(range(written, written + 10))
                written += 10
            elif what < 0.8:
                written = rng.randint(0, written)
                checked.cut(written)
                model = {at for at in model if at < written}
            elif what < 0.85:
                era += 1
                model = set()
                checked.end(0, era, written)
            for position in range(0, written, 7):
                end = checked.end(position, era, written)
                assert set(range(position, end)) <= model
                assert end not in model or position not in model


def test_readers_everywhere_leave_no_endless_list() -> None:
    checked = Checked(1 << 30)
    for at in range(10 * RANGES_MAX):
        checked.add(at * 100, at * 100 + 10 + at % 3, 0, 1 << 30)
    assert len(checked._starts) == len(checked._ends) == RANGES_MAX
