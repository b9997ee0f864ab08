"""The active controller: decide, then replay.

    request ── handler ──► (records, response) ── replay ──► state ── append ──► Raft
                                                                                  │ committed
                                             response sent ◄── published ◄── loader (publisher.py)

This file holds all state changes. A handler reads `ControllerState` and decides. Its records are replayed
into the controller's own image, then appended; so the next decision sees everything appended, committed or
not. Clients and publishers see only what is committed: that has its own image, which the loader builds from
the log. When leadership is lost, the own image is thrown away, and who waits gets None instead of a
response: whether his records will be committed after all, nobody knows. A new leader starts from a copy of
the committed image.

A record that cannot be replayed is our mistake and must not reach the log, where it would stop every node:
the controller then gives up leadership, and with it the image that it has spoilt.

    state   | event                | next
    standby | on_leader            | active: state = committed image; sessions start; an empty log is begun
    active  | handle, a timer      | active: records replayed and appended
    active  | on_commit            | active: image published, then responses sent, in order
    active  | on_resign, a mistake | standby: waiting requests get None
    standby | on_commit            | standby: image published
    standby | handle               | standby: None
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol

from odradek.controller import brokers, features
from odradek.controller.internal import BROKER_UNREACHABLE
from odradek.controller.responses import error_response
from odradek.controller.sessions import NEVER, Sessions
from odradek.controller.settings import (
    BATCH_BYTES_MAX,
    PENDING_REQUESTS_MAX,
    RECORDS_PER_REQUEST_MAX,
    TOO_LARGE,
    ControllerConfig,
)
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.publisher import CommittedBatch, MetadataLoader
from odradek.metadata.records import Record
from odradek.ports.timers import Timer, TimerQueue
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.primitives import Message

Done = Callable[[Any], None]
"""Takes the response; None: this node is not, or no longer, the active controller, and what became of the
request is not known.
"""
NEXT_ROUND_MS = 50
"""Pause between rounds of elections when one was not enough."""
Handler = Callable[[ControllerState, Any, int], Decision]


class MetadataLog(Protocol):
    """The replicated log, as its leader writes it."""

    @property
    def end_offset(self) -> int:
        """Offset that the next record gets."""
        ...

    def append(self, records: list[bytes]) -> int:
        """Append as one batch, all or nothing; the offset of the last one. KafkaError(NOT_CONTROLLER)."""
        ...

    def resign(self) -> None:
        """Give up leadership."""
        ...


class _Waiting(NamedTuple):
    """A response that may be sent once `offset` is committed."""

    offset: int
    request: Message
    response: Message | None
    done: Done


class QuorumController:
    """The controller of one node: active while the node leads the metadata quorum, else standing by."""

    def __init__(
        self,
        config: ControllerConfig,
        rng: Random,
        loader: MetadataLoader,
        log: MetadataLog,
        timers: TimerQueue,
        warn: Callable[..., None] | None = None,
    ) -> None:
        """`warn(text, **details)`: an answer could not be taken; without it such an error is raised."""
        self.active = False
        self._config = config
        self._loader = loader
        self._log = log
        self._timers = timers
        self._warn = warn
        self._state = ControllerState(config, rng, loader.image, Sessions(config.broker_session_timeout_ms))
        self._epoch = -1
        self._committed = -1
        self._written = -1
        """Offset of the last record that this controller wrote: what it answers rests on nothing behind it."""
        self._waiting: deque[_Waiting] = deque()
        self._session_timer: Timer | None = None
        self._election_timers: dict[bool, Timer] = {}
        """For preferred leaders (True), and for partitions without a leader."""

    @property
    def state(self) -> ControllerState:
        """What decisions are made from. For handlers and invariant checks; not to be changed."""
        return self._state

    @property
    def pending(self) -> int:
        """Requests that wait for the metadata log."""
        return len(self._waiting)

    # -- requests ------------------------------------------------------------------------------------------

    def handle(self, request: Message, version: int, now_ms: int, done: Done) -> None:
        """Decide a request; `done` is called once, here or when what it wrote is committed."""
        if not self.active:
            done(None)
            return
        if len(self._waiting) >= PENDING_REQUESTS_MAX:
            why = f"{PENDING_REQUESTS_MAX} requests wait for the metadata log already."
            done(error_response(request, version, ErrorCode.REQUEST_TIMED_OUT, why))
            return
        self._look_up(now_ms)
        try:
            decision = handler_of(request.API_KEY)(self._state, request, version)
            self._write(decision)
        except KafkaError as error:
            lost = error.code is ErrorCode.NOT_CONTROLLER
            done(None if lost else error_response(request, version, error.code, error.message))
            return
        except Exception as error:  # our mistake; asked again, the request would end every controller's time
            if self._warn is None:
                raise
            self._warn("a request failed in the controller", request=repr(request), error=repr(error))
            done(error_response(request, version, ErrorCode.UNKNOWN_SERVER_ERROR))
            return
        assert decision.response is not None, "requests have responses"
        if self._written <= self._committed:
            done(decision.response)
        else:
            self._waiting.append(_Waiting(self._written, request, decision.response, done))

    def _look_up(self, now_ms: int) -> None:
        """Before a decision: when it is, and where its records will be. Raft appends records of its own: voters."""
        self._state.now_ms = now_ms
        self._state.next_offset = self._log.end_offset

    def _write(self, decision: Decision) -> None:
        """Replay and append, in one batch unless the decision may be cut."""
        for records in _batches(decision):
            encoded = [record.encode() for record in records]
            if sum(map(len, encoded)) > BATCH_BYTES_MAX:
                raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
            try:
                last_offset = self._replay(records)
                appended = self._log.append(encoded)
                assert appended == last_offset, f"appended to {appended}, expected {last_offset}"
                self._written = appended
            except BaseException:
                self.on_resign()  # the own image is ahead of the log
                self._log.resign()
                raise
        self._arm_session_timer()

    def _replay(self, records: list[Record]) -> int:
        """Change the state as the records say; the offset that the last one will have."""
        state = self._state
        delta = MetadataDelta(state.image, in_place=True)
        for record in records:
            delta.replay(record)
        last_offset = state.next_offset + len(records) - 1
        state.image = delta.apply(last_offset, self._epoch)
        state.next_offset = last_offset + 1
        self._follow(delta)
        return last_offset

    def _follow(self, delta: MetadataDelta) -> None:
        """Keep what is derived from the image."""
        state = self._state
        state.names.update(delta)
        for broker_id in delta.brokers_changed:
            broker = state.image.brokers.get(broker_id)
            if broker is None:
                state.sessions.remove(broker_id)
            else:
                state.sessions.register(broker_id, broker.epoch, broker.fenced, state.now_ms)

    # -- Raft ----------------------------------------------------------------------------------------------

    def on_leader(self, epoch: int, now_ms: int) -> None:
        """This node leads, and everything before this epoch has come through `on_commit`."""
        assert not self.active, "a leader is elected once an epoch"
        state = self._state
        self.active = True
        self._epoch = epoch
        self._committed = self._written = self._log.end_offset - 1
        state.now_ms = now_ms
        state.image = self._loader.image.private_copy()
        state.next_offset = self._log.end_offset
        state.names.rebuild(state.image.topics)
        for broker in state.image.brokers.values():
            state.sessions.register(broker.id, broker.epoch, broker.fenced, now_ms)
        if not state.image.features:
            self._write(Decision(features.bootstrap(state)))
        self._arm_session_timer()
        self._arm_elections()

    def on_resign(self) -> None:
        """This node leads no longer: what is not committed may or may not come back through `on_commit`."""
        self.active = False
        self._state.image = self._loader.image
        self._state.sessions.clear()
        if self._session_timer is not None:
            self._session_timer.cancel()
            self._session_timer = None
        for timer in self._election_timers.values():
            timer.cancel()
        self._election_timers.clear()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            self._answer(each._replace(response=None))

    def on_commit(self, batches: Sequence[CommittedBatch]) -> None:
        """Raft committed these batches: the image is published, then the responses that waited for them are
        sent.
        """
        self._loader.on_commit(batches)
        for batch in batches:
            self._committed = max(self._committed, batch.last_offset)
        while self._waiting and self._waiting[0].offset <= self._committed:
            self._answer(self._waiting.popleft())

    def _answer(self, waiting: _Waiting) -> None:
        """A client whose answer cannot be sent is no reason to stop applying metadata."""
        try:
            waiting.done(waiting.response)
        except Exception as error:
            if self._warn is None:
                raise
            self._warn(
                "an answer of the controller was lost",
                request=type(waiting.request).__name__,
                error=repr(error),
            )

    # -- sessions ------------------------------------------------------------------------------------------

    def _arm_session_timer(self) -> None:
        if self._session_timer is None and self.active:
            deadline = self._state.sessions.next_check_ms()
            if deadline != NEVER:
                self._session_timer = self._timers.at(deadline, self._check_sessions)

    def _check_sessions(self, now_ms: int) -> None:
        """Fence brokers that were not heard of in time."""
        self._session_timer = None
        self._look_up(now_ms)
        while self.active and (decision := brokers.fence_stale(self._state)) is not None:
            try:
                self._write(decision)
            except KafkaError:
                return  # leadership is lost, and the sessions with it
        self._arm_session_timer()

    # -- elections -----------------------------------------------------------------------------------------

    def _arm_elections(self) -> None:
        for preferred in (False, True) if self._config.auto_leader_rebalance_enable else (False,):
            self._arm_election(preferred, self._state.now_ms + self._election_interval_ms(preferred))

    def _election_interval_ms(self, preferred: bool) -> int:
        config = self._config
        return config.leader_imbalance_check_interval_ms if preferred else config.unclean_election_interval_ms

    def _arm_election(self, preferred: bool, at_ms: int) -> None:
        if self.active:
            self._election_timers[preferred] = self._timers.at(
                at_ms, lambda now_ms: self._hold_elections(preferred, now_ms)
            )

    def _hold_elections(self, preferred: bool, now_ms: int) -> None:
        """One round of elections, and the next: soon if there was more to do."""
        from odradek.controller import elections

        self._look_up(now_ms)
        hold = elections.preferred_leaders if preferred else elections.leaders_for_leaderless
        try:
            decision = hold(self._state)
            self._write(decision)
        except KafkaError:
            return  # leadership is lost
        full = len(decision.records) >= elections.ELECTIONS_PER_ROUND_MAX
        pause_ms = NEXT_ROUND_MS if full else self._election_interval_ms(preferred)
        self._arm_election(preferred, now_ms + pause_ms)


def _batches(decision: Decision) -> Iterator[list[Record]]:
    """The records of a decision in pieces that Raft takes at once."""
    records = decision.records
    if decision.atomic or len(records) <= RECORDS_PER_REQUEST_MAX:
        if records:
            yield records
        return
    for start in range(0, len(records), RECORDS_PER_REQUEST_MAX):
        yield records[start : start + RECORDS_PER_REQUEST_MAX]


def handler_of(api_key: int) -> Handler:
    """The function that decides requests of an API. KafkaError(UNSUPPORTED_VERSION) if there is none.

    Imports are made on first use: a node that starts needs registration and heartbeats only.
    """
    match api_key:
        case ApiKey.BROKER_REGISTRATION:
            return brokers.register_broker
        case ApiKey.BROKER_HEARTBEAT:
            return brokers.heartbeat
        case ApiKey.UNREGISTER_BROKER:
            return brokers.unregister_broker
        case _ if api_key == BROKER_UNREACHABLE:
            return brokers.broker_unreachable
        case ApiKey.UPDATE_FEATURES:
            return features.update_features
        case ApiKey.ALLOCATE_PRODUCER_IDS:
            from odradek.controller import producer_ids

            return producer_ids.allocate_producer_ids
        case ApiKey.CREATE_TOPICS | ApiKey.DELETE_TOPICS:
            from odradek.controller import topics

            return topics.create_topics if api_key == ApiKey.CREATE_TOPICS else topics.delete_topics
        case ApiKey.ALTER_CONFIGS | ApiKey.INCREMENTAL_ALTER_CONFIGS:
            from odradek.controller import configs

            legacy = api_key == ApiKey.ALTER_CONFIGS
            return configs.alter_configs if legacy else configs.incremental_alter_configs
        case ApiKey.ELECT_LEADERS:
            from odradek.controller import elections

            return elections.elect_leaders
        case ApiKey.CREATE_PARTITIONS | ApiKey.ALTER_PARTITION:
            from odradek.controller import partitions

            alters = api_key == ApiKey.ALTER_PARTITION
            return partitions.alter_partition if alters else partitions.create_partitions
        case ApiKey.ALTER_PARTITION_REASSIGNMENTS | ApiKey.LIST_PARTITION_REASSIGNMENTS:
            from odradek.controller import reassignments

            alters = api_key == ApiKey.ALTER_PARTITION_REASSIGNMENTS
            if alters:
                return reassignments.alter_partition_reassignments
            return reassignments.list_partition_reassignments
        case ApiKey.ASSIGN_REPLICAS_TO_DIRS:
            from odradek.controller import directories

            return directories.assign_replicas_to_dirs
    raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"The controller does not serve API {api_key}.")
