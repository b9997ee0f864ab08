"""Replication of one node: its replicas, the streams to and from other brokers, the proposals to the controller.

What the broker does with it:

    driver.registered(broker_epoch, peers)           its registration is in the image; again when brokers change
    driver.peers_changed()                           ... and all states of that image are applied
    replica = driver.add(...)                        for every log it holds
    driver.apply(replica, PartitionState(...))       whenever the image has another state; the role follows
    driver.appended(replica) / synced(...)           after `Log.write_staged` / an fsync, in role LEADER
    driver.flush()                                   at the end of each event
    replica.leader, replica.high_watermark           read by handlers

Pure: everything happens on the caller's thread, in calls of the broker, of the transport and of timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from odradek.replication.follower import FollowerState
from odradek.replication.follower_session import FollowerSession
from odradek.replication.isr import NO_LEADER, PartitionState, Peer
from odradek.replication.leader import LeaderState
from odradek.replication.leader_session import LeaderSession
from odradek.replication.metrics import ReplicationMetrics
from odradek.replication.proposals import Proposals
from odradek.replication.replica import PartitionKey, Replica, ReplicaEvents, Role
from odradek.replication.throttle import ReplicationQuota
from odradek.wire.errors import KafkaError

if TYPE_CHECKING:
    from random import Random

    from odradek.ports.clock import Clock
    from odradek.ports.disk import Syncer
    from odradek.ports.timers import Timer, TimerQueue
    from odradek.replication.config import ReplicationConfig
    from odradek.replication.ports import ControllerPort, DownStream, ReplicationTransport
    from odradek.storage.log import Log
    from odradek.storage.reads import ReadResult

SERVED_AT_ONCE: Final = 50
"""Partitions that begin to be led within SERVE_MS while everybody else waits; the rest take turns with other events."""
SERVE_MS: Final = 10
TURNS_PER_EVENT: Final = 4
"""Messages that one session sends in one event; about a millisecond each if they are full."""


class ReplicationDriver:
    """Attributes without underscore are for the broker to read, or for the sessions of this package."""

    leader_class: ClassVar[type[LeaderState]] = LeaderState
    follower_class: ClassVar[type[FollowerState]] = FollowerState

    def __init__(
        self,
        node_id: int,
        config: ReplicationConfig,
        *,
        transport: ReplicationTransport,
        controller: ControllerPort,
        syncer: Syncer,
        clock: Clock,
        timers: TimerQueue,
        rng: Random,
    ) -> None:
        self.node_id = node_id
        self.config = config
        self.transport = transport
        self.syncer = syncer
        self.clock = clock
        self.timers = timers
        self.rng = rng
        self.now_ms = clock.monotonic_ms
        self.metrics = ReplicationMetrics()
        self.leader_quota = ReplicationQuota()
        self.follower_quota = ReplicationQuota()
        self.broker_epoch = -1
        self.peers: dict[int, Peer] = {}
        self.replicas: dict[PartitionKey, Replica] = {}
        self.closed = False
        self._proposals = Proposals(self, controller)
        self._followed: dict[int, FollowerSession] = {}
        """By leader."""
        self._serving: dict[int, LeaderSession] = {}
        """By follower, once it has said who it is."""
        self._accepted: dict[LeaderSession, None] = {}
        self._session = 0
        self._marked: list[LeaderSession] = []
        self._marked_followers: list[FollowerSession] = []
        self._flushing = False
        self._memos: list[Replica] = []
        self._leading: dict[Replica, None] = {}
        self._noted: deque[tuple[Replica, int, int]] = deque()
        """(replica, leader epoch, start): durable, and to be served."""
        self._serve_timer: Timer | None = None
        self._served_from_ms = 0
        self._served = 0
        self._later: Timer | None = None
        self._linger: Timer | None = None
        self._join_linger: Timer | None = None
        self._lag_timer: Timer | None = None

    # The broker: what it knows -----------------------------------------------------------------------------------

    def registered(self, broker_epoch: int, peers: Mapping[int, Peer]) -> None:
        """The image has this node's own registration, and these brokers.

        To be called before the first `apply`, and nothing older than this registration may be applied: what metadata
        says of an earlier incarnation of this node does not hold for what is on its disks now. `peers_changed` follows.
        """
        assert broker_epoch >= self.broker_epoch
        renewed = broker_epoch != self.broker_epoch and self.broker_epoch >= 0
        if peers == self.peers and broker_epoch == self.broker_epoch:
            return
        self.broker_epoch = broker_epoch
        self.peers.clear()
        self.peers.update(peers)
        if renewed:
            for session in self._followed.values():
                session.renew()
        for replica in self._leading:
            assert replica.leader is not None
            replica.leader.local_broker_epoch = broker_epoch

    def peers_changed(self) -> None:
        """What leaders make of brokers that came or went. Only once they know the ISR of the same image: whose
        incarnation is over may just have left it, and what he said must not move a high watermark any more.
        """
        now_ms = self.now_ms()
        for replica in list(self._leading):
            assert replica.leader is not None
            if replica.leader.peers_changed(now_ms):
                self._moved(replica)
            self._proposals.add(replica)

    def add(
        self, topic: str, topic_id: bytes, partition: int, log: Log, events: ReplicaEvents, *,
        high_watermark: int, min_isr: int,
    ) -> Replica:  # fmt: skip
        """A log of this node. `high_watermark`: as its checkpoint has it; it is never more than a lower bound."""
        replica = Replica(
            topic, topic_id, partition, log, events, high_watermark=high_watermark, min_isr=min_isr
        )
        assert replica.key not in self.replicas
        self.replicas[replica.key] = replica
        return replica

    def remove(self, replica: Replica) -> None:
        """The log is going to be deleted or closed."""
        self._leave(replica)
        replica.role = Role.IDLE
        for session in self._serving.values():
            session.forget(replica.key)
        del self.replicas[replica.key]

    def apply(self, replica: Replica, state: PartitionState) -> None:
        """Metadata has this state: take the role that follows. Older states than the present one are ignored."""
        assert self.broker_epoch >= 0, "not registered"
        before = replica.state
        if before is not None and (state.leader_epoch, state.partition_epoch) <= (
            before.leader_epoch,
            before.partition_epoch,
        ):
            return
        replica.state = state
        if replica.role is Role.FAILED:
            return
        if replica.log.offline:
            self.failed(replica, OSError(f"the log directory of {replica.topic}-{replica.key[1]} is offline"))
        elif state.leader == self.node_id:
            if before is None or before.leader_epoch != state.leader_epoch or before.leader != state.leader:
                self._lead(replica, state)
            elif replica.leader is not None:
                self.settled(replica, partial(replica.leader.metadata, state, self.now_ms()))
        elif state.leader == NO_LEADER or self.node_id not in state.replicas:
            self._leave(replica)
            replica.role = Role.IDLE
        else:
            follower = replica.follower
            leader = (state.leader, state.leader_epoch)
            if follower is None or (follower.leader_id, follower.leader_epoch) != leader:
                self._follow(replica, state)

    def configure(self, replica: Replica, min_isr: int) -> None:
        """The configuration of the topic changed; the log has its own part already."""
        replica.configured()
        replica.min_isr = min_isr
        if replica.leader is not None:
            self.settled(replica, partial(replica.leader.configure, min_isr, self.now_ms()))

    # The broker: what it did -------------------------------------------------------------------------------------

    def appended(self, replica: Replica) -> None:
        """The log of a leader was written to: its followers get it with the next `flush`."""
        leader = replica.leader
        if leader is None:
            return
        end = replica.log.written_end_offset
        counted = replica.synced_end_offset if replica.sync_before_ack else end
        if leader.appended(end, counted, self.now_ms()):
            self._moved(replica)
            if leader.isr.unsent:
                self._proposals.add(replica)
        for outgoing in replica.outgoing:
            outgoing.session.wake(outgoing)

    def synced(self, replica: Replica, end_offset: int) -> None:
        """Everything below `end_offset` is on the medium, and was there when the fsync began."""
        replica.synced_end_offset = max(
            replica.synced_end_offset, min(end_offset, replica.log.log_end_offset)
        )
        if replica.sync_before_ack:
            self.appended(replica)

    def log_start_moved(self, replica: Replica) -> None:
        """DeleteRecords or retention, on a leader: the followers are told."""
        for outgoing in replica.outgoing:
            outgoing.session.wake(outgoing)

    def flush(self) -> None:
        """Send what there is to send. At the end of each event; cheap when there is nothing.

        A follower that catches up must not hold up the event loop, nor those that are in sync: sessions send a message
        each in turns, and after some turns the rest waits for the next event.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            turns = 0
            while self._marked or self._marked_followers:
                following, self._marked_followers = self._marked_followers, []
                for follower in following:
                    follower.flush()
                if turns == TURNS_PER_EVENT:
                    self._flush_later()
                    break
                turns += 1
                marked, self._marked = self._marked, []
                for session in marked:
                    session.flush()
        finally:
            self._flushing = False
        if self._memos:
            for replica in self._memos:
                replica.memo = None
            self._memos.clear()
        self._proposals.ask()

    def _flush_later(self) -> None:
        if self._marked and self._later is None:
            self._later = self.timers.at(self.now_ms(), self._flush_rest)

    def _flush_rest(self, now_ms: int) -> None:
        self._later = None
        self.flush()

    def failed(self, replica: Replica, error: OSError) -> None:
        """The log directory is offline."""
        if replica.role is not Role.FAILED and replica.key in self.replicas:
            self._leave(replica)
            replica.role = Role.FAILED
            replica.events.failed(replica, error)

    def close(self) -> None:
        """No stream is open and no timer runs any more."""
        self.closed = True
        for replica in list(self.replicas.values()):
            self._leave(replica)
            replica.role = Role.IDLE
        for follower in self._followed.values():
            follower.end()
        for session in list(self._accepted):
            session.end()
        self._proposals.close()
        for timer in (self._later, self._linger, self._join_linger, self._lag_timer, self._serve_timer):
            if timer is not None:
                timer.cancel()

    # Gauges ------------------------------------------------------------------------------------------------------

    def max_lag(self) -> int:
        """Offsets by which this node's replicas are behind their leaders' high watermarks, the worst."""
        lags = [
            replica.follower.leader_high_watermark - replica.log.log_end_offset
            for replica in self.replicas.values()
            if replica.follower is not None
        ]
        return max([0, *lags])

    def under_replicated(self) -> int:
        """Led partitions whose ISR is not all of their replicas."""
        return sum(
            len(leader.isr.committed) < len(leader.replicas)
            for leader in (replica.leader for replica in self._leading)
            if leader is not None
        )

    def under_min_isr(self) -> int:
        return sum(replica.leader is not None and replica.leader.under_min_isr for replica in self._leading)

    # Roles -------------------------------------------------------------------------------------------------------

    def _leave(self, replica: Replica) -> None:
        """Out of the present role."""
        follower = replica.follower
        if follower is not None:
            self._followed[follower.leader_id].remove(replica)
            replica.follower = None
        if replica.leader is not None:
            replica.leader = None
            del self._leading[replica]
            self._proposals.discard(replica)
            for outgoing in list(replica.outgoing):
                outgoing.session.drop(outgoing)

    def _lead(self, replica: Replica, state: PartitionState) -> None:
        """Note (epoch, start) durably, then serve; a sole replica needs not wait, nobody ever compares with it."""
        self._leave(replica)
        replica.role = Role.STARTING
        log = replica.log
        start = log.log_end_offset
        if len(state.replicas) == 1:
            try:
                log.epochs.assign(state.leader_epoch, start, durable=False)
            except OSError as error:
                log.fail(error)
                self.failed(replica, error)
                return
            self._serve(replica, start)
            return

        def noted(error: OSError | None) -> None:
            now = replica.state
            if error is not None:
                if replica.role is Role.STARTING and now is not None:
                    self.failed(replica, error)
                return
            self._noted.append((replica, state.leader_epoch, start))
            self._serve_soon()

        log.assign_epoch(state.leader_epoch, self.syncer, noted)

    def _serve_soon(self) -> None:
        """Now, while it is not many at once: after a failover it is thousands."""
        now_ms = self.now_ms()
        if now_ms >= self._served_from_ms + SERVE_MS:
            self._served_from_ms, self._served = now_ms, 0
        self._served += 1
        if self._serve_timer is None:
            if self._served <= SERVED_AT_ONCE:
                self._serve_noted(now_ms)
            else:
                self._serve_timer = self.timers.at(now_ms, self._serve_noted)

    def _serve_noted(self, now_ms: int) -> None:
        self._serve_timer = None
        end_ms = now_ms + SERVE_MS
        while self._noted:
            replica, leader_epoch, start = self._noted.popleft()
            state = replica.state
            if replica.role is Role.STARTING and state is not None and state.leader_epoch == leader_epoch:
                self._serve(replica, start)
            if self.now_ms() >= end_ms:
                break
        if self._noted and not self.closed:
            self._serve_timer = self.timers.at(self.now_ms(), self._serve_noted)
        self.flush()

    def _serve(self, replica: Replica, start: int) -> None:
        state = replica.state
        assert state is not None
        now_ms = self.now_ms()
        replica.synced_end_offset = replica.log.recovery_point
        replica.role = Role.LEADER
        replica.leader = self.leader_class(
            self.node_id,
            self.broker_epoch,
            state,
            self.peers,
            self.config,
            epoch_start_offset=start,
            high_watermark=replica.high_watermark,
            counted_end=replica.counted_end_offset,
            min_isr=replica.min_isr,
            now_ms=now_ms,
        )
        self._leading[replica] = None
        if self._lag_timer is None:
            self._lag_timer = self.timers.at(now_ms + self._lag_check_ms(), self._check_lag)
        if replica.sync_before_ack and replica.synced_end_offset < replica.log.log_end_offset:
            self._sync(replica)
        replica.events.leading(replica)
        if replica.leader.high_watermark != replica.high_watermark:
            self._moved(replica)
        for session in list(self._serving.values()):
            session.leads(replica)

    def _sync(self, replica: Replica) -> None:
        """A leader whose log counts only where it is fsynced has to fsync what it took as a follower."""
        end = replica.log.written_end_offset

        def done(error: OSError | None) -> None:
            if error is not None:
                self.failed(replica, error)
            else:
                self.synced(replica, end)
                self.flush()

        replica.log.sync(self.syncer, done)

    def _follow(self, replica: Replica, state: PartitionState) -> None:
        """Before it tells where its log ends, the log forgets what only it believes in: an epoch without batches."""
        self._leave(replica)
        log = replica.log
        try:
            log.truncate_to(min(log.readable_end, log.log_end_offset))  # also writes what is staged
            log.epochs.truncate_from_end(log.log_end_offset, durable=False)
        except (KafkaError, OSError) as error:
            if isinstance(error, OSError):
                log.fail(error)
            self.failed(replica, OSError(str(error)))
            return
        replica.role = Role.FOLLOWER
        if replica.high_watermark > log.log_end_offset:
            replica.high_watermark = log.log_end_offset
            replica.events.high_watermark_moved(replica)
        config = self.config
        replica.follower = self.follower_class(
            state.leader, state.leader_epoch, replica.high_watermark, config.fetch_backoff_ms, config.backoff_max_ms
        )  # fmt: skip
        session = self._followed.get(state.leader)
        if session is None:
            session = self._followed[state.leader] = FollowerSession(self, state.leader)
        session.add(replica)

    # What sessions ask for ---------------------------------------------------------------------------------------

    def accept(self, stream: DownStream) -> LeaderSession:
        """A follower has opened a stream."""
        session = LeaderSession(self, stream)
        self._accepted[session] = None
        return session

    def admit(self, session: LeaderSession) -> bool:
        """Whether a session is the newest of its follower; the one it replaces ends."""
        before = self._serving.get(session.follower_id)
        if self.closed or session.follower_id == self.node_id:
            return False
        if before is not None:
            newest = (before.broker_epoch, before.session) < (session.broker_epoch, session.session)
            if not newest:
                return False
            before.end()
        self._serving[session.follower_id] = session
        return True

    def forget(self, session: LeaderSession) -> None:
        self._accepted.pop(session, None)
        if self._serving.get(session.follower_id) is session:
            del self._serving[session.follower_id]

    def find(self, key: PartitionKey) -> Replica | None:
        return self.replicas.get(key)

    def mark(self, session: LeaderSession) -> None:
        if not session.marked:
            session.marked = True
            self._marked.append(session)

    def mark_follower(self, session: FollowerSession) -> None:
        session.marked = True
        self._marked_followers.append(session)

    def next_session(self) -> int:
        self._session += 1
        return self._session

    def fetched(self, replica: Replica, follower_id: int, end: int, start: int, broker_epoch: int) -> None:
        leader = replica.leader
        assert leader is not None
        if leader.fetched(follower_id, end, start, broker_epoch, self.now_ms()):
            self._moved(replica)
        if replica.on_follower_told is not None:
            replica.on_follower_told()
        if leader.isr.unsent:
            self._proposals.add(replica)

    def read(self, replica: Replica, offset: int, max_bytes: int, min_one: bool) -> ReadResult:
        """Batches of a leader's log; the second follower at the same place gets what the first has got."""
        log = replica.log
        end = log.written_end_offset
        memo = replica.memo
        if memo is not None and memo[0] == offset and memo[1] == end and len(memo[2].data) <= max_bytes:
            return memo[2]
        result = log.read(offset, max_bytes, end_offset=end, min_one=min_one)
        if len(replica.outgoing) > 1 and result.data:
            if replica.memo is None:
                self._memos.append(replica)
            replica.memo = (offset, end, result)
        return result

    def follower_moved(self, replica: Replica) -> None:
        follower = replica.follower
        assert follower is not None
        before, replica.high_watermark = replica.high_watermark, follower.high_watermark
        if replica.high_watermark != before:
            replica.events.high_watermark_moved(replica)

    # High watermark and ISR --------------------------------------------------------------------------------------

    def _moved(self, replica: Replica) -> None:
        """The high watermark of a leader moved."""
        leader = replica.leader
        assert leader is not None
        replica.high_watermark = leader.high_watermark
        for outgoing in replica.outgoing:
            if not outgoing.stale:
                outgoing.stale = True
                outgoing.session.stale.append(outgoing)
        if replica.outgoing and self._linger is None:
            due = self.now_ms() + self.config.high_watermark_linger_ms
            self._linger = self.timers.at(due, self._tell_stale)
        replica.events.high_watermark_moved(replica)

    def _tell_stale(self, now_ms: int) -> None:
        self._linger = None
        for session in list(self._serving.values()):
            if session.stale:
                session.tell_stale()
        self.flush()

    def linger_for_acks(self) -> None:
        """What waits for an acknowledgement is not held up for longer than this."""
        if self._join_linger is None:
            self._join_linger = self.timers.at(self.now_ms() + self.config.join_linger_ms, self._go_on)

    def _go_on(self, now_ms: int) -> None:
        self._join_linger = None
        for session in list(self._serving.values()):
            if session.held:
                session.go_on()
        self.flush()

    def settled(self, replica: Replica, change: Callable[[], bool]) -> None:
        """Run a change of the leader's state that may concern the ISR, and say what came of it."""
        leader = replica.leader
        assert leader is not None
        before = leader.isr.committed
        moved = change()
        self._proposals.add(replica)
        if moved:
            self._moved(replica)
        after = leader.isr.committed
        if after != before:
            self.metrics.isr_expands += len(after - before)
            self.metrics.isr_shrinks += len(before - after)
            if replica.leader is leader:
                replica.events.isr_changed(replica)

    def _lag_check_ms(self) -> int:
        return max(1, self.config.replica_lag_time_max_ms // 2)

    def _check_lag(self, now_ms: int) -> None:
        self._lag_timer = None
        for replica in list(self._leading):
            leader = replica.leader
            assert leader is not None
            leader.shrink(now_ms)
            self._proposals.add(replica)
        if self._leading and not self.closed:
            self._lag_timer = self.timers.at(now_ms + self._lag_check_ms(), self._check_lag)
        self.flush()
