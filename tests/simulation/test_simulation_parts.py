"""The parts of the simulator that everything else relies on: time, clocks, streams, disks' threads."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from odradek.simulation.disk import DiskSpeed, SimSyncer
from odradek.simulation.network import Network, Stream, Weather
from odradek.simulation.scheduler import MachineClock, Scheduler
from odradek.simulation.trace import Trace
from odradek.storage.memory_disk import MemoryDisk


class End:
    """One end of a stream that remembers."""

    def __init__(self) -> None:
        self.got: list[object] = []
        self.ended: str | None = None

    def received(self, item: object) -> None:
        self.got.append(item)

    def closed(self, reason: str) -> None:
        assert self.ended is None
        self.ended = reason


def make_network(seed: int = 1) -> tuple[Scheduler, Network]:
    scheduler = Scheduler()
    return scheduler, Network(scheduler, Random(seed), Trace(lambda: scheduler.now_us))


def connected(network: Network) -> tuple[Stream, End, End]:
    near, far = End(), End()
    network.listen("b", "s", lambda _stream: far)
    stream = network.connect("a", "b", "s", near)
    network.scheduler.run_until(network.scheduler.now_us + 10_000)
    assert stream.open
    return stream, near, far


def test_events_of_one_moment_happen_in_the_order_in_which_they_were_planned() -> None:
    scheduler, seen = Scheduler(), []
    for number in range(5):
        scheduler.after(7, lambda number=number: seen.append(number))  # type: ignore[misc]
    scheduler.after(3, lambda: seen.append(-1))
    scheduler.run_until(100)
    assert seen == [-1, 0, 1, 2, 3, 4]
    assert scheduler.now_us == 100


def test_a_run_stops_as_soon_as_its_condition_holds() -> None:
    scheduler, seen = Scheduler(), []
    for at in (10, 20, 30):
        scheduler.at(at, lambda at=at: seen.append(at))  # type: ignore[misc]
    assert scheduler.run_until(100, lambda: len(seen) == 2)
    assert (seen, scheduler.now_us) == ([10, 20], 20)


def test_timers_of_a_drifting_clock_are_due_when_it_shows_them() -> None:
    scheduler = Scheduler()
    for rate in (990, 1_000, 1_010):
        clock = MachineClock(scheduler, offset_ms=5_000, rate=rate)
        for deadline in (5_001, 6_543, 99_999):
            at_us = clock.when_us(deadline)
            later = Scheduler()
            clock._scheduler = later
            later.now_us = at_us
            assert clock.monotonic_ms() >= deadline
            later.now_us = at_us - 1_100
            assert clock.monotonic_ms() < deadline
            clock._scheduler = scheduler


def test_a_wall_clock_jumps_and_a_monotonic_one_starts_anew_with_its_machine() -> None:
    scheduler = Scheduler()
    clock = MachineClock(scheduler, offset_ms=70_000)
    scheduler.now_us = 1_000_000
    before = clock.wall_ms()
    clock.jump_wall(-3_600_000)
    assert (clock.monotonic_ms(), clock.wall_ms()) == (71_000, before - 3_600_000)
    clock.reboot(500)
    assert clock.monotonic_ms() == 500


@pytest.mark.parametrize("seed", range(30))
def test_a_stream_keeps_its_order_whatever_the_network_does(seed: int) -> None:
    scheduler, network = make_network(seed)
    stream, _, far = connected(network)
    network.weather = Weather(latency_us=(10, 50_000), slow=0.3)
    rng = Random(seed)
    for number, at in enumerate(sorted(rng.randrange(100_000) for _ in range(40))):
        scheduler.after(at, partial(stream.send, 0, number))
    for _ in range(5):
        at = rng.randrange(100_000)
        scheduler.after(at, partial(network.block, [("a", "b")]))
        scheduler.after(at + rng.randrange(20_000), network.unblock_all)
    scheduler.run_until(scheduler.now_us + 5_000_000)
    assert far.got == list(range(40))


def test_what_is_sent_before_a_stream_is_there_waits_for_it() -> None:
    scheduler, network = make_network()
    far = End()
    network.listen("b", "s", lambda _stream: far)
    stream = network.connect("a", "b", "s", End())
    stream.send(0, "early")
    scheduler.run_until(50_000)
    assert far.got == ["early"]


def test_a_dial_is_refused_where_nobody_listens_and_times_out_where_nothing_answers() -> None:
    scheduler, network = make_network()
    refused, lost = End(), End()
    network.connect("a", "b", "s", refused)
    network.power_lost("c")
    network.connect("a", "c", "s", lost)
    scheduler.run_until(10_000_000)
    assert (refused.ended, lost.ended) == ("refused", "connecting timed out")


def test_a_dead_process_ends_its_streams_and_a_dark_machine_only_once_it_is_back() -> None:
    scheduler, network = make_network()
    _, near, far = connected(network)
    network.process_died("b")
    scheduler.run_until(scheduler.now_us + 50_000)
    assert near.ended == "reset by the peer"
    assert far.ended is None

    stream, near, far = connected(network)
    network.power_lost("b")
    stream.send(0, "into the dark")
    scheduler.run_until(scheduler.now_us + 60_000_000)
    assert (near.ended, far.got) == (None, [])
    network.power_back("b")
    scheduler.run_until(scheduler.now_us + 50_000)
    assert near.ended == "reset by the peer"


def test_one_way_partitions_stop_one_way() -> None:
    scheduler, network = make_network()
    stream, near, far = connected(network)
    network.block([("a", "b")])
    stream.send(0, "there")
    stream.send(1, "back")
    scheduler.run_until(scheduler.now_us + 1_000_000)
    assert (near.got, far.got) == (["back"], [])
    network.unblock_all()
    scheduler.run_until(scheduler.now_us + 1_000_000)
    assert far.got == ["there"]


def test_an_fsync_covers_what_was_written_before_it_began_and_promises_no_more() -> None:
    covered_later = 0
    for seed in range(40):
        scheduler, rng = Scheduler(), Random(seed)
        disk = MemoryDisk(seed)
        file = disk.open("/f", create=True)
        disk.sync_dir("/")
        done: list[int] = []

        def later(delay_us: int, _name: str, action: object, scheduler: Scheduler = scheduler) -> None:
            scheduler.after(delay_us, action)  # type: ignore[arg-type]

        syncer = SimSyncer(later, rng, DiskSpeed(sync_us=(1_000, 2_000), slow=0))
        file.append([b"before"])
        syncer.sync(file, lambda error, done=done, scheduler=scheduler: done.append(scheduler.now_us))  # type: ignore[misc]
        assert not done
        scheduler.run_until(500)
        file.append([b"after"])
        scheduler.run_until(5_000)
        assert done and syncer.idle
        node = disk._file("/f")
        assert node.synced in (len(b"before"), len(b"beforeafter"))
        covered_later += node.synced > len(b"before")
    assert 0 < covered_later < 40
