"""Registration, heartbeats, fencing, shutdown: what becomes of brokers and of what they lead."""

import pytest

from odradek.controller.internal import BrokerUnreachableRequest
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import MetadataImage
from odradek.metadata.records import NO_LEADER, RECOVERING, decode
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from odradek.wire.messages.broker_registration import Feature
from odradek.wire.messages.unregister_broker import UnregisterBrokerRequest
from unit.controller.controller_harness import Harness, directory, registration, violations

NONE = ErrorCode.NONE


def test_a_broker_is_registered_fenced_and_unfenced_by_a_heartbeat_that_has_caught_up() -> None:
    harness = Harness()
    assert harness.register(1, rack="r1").error_code == NONE
    broker = harness.image.brokers[1]
    assert (broker.fenced, broker.rack, broker.listeners) == (True, "r1", {"PLAINTEXT": ("host1", 9092, 0)})
    assert broker.features["metadata.version"] == (7, 30)
    late = harness.heartbeat(1, current_metadata_offset=broker.epoch - 1)
    assert (late.error_code, late.is_caught_up, late.is_fenced) == (NONE, False, True)
    answer = harness.heartbeat(1, current_metadata_offset=broker.epoch)
    assert (answer.is_caught_up, answer.is_fenced, answer.should_shut_down) == (True, False, False)
    assert harness.image.brokers[1].active


def test_the_broker_epoch_is_the_offset_of_its_registration() -> None:
    harness = Harness()
    offset = harness.log.end_offset
    assert harness.register(1).broker_epoch == offset
    harness.heartbeat(1)
    harness.create("a", [1])
    harness.pass_time(10_000)
    harness.register(1, incarnation=2)
    [last] = [batch for batch in harness.log.batches if batch.last_offset == harness.epochs[1]]
    assert last.records[-1] == harness.log.batches[-1].records[-1]


def test_a_broker_may_ask_to_stay_fenced() -> None:
    harness = Harness()
    harness.register(1)
    assert harness.heartbeat(1, want_fence=True).is_fenced
    assert harness.image.brokers[1].fenced


def test_a_live_broker_keeps_its_id() -> None:
    harness = Harness()
    harness.start_broker(1)
    assert harness.register(1, incarnation=2).error_code == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    assert harness.register(1, incarnation=1).error_code == NONE
    harness.pass_time(2_000)
    assert harness.register(1, incarnation=2).error_code == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    harness.pass_time(10_000)
    assert harness.register(1, incarnation=2).error_code == NONE


def test_a_broker_that_starts_keeps_its_id_as_well() -> None:
    """Two nodes with the same id: the second is refused, and does not push out the first."""
    harness = Harness()
    harness.register(1)
    harness.heartbeat(1, want_fence=True)
    assert harness.register(1, incarnation=2).error_code == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    harness.pass_time(3_001)
    assert harness.register(1, incarnation=2).error_code == NONE


def test_after_a_change_of_controller_a_restarted_broker_gets_its_id_back_at_once() -> None:
    harness = Harness()
    harness.start_broker(1)
    harness.controller.on_resign()
    harness.become_leader()
    assert harness.register(1, incarnation=2).error_code == NONE


def test_an_amended_registration_keeps_epoch_and_fencing() -> None:
    harness = Harness()
    harness.start_broker(1)
    epoch = harness.epochs[1]
    assert harness.register(1, rack="other").broker_epoch == epoch
    broker = harness.image.brokers[1]
    assert (broker.rack, broker.fenced, broker.epoch) == ("other", False, epoch)


def test_a_heartbeat_of_an_older_incarnation_is_refused() -> None:
    harness = Harness()
    harness.start_broker(1)
    old = harness.epochs[1]
    harness.pass_time(10_000)
    harness.register(1, incarnation=2)
    request = BrokerHeartbeatRequest(1, old, current_metadata_offset=harness.image.offset)
    assert harness.call(request).error_code == ErrorCode.STALE_BROKER_EPOCH
    assert harness.call(BrokerHeartbeatRequest(9, 1)).error_code == ErrorCode.STALE_BROKER_EPOCH
    assert harness.image.brokers[1].fenced


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cluster_id": "another"}, ErrorCode.INCONSISTENT_CLUSTER_ID),
        ({"log_dirs": []}, ErrorCode.INVALID_REGISTRATION),
        ({"log_dirs": [bytes(16)]}, ErrorCode.INVALID_REGISTRATION),
        ({"log_dirs": [directory(1), directory(1)]}, ErrorCode.INVALID_REGISTRATION),
        ({"log_dirs": [directory(0)]}, ErrorCode.INVALID_REGISTRATION),
        ({"features": []}, ErrorCode.INVALID_REGISTRATION),
        ({"features": [Feature("metadata.version", 7, 29)]}, ErrorCode.UNSUPPORTED_VERSION),
        ({"features": [Feature("metadata.version", 7, 30)]}, ErrorCode.UNSUPPORTED_VERSION),
    ],
)
def test_a_registration_that_does_not_fit_is_refused(changes: dict[str, object], code: ErrorCode) -> None:
    harness = Harness()
    harness.start_broker(0)
    offset = harness.log.end_offset
    assert harness.call(registration(1, **changes)).error_code == code
    assert harness.log.end_offset == offset


def test_a_silent_broker_is_fenced_after_its_session() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0])
    harness.pass_time(2_000)
    harness.heartbeat(0)
    harness.pass_time(1_000)
    assert not harness.image.brokers[1].fenced
    harness.pass_time(1)
    assert harness.image.brokers[1].fenced
    assert not harness.image.brokers[0].fenced
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.leader_epoch) == (0, (0,), 1)


def test_every_session_starts_anew_under_a_new_controller() -> None:
    harness = Harness()
    harness.start_broker(1)
    harness.pass_time(2_900)
    harness.controller.on_resign()
    harness.become_leader()
    harness.pass_time(2_900)
    assert not harness.image.brokers[1].fenced
    harness.pass_time(200)
    assert harness.image.brokers[1].fenced


def test_the_only_replica_stays_eligible_and_leads_again_when_it_is_back() -> None:
    harness = Harness()
    harness.start_broker(1)
    harness.create("a", [1])
    harness.fence(1)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr, partition.leader_epoch) == (
        NO_LEADER,
        (),
        (1,),
        1,
    )
    harness.heartbeat(1)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr, partition.leader_epoch) == (1, (1,), (), 2)
    assert partition.partition_epoch == 2


def test_a_clean_restart_keeps_the_replica_eligible() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1])
    harness.pass_time(10_000)
    harness.register(1, incarnation=2, previous_broker_epoch=harness.epochs[1])
    assert harness.partition("a").elr == (1,)
    harness.heartbeat(1)
    partition = harness.partition("a")
    assert (partition.leader, partition.leader_recovery_state) == (1, 0)


def test_after_an_unclean_stop_the_last_leader_leads_again_but_has_to_recover() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1])
    harness.create("b", [1, 0], configs={"min.insync.replicas": "2"})
    harness.pass_time(10_000)
    assert harness.partition("b").elr == (0, 1)
    harness.register(1, incarnation=2)
    assert (harness.partition("a").elr, harness.partition("a").last_known_elr) == ((), (1,))
    assert harness.partition("b").elr == (0,)
    harness.heartbeat(1)
    assert (harness.partition("a").leader, harness.partition("a").leader_recovery_state) == (1, RECOVERING)
    assert harness.partition("b").leader == NO_LEADER, "what broker 0 has may be newer"
    harness.heartbeat(0)
    assert harness.partition("b").leader == 0


def test_controlled_shutdown_hands_leaderships_over_before_the_broker_goes() -> None:
    harness = Harness()
    harness.start_brokers(0, 1, 2)
    harness.create("a", [1, 0, 2])
    first = harness.heartbeat(1, want_shut_down=True)
    assert (first.is_fenced, first.should_shut_down) == (False, False)
    assert harness.image.brokers[1].in_controlled_shutdown
    assert (harness.partition("a").leader, harness.partition("a").isr) == (0, (0, 2))
    assert not harness.heartbeat(1, want_shut_down=True).should_shut_down, "others have not seen it yet"
    harness.heartbeat(0)
    assert not harness.heartbeat(1, want_shut_down=True).should_shut_down, "broker 2 has not seen it yet"
    harness.heartbeat(2)
    last = harness.heartbeat(1, want_shut_down=True)
    assert (last.is_fenced, last.should_shut_down) == (True, True)
    assert harness.image.brokers[1].fenced


def test_the_last_broker_may_go_although_nobody_takes_over() -> None:
    harness = Harness()
    harness.start_broker(1)
    harness.create("a", [1])
    assert not harness.heartbeat(1, want_shut_down=True).should_shut_down
    assert harness.heartbeat(1, want_shut_down=True).should_shut_down
    assert harness.partition("a").elr == (1,)


def test_a_broker_that_leads_nothing_may_go_at_once() -> None:
    harness = Harness()
    harness.start_broker(1)
    assert harness.heartbeat(1, want_shut_down=True).should_shut_down
    assert harness.image.brokers[1].fenced
    assert harness.register(1, incarnation=2).error_code == NONE


def test_a_broker_in_shutdown_gets_no_new_replicas_and_its_id_can_be_taken_over() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1])
    harness.heartbeat(1, want_shut_down=True)
    refused = harness.create("b", factor=2)
    assert refused.error_code == ErrorCode.INVALID_REPLICATION_FACTOR
    assert harness.register(1, incarnation=2).error_code == NONE
    assert not harness.image.brokers[1].in_controlled_shutdown


def test_an_unregistered_broker_is_forgotten_but_its_replicas_stay_assigned() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0])
    assert harness.call(UnregisterBrokerRequest(1)).error_code == NONE
    assert 1 not in harness.image.brokers
    partition = harness.partition("a")
    assert (partition.replicas, partition.isr, partition.leader) == ((1, 0), (0,), 0)
    assert harness.call(UnregisterBrokerRequest(1)).error_code == ErrorCode.BROKER_ID_NOT_REGISTERED
    assert harness.heartbeat(1).error_code == ErrorCode.STALE_BROKER_EPOCH
    assert list(violations(harness.state)) == []


def test_replicas_in_a_failed_directory_lose_their_leadership() -> None:
    harness = Harness()
    harness.start_broker(0)
    second = (0xD1_0000).to_bytes(16, "big")
    harness.start_broker(1, log_dirs=[directory(1), second])
    harness.start_broker(2)
    harness.create("a", [2, 0])
    answer = harness.heartbeat(2, offline_log_dirs=[directory(2)])
    assert answer.error_code == NONE
    assert (harness.partition("a").leader, harness.partition("a").isr) == (0, (0,))
    assert harness.image.brokers[2].directories == ()
    harness.create("b", [1])
    harness.heartbeat(1, offline_log_dirs=[second])
    assert harness.image.brokers[1].directories == (directory(1),)
    assert harness.partition("b").leader == 1, "where its replica is, the broker has not said"


def unreachable(harness: Harness, broker_id: int, epoch: int | None = None) -> int:
    request = BrokerUnreachableRequest(broker_id, harness.epochs[broker_id] if epoch is None else epoch)
    code = harness.call(request).error_code
    assert isinstance(code, int)
    return code


def test_a_broker_that_refuses_connections_is_fenced_at_once() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0])
    assert unreachable(harness, 1) == NONE
    assert harness.image.brokers[1].fenced
    assert (harness.partition("a").leader, harness.partition("a").isr) == (0, (0,))
    assert harness.register(1, incarnation=2).error_code == NONE, "its id is free at once"


def test_nobody_is_fenced_for_what_an_earlier_incarnation_refused() -> None:
    harness = Harness()
    harness.start_broker(1)
    old = harness.epochs[1]
    harness.pass_time(10_000)
    harness.start_broker(1, incarnation=2)
    assert unreachable(harness, 1, old) == ErrorCode.STALE_BROKER_EPOCH
    assert unreachable(harness, 9, 1) == ErrorCode.STALE_BROKER_EPOCH
    assert not harness.image.brokers[1].fenced


def test_a_broker_fenced_for_its_silence_comes_back_only_when_it_knows_of_that() -> None:
    """What a dead process has sent, and what was on its way for long, must not make it lead again."""
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0])
    sent = harness.image.offset
    unreachable(harness, 1)
    late = harness.heartbeat(1, current_metadata_offset=sent)
    assert (late.is_fenced, late.is_caught_up) == (True, True)
    assert harness.partition("a").leader == 0
    harness.pass_time(2_000)
    harness.heartbeat(0)
    assert not harness.heartbeat(1).is_fenced
    harness.pass_time(2_000)
    harness.heartbeat(0)
    before = harness.image.offset
    harness.pass_time(2_000)
    assert harness.image.brokers[1].fenced
    assert harness.heartbeat(1, current_metadata_offset=before).is_fenced
    assert not harness.heartbeat(1).is_fenced


def test_a_broker_that_is_heard_of_is_not_called_dead_again_for_some_time() -> None:
    """Somebody cannot reach it, but it lives: a firewall, not a death."""
    harness = Harness()
    harness.start_broker(1)
    unreachable(harness, 1)
    assert not harness.heartbeat(1).is_fenced
    for _ in range(14):
        harness.pass_time(2_000)
        harness.heartbeat(1)
        assert unreachable(harness, 1) == NONE
        assert not harness.image.brokers[1].fenced
    harness.pass_time(2_000)
    harness.heartbeat(1)
    unreachable(harness, 1)
    assert harness.image.brokers[1].fenced


def test_a_broker_that_is_believed_is_still_fenced_by_its_session() -> None:
    harness = Harness()
    harness.start_broker(1)
    unreachable(harness, 1)
    harness.heartbeat(1)
    harness.pass_time(3_001)
    assert harness.image.brokers[1].fenced


def test_a_broker_in_controlled_shutdown_that_dies_is_fenced_and_may_return() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0])
    harness.heartbeat(1, want_shut_down=True)
    unreachable(harness, 1)
    assert harness.image.brokers[1].fenced
    assert harness.heartbeat(1, want_shut_down=True).should_shut_down
    harness.start_broker(1, incarnation=2)
    assert harness.image.brokers[1].active


def test_killed_while_it_started_a_broker_is_as_complete_as_it_was_before() -> None:
    """Between two registrations without an unfencing it was in no ISR, so nothing can be missing."""
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1])
    served = harness.epochs[1]
    harness.fence(1)
    for incarnation in (2, 3, 4):
        harness.register(1, incarnation=incarnation, previous_broker_epoch=served)
        assert harness.partition("a").elr == (1,)
    harness.heartbeat(1)
    assert harness.partition("a").leader == 1
    harness.fence(1)
    harness.register(1, incarnation=5, previous_broker_epoch=served)
    assert harness.partition("a").elr == (), "it has served since"


def test_an_unclean_stop_is_not_made_good_by_the_next_start() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", [1, 0], configs={"min.insync.replicas": "2"})
    served = harness.epochs[1]
    harness.fence(1)
    assert harness.partition("a").elr == (1,)
    harness.register(1, incarnation=2)
    assert harness.partition("a").elr == ()
    harness.register(1, incarnation=3, previous_broker_epoch=served)
    assert harness.image.brokers[1].complete_epoch == -1


def test_completeness_survives_a_change_of_controller_and_a_snapshot() -> None:
    harness = Harness()
    harness.start_broker(1)
    harness.create("a", [1])
    served = harness.epochs[1]
    harness.fence(1)
    harness.register(1, incarnation=2, previous_broker_epoch=served)
    delta = MetadataDelta(MetadataImage())
    for record in harness.image.records():
        delta.replay(decode(record.encode()))
    assert delta.apply(0, 0).brokers[1].complete_epoch == served
    harness.controller.on_resign()
    harness.become_leader()
    harness.register(1, incarnation=3, previous_broker_epoch=served)
    assert harness.partition("a").elr == (1,)


def test_with_unclean_election_allowed_a_replica_out_of_sync_leads() -> None:
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create(
        "a", [1, 0], configs={"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    )
    harness.fence(0)
    harness.fence(1)
    assert harness.partition("a").leader == NO_LEADER
    harness.heartbeat(0)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.leader_recovery_state) == (0, (0,), RECOVERING)
