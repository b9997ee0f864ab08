"""A consumer group: what its records add up to, and what follows from that.

Durable are the tables of members, target assignments and resolved expressions, and three numbers; only `replay`
changes them. Everything else in here is counted from them, change by change, in both directions: a write that the
log refuses is taken back, and so is what was counted.

The state of a group follows too:

    Empty        no members
    Assigning    the group epoch is ahead of the target assignment's
    Reconciling  some member is not at the target assignment yet
    Stable       all are
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from odradek.coordinator.group.classic.group import CONSUMER_PROTOCOL_TYPE, GroupState, PartitionCheck
from odradek.coordinator.group.consumer.member import ConsumerMember, Partitions
from odradek.coordinator.timeline import Timeline, TimelineDict
from odradek.wire.errors import ErrorCode, KafkaError

COMMIT_VERSION_MIN = 9
"""OffsetCommit versions that can tell a member of STALE_MEMBER_EPOCH."""
NOTHING: Partitions = {}


@dataclass(frozen=True, slots=True)
class ResolvedRegex:
    """The topics that an expression meant at a version of the metadata."""

    topics: frozenset[str]
    version: int
    timestamp_ms: int
    """Wall clock."""


class Numbers(NamedTuple):
    """Two numbers that one record holds."""

    epoch: int
    detail: int
    """Of the group: the hash of its topics' metadata. Of the target assignment: when it was made (wall clock)."""


GROUP, TARGET, LEGACY = "group", "target", "legacy"
_NO_GROUP = Numbers(1, 0)
"""A group begins at epoch 1, which its first member raises: epoch 0 is that of a member that joins."""
_NO_TARGET = Numbers(1, 0)
"""That of an empty group at its first epoch: nothing, and it need not wait for the interval."""


class ConsumerGroup:
    """See the module."""

    __slots__ = (
        "_numbers",
        "assignor_counts",
        "classic_members",
        "classic_protocols",
        "group_id",
        "members",
        "name_counts",
        "owners",
        "regex_counts",
        "regex_topics",
        "regexes",
        "size",
        "static_members",
        "targets",
        "topics_seen",
    )

    def __init__(self, group_id: str, timeline: Timeline) -> None:
        self.group_id = group_id
        self.members: TimelineDict[str, ConsumerMember] = TimelineDict(timeline, self._member_changed)
        self.targets: TimelineDict[str, Partitions] = TimelineDict(timeline)
        self.regexes: TimelineDict[str, ResolvedRegex] = TimelineDict(timeline, self._regex_changed)
        self._numbers: TimelineDict[str, Numbers] = TimelineDict(timeline)
        self.size = 0
        """Members, uncommitted ones included."""
        self.static_members: dict[str, str] = {}
        """Group instance id to member id."""
        self.name_counts: dict[str, int] = {}
        """How many members subscribe to each topic by name."""
        self.regex_counts: dict[str, int] = {}
        """How many members subscribe to each expression."""
        self.regex_topics: dict[str, int] = {}
        """How many resolved expressions mean each topic."""
        self.assignor_counts: dict[str, int] = {}
        self.owners: dict[bytes, dict[int, int]] = {}
        """How many members own each partition: never more than one (G1), but for moments of a replay."""
        self.classic_members = 0
        self.classic_protocols: dict[str, int] = {}
        """How many members of the classic protocol support each of its assignment strategies."""
        self.topics_seen = (-1, -1)
        """(version of the topics, group epoch) at the last look for changed topics. Not durable."""

    # -- numbers -------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._group_numbers.epoch

    @property
    def metadata_hash(self) -> int:
        return self._group_numbers.detail

    @property
    def assignment_epoch(self) -> int:
        return (self._numbers.get(TARGET) or _NO_TARGET).epoch

    @property
    def assignment_timestamp_ms(self) -> int:
        """0 if unknown."""
        return (self._numbers.get(TARGET) or _NO_TARGET).detail

    @property
    def has_legacy_record(self) -> bool:
        """Kafka before 4.1 wrote what it knew of the topics; the record is in the way until it is removed."""
        return LEGACY in self._numbers

    @property
    def _group_numbers(self) -> Numbers:
        return self._numbers.get(GROUP) or _NO_GROUP

    def set_numbers(self, name: str, numbers: Numbers | None) -> None:
        if numbers is None:
            self._numbers.remove(name)
        else:
            self._numbers[name] = numbers

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Without members."""
        return self.size == 0

    @property
    def state(self) -> GroupState:
        return _state(self.members.values(), self._numbers.get(GROUP), self._numbers.get(TARGET))

    @property
    def committed_state(self) -> GroupState:
        return _state(
            (member for _, member in self.members.committed_items()),
            self._numbers.get_committed(GROUP),
            self._numbers.get_committed(TARGET),
        )

    @property
    def committed_epochs(self) -> tuple[int, int]:
        """Group epoch and assignment epoch."""
        group = self._numbers.get_committed(GROUP) or _NO_GROUP
        target = self._numbers.get_committed(TARGET) or _NO_TARGET
        return group.epoch, target.epoch

    @property
    def protocol_type(self) -> str:
        return CONSUMER_PROTOCOL_TYPE

    def is_subscribed_to(self, topic: str) -> bool:
        return topic in self.name_counts or topic in self.regex_topics

    # -- members -------------------------------------------------------------------------------------------------

    def member(self, member_id: str) -> ConsumerMember:
        """KafkaError UNKNOWN_MEMBER_ID."""
        member = self.members.get(member_id)
        if member is None:
            text = f"Member {member_id} is not a member of group {self.group_id}."
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, text)
        return member

    def static_member(self, instance_id: str | None) -> ConsumerMember | None:
        if instance_id is None:
            return None
        member_id = self.static_members.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def all_others_classic(self, leaving: Iterable[ConsumerMember]) -> bool:
        """Whether everybody but these uses the classic protocol."""
        gone = list(leaving)
        classic = sum(1 for member in gone if member.classic is not None)
        return self.classic_members - classic == self.size - len(gone)

    def target_of(self, member_id: str) -> Partitions:
        return self.targets.get(member_id) or NOTHING

    def target_for(self, member: ConsumerMember) -> Partitions:
        """Also of a static member that just took another's place."""
        if member.instance_id is None:
            return self.target_of(member.member_id)
        previous = self.static_members.get(member.instance_id)
        return NOTHING if previous is None else self.target_of(previous)

    def is_owned_by_others(self, member: ConsumerMember, topic_id: bytes, partition: int) -> bool:
        """Whether somebody else may still be consuming it."""
        owners = self.owners.get(topic_id, {}).get(partition, 0)
        return owners > (1 if partition in member.pending_revocation.get(topic_id, ()) else 0)

    def preferred_assignor(self, old: ConsumerMember | None, new: ConsumerMember | None, default: str) -> str:
        """What most members ask for once `new` is there instead of `old`."""
        counts = Counter(self.assignor_counts)
        if old is not None and old.server_assignor is not None:
            counts[old.server_assignor] -= 1
        if new is not None and new.server_assignor is not None:
            counts[new.server_assignor] += 1
        best = max(sorted(counts), key=counts.__getitem__, default=None)
        return default if best is None or counts[best] <= 0 else best

    def validate_offset_commit(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        api_version: int,
        *,
        transactional: bool,
    ) -> PartitionCheck | None:
        """See `ClassicGroup.validate_offset_commit`. A commit of the member's own epoch always counts; one of an
        older epoch counts for what the member has had since then.
        """
        if generation < 0 and self.is_empty:
            return None
        if transactional and generation == -1 and not member_id and instance_id is None:
            return None
        member = self.member(member_id)
        if not transactional and member.classic is None and api_version < COMMIT_VERSION_MIN:
            text = "OffsetCommit version 9 or above must be used by members using the consumer group protocol"
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, text)
        if generation == member.member_epoch:
            return None
        if generation > member.member_epoch:
            what = "member epoch" if member.classic is None else "generation id"
            text = f"Received {what} {generation} is newer than current member epoch {member.member_epoch}."
            raise KafkaError(member.stale_error, text)
        received = generation
        return lambda topic, topic_id, partition: member.check_commit(received, topic, topic_id, partition)

    def validate_offset_fetch(self, member_id: str | None, member_epoch: int, *, latest: bool) -> None:
        """Members may say who they are; KafkaError UNKNOWN_MEMBER_ID or STALE_MEMBER_EPOCH then."""
        if member_id is None and member_epoch < 0:
            return
        name = member_id or ""
        member = self.members.get(name) if latest else self.members.get_committed(name)
        if member is None:
            text = f"Member {member_id} is not a member of group {self.group_id}."
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, text)
        if member_epoch != member.member_epoch:
            what = "member epoch" if member.classic is None else "generation id"
            raise KafkaError(
                member.stale_error,
                f"The received {what} {member_epoch} does not match the expected member epoch "
                f"{member.member_epoch}.",
            )

    # -- subscriptions -------------------------------------------------------------------------------------------

    def subscriptions_of(self, member: ConsumerMember) -> frozenset[str]:
        """Topics by name, whether they exist or not. An expression not resolved yet means none."""
        resolved = self.regexes.get(member.topic_regex) if member.topic_regex else None
        return member.topic_names if resolved is None else member.topic_names | resolved.topics

    def subscriptions_after(
        self, changes: Iterable[tuple[ConsumerMember | None, ConsumerMember | None]]
    ) -> Subscriptions:
        """What the group would be subscribed to after these changes of members, each from old to new."""
        names, regexes = self.name_counts.copy(), self.regex_counts.copy()
        for old, new in changes:
            for member, step in ((old, -1), (new, 1)):
                if member is not None:
                    _count(names, member.topic_names, step)
                    _count(regexes, (member.topic_regex,) if member.topic_regex else (), step)
        by_regex = self.regex_topics
        dropped = [regex for regex in self.regex_counts if regex not in regexes and regex in self.regexes]
        if dropped:
            by_regex = dict(by_regex)
            for regex in dropped:
                resolved = self.regexes.get(regex)
                assert resolved is not None
                _count(by_regex, resolved.topics, -1)
        return Subscriptions(names, regexes, by_regex)

    def subscriptions(self) -> Subscriptions:
        return Subscriptions(self.name_counts, self.regex_counts, self.regex_topics)

    # -- what is counted -----------------------------------------------------------------------------------------

    def _member_changed(self, member_id: str, old: ConsumerMember | None, new: ConsumerMember | None) -> None:
        if old is not None:
            self._count_member(old, -1)
            if old.instance_id is not None and self.static_members.get(old.instance_id) == member_id:
                del self.static_members[old.instance_id]
        if new is not None:
            self._count_member(new, 1)
            if new.instance_id is not None:
                self.static_members[new.instance_id] = member_id

    def _count_member(self, member: ConsumerMember, step: int) -> None:
        self.size += step
        _count(self.name_counts, member.topic_names, step)
        if member.topic_regex:
            _count(self.regex_counts, (member.topic_regex,), step)
        if member.server_assignor is not None:
            _count(self.assignor_counts, (member.server_assignor,), step)
        if member.classic is not None:
            self.classic_members += step
            _count(self.classic_protocols, (name for name, _ in member.classic.protocols), step)
        for topic_id, partition in member.owned():
            owners = self.owners.setdefault(topic_id, {})
            _count(owners, (partition,), step)
            if not owners:
                del self.owners[topic_id]

    def _regex_changed(self, _regex: str, old: ResolvedRegex | None, new: ResolvedRegex | None) -> None:
        if old is not None:
            _count(self.regex_topics, old.topics, -1)
        if new is not None:
            _count(self.regex_topics, new.topics, 1)


class Subscriptions(NamedTuple):
    """Who wants what, as numbers of members (and of expressions)."""

    names: dict[str, int]
    regexes: dict[str, int]
    regex_topics: dict[str, int]

    def topics(self) -> set[str]:
        return self.names.keys() | self.regex_topics.keys()

    def is_homogeneous(self, members: int) -> bool:
        """Whether all members want the same topics, which makes assigning them simple."""
        if not self.regexes:
            return all(count == members for count in self.names.values()) and not self.regex_topics
        if next(iter(self.regexes.values())) != members or self.names:
            return False
        return all(count == 1 for count in self.regex_topics.values())


def _count(counts: dict[str, int] | dict[int, int], keys: Iterable[str] | Iterable[int], step: int) -> None:
    """Zero is absent; below zero happens for a moment while a compacted log is replayed."""
    table: dict[object, int] = counts  # type: ignore[assignment]  # one kind of key per table
    for key in keys:
        count = table.get(key, 0) + step
        if count:
            table[key] = count
        else:
            del table[key]


def _state(members: Iterable[ConsumerMember], group: Numbers | None, target: Numbers | None) -> GroupState:
    group_epoch, target_epoch = (group or _NO_GROUP).epoch, (target or _NO_TARGET).epoch
    empty = True
    reconciled = True
    for member in members:
        empty = False
        if not member.is_reconciled_to(target_epoch):
            reconciled = False
            break
    if empty:
        return GroupState.EMPTY
    if group_epoch > target_epoch:
        return GroupState.ASSIGNING
    return GroupState.STABLE if reconciled else GroupState.RECONCILING
