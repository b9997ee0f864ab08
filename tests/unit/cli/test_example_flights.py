"""The verification of examples/flights.py finds what it is there to find."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights.py"


@pytest.fixture(scope="module")
def flights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SENT = [(b"N1", "AA"), (b"N2", "UA"), (b"N1", "AA"), (None, "DL"), (b"N2", "UA"), (b"N1", "AA")]
# where each row lies: (partition, offset)
PLACES = [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (0, 2)]


def judge(flights: ModuleType, tmp_path: Path, *shares: list[tuple[int, int, int]]) -> Any:
    """The verdict on what members wrote down: (partition, offset, row) each."""
    source = flights.Source()
    for row, (key, carrier) in enumerate(SENT):
        source.keys.append(key)
        source.carriers.append(carrier)
        source.value_crcs.append(crc32(b"value %d" % row))
    group = flights.Group("nowhere:1", "flights", "flights", tmp_path)
    for number, share in enumerate(shares):
        member = f"reader-{number}"
        group.processes[member] = None
        entries = [
            flights.ENTRY.pack(
                partition,
                offset,
                row,
                crc32(b"value %d" % row),
                crc32(SENT[row][0] or b""),
                SENT[row][1].encode(),
            )
            for partition, offset, row in share
        ]
        group.sink(member).write_bytes(b"".join(entries))
    return flights.verify(group, source)


def everything() -> list[tuple[int, int, int]]:
    return [(*place, row) for row, place in enumerate(PLACES)]


def test_everything_once_is_right(flights: ModuleType, tmp_path: Path) -> None:
    verdict = judge(flights, tmp_path, everything()[:3], everything()[3:])
    assert (verdict.records, verdict.duplicates, verdict.wrong) == (6, 0, [])
    assert verdict.carriers == {"AA": 3, "UA": 2, "DL": 1}


def test_records_read_twice_are_counted_and_are_no_error(flights: ModuleType, tmp_path: Path) -> None:
    verdict = judge(flights, tmp_path, everything()[:4], everything()[2:])
    assert (verdict.records, verdict.duplicates, verdict.wrong) == (6, 2, [])


def test_an_entry_cut_short_by_the_kill_does_not_count(flights: ModuleType, tmp_path: Path) -> None:
    judge(flights, tmp_path, everything())
    path = tmp_path / "reader-0.records"
    path.write_bytes(path.read_bytes()[:-5])
    group = flights.Group("nowhere:1", "flights", "flights", tmp_path)
    assert len(list(group.entries("reader-0"))) == 5


def test_a_missing_flight_is_found(flights: ModuleType, tmp_path: Path) -> None:
    assert judge(flights, tmp_path, everything()[:-1]).wrong == ["1 flights are missing"]


def test_a_flight_that_is_in_the_topic_twice_is_found(flights: ModuleType, tmp_path: Path) -> None:
    wrong = judge(flights, tmp_path, [*everything(), (1, 3, 3)]).wrong
    assert wrong == ["1 flights are in the topic more than once"]


def test_flights_of_one_aircraft_out_of_order_are_found(flights: ModuleType, tmp_path: Path) -> None:
    swapped = [(0, 0, 2), (0, 1, 0), *[entry for entry in everything() if entry[2] not in (0, 2)]]
    assert judge(flights, tmp_path, swapped).wrong == ["1 aircraft have flights out of order"]


def test_an_aircraft_in_two_partitions_is_found(flights: ModuleType, tmp_path: Path) -> None:
    moved = [*everything()[:-1], (1, 3, 5)]
    assert judge(flights, tmp_path, moved).wrong == ["1 aircraft have flights out of order"]


def test_contents_that_are_not_what_was_sent_are_found(flights: ModuleType, tmp_path: Path) -> None:
    judge(flights, tmp_path, everything())
    path = tmp_path / "reader-0.records"
    data = bytearray(path.read_bytes())
    data[14] ^= 1  # in the checksum of the first value
    path.write_bytes(data)
    source = flights.Source(
        [key for key, _ in SENT],
        [crc32(b"value %d" % row) for row in range(6)],
        [carrier for _, carrier in SENT],
    )
    group = flights.Group("nowhere:1", "flights", "flights", tmp_path)
    group.processes["reader-0"] = None  # type: ignore[assignment]
    assert flights.verify(group, source).wrong[0] == "row 0 (partition 0, offset 0) is not what was sent"
