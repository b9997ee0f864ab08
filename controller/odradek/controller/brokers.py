"""Brokers: BrokerRegistration, BrokerHeartbeat, UnregisterBroker; fencing by session or because a connection
was refused.

What a heartbeat asks for, by the state the broker is in (as Kafka's BrokerHeartbeatManager):

    state               | want_fence   | want_shut_down                       | neither
    fenced              | stays fenced | may go                               | unfenced if caught up
    unfenced            | fenced       | controlled shutdown if it leads      | stays unfenced
                        |              | anything, else may go                |
    controlled shutdown | not looked at: may go once it leads nothing and the other active brokers know

A broker that may go is fenced. Its epoch is the offset of the record that registered its incarnation, so it
is caught up when its metadata offset has reached its epoch. One that was fenced for its silence must also
have applied that: what it sent before, and what was on its way for long, does not bring it back.

**Unreachable.** Where the system refuses a connection to a broker, its process is gone, and it is fenced at
once; unless a firewall did that. One that is heard of after it was accused is therefore believed for some
time: then only its session counts.

**Clean or not.** A broker says with its registration which epoch its data directories are complete for. Only
the epoch that is registered counts, or the one before if it has not been unfenced since: it has not been in
an ISR. Any other means that acknowledged records may be missing, and it leaves ISR and ELR.
"""

from __future__ import annotations

from enum import Enum

from odradek.controller import replicas
from odradek.controller.internal import BrokerUnreachableRequest, BrokerUnreachableResponse
from odradek.controller.settings import METADATA_VERSION
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.image import RESERVED_DIRECTORIES, BrokerImage
from odradek.metadata.records import (
    BrokerRegistrationChangeRecord,
    FeatureRange,
    Record,
    RegisterBrokerRecord,
)
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
from odradek.wire.messages.broker_registration import BrokerRegistrationRequest, BrokerRegistrationResponse
from odradek.wire.messages.unregister_broker import UnregisterBrokerRequest, UnregisterBrokerResponse
from odradek.wire.uuid import uuid_to_string


class BrokerState(Enum):
    FENCED = "fenced"
    UNFENCED = "unfenced"
    CONTROLLED_SHUTDOWN = "controlled shutdown"
    SHUTDOWN_NOW = "may go"


def register_broker(state: ControllerState, request: BrokerRegistrationRequest, version: int) -> Decision:
    """A broker introduces itself, or amends what it said. Errors: INCONSISTENT_CLUSTER_ID,
    DUPLICATE_BROKER_REGISTRATION, INVALID_REGISTRATION, UNSUPPORTED_VERSION.
    """
    if request.cluster_id != state.config.cluster_id:
        why = f"Expected cluster ID {state.config.cluster_id}, but got cluster ID {request.cluster_id}"
        raise KafkaError(ErrorCode.INCONSISTENT_CLUSTER_ID, why)
    existing = state.image.brokers.get(request.broker_id)
    _check_not_taken(state, request, existing)
    _check_directories(state, request)
    records: list[Record] = []
    amends = existing is not None and existing.incarnation == request.incarnation_id
    clean = existing is not None and _is_clean(existing, request.previous_broker_epoch)
    gone = set(existing.directories) - set(request.log_dirs) if existing is not None else set()
    if existing is not None:
        if amends:
            records = replicas.without_directories(state, existing, gone)
        else:
            lost = replicas.not_there(existing, set(request.log_dirs))
            records = replicas.without_broker(state, request.broker_id, unclean=not clean, lost=lost)
    record = RegisterBrokerRecord(
        broker_id=request.broker_id,
        incarnation_id=request.incarnation_id,
        broker_epoch=state.next_offset + len(records),
        endpoints=tuple(
            (each.name, each.host, each.port, each.security_protocol) for each in request.listeners
        ),
        features=_features(state, request),
        rack=request.rack,
        directories=tuple(request.log_dirs),
        complete_epoch=request.previous_broker_epoch if clean else -1,
        cordoned=existing.cordoned if existing is not None else (),  # its heartbeats tell what it is now
    )
    if amends and existing is not None:
        record.broker_epoch = existing.epoch
        record.fenced = existing.fenced
        record.in_controlled_shutdown = existing.in_controlled_shutdown
        record.complete_epoch = existing.complete_epoch
        record.lost_directories = existing.lost_directories or bool(gone)
    records.append(record)
    response = BrokerRegistrationResponse(broker_epoch=record.broker_epoch)
    return Decision(records, response, atomic=False)


def heartbeat(state: ControllerState, request: BrokerHeartbeatRequest, version: int) -> Decision:
    """A broker says that it lives, how far it has applied metadata, and what it wants. Error:
    STALE_BROKER_EPOCH.
    """
    state.check_broker_epoch(request.broker_id, request.broker_epoch)
    broker = state.image.brokers[request.broker_id]
    before = _present_state(broker)
    after = _next_state(state, broker, before, request)
    records = _transition(state, broker, before, after)
    fenced = after in (BrokerState.FENCED, BrokerState.SHUTDOWN_NOW)
    state.sessions.touch(broker.id, fenced, request.current_metadata_offset, state.now_ms)
    session = state.sessions[broker.id]
    if after is BrokerState.SHUTDOWN_NOW:
        state.sessions.ended(broker.id)
    if after is BrokerState.CONTROLLED_SHUTDOWN and session.shutdown_offset < 0:
        session.shutdown_offset = state.next_offset + len(records) - 1
    if request.offline_log_dirs:
        then = state.after(records)
        offline = set(request.offline_log_dirs)
        records += replicas.offline_directories(then, then.image.brokers[broker.id], offline)
    cordoned = request.cordoned_log_dirs
    if cordoned is not None and set(cordoned) != set(broker.cordoned):
        records.append(
            BrokerRegistrationChangeRecord(broker.id, broker.epoch, cordoned=tuple(sorted(cordoned)))
        )
    response = BrokerHeartbeatResponse(
        is_caught_up=request.current_metadata_offset >= broker.epoch,
        is_fenced=fenced,
        should_shut_down=after is BrokerState.SHUTDOWN_NOW,
    )
    return Decision(records, response, atomic=False)


def unregister_broker(state: ControllerState, request: UnregisterBrokerRequest, version: int) -> Decision:
    """An operator takes a broker out for good. Error: BROKER_ID_NOT_REGISTERED."""
    broker = state.image.brokers.get(request.broker_id)
    if broker is None:
        why = f"Broker ID {request.broker_id} is not currently registered"
        raise KafkaError(ErrorCode.BROKER_ID_NOT_REGISTERED, why)
    records = replicas.unregister(state, broker)
    return Decision(records, UnregisterBrokerResponse(), atomic=False)


def fence_stale(state: ControllerState) -> Decision | None:
    """Fence the broker that has been silent longest, if its session has run out. One at a time: the next is
    judged by what this one leaves.
    """
    for broker_id in state.sessions.stale(state.now_ms):
        return Decision(_fence(state, state.image.brokers[broker_id]), atomic=False)
    return None


def broker_unreachable(state: ControllerState, request: BrokerUnreachableRequest, version: int) -> Decision:
    """A connection to a broker was refused: it is fenced. Error: STALE_BROKER_EPOCH."""
    state.check_broker_epoch(request.broker_id, request.broker_epoch)
    broker = state.image.brokers[request.broker_id]
    records: list[Record] = []
    if not broker.fenced and state.sessions.accuse(broker.id, state.now_ms):
        records = _fence(state, broker)
    return Decision(records, BrokerUnreachableResponse(), atomic=False)


def _fence(state: ControllerState, broker: BrokerImage) -> list[Record]:
    """Fence a broker against its will."""
    records = replicas.fence(state, broker)
    state.sessions.fence(broker.id, state.next_offset + len(records) - 1)
    return records


def _is_clean(existing: BrokerImage, complete_epoch: int) -> bool:
    """Whether a broker whose data is complete for that epoch has all that the one registered could have."""
    return complete_epoch >= 0 and complete_epoch in (existing.epoch, existing.complete_epoch)


def _check_not_taken(
    state: ControllerState, request: BrokerRegistrationRequest, existing: BrokerImage | None
) -> None:
    if existing is None or existing.incarnation == request.incarnation_id or existing.in_controlled_shutdown:
        return
    if state.sessions.is_alive(request.broker_id, state.now_ms):
        raise KafkaError(
            ErrorCode.DUPLICATE_BROKER_REGISTRATION,
            "Another broker is registered with that broker id. If the broker was recently restarted this "
            "should self-resolve once the heartbeat manager expires the broker's session.",
        )


def _check_directories(state: ControllerState, request: BrokerRegistrationRequest) -> None:
    directories = request.log_dirs
    if not directories:
        raise KafkaError(ErrorCode.INVALID_REGISTRATION, "No directories specified in request")
    if any(int.from_bytes(directory, "big") < RESERVED_DIRECTORIES for directory in directories):
        raise KafkaError(ErrorCode.INVALID_REGISTRATION, "Reserved directory ID in request")
    if len(set(directories)) != len(directories):
        raise KafkaError(ErrorCode.INVALID_REGISTRATION, "Duplicate directory ID in request")
    for broker in state.image.brokers.values():
        for directory in directories:
            if broker.id != request.broker_id and directory in broker.directories:
                why = f"Broker {broker.id} is already registered with directory {uuid_to_string(directory)}"
                raise KafkaError(ErrorCode.INVALID_REGISTRATION, why)


def _features(state: ControllerState, request: BrokerRegistrationRequest) -> tuple[FeatureRange, ...]:
    """What the broker supports, checked to contain every finalized level."""
    offered = {f.name: (f.min_supported_version, f.max_supported_version) for f in request.features}
    if METADATA_VERSION not in offered:
        why = "Request features do not contain 'metadata.version'"
        raise KafkaError(ErrorCode.INVALID_REGISTRATION, why)
    for name in [*offered, *(name for name in state.image.features if name not in offered)]:
        level = state.image.features.get(name, 0)
        low, high = offered.get(name, (0, 0))
        if (level or name not in offered) and not low <= level <= high:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"Unable to register because the broker does not support finalized version {level} of {name}. "
                f"The broker wants a version between {low} and {high}, inclusive.",
            )
    return tuple((name, low, high) for name, (low, high) in offered.items())


def _present_state(broker: BrokerImage) -> BrokerState:
    if broker.fenced:
        return BrokerState.FENCED
    return BrokerState.CONTROLLED_SHUTDOWN if broker.in_controlled_shutdown else BrokerState.UNFENCED


def _next_state(
    state: ControllerState, broker: BrokerImage, before: BrokerState, request: BrokerHeartbeatRequest
) -> BrokerState:
    if before is BrokerState.FENCED:
        if request.want_shut_down:
            return BrokerState.SHUTDOWN_NOW
        must_know = max(broker.epoch, state.sessions[broker.id].fenced_at)
        caught_up = request.current_metadata_offset >= must_know
        return BrokerState.UNFENCED if caught_up and not request.want_fence else BrokerState.FENCED
    if before is BrokerState.UNFENCED:
        if request.want_fence:
            return BrokerState.SHUTDOWN_NOW if request.want_shut_down else BrokerState.FENCED
        if not request.want_shut_down:
            return BrokerState.UNFENCED
        return BrokerState.CONTROLLED_SHUTDOWN if _leads(state, broker.id) else BrokerState.SHUTDOWN_NOW
    handed_over = not _leads(state, broker.id)
    seen = state.sessions[broker.id].shutdown_offset <= state.sessions.lowest_active_offset()
    return BrokerState.SHUTDOWN_NOW if handed_over and seen else BrokerState.CONTROLLED_SHUTDOWN


def _transition(
    state: ControllerState, broker: BrokerImage, before: BrokerState, after: BrokerState
) -> list[Record]:
    if before is after:
        return []
    if after is BrokerState.UNFENCED:
        return replicas.unfence(state, broker)
    if after is BrokerState.CONTROLLED_SHUTDOWN:
        return replicas.begin_shutdown(state, broker)
    return [] if broker.fenced else replicas.fence(state, broker)


def _leads(state: ControllerState, broker_id: int) -> bool:
    return any(
        partition.leader == broker_id
        for topic in state.image.topics.values()
        for partition in topic.partitions.values()
    )
