"""What compaction sees of the records in a batch is what everybody else sees: as Python, and compiled."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import Record, append_record, parse_records
from support.examples import examples

PROTO = Path(__file__).parents[3] / "proto"
NAME = "odradek.wire.record_scan"
BASE, BASE_TIMESTAMP = 1_000, 1_700_000_000_000

pytestmark = pytest.mark.timeout(300)  # of which the compiler takes some seconds, on a busy machine a minute


def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["python", "compiled"])
def scans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    if request.param == "python":
        return _module(PROTO / "odradek/wire/record_scan.py", NAME)
    if importlib.util.find_spec("mypyc") is None or shutil.which("cc") is None:
        pytest.skip("needs mypyc and a C compiler")
    made = _module(PROTO / "compile.py", "compile_script").compile_into(tmp_path_factory.mktemp("compiled"))
    group = next(path for path in made if path.name.startswith("record_scan__mypyc"))
    sys.modules[f"{NAME}__mypyc"] = _module(group, f"{NAME}__mypyc")
    return _module(next(path for path in made if path != group), NAME)


def payload(records: list[Record]) -> bytes:
    out = bytearray()
    for record in records:
        append_record(
            out,
            record.offset - BASE,
            record.timestamp - BASE_TIMESTAMP,
            record.key,
            record.value,
            record.headers,
        )
    return bytes(out)


def drawn(rng: Random, count: int) -> list[Record]:
    records = []
    offset = BASE
    for _ in range(count):
        offset += rng.choice((1, 1, 1, 70, 20_000))
        key = rng.choice((None, b"", b"k%d" % rng.randrange(4), rng.randbytes(rng.choice((15, 16, 17, 300)))))
        value = rng.choice((None, b"", rng.randbytes(rng.choice((1, 63, 64, 9000)))))
        headers: list[tuple[str, bytes | None]] = [("h", None), ("ü", b"x")] if rng.random() < 0.2 else []
        timestamp = BASE_TIMESTAMP + rng.choice((0, 1, -1, 8191, 8192, -(10**9), 10**12))
        records.append(Record(offset, timestamp, key, value, headers))
    return records


@pytest.mark.parametrize("seed", range(20))
def test_every_record_is_seen_with_its_key_and_its_place(scans: ModuleType, seed: int) -> None:
    records = drawn(Random(seed), seed)
    data = payload(records)
    entries = scans.scan(data, len(records))
    assert [(BASE + entry[0], BASE_TIMESTAMP + entry[1], entry[2], entry[3]) for entry in entries] == [
        (record.offset, record.timestamp, record.key, record.value is None) for record in records
    ]
    assert [entry[5] for entry in entries][-1:] == ([len(data)] if records else [])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_is_written_as_it_was(scans: ModuleType, seed: int) -> None:
    rng = Random(seed)
    records = drawn(rng, 12)
    data = payload(records)
    entries = scans.scan(data, len(records))
    chosen = [at for at in range(12) if rng.random() < 0.5]
    shift = rng.choice((0, -5, 10**6))
    joined = scans.join(data, [entries[at] for at in chosen], shift)
    assert parse_records(joined, len(chosen), BASE, BASE_TIMESTAMP - shift) == [records[at] for at in chosen]
    if shift == 0:
        assert joined == payload([records[at] for at in chosen])


def test_of_each_key_what_is_not_older_than_the_table_says(scans: ModuleType) -> None:
    long = b"k" * 40
    items: list[tuple[bytes | None, bytes | None]] = [
        (b"a", b"1"), (long, b"1"), (None, b"x"), (b"a", b"2"), (b"b", None), (long, b"2"), (b"a", b"3"),
    ]  # fmt: skip
    records = [Record(BASE + at, BASE_TIMESTAMP, key, value) for at, (key, value) in enumerate(items)]
    entries = scans.scan(payload(records), len(items))
    keys: dict[bytes, int] = {}
    assert scans.note_keys(entries, BASE, BASE + 1, keys, 3)
    assert sorted(keys.values()) == [BASE + 4, BASE + 5, BASE + 6]

    def offsets(end: int, tombstones_go: bool) -> list[int]:
        return [entry[0] for entry in scans.kept(entries, BASE, end, keys, tombstones_go)]

    assert offsets(BASE + 7, False) == [4, 5, 6]
    assert offsets(BASE + 7, True) == [5, 6]
    assert offsets(BASE + 2, False) == [2, 3, 4, 5, 6]
    assert not scans.note_keys(entries, BASE, BASE, {}, 2)


@examples(300)
@given(
    seed=st.integers(0, 1 << 30), at=st.integers(0, 1 << 16), bits=st.integers(1, 255), cut=st.integers(0, 3)
)
def test_damage_is_an_invalid_record_and_nothing_else(
    scans: ModuleType, seed: int, at: int, bits: int, cut: int
) -> None:
    records = drawn(Random(seed), 4)
    data = bytearray(payload(records))
    data[at % len(data)] ^= bits
    damaged = bytes(data[: len(data) - cut])
    try:
        expected: Any = parse_records(damaged, 4, BASE, BASE_TIMESTAMP)
    except KafkaError:
        expected = None
    try:
        entries = scans.scan(damaged, 4)
    except KafkaError as error:
        assert error.code is ErrorCode.INVALID_RECORD
        assert expected is None
    else:
        if expected is not None:  # damage inside headers is seen by those who look at them
            assert [(BASE + entry[0], entry[2]) for entry in entries] == [
                (record.offset, record.key) for record in expected
            ]


@pytest.mark.parametrize("count", [-1, 2, 1 << 40])
def test_a_count_that_cannot_be_is_refused(scans: ModuleType, count: int) -> None:
    with pytest.raises(KafkaError):
        scans.scan(payload(drawn(Random(1), 1)), count)
