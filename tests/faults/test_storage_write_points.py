"""Every fault at every write point of what a broker does with its logs: what was promised is there afterwards.

A part of all cases, chosen by number; ODRADEK_WRITE_POINTS=all tries every one (some minutes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from odradek.storage import epoch_starts
from odradek.storage.data_dir import DataDirError
from odradek.storage.memory_disk import WritePoint
from odradek.wire.errors import KafkaError
from support.storage_life import DIRS, SMALL, Life
from support.write_points import After, Case, Crash, Striker, cases, end_life

pytestmark = pytest.mark.timeout(1_200)
"""Cases that take a minute alone take many on a busy machine."""

COMPACTED = replace(SMALL, cleanup_compact=True, cleanup_delete=False, min_cleanable_dirty_ratio=0.0)
PART = 250
"""Cases of each scenario that run unless all are asked for."""

Step = Callable[[Life], None]


def write(life: Life) -> None:
    """Appends of every kind, rolls, fsyncs, checkpoints."""
    life.append("a", 10, 20)
    life.append("a", 30, write=False)
    life.produce("a", 5, 5)
    life.sync("a")
    for size in (400, 440, 300, 400, 280):
        life.produce("a", size)
        life.append("b", size)
    life.checkpoint()
    life.sync("b", drain=False)
    life.append("b", 3)
    life.roll("a")
    life.tick()
    life.sync("a")
    life.checkpoint()
    life.append("a", 3)


def transact(life: Life) -> None:
    """Transactions that commit, abort and stay open, across segments."""
    for commit in (True, False, False):
        life.produce("a", 160, 140, transactional=True)
        life.append("a", 20)
        life.produce("a", 70, transactional=True)
        life.end_transaction("a", commit=commit)
    life.sync("a")
    life.checkpoint()
    life.produce("a", 30, transactional=True)
    life.roll("a")
    life.append("a", 20)


def cut(life: Life) -> None:
    """A follower that finds that its leader has something else, thrice."""
    write(life)
    life.truncate("a", 9)
    life.append("a", 50, 50)
    life.truncate("a", 10)
    life.sync("a")
    life.truncate("b", 1)
    life.checkpoint()
    life.start_anew("a", 20)
    life.append("a", 50)
    life.sync("a")


def forget(life: Life) -> None:
    """DeleteRecords, retention by size, removal of the files."""
    write(life)
    life.delete_records("a", 7)
    life.checkpoint()
    life.retain("a")
    life.tick()
    life.owed["b"].config = replace(SMALL, retention_bytes=300)
    life.log("b").set_config(life.owed["b"].config)
    life.retain("b")
    life.checkpoint()
    life.append("b", 3)
    life.tick()
    life.sync("b")


def compact(life: Life) -> None:
    """Two cleanings, a truncation between them."""
    for number in range(12):
        life.append("c", 40, keys=3 + number % 2)
    life.roll("c")
    life.sync("c")
    life.clean()
    life.tick()
    for _ in range(6):
        life.append("c", 60)
    life.truncate("c", 16)
    life.roll("c")
    life.sync("c")
    life.checkpoint()
    life.clean()
    life.append("c", 5)


def lead(life: Life) -> None:
    """Leader epochs, more than their file takes, so that it is begun anew."""
    for number in range(4):
        for topic in ("a", "b"):
            life.lead(topic)
            life.append(topic, 20 + number)
        life.logs.save_epochs(1)
        life.sync("a")
        life.checkpoint()
        life.tick()
    life.logs.save_epochs(10)
    life.checkpoint()


def come_and_go(life: Life) -> None:
    """Topics that are deleted, created again under the same name, and set aside."""
    life.append("a", 10)
    life.sync("a")
    life.checkpoint()
    life.delete("a")
    if life.failed_dirs:
        return
    life.tick()
    life.create("a")
    life.append("a", 20, 20)
    life.sync("a")
    life.owed["b"].going = True
    life.logs.set_aside("b", 0)
    life.drain()
    if life.failed_dirs:
        return  # what is not durably gone may be there again
    del life.owed["b"]
    life.create("e")
    life.append("e", 10)
    life.sync("e")


def move(life: Life) -> None:
    """Logs that move to the other directory, are cut on the way, and move back."""
    for size in (300, 250, 280):
        life.produce("a", size)
    life.produce("a", 30, transactional=True)
    life.end_transaction("a", commit=False)
    life.move("a")
    life.sync("a")
    life.checkpoint()
    life.tick()
    life.lead("a")
    life.append("a", 20)
    life.move("a")
    life.append("b", 300, 200)
    life.append("b", 400)
    life.copy("b")
    life.truncate("b", 2)
    life.append("b", 40)
    life.copy("b", slices=1)
    life.checkpoint()
    life.move("b")
    life.tick()


def move_compacted(life: Life) -> None:
    """The same of a log with gaps."""
    for number in range(12):
        life.append("c", 40, keys=3 + number % 2)
    life.roll("c")
    life.sync("c")
    life.append("c", 5)
    life.clean()
    life.copy("c", slices=1)
    life.append("c", 5)
    life.move("c")
    life.checkpoint()
    life.tick()
    life.roll("c")
    life.sync("c")
    life.append("c", 5)
    life.clean()


def stop_and_start(life: Life) -> None:
    """Clean stops, starts after them, writes to what was left clean."""
    write(life)
    life.stop()
    life.disk.kill()
    life.start()
    life.append("a", 10)
    life.stop()
    life.disk.kill()
    life.start()
    life.produce("b", 10)
    life.sync("b")


def crashed(life: Life) -> None:
    """What recovery finds: torn, half written, not synced, half compacted, half deleted."""
    compact(life)
    transact(life)
    write(life)
    life.delete_records("b", 3)
    life.retain("b")
    life.log("a").write_producer_snapshot(life.owed["a"].end)
    file = life.disk.open(life.log("a").active_segment.path(".log"))
    file.append([b"\0" * 7 + b"\xff" * 20])
    for name in (".timeindex", ".txnindex"):
        path = life.log("a").segments[0].path(name)
        if life.disk.exists(path):
            life.disk.unlink(path)


def recover(life: Life) -> None:
    life.disk.kill()
    life.start()
    life.append("a", 10)
    life.sync("a")


SCENARIOS: dict[str, tuple[list[Step], Step]] = {
    "write": ([], write),
    "transact": ([], transact),
    "cut": ([], cut),
    "forget": ([], forget),
    "compact": ([], compact),
    "lead": ([], lead),
    "come-and-go": ([], come_and_go),
    "stop-and-start": ([], stop_and_start),
    "move": ([], move),
    "move-compacted": ([], move_compacted),
    "recover": ([crashed], recover),
}


def begin(name: str, seed: int) -> Life:
    """A node of two disks, up to where it is struck."""
    life = Life(seed, dirs=2)
    life.start()
    for topic in ("a", "b"):
        life.create(topic)
    life.create("c", COMPACTED)
    life.checkpoint()
    for step in SCENARIOS[name][0]:
        step(life)
    return life


def perform(name: str, striker: Striker, life: Life) -> None:
    life.disk.faults.watch = striker
    striker.armed = True
    SCENARIOS[name][1](life)


def strike(name: str, case: Case) -> None:
    number, fault, after = case
    life, striker = begin(name, number), Striker(number, fault)
    try:
        perform(name, striker, life)
    except Crash:
        assert not fault.error
    except (OSError, KafkaError, DataDirError):
        assert striker.struck is not None
    if fault.error and striker.struck_path is not None:
        life.must_say(striker.struck_path)
    striker.armed = False
    life.fsync_failed = bool(fault.error) and WritePoint.FSYNC in striker.failed
    end_life(life.disk, after, number)
    life.recover(after)
    life.fsync_failed = False
    life.go_on()
    end_life(life.disk, After.NOTHING_UNSYNCED, number)
    life.recover(After.NOTHING_UNSYNCED)
    life.go_on()
    life.stop()
    end_life(life.disk, After.NOTHING_UNSYNCED, number)
    life.recover(After.NOTHING_UNSYNCED)
    assert life.logs.clean
    life.go_on()


@pytest.fixture(autouse=True)
def small_epoch_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_starts, "BYTES_MAX", 40)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fault_at_any_write_point_breaks_no_promise(name: str) -> None:
    striker = Striker()
    perform(name, striker, begin(name, 0))
    assert len(striker.met) > 20
    for case in cases(striker.met, PART):
        try:
            strike(name, case)
        except BaseException as error:
            number, fault, after = case
            error.add_note(
                f"{name}: {fault.name} at point {number} ({striker.met[number].value}), then {after.value}"
            )
            raise


def test_two_disks_are_met() -> None:
    """Otherwise nobody would see that one disk's fault is felt on the other."""
    life = begin("write", 0)
    assert {log.dir.rpartition("/")[0] for log in life.logs.logs.values()} == set(DIRS)
