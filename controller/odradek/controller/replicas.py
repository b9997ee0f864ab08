"""What a broker's coming and going does to partitions: the records that move leaders, ISRs and ELRs.

Finding the partitions of a broker is a scan of the image, 0.3 µs a partition (30 ms with 100,000 of them),
where an index would have to be kept through every change and every loss of leadership. Deciding what
becomes of one takes 10 µs, so that fencing a broker with 1,000 partitions is decided in 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from odradek.controller.partition_change import Election, PartitionChange, effective_min_isr
from odradek.controller.state import ControllerState
from odradek.metadata.image import (
    MIGRATING_DIRECTORY,
    UNASSIGNED_DIRECTORY,
    BrokerImage,
    PartitionImage,
    TopicImage,
)
from odradek.metadata.records import (
    NO_LEADER,
    BrokerRegistrationChangeRecord,
    PartitionChangeRecord,
    Record,
    UnregisterBrokerRecord,
    Uuids,
)

Acceptable = Callable[[int], bool]
Concerned = Callable[[PartitionImage], bool]


def default_directory(broker: BrokerImage | None) -> bytes:
    """Where a new replica will be: known if the broker has one directory only."""
    if broker is None or len(broker.directories) != 1:
        return UNASSIGNED_DIRECTORY
    return broker.directories[0]


def default_directories(state: ControllerState, replicas: tuple[int, ...]) -> Uuids:
    return tuple(default_directory(state.image.brokers.get(broker_id)) for broker_id in replicas)


def acceptable_leader(
    state: ControllerState, partition: PartitionImage, is_active: Acceptable | None = None
) -> Acceptable:
    """Whether a replica may lead: its broker is active, as things are or as `is_active` has them, and its
    directory online.
    """
    active = is_active or state.is_active

    def acceptable(broker_id: int) -> bool:
        if not active(broker_id):
            return False
        return state.image.brokers[broker_id].has_online_directory(partition.directory(broker_id))

    return acceptable


def partition_change(
    state: ControllerState,
    topic: TopicImage,
    partition_id: int,
    is_active: Acceptable | None = None,
    min_isr: int | None = None,
) -> PartitionChange:
    """A change of one partition to be filled in."""
    partition = topic.partitions[partition_id]
    return PartitionChange(
        topic.id,
        partition_id,
        partition,
        acceptable_leader(state, partition, is_active),
        state.min_isr(topic) if min_isr is None else min_isr,
        lambda broker_id: default_directory(state.image.brokers.get(broker_id)),
    )


def fence(state: ControllerState, broker: BrokerImage) -> list[Record]:
    """The broker leaves ISRs and leaderships, then is fenced (M3 at every batch)."""
    return [
        *without_broker(state, broker.id),
        BrokerRegistrationChangeRecord(broker.id, broker.epoch, fenced=True),
    ]


def unfence(state: ControllerState, broker: BrokerImage) -> list[Record]:
    """The broker is unfenced, then leads what had no leader and can have it."""
    records: list[Record] = [BrokerRegistrationChangeRecord(broker.id, broker.epoch, fenced=False)]

    def is_active(broker_id: int) -> bool:
        return broker_id == broker.id or state.is_active(broker_id)

    def concerned(partition: PartitionImage) -> bool:
        return partition.leader == NO_LEADER and broker.id in partition.replicas

    return records + partition_changes(state, concerned, is_active)


def begin_shutdown(state: ControllerState, broker: BrokerImage) -> list[Record]:
    """Controlled shutdown: the broker hands over its leaderships while it still serves."""
    change = BrokerRegistrationChangeRecord(broker.id, broker.epoch, in_controlled_shutdown=True)
    return [change, *without_broker(state, broker.id)]


def unregister(state: ControllerState, broker: BrokerImage) -> list[Record]:
    """The broker will not come back: it leaves ISR and ELR of every partition. Its replicas stay assigned."""
    return [
        *without_broker(state, broker.id, unclean=True),
        UnregisterBrokerRecord(broker.id, broker.epoch),
    ]


def without_broker(
    state: ControllerState, broker_id: int, *, unclean: bool = False, lost: Concerned | None = None
) -> list[Record]:
    """Changes that take a broker out of all ISRs; and out of all ELRs too if what it has may be gone
    (`unclean`), or of those whose replica is gone (`lost`).
    """

    def gone(partition: PartitionImage) -> bool:
        return unclean or (lost is not None and broker_id in partition.replicas and lost(partition))

    def is_active(other: int) -> bool:
        return other != broker_id and state.is_active(other)

    def concerned(partition: PartitionImage) -> bool:
        return broker_id in partition.isr or (broker_id in partition.elr and gone(partition))

    def remove(change: PartitionChange) -> None:
        take_out(change, broker_id, unclean=gone(change.before))

    return partition_changes(state, concerned, is_active, remove)


def take_out(change: PartitionChange, broker_id: int, *, unclean: bool) -> None:
    change.isr = tuple(replica for replica in change.isr if replica != broker_id)
    if unclean:
        change.unclean_replicas = (broker_id,)


def not_there(broker: BrokerImage, online: set[bytes]) -> Concerned:
    """Of which partitions the replica on this broker is gone when it comes with these directories.

    Where a replica was that has not been assigned to a directory yet, nobody knows: it is gone if any is.
    """
    any_gone = broker.lost_directories or not set(broker.directories) <= online

    def lost(partition: PartitionImage) -> bool:
        directory = partition.directory(broker.id)
        if directory in (UNASSIGNED_DIRECTORY, MIGRATING_DIRECTORY):
            return any_gone
        return directory not in online

    return lost


def without_directories(state: ControllerState, broker: BrokerImage, offline: set[bytes]) -> list[Record]:
    """The broker lost directories: replicas in them leave ISR and ELR. What is on a disk that fails cannot
    be relied on, and what replaces the disk is empty.
    """

    def concerned(partition: PartitionImage) -> bool:
        if broker.id not in partition.isr and broker.id not in partition.elr:
            return False
        return partition.directory(broker.id) in offline

    def is_active(other: int) -> bool:
        return other != broker.id and state.is_active(other)

    def remove(change: PartitionChange) -> None:
        take_out(change, broker.id, unclean=True)

    return partition_changes(state, concerned, is_active, remove)


def offline_directories(state: ControllerState, broker: BrokerImage, offline: set[bytes]) -> list[Record]:
    """The broker lost log directories: replicas in them lose their standing, and they leave the
    registration.
    """
    lost = offline & set(broker.directories)
    if not lost:
        return []
    remaining = tuple(directory for directory in broker.directories if directory not in lost)
    return [
        *without_directories(state, broker, lost),
        BrokerRegistrationChangeRecord(broker.id, broker.epoch, directories=remaining),
    ]


def clear_needless_elrs(state: ControllerState, min_isr_of: Callable[[TopicImage], int]) -> list[Record]:
    """After min.insync.replicas fell: an ISR that is large enough now has no ELR beside it (M3)."""
    records: list[Record] = []
    for topic, partition_ids in _concerned(state, lambda partition: bool(partition.elr)):
        configured = min_isr_of(topic)
        for partition_id in partition_ids:
            partition = topic.partitions[partition_id]
            wanted = effective_min_isr(configured, len(partition.replicas), len(partition.adding))
            if len(partition.isr) >= wanted:
                records.append(PartitionChangeRecord(topic.id, partition_id, elr=()))
    return records


def partition_changes(
    state: ControllerState,
    concerned: Concerned,
    is_active: Acceptable | None = None,
    adjust: Callable[[PartitionChange], None] | None = None,
    most: int | None = None,
) -> list[Record]:
    """The change of every partition (or of so many) that is `concerned`, after `adjust`, with an election
    where one is needed.
    """
    records: list[Record] = []
    for topic, partition_ids in _concerned(state, concerned):
        min_isr = state.min_isr(topic)
        election = Election.UNCLEAN if state.unclean_election(topic) else Election.ONLINE
        for partition_id in partition_ids:
            change = partition_change(state, topic, partition_id, is_active, min_isr)
            change.election = election
            if adjust is not None:
                adjust(change)
            record = change.build()
            if record is not None:
                records.append(record)
            if len(records) == most:
                return records
    return records


def _concerned(state: ControllerState, concerned: Concerned) -> Iterator[tuple[TopicImage, list[int]]]:
    for topic in state.image.topics.values():
        found = [number for number, partition in topic.partitions.items() if concerned(partition)]
        if found:
            yield topic, found
