"""Roles that follow metadata, proposals to the controller, and what the broker is told."""

from __future__ import annotations

import pytest

from odradek.replication.isr import Peer
from odradek.replication.replica import Role
from odradek.storage.config import LogConfig
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    AlterPartitionResponsePartitionData,
    AlterPartitionResponseTopicData,
)
from unit.replication.replication_lab import TOPIC_ID, Lab, state


def answer(
    request: AlterPartitionRequest, *, error: ErrorCode = ErrorCode.NONE, top: ErrorCode = ErrorCode.NONE
) -> AlterPartitionResponse:
    """What a controller that applies everything says."""
    topics = [
        AlterPartitionResponseTopicData(
            topic.topic_id,
            [
                AlterPartitionResponsePartitionData(
                    each.partition_index, error, request.broker_id, each.leader_epoch,
                    [member.broker_id for member in each.new_isr_with_epochs],
                    partition_epoch=each.partition_epoch + 1,
                )
                for each in topic.partitions
            ],
        )
        for topic in request.topics
    ]  # fmt: skip
    return AlterPartitionResponse(error_code=top, topics=[] if top else topics)


# Roles ----------------------------------------------------------------------------------------------------------


def test_a_leader_serves_once_the_start_of_its_epoch_is_durable() -> None:
    lab = Lab()
    lab[1].put(b"a")
    replica = lab[1].replicas[0]
    lab[1].driver.apply(replica, state(1, 4))
    assert (replica.role, replica.leader, lab[1].events[0].said) == (Role.STARTING, None, [])
    lab[1].syncer.drain()
    assert replica.role is Role.LEADER
    assert lab[1].events[0].said == ["leading"]
    assert lab[1].leader().epoch_start_offset == 1
    lab[1].disk.crash()
    assert b"4 1" in lab[1].disk.read_file("/d/t-0/leader-epoch-checkpoint")


def test_a_leadership_that_is_over_before_it_began_never_begins() -> None:
    lab = Lab()
    replica = lab[1].replicas[0]
    lab[1].driver.apply(replica, state(1, 4))
    lab[1].driver.apply(replica, state(2, 5, 1))
    lab[1].syncer.drain()
    assert (replica.role, lab[1].events[0].said) == (Role.FOLLOWER, [])


def test_what_metadata_says_while_a_leader_starts_is_what_it_starts_with() -> None:
    lab = Lab(3)
    replica = lab[1].replicas[0]
    lab[1].driver.apply(replica, state(1, 4, 0, (1, 2, 3), (1, 2, 3)))
    lab[1].driver.apply(replica, state(1, 4, 1, (1, 2), (1, 2, 3)))
    lab[1].syncer.drain()
    assert (lab[1].leader().isr.committed, lab[1].leader().isr.partition_epoch) == ({1, 2}, 1)


def test_a_sole_replica_leads_at_once_and_commits_alone() -> None:
    lab = Lab(1)
    lab[1].driver.apply(lab[1].replicas[0], state(1, 0, 0, (1,), (1,)))
    lab[1].produce(b"a")
    assert lab[1].events[0].said == ["leading", "high watermark 1"]


def test_a_zombie_is_deposed_by_newer_metadata_and_not_by_older() -> None:
    lab = Lab()
    lab.apply(state(1, 3, 5))
    lab.apply(state(2, 2, 4))
    lab.apply(state(1, 3, 4, isr=(1,)))
    assert lab[1].leader().isr.committed == {1, 2}
    lab.apply(state(2, 4, 6), 1)
    assert lab[1].replicas[0].role is Role.FOLLOWER
    assert lab[1].replicas[0].leader is None and lab[1].replicas[0].outgoing == []


def test_a_zombie_commits_nothing_that_its_followers_have_not() -> None:
    lab = Lab()
    lab.apply(state(1, 3))
    lab.apply(state(2, 4, 1), 2)
    lab[1].produce(b"lost")
    lab.run()
    lab.wait(60_000)
    assert lab[1].leader().high_watermark == 0
    assert lab[1].leader().acknowledgement(1) is None
    lab.apply(state(2, 4, 1), 1)
    lab.wait(1000)
    assert lab[1].values() == []


def test_without_a_leader_a_replica_is_idle() -> None:
    lab = Lab()
    lab.apply(state(1))
    lab.apply(state(-1, 1, 1, isr=()))
    assert [node.replicas[0].role for node in lab.nodes.values()] == [Role.IDLE, Role.IDLE]
    lab.forget()
    lab.wait(10_000)
    assert lab.sent == []
    lab.apply(state(2, 2, 2, isr=(2,)))
    assert lab[2].replicas[0].role is Role.LEADER


def test_a_removed_replica_is_known_no_more() -> None:
    lab = Lab()
    lab.apply(state(1))
    lab[1].driver.remove(lab[1].replicas[0])
    lab.apply(state(1, 1, 1), 2)
    assert [data.error for data in lab.data()][-1] is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert lab[1].driver.find((TOPIC_ID, 0)) is None


def test_a_damaged_replica_is_cut_where_the_damage_begins_and_fetched_again() -> None:
    lab = Lab()
    for node in lab.nodes.values():
        node.put(*[b"%d" % number for number in range(10)])
        node.replicas[0].log.close()
    path = "/d/t-0/00000000000000000000.log"
    lab[2].disk.flip_bit(path, lab[2].disk.size(path) // 2, 0)
    lab[2].driver.remove(lab[2].replicas[0])
    lab[2].replicas[0] = lab[2].add(0, LogConfig())
    assert lab[2].replicas[0].log.readable_end < 10
    lab.apply(state(1, 1, isr=(1,)))
    assert lab[2].values() == [b"%d" % number for number in range(10)]


def test_a_log_that_is_offline_is_neither_led_nor_followed() -> None:
    lab = Lab()
    for node in lab.nodes.values():
        node.replicas[0].log.fail(OSError("dead"))
    lab.apply(state(1))
    assert [node.replicas[0].role for node in lab.nodes.values()] == [Role.FAILED, Role.FAILED]
    assert [node.events[0].said for node in lab.nodes.values()] == [["failed"], ["failed"]]


def test_a_leader_whose_log_counts_where_it_is_fsynced_fsyncs_what_it_took_before() -> None:
    lab = Lab(log_config=LogConfig(flush_messages=1))
    lab[1].put(b"a")
    lab[2].put(b"a")
    lab.apply(state(1, 1))
    assert lab[1].leader().high_watermark == 1


def test_closing_ends_streams_and_timers() -> None:
    lab = Lab()
    lab.apply(state(1))
    for node in lab.nodes.values():
        node.driver.close()
    lab.run()
    lab.forget()
    lab.wait(60_000)
    assert lab.sent == []
    assert all(up.closed for up in lab.streams)


# Proposals ------------------------------------------------------------------------------------------------------


def test_growth_is_put_to_the_controller_and_its_answer_is_the_isr() -> None:
    lab = Lab(min_isr=2)
    lab.apply(state(1, 3, 8, isr=(1,)))
    (request, done), *more = lab[1].controller.asked
    assert not more
    assert (request.broker_id, request.broker_epoch) == (1, 11)
    assert lab[1].controller.proposals() == [[(1, 11), (2, 12)]]
    wanted = request.topics[0].partitions[0]
    assert (wanted.leader_epoch, wanted.partition_epoch) == (3, 8)
    done(answer(request))
    assert lab[1].events[0].said == ["leading", "isr [1, 2]"]
    assert lab[1].driver.metrics.isr_expands == 1
    assert lab[1].driver.under_min_isr() == lab[1].driver.under_replicated() == 0


def test_all_partitions_that_are_due_are_one_request_and_only_one_is_in_flight() -> None:
    lab = Lab(partitions=5)
    for partition in (0, 1, 2):
        lab.apply(state(1, isr=(1,)), 1, partition=partition)
    for partition in (3, 4):
        lab.apply(state(1, isr=(1,)), 1, partition=partition)
    for partition in range(5):
        lab[2].driver.apply(lab[2].replicas[partition], state(1, isr=(1,)))
    lab[2].driver.flush()
    lab.run()
    asked = lab[1].controller.asked
    assert len(asked) == 1
    first = [each.partition_index for each in asked[0][0].topics[0].partitions]
    asked[0][1](answer(asked[0][0]))
    rest = [each.partition_index for request, _ in asked[1:] for each in request.topics[0].partitions]
    assert sorted(first + rest) == [0, 1, 2, 3, 4]
    assert len(asked) <= 2


def test_without_an_answer_it_is_asked_again_after_a_back_off() -> None:
    lab = Lab()
    lab.apply(state(1, isr=(1,)))
    asked = lab[1].controller.asked
    asked[0][1](None)
    assert len(asked) == 1
    lab.wait(lab.config.alter_backoff_ms)
    assert len(asked) == 2
    asked[1][1](answer(asked[1][0], top=ErrorCode.NOT_CONTROLLER))
    lab.wait(2 * lab.config.alter_backoff_ms)
    assert len(asked) == 3
    assert lab[1].leader().isr.maximal == {1, 2}
    assert lab[1].driver.metrics.failed_isr_updates == 2


def test_a_refused_member_is_proposed_again_when_the_back_off_is_over() -> None:
    lab = Lab()
    lab.apply(state(1, isr=(1,)))
    asked = lab[1].controller.asked
    asked[0][1](answer(asked[0][0], error=ErrorCode.INELIGIBLE_REPLICA))
    assert (len(asked), lab[1].leader().isr.maximal) == (1, {1})
    lab.wait(lab.config.alter_backoff_ms)
    assert (len(asked), lab[1].leader().isr.maximal) == (2, {1, 2})


def test_who_falls_silent_under_load_is_dropped_after_the_lag_limit() -> None:
    lab = Lab()
    lab.apply(state(1))
    lab.streams[-1].break_off()
    lab.unreachable.add(1)
    lab[1].produce(b"a")
    lab.wait(lab.config.replica_lag_time_max_ms)
    assert lab[1].controller.asked == []
    lab.wait(lab.config.replica_lag_time_max_ms // 2 + 1)
    assert lab[1].controller.proposals() == [[(1, 11)]]
    request, done = lab[1].controller.asked[0]
    assert lab[1].leader().high_watermark == 0
    done(answer(request))
    assert lab[1].leader().high_watermark == 1
    assert lab[1].events[0].said[-2:] == ["high watermark 1", "isr [1]"]
    assert (lab[1].driver.metrics.isr_shrinks, lab[1].driver.under_replicated()) == (1, 1)


def test_a_broker_that_is_unfenced_joins_without_another_fetch() -> None:
    lab = Lab()
    fenced = lab.peers | {2: Peer(12, True)}
    lab[1].driver.registered(11, fenced)
    lab[1].driver.peers_changed()
    lab.apply(state(1, isr=(1,)))
    assert lab[1].controller.asked == []
    lab[1].driver.registered(11, lab.peers)
    lab[1].driver.peers_changed()
    lab[1].driver.flush()
    assert lab[1].controller.proposals() == [[(1, 11), (2, 12)]]


def test_an_answer_after_the_leadership_is_over_means_nothing() -> None:
    lab = Lab()
    lab.apply(state(1, isr=(1,)))
    request, done = lab[1].controller.asked[0]
    lab.apply(state(2, 1, 1, isr=(2,)))
    done(answer(request))
    assert lab[1].replicas[0].role is Role.FOLLOWER


def test_min_isr_may_change() -> None:
    lab = Lab(min_isr=1)
    lab.apply(state(1, isr=(1,)))
    lab[1].driver.configure(lab[1].replicas[0], 2)
    assert lab[1].driver.under_min_isr() == 1
    assert lab[1].leader().refusal() is ErrorCode.NOT_ENOUGH_REPLICAS
    lab[1].produce(b"a")
    assert lab[1].leader().high_watermark == 0
    lab[1].driver.configure(lab[1].replicas[0], 1)
    lab.run()
    assert lab[1].leader().high_watermark == 1


def test_the_lag_of_a_follower_is_what_it_misses_of_the_leaders_high_watermark() -> None:
    lab = Lab()
    lab[1].put(b"a", b"b")
    lab.apply(state(1, isr=(1,)), 1)
    lab[2].driver.apply(lab[2].replicas[0], state(1, isr=(1,)))
    assert lab[2].driver.max_lag() == 0
    follower = lab[2].replicas[0].follower
    assert follower is not None
    follower.leader_high_watermark = 2
    assert lab[2].driver.max_lag() == 2


def test_what_an_earlier_incarnation_said_moves_nothing_once_metadata_knows_that_it_is_over() -> None:
    lab = Lab(3, min_isr=2)
    replica, driver = lab[1].replicas[0], lab[1].driver
    driver.apply(replica, state(1, 0, 0, (1, 2), (1, 2, 3)))
    lab[1].syncer.drain()
    driver.fetched(replica, 3, 0, 0, 13)  # has all there is, and is proposed
    driver.flush()
    lab[1].produce(b"a")
    driver.fetched(replica, 2, 1, 0, 12)
    request, done = lab[1].controller.asked[0]
    done(answer(request, error=ErrorCode.INELIGIBLE_REPLICA))
    assert lab[1].leader().high_watermark == 0  # 3 is about to join, and has not got it yet
    lab.now += lab.config.replica_lag_time_max_ms + 1  # now it is not

    driver.registered(11, lab.peers | {2: Peer(99, True)})
    driver.apply(replica, state(1, 0, 1, (1,), (1, 2, 3)))
    driver.peers_changed()
    assert lab[1].leader().high_watermark == 0


def test_thousands_of_leaderships_begin_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover; others have their turn in between."""
    monkeypatch.setattr("odradek.replication.driver.SERVED_AT_ONCE", 0)
    lab = Lab()
    lab[1].put(b"a")
    replica = lab[1].replicas[0]
    lab[1].driver.apply(replica, state(1, 4))
    lab[1].syncer.drain()
    assert replica.role is Role.STARTING
    lab[1].timers.advance(lab.now)
    assert replica.role is Role.LEADER
    lab[1].driver.apply(replica, state(1, 5))
    lab[1].syncer.drain()
    lab[1].driver.apply(replica, state(2, 6))
    lab[1].timers.advance(lab.now)
    assert replica.role is Role.FOLLOWER, "that leadership was over before it began"
