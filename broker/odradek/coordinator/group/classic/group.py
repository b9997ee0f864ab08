"""A classic group: its members, its generation and its state. Everything that changes any of it is in here.

The steps of the protocol (`join`, `sync`, `leave`, `rebalance`) decide *when*; this file is *what*. States, with how
requests of a known member are answered (KIP-62, and Kafka's ClassicGroupState):

    state                may come from                   join         sync          heartbeat     commit
    Empty                PreparingRebalance              (new) park   UNKNOWN_MEMBER_ID           simple ones only
    PreparingRebalance   Stable, CompletingRebalance,    park         REBALANCE_IN_PROGRESS       yes
                         Empty
    CompletingRebalance  PreparingRebalance              answer or    park          ok            REBALANCE_IN_PROGRESS
                                                         rebalance
    Stable               CompletingRebalance             answer or    answer        ok            yes
                                                         rebalance
    Dead                 any                             COORDINATOR_NOT_AVAILABLE everywhere

A rebalance counts one generation up when its join phase ends. A group without members is Empty and stays until its
offsets are gone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from typing import TypeAlias

from odradek.coordinator.group.classic.member import Member, Protocols
from odradek.ports.timers import Timer
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription
from odradek.wire.messages.join_group import JoinGroupResponse
from odradek.wire.messages.sync_group import SyncGroupResponse

CONSUMER_PROTOCOL_TYPE = "consumer"

PartitionCheck: TypeAlias = Callable[[str, bytes, int], None]
"""(topic name, topic id, partition): KafkaError if this partition's offset may not be committed."""


class GroupState(Enum):
    """The value is Kafka's name of the state, as DescribeGroups and ListGroups show it."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"
    ASSIGNING = "Assigning"
    """Of consumer groups alone, as the next."""
    RECONCILING = "Reconciling"


EMPTY = GroupState.EMPTY
PREPARING_REBALANCE = GroupState.PREPARING_REBALANCE
COMPLETING_REBALANCE = GroupState.COMPLETING_REBALANCE
STABLE = GroupState.STABLE
DEAD = GroupState.DEAD

MAY_COME_FROM = {
    EMPTY: frozenset({PREPARING_REBALANCE}),
    PREPARING_REBALANCE: frozenset({STABLE, COMPLETING_REBALANCE, EMPTY}),
    COMPLETING_REBALANCE: frozenset({PREPARING_REBALANCE}),
    STABLE: frozenset({COMPLETING_REBALANCE}),
    DEAD: frozenset(GroupState),
}


class ClassicGroup:
    """See the module. Timers belong to the group but are set by `rebalance`."""

    def __init__(self, group_id: str, state: GroupState, wall_ms: int | None) -> None:
        self.group_id = group_id
        self.state = state
        self.previous_state = DEAD
        self.state_since_wall_ms = wall_ms
        """When the group came into its state, by the wall clock; None if loaded from a record that did not say."""
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.leader_id: str | None = None
        self.members: dict[str, Member] = {}
        self.static_members: dict[str, str] = {}
        """Group instance id to member id."""
        self.pending_joins: dict[str, Timer] = {}
        """Member ids given out with MEMBER_ID_REQUIRED that have not come back, with the timers that forget them."""
        self.pending_syncs: dict[str, None] = {}
        """Members that got a join response of this generation and have not sent their sync yet."""
        self.awaiting_joins = 0
        self.supported_protocols: dict[str, int] = {}
        """How many members support each protocol."""
        self.subscribed_topics: frozenset[str] | None = None
        """None when unknown: another protocol type than `consumer`, none yet, or metadata that does not parse."""
        self.new_member_added = False
        """A member came during the initial delay, which is reason to prolong it."""
        self.join_timer: Timer | None = None
        self.sync_timer: Timer | None = None

    # -- what is known -------------------------------------------------------------------------------------------

    @property
    def is_simple(self) -> bool:
        """Made by a commit, and never more: no record says that it is there."""
        return (
            self.state is EMPTY and self.protocol_type is None and self.generation == 0 and not self.members
        )

    def is_leader(self, member_id: str) -> bool:
        return self.leader_id is not None and self.leader_id == member_id

    @property
    def rebalance_timeout_ms(self) -> int:
        """The patience of the most patient member."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def has_all_joined(self) -> bool:
        return len(self.members) == self.awaiting_joins and not self.pending_joins

    def not_rejoined(self) -> list[Member]:
        return [member for member in self.members.values() if member.awaiting_join is None]

    def supports(self, protocol_type: str, protocols: Protocols) -> bool:
        """Whether a member with these protocols fits the others: one protocol that all of them support."""
        if self.state is EMPTY:
            return bool(protocol_type) and bool(protocols)
        count = len(self.members)
        return self.protocol_type == protocol_type and any(
            self.supported_protocols.get(name, 0) == count for name, _ in protocols
        )

    def select_protocol(self) -> str:
        """Each member votes for its most wanted protocol of those all support; most votes win, the first on a tie."""
        count = len(self.members)
        candidates = {name for name, supporters in self.supported_protocols.items() if supporters == count}
        votes: dict[str, int] = {}
        for member in self.members.values():
            choice = member.vote(candidates)
            votes[choice] = votes.get(choice, 0) + 1
        return max(votes, key=votes.__getitem__)

    def validate_member(self, member_id: str, instance_id: str | None) -> None:
        """KafkaError if this is no member (UNKNOWN_MEMBER_ID), or a replaced static one (FENCED_INSTANCE_ID)."""
        if instance_id is not None:
            owner = self.static_members.get(instance_id)
            if owner is None:
                raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
            if owner != member_id:
                raise KafkaError(ErrorCode.FENCED_INSTANCE_ID)
        if member_id not in self.members:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)

    def validate_offset_commit(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        api_version: int,
        *,
        transactional: bool,
    ) -> PartitionCheck | None:
        """Whether offsets may be committed in the name of this member: the same question to groups of every kind.

        Nobody has to be named while the group is Empty, and never by a transactional commit (TxnOffsetCommit). The
        answer, if there is one, is asked about each partition (`consumer_group`); here there is none. KafkaError:
        UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS; and of a consumer group
        STALE_MEMBER_EPOCH, here and from the check, which TxnOffsetCommit answers as ILLEGAL_GENERATION.
        """
        if generation < 0 and self.state is EMPTY:
            return None
        if generation >= 0 or member_id or instance_id is not None:
            self.validate_member(member_id, instance_id)
            if generation != self.generation:
                raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        elif not transactional:
            # From outside, while the group has members.
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if self.state is COMPLETING_REBALANCE and not transactional:
            # The member knows the generation from its join; it has to sync before it may commit in it.
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)
        return None

    def validate_offset_fetch(self, member_id: str | None, member_epoch: int, *, latest: bool) -> None:
        """Anybody may look at what a classic group has committed."""

    def is_subscribed_to(self, topic: str) -> bool:
        """When a consumer group's subscription is not known, it may be any topic."""
        if self.subscribed_topics is None:
            return self.protocol_type == CONSUMER_PROTOCOL_TYPE
        return topic in self.subscribed_topics

    def timers(self) -> Iterator[Timer]:
        """All timers that are set, to be cancelled when the group ends."""
        for timer in (self.join_timer, self.sync_timer):
            if timer is not None:
                yield timer
        yield from self.pending_joins.values()
        for member in self.members.values():
            if member.session_timer is not None:
                yield member.session_timer

    # -- members -------------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """A member that fits (`supports`); the first one leads."""
        if member.instance_id is not None:
            assert member.instance_id not in self.static_members, "static member added twice"
            self.static_members[member.instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        assert self.protocol_type == member.protocol_type, "one protocol type per group"
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self._count_protocols(member, 1)
        if member.awaiting_join is not None:
            self.awaiting_joins += 1
        self.forget_pending_join(member.member_id)

    def remove(self, member_id: str) -> None:
        """A member or pending member that is gone; nothing happens to one that is neither."""
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_protocols(member, -1)
            if member.awaiting_join is not None:
                self.awaiting_joins -= 1
            if member.instance_id is not None:
                del self.static_members[member.instance_id]
            if member.session_timer is not None:
                member.session_timer.cancel()
        if self.is_leader(member_id):
            self.leader_id = next(iter(self.members), None)
        self.forget_pending_join(member_id)
        self.pending_syncs.pop(member_id, None)

    def forget_pending_join(self, member_id: str) -> None:
        timer = self.pending_joins.pop(member_id, None)
        if timer is not None:
            timer.cancel()

    def update(
        self, member: Member, protocols: Protocols, rebalance_timeout_ms: int, session_timeout_ms: int
    ) -> None:
        """What a rejoining member says of itself now."""
        self._count_protocols(member, -1)
        member.protocols = protocols
        self._count_protocols(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def replace_static(self, instance_id: str, old_id: str, new_id: str) -> Member:
        """A static member came back without its id: it gets a new one and keeps all else; who used the old one is
        fenced at once (KIP-345)."""
        old = self.members[old_id]
        self.finish_join(old, JoinGroupResponse(member_id=old_id, error_code=ErrorCode.FENCED_INSTANCE_ID))
        self.finish_sync(old, SyncGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID))
        if old.session_timer is not None:
            old.session_timer.cancel()
        new = Member(
            new_id,
            instance_id,
            old.client_id,
            old.client_host,
            old.rebalance_timeout_ms,
            old.session_timeout_ms,
            old.protocol_type,
            old.protocols,
            old.assignment,
        )
        del self.members[old_id]
        self.members[new_id] = new
        if self.is_leader(old_id):
            self.leader_id = new_id
        self.static_members[instance_id] = new_id
        return new

    def elect_joined_leader(self) -> bool:
        """Keep the leader if it rejoined, else take a member that did; False if there is none, or no member at all."""
        if self.leader_id is None:
            return False
        leader = self.members.get(self.leader_id)
        if leader is not None and leader.awaiting_join is not None:
            return True
        for member in self.members.values():
            if member.awaiting_join is not None:
                self.leader_id = member.member_id
                return True
        return False

    # -- waiting requests ----------------------------------------------------------------------------------------

    def park_join(self, member: Member, done: Callable[[JoinGroupResponse], None]) -> None:
        """Keep the member's join until the join phase ends. An older one of the same member, whose connection the
        client has given up, is told to try again."""
        older, member.awaiting_join = member.awaiting_join, done
        if older is None:
            self.awaiting_joins += 1
        else:
            older(JoinGroupResponse(member_id=member.member_id, error_code=ErrorCode.REBALANCE_IN_PROGRESS))

    def park_sync(self, member: Member, done: Callable[[SyncGroupResponse], None]) -> None:
        """The same for a sync, until the leader's assignments are stored."""
        older, member.awaiting_sync = member.awaiting_sync, done
        if older is not None:
            older(SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))

    def finish_join(self, member: Member, response: JoinGroupResponse) -> None:
        """Answer the member's join if it waits."""
        done = self.take_back_join(member)
        if done is not None:
            done(response)

    def take_back_join(self, member: Member) -> Callable[[JoinGroupResponse], None] | None:
        """The member's join waits no longer; whom to answer."""
        done, member.awaiting_join = member.awaiting_join, None
        if done is not None:
            self.awaiting_joins -= 1
        return done

    def finish_sync(self, member: Member, response: SyncGroupResponse) -> bool:
        """Answer the member's sync if it waits; whether it did."""
        done, member.awaiting_sync = member.awaiting_sync, None
        if done is None:
            return False
        done(response)
        return True

    # -- states --------------------------------------------------------------------------------------------------

    def transition_to(self, state: GroupState, wall_ms: int) -> None:
        assert self.state in MAY_COME_FROM[state], f"{self.state} must not become {state}"
        self.previous_state = self.state
        self.state = state
        self.state_since_wall_ms = wall_ms

    def start_generation(self, wall_ms: int) -> None:
        """The join phase is over: on to the syncs, or to Empty if nobody is there."""
        self.generation += 1
        self.protocol = self.select_protocol() if self.members else None
        self.subscribed_topics = self._parse_subscriptions()
        self.transition_to(COMPLETING_REBALANCE if self.members else EMPTY, wall_ms)
        self.pending_syncs.clear()

    def restore(
        self, generation: int, protocol_type: str | None, protocol: str | None, leader_id: str | None
    ) -> None:
        """Take over what a record says, before its members are added."""
        self.generation = generation
        self.protocol_type = protocol_type
        self.protocol = protocol
        self.leader_id = leader_id

    def learn_subscriptions(self) -> None:
        self.subscribed_topics = self._parse_subscriptions()

    def _parse_subscriptions(self) -> frozenset[str] | None:
        """The topics all members want, read as version 0 of the consumer protocol, which every later one extends."""
        if self.protocol_type != CONSUMER_PROTOCOL_TYPE:
            return None
        if not self.members:
            return frozenset()
        if self.protocol is None:
            return None
        try:
            return frozenset(
                topic
                for member in self.members.values()
                for topic in subscribed_topics(member.metadata_of(self.protocol))
            )
        except MalformedMessage:
            return None

    def _count_protocols(self, member: Member, step: int) -> None:
        counts = self.supported_protocols
        for name, _ in member.protocols:
            count = counts.get(name, 0) + step
            if count:
                counts[name] = count
            else:
                del counts[name]


def subscribed_topics(metadata: bytes) -> Collection[str]:
    """The topics of one member's subscription. MalformedMessage if it is none."""
    if len(metadata) < 2:
        raise MalformedMessage("a subscription begins with its version")
    (version,) = struct.unpack_from(">h", metadata)
    if version < 0:
        raise MalformedMessage(f"subscription of version {version}")
    return ConsumerProtocolSubscription.decode(metadata, 0, 2).topics
