"""The leader's end of a stream: one follower, all partitions it fetches from here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from odradek.replication.leader import check_position
from odradek.replication.messages import (
    BATCH_BYTES_MAX,
    DATA_OVERHEAD,
    STATES_MAX,
    FetchData,
    FetchDown,
    FetchState,
    FetchUp,
)
from odradek.replication.replica import PartitionKey, Replica
from odradek.replication.throttle import LOOK_AGAIN_MS
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from odradek.ports.disk import Syncer
    from odradek.ports.timers import TimerQueue
    from odradek.replication.config import ReplicationConfig
    from odradek.replication.metrics import ReplicationMetrics
    from odradek.replication.ports import DownStream
    from odradek.replication.throttle import ReplicationQuota
    from odradek.storage.reads import ReadResult

SHARE_BYTES_MIN: Final = 64 << 10
"""What a partition may fill of a message however many others wait."""
CREDIT_BYTES_MAX: Final = 1 << 30
"""No follower can make us send more than this unasked."""
SMALL_IN_FLIGHT_MAX: Final = 2
SMALL_BYTES: Final = 1 << 20
"""While so many messages, and no more than so many bytes, have no acknowledgement, what is appended waits for one to
join it: under load each message then carries all that came meanwhile. A message costs 100 µs of CPU at its two ends, a
batch in it 5; a lone request finds nothing in flight and never waits.
"""
REMEMBERED: Final = frozenset(
    {
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
)
"""Refusals that newer metadata can undo here."""


class LeaderHost(Protocol):
    """What a session needs of its driver."""

    config: ReplicationConfig
    metrics: ReplicationMetrics
    leader_quota: ReplicationQuota
    syncer: Syncer
    timers: TimerQueue

    def now_ms(self) -> int: ...
    def find(self, key: PartitionKey) -> Replica | None: ...
    def admit(self, session: LeaderSession) -> bool: ...
    def forget(self, session: LeaderSession) -> None: ...
    def mark(self, session: LeaderSession) -> None: ...
    def linger_for_acks(self) -> None: ...
    def fetched(
        self, replica: Replica, follower_id: int, end: int, start: int, broker_epoch: int
    ) -> None: ...
    def read(self, replica: Replica, offset: int, max_bytes: int, min_one: bool) -> ReadResult: ...
    def flush(self) -> None: ...


class Outgoing:
    """One partition on its way to one follower, in one generation."""

    __slots__ = (
        "acked", "behind", "generation", "high_watermark", "live", "log_start", "next_offset", "queued", "replica",
        "session", "stale", "unacked", "waits", "warm_offset", "window",
    )  # fmt: skip

    def __init__(self, session: LeaderSession, replica: Replica, state: FetchState) -> None:
        self.session = session
        self.replica = replica
        self.generation = state.generation
        self.acked = state.fetch_offset
        self.next_offset = state.fetch_offset
        self.window: deque[tuple[int, int, int]] = deque()
        """(end offset, bytes, number of the message) of what was sent and is not acknowledged."""
        self.unacked = 0
        self.high_watermark = -1
        self.log_start = -1
        """As last told; -1: nothing was yet."""
        self.live = True
        self.queued = False
        self.stale = False
        """A newer high watermark waits to be told."""
        self.waits = False
        """For the disk, or for its quota."""
        self.warm_offset = -1
        """Where the disk thread has been."""
        self.behind = state.fetch_offset < replica.log.written_end_offset
        """Has not reached the log end yet: what it reads may be cold."""


class LeaderSession:
    """`odradek.replication.ports.UpEvents` of one stream."""

    __slots__ = (
        "_acked_message", "_answers", "_generations", "_held_at", "_host", "_message", "_outgoing", "_ready",
        "_remembered", "_sent_message", "_stream", "_unacked", "broker_epoch", "credit", "ended", "follower_id", "held",
        "marked", "session", "stale",
    )  # fmt: skip

    def __init__(self, host: LeaderHost, stream: DownStream) -> None:
        self._host = host
        self._stream = stream
        self.follower_id = -1
        """-1 until the first message."""
        self.broker_epoch = -1
        self.session = -1
        self.credit = 0
        self.marked = False
        """In the driver's list of those that have something to send."""
        self.stale: list[Outgoing] = []
        self.held = False
        """What is ready waits for an acknowledgement; the driver's linger bounds that."""
        self.ended = False
        self._sent_message = 0
        """Number of the last message whose acknowledgement waits for nothing but its way."""
        self._acked_message = 0
        self._message = 1
        """Number of the message that is being filled."""
        self._held_at = 0
        """What was acknowledged when something began to wait."""
        self._unacked = 0
        """Bytes of all partitions."""
        self._outgoing: dict[PartitionKey, Outgoing] = {}
        self._generations: dict[PartitionKey, int] = {}
        self._remembered: dict[PartitionKey, FetchState] = {}
        self._ready: deque[Outgoing] = deque()
        self._answers: deque[FetchData] = deque()

    # UpEvents ----------------------------------------------------------------------------------------------------

    def received(self, message: FetchUp) -> None:
        if self.ended or not self._is_ours(message):
            return
        self.credit = min(self.credit + max(message.credit_bytes, 0), CREDIT_BYTES_MAX)
        self._host.metrics.messages_in += 1
        for state in message.states:
            if self.ended:
                return
            key = (state.topic_id, state.partition)
            outgoing = self._outgoing.get(key)
            if outgoing is not None and outgoing.generation == state.generation:
                self._acknowledged(outgoing, state)
            elif state.generation > self._generations.get(key, 0):
                self._generations[key] = state.generation
                self._start(key, state)
        self._host.mark(self)
        self._host.flush()

    def drained(self) -> None:
        self._host.mark(self)
        self._host.flush()

    def closed(self) -> None:
        if not self.ended:
            self.end(close=False)

    def end(self, *, close: bool = True) -> None:
        """Nothing is sent or listened to any more."""
        self.ended = True
        for outgoing in list(self._outgoing.values()):
            self._detach(outgoing)
        self._remembered.clear()
        self._ready.clear()
        self._answers.clear()
        self.stale.clear()
        self._host.forget(self)
        if close:
            self._stream.close()

    def _is_ours(self, message: FetchUp) -> bool:
        """The first message says who it is; that does not change."""
        if self.follower_id < 0:
            self.follower_id, self.broker_epoch = message.follower_id, message.broker_epoch
            self.session = message.session
            if self._host.admit(self):
                return True
        elif (message.follower_id, message.broker_epoch, message.session) == (
            self.follower_id, self.broker_epoch, self.session,
        ):  # fmt: skip
            return True
        self.end()
        return False

    # From the driver ---------------------------------------------------------------------------------------------

    def wake(self, outgoing: Outgoing) -> None:
        """There is something to send."""
        if not outgoing.queued and not outgoing.waits:
            outgoing.queued = True
            self._ready.append(outgoing)
        if not self.marked:
            self._host.mark(self)

    def tell_stale(self) -> None:
        """The linger is over: high watermarks that nothing has taken along travel alone."""
        stale, self.stale = self.stale, []
        for outgoing in stale:
            outgoing.stale = False
            if outgoing.live and outgoing.high_watermark != outgoing.replica.high_watermark:
                self.wake(outgoing)

    def leads(self, replica: Replica) -> None:
        """This node leads now; what was refused before may be right."""
        state = self._remembered.pop(replica.key, None)
        if state is not None:
            self._start(replica.key, state)
            self._host.mark(self)

    def drop(self, outgoing: Outgoing) -> None:
        """This node leads no more, or in another epoch. The follower will hear of it."""
        self._detach(outgoing)

    def forget(self, key: PartitionKey) -> None:
        """There is no such partition any more."""
        self._generations.pop(key, None)
        self._remembered.pop(key, None)

    # States ------------------------------------------------------------------------------------------------------

    def _acknowledged(self, outgoing: Outgoing, state: FetchState) -> None:
        end = state.fetch_offset
        if not outgoing.acked <= end <= outgoing.next_offset:
            self.end()  # not what it was sent: let it begin again with a clean session
            return
        outgoing.acked = end
        window = outgoing.window
        while window and window[0][0] <= end:
            _, size, number = window.popleft()
            outgoing.unacked -= size
            self._unacked -= size
            if number > self._acked_message:
                self._acked_message = number
        replica = outgoing.replica
        self._host.fetched(replica, self.follower_id, end, state.log_start_offset, self.broker_epoch)
        if outgoing.live and outgoing.next_offset < replica.log.written_end_offset:
            self.wake(outgoing)

    def _start(self, key: PartitionKey, state: FetchState) -> None:
        before = self._outgoing.get(key)
        if before is not None:
            self._detach(before)
        self._remembered.pop(key, None)
        replica = self._host.find(key)
        if replica is None:
            self._refuse(key, state, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return
        leader = replica.leader
        if leader is None:
            self._refuse(key, state, ErrorCode.NOT_LEADER_OR_FOLLOWER)
            return
        error = leader.check_epoch(state.current_leader_epoch)
        if error is ErrorCode.NONE:
            error = leader.check_follower(self.follower_id, self.broker_epoch)
        diverging = None
        if error is ErrorCode.NONE:
            error, diverging = check_position(replica.log, state.fetch_offset, state.last_fetched_epoch)
        if error is not ErrorCode.NONE or diverging is not None:
            self._refuse(key, state, error, replica, diverging)
            return
        outgoing = Outgoing(self, replica, state)
        self._outgoing[key] = outgoing
        replica.outgoing.append(outgoing)
        self._host.fetched(
            replica, self.follower_id, state.fetch_offset, state.log_start_offset, self.broker_epoch
        )
        self.wake(outgoing)

    def _refuse(
        self, key: PartitionKey, state: FetchState, error: ErrorCode, replica: Replica | None = None,
        diverging: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        if error in REMEMBERED:
            self._remembered[key] = state
        leader = replica.leader if replica is not None else None
        plain = error is ErrorCode.NONE and leader is not None
        self._answers.append(
            FetchData(
                *key,
                leader.leader_epoch if leader is not None else -1,
                state.generation,
                error,
                diverging,
                leader.high_watermark if plain and leader is not None else -1,
                replica.log.log_start_offset if replica is not None else -1,
                state.fetch_offset,
                b"",
            )
        )

    def _detach(self, outgoing: Outgoing) -> None:
        outgoing.live = False
        replica = outgoing.replica
        self._unacked -= outgoing.unacked
        outgoing.unacked = 0
        if outgoing.window:  # nobody will acknowledge it
            self._acked_message = max(self._acked_message, outgoing.window.pop()[2])
            outgoing.window.clear()
        self._outgoing.pop(replica.key, None)
        if outgoing in replica.outgoing:
            replica.outgoing.remove(outgoing)

    # Sending -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send one message of what is ready, as far as the credit and the transport go; then it is others' turn."""
        self.marked = False
        if self._may_send() and not self._must_join():
            self._message = self._sent_message + 1
            data = self._fill()
            if data:
                self._host.metrics.messages_out += 1
                self._stream.send(FetchDown(self.session, tuple(data)))
                if self._may_send():
                    self._host.mark(self)

    def _may_send(self) -> bool:
        something = self._ready or self._answers
        return bool(something) and self.credit > 0 and not self.ended and self._stream.writable

    def _must_join(self) -> bool:
        """Whether small messages are on their way: then the next one goes when one of them is acknowledged."""
        in_flight = self._sent_message - self._acked_message
        if in_flight < SMALL_IN_FLIGHT_MAX or self._unacked > SMALL_BYTES or self._answers:
            return False
        if not self.held:
            self.held = True
            self._held_at = self._acked_message
            self._host.linger_for_acks()
        return True

    def go_on(self) -> None:
        """The linger is over. If no acknowledgement came meanwhile, what waits for one goes without."""
        self.held = False
        if self._acked_message == self._held_at:
            self._acked_message = self._sent_message
        if not self.marked:
            self._host.mark(self)

    def _fill(self) -> list[FetchData]:
        """One message: answers first, then each ready partition its share, in turns."""
        data: list[FetchData] = []
        answers, ready = self._answers, self._ready
        while answers and len(data) < STATES_MAX:
            data.append(answers.popleft())
            self.credit -= DATA_OVERHEAD
        budget = BATCH_BYTES_MAX
        turns = min(len(ready), STATES_MAX - len(data))
        share = max(SHARE_BYTES_MIN, budget // turns) if turns else 0
        while turns and budget > 0 and self.credit > 0:
            turns -= 1
            outgoing = ready.popleft()
            outgoing.queued = False
            if not outgoing.live:
                continue
            found = self._next(outgoing, min(share, budget), budget)
            if found is None:
                if outgoing.queued:  # does not fit in what is left of this message
                    break
                continue
            data.append(found)
            size = len(found.batches)
            self.credit -= size + DATA_OVERHEAD
            budget -= size
        return data

    def _next(self, outgoing: Outgoing, limit: int, budget: int) -> FetchData | None:
        """What there is of a partition, None if nothing can go now."""
        replica = outgoing.replica
        log, leader = replica.log, replica.leader
        assert leader is not None
        offset = outgoing.next_offset
        result: ReadResult | None = None
        room = self._host.config.partition_window_bytes - outgoing.unacked
        if offset < log.written_end_offset and room > 0 and not self._must_wait(outgoing, limit):
            try:
                result = self._read(replica, offset, min(limit, room, self.credit), budget)
            except KafkaError as error:
                # Where the disk has failed, the partition is not led here any more, and this is over.
                return self._read_failed(outgoing, error.code) if outgoing.live else None
            if result is None:
                outgoing.queued = True
                self._ready.appendleft(outgoing)
                return None
        high_watermark, log_start = leader.high_watermark, log.log_start_offset
        if result is None or not result.data:
            if high_watermark == outgoing.high_watermark and log_start == outgoing.log_start:
                return None
            batches = b""
        else:
            batches = result.data  # type: ignore[assignment]  # any buffer
            self._sent(outgoing, result)
        outgoing.high_watermark = high_watermark
        outgoing.log_start = log_start
        return FetchData(
            *replica.key, leader.leader_epoch, outgoing.generation, ErrorCode.NONE, None, high_watermark, log_start,
            offset, batches,
        )  # fmt: skip

    def _read(self, replica: Replica, offset: int, limit: int, budget: int) -> ReadResult | None:
        """None if the next batch does not fit in this message but will in an empty one."""
        read = self._host.read
        if budget == BATCH_BYTES_MAX:
            return read(replica, offset, limit, True)
        result = read(replica, offset, limit, False)
        if not result.data and limit < budget:
            result = read(replica, offset, budget, False)
        return result if result.data else None

    def _sent(self, outgoing: Outgoing, result: ReadResult) -> None:
        size = len(result.data)
        log = outgoing.replica.log
        outgoing.next_offset = result.next_offset
        number = 0  # an acknowledgement that waits for the follower's disk holds up nobody
        if not outgoing.replica.sync_before_ack:
            number = self._sent_message = self._message
        outgoing.window.append((result.next_offset, size, number))
        outgoing.unacked += size
        self._unacked += size
        self._host.metrics.bytes_out += size
        quota = self._host.leader_quota
        if quota.applies(outgoing.replica.name):
            quota.consume(size, self._host.now_ms())
        if result.next_offset >= log.written_end_offset:
            outgoing.behind = False
        elif outgoing.unacked < self._host.config.partition_window_bytes:
            outgoing.queued = True
            self._ready.append(outgoing)

    def _read_failed(self, outgoing: Outgoing, error: ErrorCode) -> FetchData:
        """Retention overtook the follower, or the log is damaged. The follower starts over."""
        replica = outgoing.replica
        assert replica.leader is not None
        epoch = replica.leader.leader_epoch
        self._detach(outgoing)
        return FetchData(
            *replica.key, epoch, outgoing.generation, error, None, -1, replica.log.log_start_offset,
            outgoing.next_offset, b"",
        )  # fmt: skip

    # Waiting -----------------------------------------------------------------------------------------------------

    def _must_wait(self, outgoing: Outgoing, limit: int) -> bool:
        """Whether batches cannot go yet: the quota is used up, or the disk has to be waited for."""
        if not outgoing.behind:
            return False
        return outgoing.waits or self._is_throttled(outgoing) or self._is_cold(outgoing, limit)

    def _is_throttled(self, outgoing: Outgoing) -> bool:
        """Only who is not in the ISR is throttled (KIP-73): else a quota could stop the producers."""
        host, replica = self._host, outgoing.replica
        assert replica.leader is not None
        if not host.leader_quota.applies(replica.name) or self.follower_id in replica.leader.isr.maximal:
            return False
        now_ms = host.now_ms()
        wait_ms = host.leader_quota.wait_ms(now_ms)
        if wait_ms == 0:
            return False
        host.metrics.throttled += 1
        outgoing.waits = True
        host.timers.at(now_ms + min(wait_ms, LOOK_AGAIN_MS), lambda _now: self._go_on(outgoing))
        return True

    def _is_cold(self, outgoing: Outgoing, limit: int) -> bool:
        """A read that would wait for the medium is done on the disk thread first."""
        if outgoing.warm_offset == outgoing.next_offset:
            return False
        log = outgoing.replica.log
        try:
            location = log.locate(outgoing.next_offset, limit, log.written_end_offset)
        except (KafkaError, OSError):
            return False  # the read will say it
        if location.cached:
            return False
        outgoing.waits = True
        outgoing.warm_offset = outgoing.next_offset
        self._host.syncer.run(location.warm, lambda _error: self._go_on(outgoing))
        return True

    def _go_on(self, outgoing: Outgoing) -> None:
        outgoing.waits = False
        if outgoing.live:
            self.wake(outgoing)
            self._host.flush()
