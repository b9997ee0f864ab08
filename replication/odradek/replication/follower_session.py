"""The follower's end of a stream: one leader, all partitions fetched from it.

Carries out what `FollowerState` decides: append, truncate, begin anew, back off. Acknowledges after the append, or
after the fsync where the topic asks for it. Connects again, with a back-off, as long as there is something to fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from odradek.replication.follower import FollowerState, Phase, Step
from odradek.replication.messages import STATES_MAX, FetchData, FetchDown, FetchState, FetchUp, charge
from odradek.replication.replica import PartitionKey, Replica
from odradek.replication.throttle import LOOK_AGAIN_MS
from odradek.storage.batch import HEADER_SIZE, parse_header
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from random import Random

    from odradek.ports.clock import Clock
    from odradek.ports.disk import Syncer
    from odradek.ports.timers import Timer, TimerQueue
    from odradek.replication.config import ReplicationConfig
    from odradek.replication.metrics import ReplicationMetrics
    from odradek.replication.ports import ReplicationTransport, Stream
    from odradek.replication.throttle import ReplicationQuota
    from odradek.storage.log import Log

_DOUBLINGS_MAX: Final = 10
_CREDIT_RETURNED_AT: Final = 4
"""Credit goes back with acknowledgements, or alone once a fourth of the window is to be given back."""


class FollowerHost(Protocol):
    """What a session needs of its driver."""

    config: ReplicationConfig
    metrics: ReplicationMetrics
    follower_quota: ReplicationQuota
    syncer: Syncer
    timers: TimerQueue
    clock: Clock
    rng: Random
    transport: ReplicationTransport
    node_id: int
    broker_epoch: int

    def next_session(self) -> int: ...
    def mark_follower(self, session: FollowerSession) -> None: ...
    def follower_moved(self, replica: Replica) -> None: ...
    def failed(self, replica: Replica, error: OSError) -> None: ...
    def flush(self) -> None: ...


class Fetching:
    """One partition that is fetched."""

    __slots__ = ("acked_end", "held", "replica", "state", "syncing")

    def __init__(self, replica: Replica, state: FollowerState) -> None:
        self.replica = replica
        self.state = state
        self.acked_end = -1
        """What the next `FetchState` says."""
        self.syncing = False
        self.held = False
        """Its acknowledgement waits for the quota."""


class _Events:
    """Events of one stream; those of an earlier stream are nobody's."""

    __slots__ = ("_session", "number")

    def __init__(self, session: FollowerSession, number: int) -> None:
        self._session = session
        self.number = number

    def received(self, message: FetchDown) -> None:
        if self._session.session == self.number:
            self._session.received(message)

    def closed(self, reason: str) -> None:
        if self._session.session == self.number:
            self._session.closed(reason)


class FollowerSession:
    """All that this node fetches from one broker."""

    __slots__ = (
        "_credit", "_due", "_failures", "_generation", "_host", "_parts", "_reconnect", "_stream", "last_error",
        "leader_id", "marked", "session",
    )  # fmt: skip

    def __init__(self, host: FollowerHost, leader_id: int) -> None:
        self._host = host
        self.leader_id = leader_id
        self.session = -1
        """-1: no stream."""
        self.marked = False
        self.last_error = ""
        self._stream: Stream | None = None
        self._parts: dict[PartitionKey, Fetching] = {}
        self._due: dict[Fetching, None] = {}
        """Whose state is to be told, in the order in which it changed."""
        self._credit = 0
        self._generation = 0
        """Of the last start of any partition on this stream."""
        self._failures = 0
        self._reconnect: Timer | None = None

    # From the driver ---------------------------------------------------------------------------------------------

    def add(self, replica: Replica) -> None:
        """Fetch `replica`, whose `follower` state is new. Its log is cut to what its epochs vouch for."""
        state = replica.follower
        assert state is not None and state.leader_id == self.leader_id
        fetching = self._parts[replica.key] = Fetching(replica, state)
        if self._stream is not None:
            self._start(fetching)
        self._mark()

    def remove(self, replica: Replica) -> None:
        fetching = self._parts.pop(replica.key, None)
        if fetching is not None:
            self._due.pop(fetching, None)
            self._mark()

    def flush(self) -> None:
        """Tell what is due; connect if there is no stream, close it if there is nothing to fetch."""
        self.marked = False
        if not self._parts:
            self.end()
            return
        if self._stream is None:
            if self._reconnect is None:
                self._connect()
            return
        due, credit = self._due, self._credit
        if not due and credit * _CREDIT_RETURNED_AT < self._host.config.stream_window_bytes:
            return
        self._due = {}
        self._credit = 0
        states = [_fetch_state(fetching) for fetching in due]
        self._send(credit, tuple(states[:STATES_MAX]))
        for at in range(STATES_MAX, len(states), STATES_MAX):
            self._send(0, tuple(states[at : at + STATES_MAX]))

    def end(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._host.metrics.streams_ended += 1
        if self._reconnect is not None:
            self._reconnect.cancel()
        self._stream = self._reconnect = None
        self.session = -1

    def renew(self) -> None:
        """The registration of this node is another: what it says is to carry the new broker epoch."""
        self.end()
        self._mark()

    @property
    def fetching(self) -> list[Fetching]:
        return list(self._parts.values())

    # The stream --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        host = self._host
        self.session = host.next_session()
        self._credit = host.config.stream_window_bytes
        self._due = {}
        self._stream = host.transport.connect(self.leader_id, _Events(self, self.session))
        host.metrics.streams_opened += 1
        self._generation = 0
        for fetching in list(self._parts.values()):
            fetching.state.generation = 0
            if fetching.state.phase not in (Phase.STOPPED, Phase.FAILED):
                self._start(fetching)
        self._mark()

    def _send(self, credit: int, states: tuple[FetchState, ...]) -> None:
        assert self._stream is not None
        host = self._host
        host.metrics.messages_out += 1
        self._stream.send(FetchUp(host.node_id, host.broker_epoch, self.session, credit, states))

    def received(self, message: FetchDown) -> None:
        host = self._host
        if message.session != self.session:
            host.metrics.dropped += len(message.data)
            return
        self._failures = 0
        host.metrics.messages_in += 1
        for data in message.data:
            self._credit += charge(data)
            fetching = self._parts.get((data.topic_id, data.partition))
            if fetching is None:
                host.metrics.dropped += 1
            else:
                self._take(fetching, data)
        self._mark()
        host.flush()

    def closed(self, reason: str) -> None:
        self._stream = None
        self.session = -1
        self.last_error = reason
        host = self._host
        host.metrics.streams_ended += 1
        config = host.config
        delay = min(config.reconnect_backoff_ms << min(self._failures, _DOUBLINGS_MAX), config.backoff_max_ms)
        self._failures += 1
        delay += host.rng.randrange(1 + delay // 4)
        self._reconnect = host.timers.at(host.clock.monotonic_ms() + delay, self._connect_again)

    def _connect_again(self, now_ms: int) -> None:
        self._reconnect = None
        self._mark()
        self._host.flush()

    # Data --------------------------------------------------------------------------------------------------------

    def _take(self, fetching: Fetching, data: FetchData) -> None:
        state, replica, host = fetching.state, fetching.replica, self._host
        if data.error is not ErrorCode.NONE:
            host.metrics.fetch_errors += 1
        step, offset = state.decide(data, replica.log, host.clock.monotonic_ms())
        if step is Step.TAKE:
            try:
                self._append(fetching, data)
            except KafkaError as error:
                self._refuse(fetching, error)
            except OSError as error:
                host.failed(replica, error)
        elif step is Step.TRUNCATE or step is Step.START_ANEW:
            self._cut(fetching, step, offset)
        elif step is Step.RETRY:
            self._retry_later(fetching)
        elif step is Step.DROP:
            host.metrics.dropped += 1

    def _append(self, fetching: Fetching, data: FetchData) -> None:
        replica, state = fetching.replica, fetching.state
        log = replica.log
        if data.batches:
            _append(log, memoryview(data.batches), self._host.clock.wall_ms())
            self._host.metrics.bytes_in += len(data.batches)
        if data.log_start_offset > log.log_start_offset:
            log.advance_log_start(min(data.log_start_offset, log.log_end_offset))
            self._due[fetching] = None
        if state.taken(data, log.log_end_offset):
            self._host.follower_moved(replica)
        if data.batches:
            self._acknowledge(fetching, len(data.batches))

    def _acknowledge(self, fetching: Fetching, size: int) -> None:
        """The follower's end moved: tell it, once it may be told."""
        replica = fetching.replica
        log = replica.log
        if replica.sync_before_ack:
            self._sync(fetching)
            return
        fetching.acked_end = log.log_end_offset
        if log.must_flush:
            self._sync(fetching)
        quota = self._host.follower_quota
        if quota.applies(replica.name) and self._is_held(fetching, size):
            return
        self._due[fetching] = None

    def _is_held(self, fetching: Fetching, size: int) -> bool:
        """A throttled replica that is behind acknowledges no faster than its quota (KIP-73)."""
        if self._is_behind(fetching):
            self._host.follower_quota.consume(size, self._host.clock.monotonic_ms())
            return fetching.held or self._holds(fetching)
        return False

    @staticmethod
    def _is_behind(fetching: Fetching) -> bool:
        return fetching.acked_end < fetching.state.leader_high_watermark

    def _holds(self, fetching: Fetching) -> bool:
        """Whether it has to wait now; a timer looks again."""
        host = self._host
        now_ms = host.clock.monotonic_ms()
        quota = host.follower_quota
        wait_ms = quota.wait_ms(now_ms) if quota.applies(fetching.replica.name) else 0
        if wait_ms == 0 or not self._is_behind(fetching):
            return False
        fetching.held = True
        host.metrics.throttled += 1
        host.timers.at(now_ms + min(wait_ms, LOOK_AGAIN_MS), lambda _now: self._release(fetching))
        return True

    def _release(self, fetching: Fetching) -> None:
        fetching.held = False
        if self._is_current(fetching) and fetching.state.generation > 0 and not self._holds(fetching):
            self._due[fetching] = None
            self._mark()
            self._host.flush()

    def _sync(self, fetching: Fetching) -> None:
        """fsync, one at a time per partition; what arrives meanwhile is the next."""
        if fetching.syncing:
            return
        replica, state = fetching.replica, fetching.state
        log = replica.log
        end, generation, session = log.log_end_offset, state.generation, self.session
        fetching.syncing = True

        def done(error: OSError | None) -> None:
            fetching.syncing = False
            if error is not None:
                self._host.failed(replica, error)
            elif self._is_current(fetching) and replica.sync_before_ack:
                self._synced(fetching, end, current=(generation, session) == (state.generation, self.session))
                self._host.flush()

        log.sync(self._host.syncer, done)

    def _synced(self, fetching: Fetching, end: int, *, current: bool) -> None:
        if fetching.state.phase is Phase.SYNCING:
            self._start(fetching)
            return
        if current and end > fetching.acked_end:
            fetching.acked_end = end
            self._due[fetching] = None
            self._mark()
        if fetching.replica.log.log_end_offset > end:
            self._sync(fetching)

    def _cut(self, fetching: Fetching, step: Step, offset: int) -> None:
        replica, state = fetching.replica, fetching.state
        log = replica.log
        before = log.log_end_offset
        try:
            if step is Step.TRUNCATE:
                self._host.metrics.divergences += 1
                log.truncate_to(offset)
                state.truncated(log.log_end_offset)
            else:
                self._host.metrics.offset_resets += 1
                log.truncate_fully_and_start_at(offset, self._host.clock.wall_ms())
                state.restarted_at(offset)
        except KafkaError as error:
            self._refuse(fetching, error)
            return
        self._host.metrics.truncated_offsets += max(0, before - log.log_end_offset)
        self._host.follower_moved(replica)
        self._start(fetching)

    def _refuse(self, fetching: Fetching, error: KafkaError) -> None:
        """The log did not take it: the disk, or the batches."""
        if error.code is ErrorCode.KAFKA_STORAGE_ERROR:
            self._host.failed(fetching.replica, OSError(str(error)))
            return
        self._host.metrics.corrupt_batches += 1
        fetching.state.reject(self._host.clock.monotonic_ms())
        self._retry_later(fetching)

    # Starts ------------------------------------------------------------------------------------------------------

    def _start(self, fetching: Fetching) -> None:
        """Tell the leader where this log ends, in a new generation; first make sure that it may be told."""
        replica, state = fetching.replica, fetching.state
        log = replica.log
        if replica.sync_before_ack and log.recovery_point < log.log_end_offset:
            state.phase = Phase.SYNCING
            self._sync(fetching)
            return
        self._generation += 1
        state.begin(self._generation)
        fetching.acked_end = log.log_end_offset
        self._due[fetching] = None
        self._mark()

    def _retry_later(self, fetching: Fetching) -> None:
        state, session = fetching.state, self.session
        generation = state.generation

        def retry(_now_ms: int) -> None:
            waits = state.phase is Phase.BACKING_OFF and state.generation == generation
            if waits and self._is_current(fetching) and self.session == session:
                self._start(fetching)
                self._host.flush()

        self._host.timers.at(state.retry_at_ms, retry)

    def _is_current(self, fetching: Fetching) -> bool:
        return self._stream is not None and self._parts.get(fetching.replica.key) is fetching

    def _mark(self) -> None:
        if not self.marked:
            self._host.mark_follower(self)


def _append(log: Log, batches: memoryview, wall_ms: int) -> None:
    """Append and write. KafkaError: nothing of it is in the log; OSError: the log is offline.

    The leader's log start may lie within a batch. An empty log that begins there takes that batch whole, and has its
    log start moved up again with what else the leader says.
    """
    start = log.log_start_offset
    if log.log_end_offset == start and len(batches) >= HEADER_SIZE:
        first = parse_header(batches)
        if 0 <= first.base_offset < start <= first.last_offset:
            log.truncate_fully_and_start_at(first.base_offset, wall_ms)
    try:
        log.append_as_follower(batches, wall_ms)
    except KafkaError:
        if not log.offline and log.log_end_offset < start:
            log.truncate_fully_and_start_at(start, wall_ms)
        raise
    log.write_staged()


def _fetch_state(fetching: Fetching) -> FetchState:
    replica, state = fetching.replica, fetching.state
    log = replica.log
    return FetchState(
        *replica.key, state.leader_epoch, fetching.acked_end, log.epochs.latest, log.log_start_offset,
        state.generation,
    )  # fmt: skip
