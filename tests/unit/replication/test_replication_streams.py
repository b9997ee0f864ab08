"""Followers and leaders over streams: what is sent when, how much of it, and what is made of it."""

from __future__ import annotations

import errno

import pytest

from odradek.replication import follower_session, leader_session
from odradek.replication.config import ReplicationConfig
from odradek.replication.follower import Phase
from odradek.replication.isr import Peer
from odradek.replication.messages import BATCH_BYTES_MAX, FetchDown, FetchState, FetchUp
from odradek.replication.replica import Role
from odradek.replication.throttle import UNLIMITED
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.reads import Location
from odradek.wire.errors import ErrorCode
from unit.replication.replication_lab import TOPIC_ID, WALL_MS, DownEnd, Lab, UpEnd, state

LARGE = LogConfig(max_message_bytes=8 << 20)
FSYNCED = LogConfig(flush_messages=1)


def ready(lab: Lab, *, replicas: tuple[int, ...] | None = None) -> Lab:
    """Node 1 leads everything, the others follow and are in the ISR."""
    replicas = replicas or tuple(lab.nodes)
    lab.apply(state(1, isr=replicas, replicas=replicas))
    lab.wait(20)
    lab.forget()
    return lab


# What is sent ---------------------------------------------------------------------------------------------------


def test_an_append_is_sent_at_once_and_its_position_is_the_acknowledgement() -> None:
    lab = ready(Lab())
    lab[1].produce(b"a", b"b")
    lab.run()
    assert lab[2].values() == [b"a", b"b"]
    assert [(each.fetch_offset, len(each.batches) > 0) for each in lab.data()] == [(0, True)]
    assert [each.fetch_offset for each in lab.states()] == [2]
    assert lab[1].leader().high_watermark == 2
    assert lab[1].events[0].said[-1] == "high watermark 2"


def test_a_high_watermark_travels_with_the_next_batches_or_alone_after_the_linger_and_then_all_is_quiet() -> (
    None
):
    lab = ready(Lab())
    lab[1].produce(b"a")
    lab.run()
    assert lab[2].replicas[0].high_watermark == 0
    lab[1].produce(b"b")
    lab.run()
    assert (len(lab.downs()), lab[2].replicas[0].high_watermark) == (2, 1)
    lab.wait(lab.config.high_watermark_linger_ms)
    assert (len(lab.downs()), lab[2].replicas[0].high_watermark) == (3, 2)
    assert lab[2].events[0].said == ["high watermark 1", "high watermark 2"]
    lab.forget()
    lab.wait(60_000)
    assert lab.sent == []


def test_what_is_appended_while_small_messages_are_on_their_way_joins_the_next() -> None:
    lab = ready(Lab())
    values = [b"%d" % number for number in range(6)]
    for value in values:
        lab[1].produce(value)
    assert len(lab.downs()) == leader_session.SMALL_IN_FLIGHT_MAX
    lab.run()
    assert lab[2].values() == values
    assert [each.fetch_offset for each in lab.data()] == [0, 1, 2]
    assert lab[1].leader().high_watermark == 6


def test_what_waits_for_an_acknowledgement_that_does_not_come_goes_after_the_linger() -> None:
    lab = ready(Lab())
    for value in (b"a", b"b", b"c"):
        lab[1].produce(value)
    lab.now += lab.config.join_linger_ms
    lab[1].timers.advance(lab.now)
    assert [each.fetch_offset for each in lab.data()] == [0, 1, 2]
    lab.run()
    assert lab[2].values() == [b"a", b"b", b"c"]


def test_large_messages_do_not_wait_for_acknowledgements() -> None:
    lab = ready(Lab())
    for _ in range(3):
        lab[1].produce(bytes(leader_session.SMALL_BYTES * 2 // 3))
    assert [each.fetch_offset for each in lab.data()] == [0, 1, 2]


def test_acknowledgements_that_wait_for_a_disk_hold_up_nobody() -> None:
    lab = ready(Lab(partitions=2, log_config=FSYNCED))
    for _ in range(4):
        lab[1].produce(b"a")
        lab.run(sync=False)
    assert len(lab.data()) == 4


def test_two_followers_at_the_same_place_cost_one_read() -> None:
    lab = ready(Lab(3))
    reads = []

    class Spy(Log):
        __slots__ = ()

        def read(self, offset: int, max_bytes: int, *, end_offset: int, min_one: bool = True):  # type: ignore[no-untyped-def]
            reads.append(offset)
            return super().read(offset, max_bytes, end_offset=end_offset, min_one=min_one)

    lab[1].replicas[0].log.__class__ = Spy
    lab[1].produce(b"a")
    lab.run()
    assert (lab[2].values(), lab[3].values(), reads) == ([b"a"], [b"a"], [0])
    assert lab[1].replicas[0].memo is None


def test_messages_are_bounded_and_several_are_under_way() -> None:
    lab = ready(Lab())
    values = [bytes([number]) * 400_000 for number in range(10)]
    lab[1].put(*values)
    lab[1].driver.appended(lab[1].replicas[0])
    lab[1].driver.flush()
    sizes = [sum(len(data.batches) for data in down.data) for down in lab.downs()]
    assert len(sizes) > 1 and max(sizes) <= BATCH_BYTES_MAX
    assert sum(sizes) <= lab.config.partition_window_bytes + BATCH_BYTES_MAX
    lab.run()
    assert lab[2].values() == values


def test_who_catches_up_does_not_hold_up_an_event_nor_those_in_sync() -> None:
    config = ReplicationConfig(partition_window_bytes=64 << 20, stream_window_bytes=64 << 20)
    lab = Lab(3, config=config)
    lab[1].put(*[b"x" * 900_000 for _ in range(12)])
    lab.apply(state(1, isr=(1,), replicas=(1, 2, 3)), 1)
    for number in (2, 3):
        lab[number].driver.apply(lab[number].replicas[0], state(1, isr=(1,), replicas=(1, 2, 3)))
        lab[number].driver.flush()
    lab.deliver()
    assert len(lab.downs()) == 4, "of twelve messages"
    lab.deliver()
    targets = [getattr(call, "__self__", None) for call, _ in lab.queue]
    turns = [target.follower for target in targets if isinstance(target, UpEnd)]
    assert turns[4:] == [2, 3] * 4, "both in turns"
    lab.run()
    assert len(lab[2].values()) == len(lab[3].values()) == 12


def test_one_batch_larger_than_a_message_goes_alone() -> None:
    lab = ready(Lab(log_config=LARGE))
    values = [b"a", b"x" * (3 << 20), b"b"]
    lab[1].produce(*values)
    lab.run()
    assert lab[2].values() == values
    assert lab[1].leader().high_watermark == 3


def test_without_credit_nothing_is_sent_and_what_is_appended_gives_it_back() -> None:
    config = ReplicationConfig(stream_window_bytes=1 << 20, partition_window_bytes=64 << 20)
    lab = ready(Lab(config=config))
    values = [bytes([number]) * 400_000 for number in range(12)]
    lab[1].put(*values)
    lab[1].driver.appended(lab[1].replicas[0])
    lab[1].driver.flush()
    sent = sum(len(data.batches) for data in lab.data())
    assert 1 << 20 <= sent <= 2 << 20, "at most one message beyond the credit"
    lab.run()
    assert lab[2].values() == values


def test_credit_of_messages_without_batches_comes_back_too() -> None:
    lab = ready(Lab(config=ReplicationConfig(stream_window_bytes=1000), log_config=FSYNCED))
    lab[1].produce(*[b"%d" % number for number in range(100)])
    lab.run()
    lab.forget()
    for number in range(100):
        lab[1].driver.synced(lab[1].replicas[0], number + 1)
        lab.wait(10)
    assert lab[2].replicas[0].high_watermark == 100
    assert lab.ups() and not lab.states(), "given back although there was nothing to acknowledge"


def test_ready_partitions_share_a_message() -> None:
    lab = ready(Lab(partitions=4))
    for partition in range(4):
        lab[1].put(*[b"x" * 200_000 for _ in range(5)], partition=partition)
        lab[1].driver.appended(lab[1].replicas[partition])
    lab[1].driver.flush()
    assert sorted(data.partition for data in lab.downs()[0].data) == [0, 1, 2, 3]
    lab.run()
    assert all(len(lab[2].values(partition)) == 5 for partition in range(4))


def test_a_transport_that_is_full_is_not_sent_to_until_it_has_drained() -> None:
    lab = ready(Lab())
    down = lab.streams[-1].peer
    assert down is not None
    down.writable = False
    lab[1].produce(b"a")
    lab[1].produce(b"b")
    assert lab.sent == []
    down.writable = True
    down.events.drained()
    lab.run()
    assert (len(lab.downs()), lab[2].values()) == (1, [b"a", b"b"])


def test_very_many_partitions_are_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_session, "STATES_MAX", 3)
    monkeypatch.setattr(leader_session, "STATES_MAX", 3)
    lab = Lab(partitions=10)
    lab.apply(state(1))
    assert max(len(up.states) for up in lab.ups()) == max(len(down.data) for down in lab.downs()) == 3
    assert (
        {each.partition for each in lab.states()} == {each.partition for each in lab.data()} == set(range(10))
    )


# Slowness stays where it is -------------------------------------------------------------------------------------


def test_a_partition_whose_fsync_is_slow_delays_no_other() -> None:
    lab = Lab(partitions=2, config=ReplicationConfig(partition_window_bytes=1000, stream_window_bytes=4000))
    for node in lab.nodes.values():
        node.replicas[0].log.set_config(FSYNCED)
        node.driver.configure(node.replicas[0], 1)
    ready(lab)
    for number in range(60):
        lab[1].produce(b"%0100d" % number, partition=0)
        lab[1].produce(b"%d" % number, partition=1)
        lab.run(sync=False)
    assert lab[1].leader(1).high_watermark == 60
    assert 1000 <= sum(len(data.batches) for data in lab.data() if data.partition == 0) < 2000
    lab.run()
    assert len(lab[2].values(0)) == 60


def test_an_acknowledgement_waits_for_the_fsync_where_the_topic_asks_for_it() -> None:
    lab = ready(Lab(log_config=FSYNCED))
    lab[1].produce(b"a")
    lab.run(sync=False)
    assert (lab[2].values(), lab.states()) == ([b"a"], [])
    lab.run()
    assert [each.fetch_offset for each in lab.states()] == [1]
    assert lab[1].leader().high_watermark == 0, "the leader's own has to be fsynced as well"
    lab[1].driver.synced(lab[1].replicas[0], 1)
    assert lab[1].leader().high_watermark == 1


def test_a_start_waits_for_the_fsync_too() -> None:
    lab = Lab(log_config=FSYNCED)
    lab[1].put(b"a")
    lab[2].put(b"a")
    lab.apply(state(1), 1)
    lab[2].driver.apply(lab[2].replicas[0], state(1))
    lab[2].driver.flush()
    lab.run(sync=False)
    follower = lab[2].replicas[0].follower
    assert follower is not None and follower.phase is Phase.SYNCING
    assert lab.states() == []
    lab.run()
    assert [each.fetch_offset for each in lab.states()] == [1]
    assert lab[2].replicas[0].log.recovery_point == 1


def test_cold_reads_go_through_the_disk_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab[1].put(*[b"%d" % number for number in range(20)])
    warmed = []

    class Cold(Location):
        def __init__(self, offset: int) -> None:
            self.cached, self._offset = False, offset

        def warm(self) -> None:
            warmed.append(self._offset)

    monkeypatch.setattr(Log, "locate", lambda _self, offset, _bytes, _end: Cold(offset))
    lab.apply(state(1), 1)
    lab[2].driver.apply(lab[2].replicas[0], state(1))
    lab[2].driver.flush()
    lab.run(sync=False)
    assert lab[2].values() == []
    lab.run()
    assert (len(lab[2].values()), warmed) == (20, [0])
    lab[1].produce(b"hot")
    lab.run(sync=False)
    assert (len(lab[2].values()), warmed) == (21, [0])


# Starts ---------------------------------------------------------------------------------------------------------


def test_a_start_before_the_leader_knows_is_refused_and_answered_the_moment_it_does() -> None:
    lab = Lab()
    lab[1].put(b"a")
    lab.apply(state(1, 3), 2)
    assert [data.error for data in lab.data()] == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    lab.forget()
    lab.apply(state(1, 3), 1)
    assert lab[2].values() == [b"a"]
    assert all(data.error is ErrorCode.NONE for data in lab.data())
    before = len(lab.sent)
    lab.wait(1000)
    assert len(lab.sent) - before <= 1, "no retry, only the last high watermark"


def test_an_older_leader_knows_nothing_of_a_newer_epoch_and_a_newer_one_fences() -> None:
    lab = Lab()
    lab.apply(state(1, 3), 1)
    lab.apply(state(1, 4), 2)
    assert [data.error for data in lab.data()] == [ErrorCode.UNKNOWN_LEADER_EPOCH]
    other = Lab()
    other.apply(state(1, 4), 1)
    other.apply(state(1, 3), 2)
    assert [data.error for data in other.data()] == [ErrorCode.FENCED_LEADER_EPOCH]
    other.forget()
    other.wait(10_000)
    assert other.sent == []
    other.apply(state(1, 4), 2)
    assert [data.error for data in other.data()] == [ErrorCode.NONE]


def test_without_the_leaders_metadata_it_is_asked_again_with_a_back_off() -> None:
    lab = Lab()
    lab.apply(state(1), 2)
    lab.wait(2000)
    assert 3 <= len(lab.states()) <= 8
    assert [each.generation for each in lab.states()] == sorted({each.generation for each in lab.states()})


def test_a_divergence_is_cut_and_moves_no_position() -> None:
    lab = Lab()
    lab[1].put(b"a", b"b", epoch=0)
    lab[1].put(b"c", epoch=2)
    lab[2].put(b"a", b"b", epoch=0)
    lab[2].put(b"x", b"y", b"z", epoch=1)
    lab.apply(state(1, 3), 1)
    lab[2].driver.apply(lab[2].replicas[0], state(1, 3))
    lab[2].driver.flush()
    lab.deliver()
    data = lab.data()[0]
    assert (data.diverging, bytes(data.batches)) == ((0, 2), b"")
    assert lab[1].leader().followers[2].end == -1
    lab.run()
    assert lab[2].values() == [b"a", b"b", b"c"]
    assert lab[2].replicas[0].log.epochs.entries == [(0, 0), (2, 2)]
    assert lab[2].driver.metrics.truncated_offsets == 3


def test_an_epoch_without_batches_is_forgotten_before_the_log_follows() -> None:
    lab = Lab(min_isr=1)
    lab[1].put(b"a", epoch=0)
    lab[2].put(b"a", epoch=0)
    lab[2].put(b"b", epoch=1)
    lab.apply(state(1, 3), 1)
    lab.apply(state(2, 4))
    assert lab[1].values() == [b"a", b"b"]
    assert lab[1].replicas[0].log.epochs.entries == [(0, 0), (1, 1)]


def test_a_follower_below_the_leaders_log_start_begins_there_anew() -> None:
    lab = Lab()
    lab[1].put(*[b"%d" % number for number in range(10)])
    lab[1].replicas[0].log.advance_log_start(6)
    lab[2].put(b"0", b"1")
    lab.apply(state(1, 1))
    log = lab[2].replicas[0].log
    assert (log.log_start_offset, log.log_end_offset) == (6, 10)
    assert lab[2].driver.metrics.offset_resets == 1


def test_a_log_start_within_a_batch_is_followed_with_the_whole_batch() -> None:
    lab = Lab(2)
    lab[1].put(b"0", b"1")
    from odradek.wire.records import simple_batch

    batch = simple_batch([(None, b"%d" % number) for number in range(2, 8)], base_offset=0, timestamp=WALL_MS)
    lab[1].replicas[0].log.append_as_leader(memoryview(batch), 0, WALL_MS)
    lab[1].replicas[0].log.write_staged()
    lab[1].replicas[0].log.advance_log_start(5)
    lab.apply(state(1, 1))
    log = lab[2].replicas[0].log
    assert (log.log_start_offset, log.log_end_offset) == (5, 8)
    assert lab[2].replicas[0].high_watermark >= 5


def test_a_follower_that_retention_overtakes_on_the_way_begins_anew() -> None:
    lab = ready(Lab())
    stream = lab.streams[-1].peer
    assert stream is not None
    stream.writable = False
    lab[1].produce(*[b"%d" % number for number in range(10)])
    lab[1].replicas[0].log.advance_log_start(4)
    stream.writable = True
    stream.events.drained()
    lab.run()
    log = lab[2].replicas[0].log
    assert (log.log_start_offset, log.log_end_offset) == (4, 10)


def test_the_leaders_log_start_is_followed_and_acknowledged() -> None:
    lab = ready(Lab())
    lab[1].produce(b"a", b"b", b"c")
    lab.run()
    leader, told = lab[1].replicas[0], []
    leader.on_follower_told = lambda: told.append(lab[1].leader().low_watermark(2))
    leader.log.advance_log_start(2)
    lab[1].driver.log_start_moved(leader)
    lab[1].driver.flush()
    lab.run()
    assert told[-1] == 2
    assert lab[2].replicas[0].log.log_start_offset == 2
    assert lab[1].leader().low_watermark(2) == 2


# What must not get in -------------------------------------------------------------------------------------------


def damaged(down: FetchDown) -> FetchDown:
    data = down.data[0]
    batches = bytearray(data.batches)
    batches[-1] ^= 1
    return down._replace(data=(data._replace(batches=bytes(batches)), *down.data[1:]))


def test_a_corrupt_batch_is_not_appended_and_fetched_again() -> None:
    lab = ready(Lab())
    lab[1].produce(b"a")
    call, message = lab.queue.popleft()
    lab.queue.append((call, damaged(message)))
    lab[1].produce(b"b")
    lab.run()
    assert (lab[2].values(), lab[2].driver.metrics.corrupt_batches) == ([], 1)
    lab.wait(lab.config.fetch_backoff_ms)
    assert lab[2].values() == [b"a", b"b"]
    assert lab[1].leader().high_watermark == 2


def test_a_lost_message_leaves_no_hole() -> None:
    lab = ready(Lab())
    lab[1].produce(b"a")
    lab.queue.clear()
    lab[1].produce(b"b")
    lab.run()
    assert lab[2].values() == []
    lab.wait(lab.config.fetch_backoff_ms)
    assert lab[2].values() == [b"a", b"b"]


def up(session: int, *states: FetchState, broker_epoch: int = 12, follower: int = 2) -> FetchUp:
    return FetchUp(follower, broker_epoch, session, 1 << 20, tuple(states))


def at(offset: int, *, generation: int = 1, epoch: int = 0, last_epoch: int = -1) -> FetchState:
    return FetchState(TOPIC_ID, 0, epoch, offset, last_epoch, 0, generation)


def stream(lab: Lab) -> DownEnd:
    """A stream to node 1 by hand."""

    class Nobody:
        def received(self, message: FetchDown) -> None: ...
        def closed(self, reason: str) -> None: ...

    end = UpEnd(lab, 2, 1, Nobody())
    end.peer = DownEnd(end)
    end.peer.events = lab[1].driver.accept(end.peer)
    return end.peer


def test_a_new_stream_replaces_the_old_one_and_what_that_still_delivers_is_dropped() -> None:
    lab = Lab()
    lab.apply(state(1), 1)
    old, new = stream(lab), stream(lab)
    old.take(up(1, at(0)))
    lab[1].produce(b"a", b"b")
    new.take(up(2, at(1, last_epoch=0)))
    assert (old.closed, new.closed) == (True, False)
    old.events.received(up(1, at(2)))
    assert lab[1].leader().followers[2].end == 1


def test_an_older_session_or_incarnation_does_not_get_in_after_a_newer_one() -> None:
    lab = Lab()
    lab.apply(state(1), 1)
    new = stream(lab)
    new.take(up(2, at(0)))
    for late in (up(1, at(0)), up(9, at(0), broker_epoch=11), up(2, at(0))):
        other = stream(lab)
        other.take(late)
        assert other.closed and not new.closed
    restarted = stream(lab)
    restarted.take(up(1, at(0), broker_epoch=13))
    assert new.closed and not restarted.closed


def test_a_stream_does_not_change_who_it_is() -> None:
    lab = Lab(3)
    lab.apply(state(1), 1)
    down = stream(lab)
    down.take(up(1, at(0)))
    down.take(up(1, at(0, generation=2), follower=3))
    assert down.closed


def test_an_acknowledgement_of_what_was_not_sent_ends_the_stream() -> None:
    lab = Lab()
    lab.apply(state(1), 1)
    down = stream(lab)
    down.take(up(1, at(0)))
    lab[1].produce(b"a")
    down.take(up(1, at(5)))
    assert down.closed
    assert lab[1].leader().followers[2].end == 0


def test_late_states_of_an_earlier_generation_count_for_nothing() -> None:
    lab = Lab()
    lab.apply(state(1), 1)
    down = stream(lab)
    down.take(up(1, at(0)))
    lab[1].produce(b"a", b"b")
    down.take(up(1, at(1, generation=2, last_epoch=0)))
    down.take(up(1, at(2, generation=1, last_epoch=0)))
    assert lab[1].leader().followers[2].end == 1


# Streams come and go --------------------------------------------------------------------------------------------


def test_a_partition_whose_leader_gets_a_newer_epoch_goes_on_on_the_same_stream() -> None:
    lab = ready(Lab(partitions=2))
    lab[1].produce(b"a", partition=0)
    lab.run()
    lab.apply(state(1, 1, 1), partition=0)
    lab[1].produce(b"b", partition=0)
    lab[1].produce(b"c", partition=1)
    lab.run()
    assert (lab[2].values(0), lab[2].values(1)) == ([b"a", b"b"], [b"c"])
    assert lab[1].leader(0).high_watermark == 2
    assert len(lab.streams) == 1


def test_a_broken_stream_is_opened_again_after_a_back_off_in_a_new_session() -> None:
    lab = ready(Lab())
    lab[1].produce(b"a")
    lab.run()
    lab.streams[-1].break_off()
    lab[1].produce(b"b")
    lab.run()
    assert lab[2].values() == [b"a"]
    lab.forget()
    lab.wait(2 * lab.config.reconnect_backoff_ms)
    assert lab[2].values() == [b"a", b"b"]
    assert {up.session for up in lab.ups()} == {2}


def test_a_leader_that_cannot_be_reached_is_tried_again_and_again_but_not_all_the_time() -> None:
    lab = Lab()
    lab.unreachable.add(1)
    lab.apply(state(1))
    lab.wait(10_000)
    assert 10 <= len(lab.streams) <= 20
    lab.unreachable.clear()
    lab.wait(2 * lab.config.backoff_max_ms)
    assert lab[1].leader().followers[2].end == 0


def test_a_stream_with_nothing_to_fetch_is_closed() -> None:
    lab = ready(Lab())
    lab.apply(state(2, 1, 1))
    assert [(up.follower, up.closed) for up in lab.streams] == [(2, True), (1, False)]
    assert lab[1].driver._serving == {}


def test_a_new_registration_opens_a_new_stream_with_its_broker_epoch() -> None:
    lab = ready(Lab())
    lab[2].driver.registered(99, lab.peers | {2: Peer(99, False)})
    lab[2].driver.peers_changed()
    lab[2].driver.flush()
    lab.run()
    assert {up.broker_epoch for up in lab.ups()} == {99}
    assert lab[1].leader().followers[2].broker_epoch == 99


# Throttles ------------------------------------------------------------------------------------------------------


def test_a_leader_sends_a_replica_outside_the_isr_no_faster_than_its_quota() -> None:
    lab = Lab(partitions=1)
    lab[1].put(*[b"x" * 10_000 for _ in range(50)])
    lab[1].driver.leader_quota.configure(100_000, {("t", 0)}, lab.now)
    lab[1].driver.config = ReplicationConfig(partition_window_bytes=20_000)
    lab.apply(state(1, isr=(1,)))
    lab.wait(1000)
    assert 15 <= len(lab[2].values()) <= 25
    lab.wait(5000)
    assert len(lab[2].values()) == 50
    assert lab[1].driver.metrics.throttled > 3


def test_a_member_of_the_isr_is_not_throttled() -> None:
    lab = Lab()
    lab[1].put(*[b"x" * 10_000 for _ in range(50)])
    lab[1].driver.leader_quota.configure(1000, {("t", 0)}, lab.now)
    lab.apply(state(1))
    assert len(lab[2].values()) == 50


def test_a_throttled_follower_acknowledges_no_faster_than_its_quota() -> None:
    lab = Lab(partitions=2, config=ReplicationConfig(partition_window_bytes=20_000))
    for partition in (0, 1):
        lab[1].put(*[b"x" * 10_000 for _ in range(50)], partition=partition)
    lab[2].driver.follower_quota.configure(100_000, {("t", 0)}, lab.now)
    lab.apply(state(1, isr=(1,)))
    lab.wait(1000)
    assert len(lab[2].values(1)) == 50
    assert 15 <= len(lab[2].values(0)) <= 27
    lab.wait(5000)
    assert len(lab[2].values(0)) == 50


@pytest.mark.parametrize("rate", [10_000_000, UNLIMITED])
@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_rate_that_is_raised_counts_for_who_waits_already(side: str, rate: int) -> None:
    lab = Lab(partitions=1, config=ReplicationConfig(partition_window_bytes=20_000))
    lab[1].put(*[b"x" * 10_000 for _ in range(50)])
    quota = lab[1].driver.leader_quota if side == "leader" else lab[2].driver.follower_quota
    quota.configure(1, {("t", 0)}, lab.now)  # what is on the way at once would be paid off in hours
    lab.apply(state(1, isr=(1,)))
    lab.wait(10_000)
    assert len(lab[2].values()) < 10
    quota.configure(rate, {("t", 0)}, lab.now)
    lab.wait(3_000)
    assert len(lab[2].values()) == 50


# The disk fails -------------------------------------------------------------------------------------------------


def test_a_follower_whose_disk_fails_drops_out_and_the_others_go_on() -> None:
    lab = ready(Lab(3))
    lab[2].disk.faults.fail_change_at = lab[2].disk.faults.changes
    lab[1].produce(b"a")
    lab.run()
    assert lab[2].events[0].said == ["failed"]
    assert lab[2].replicas[0].role is Role.FAILED
    assert lab[3].values() == [b"a"]
    lab.apply(state(1, 0, 1, isr=(1, 2, 3), replicas=(1, 2, 3)))
    assert lab[2].replicas[0].role is Role.FAILED


def test_a_leader_whose_disk_fails_at_a_read_for_a_follower_leads_no_more() -> None:
    lab = Lab()
    lab[1].put(*[b"x" * 10_000 for _ in range(5)])
    leader = lab[1].replicas[0]
    leader.log.on_failure = lambda _log, error: lab[1].driver.failed(leader, error)

    def fail(path: str) -> None:
        raise OSError(errno.EIO, "injected", path)

    lab[1].disk.faults.on_read = fail
    lab.apply(state(1))
    assert leader.role is Role.FAILED
    assert lab[1].events[0].said[-1] == "failed"
    assert lab[2].replicas[0].role is not Role.FAILED
    assert lab[2].values() == []
