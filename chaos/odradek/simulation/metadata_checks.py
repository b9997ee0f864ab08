"""M2 to M4 over the newest committed metadata image that any node has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from odradek.metadata.image import MetadataImage, PartitionImage
from odradek.simulation.trace import InvariantViolation

if TYPE_CHECKING:
    from odradek.metadata.delta import MetadataDelta
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.machine import Process

Key = tuple[bytes, int]


class MetadataChecks:
    """Follows whoever is ahead; M1 says that all see the same."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.image = MetadataImage()
        self._partitions: dict[Key, PartitionImage] = {}
        self._broker_epochs: dict[int, int] = {}

    def partition(self, key: Key) -> PartitionImage | None:
        return self._partitions.get(key)

    def partitions(self) -> list[tuple[Key, PartitionImage]]:
        return list(self._partitions.items())

    def on_metadata(
        self, process: Process, delta: MetadataDelta, image: MetadataImage
    ) -> list[tuple[Key, PartitionImage]]:
        """Check what is new; the partitions that changed."""
        if image.offset <= self.image.offset:
            return []
        before, self.image = self.image, image
        for topic in before.topics.values():
            there = image.topics.get(topic.name)
            if there is None or there.id != topic.id:
                for index in topic.partitions:
                    self._partitions.pop((topic.id, index), None)
                self._cluster.topic_gone(topic)
        self._check_brokers(image)
        changed = list(self._changed(image))
        for key, partition in changed:
            self._check_epochs(key, partition)
            self._partitions[key] = partition
        for key, partition in self._partitions.items() if delta.brokers_changed else changed:
            self._check_members(key, partition)
        return changed

    def _changed(self, image: MetadataImage) -> Iterator[tuple[Key, PartitionImage]]:
        for topic in image.topics.values():
            for index, partition in topic.partitions.items():
                if self._partitions.get((topic.id, index)) is not partition:
                    yield (topic.id, index), partition

    def _check_brokers(self, image: MetadataImage) -> None:
        for broker in image.brokers.values():
            known = self._broker_epochs.get(broker.id, -1)
            if broker.epoch < known:
                raise InvariantViolation(
                    f"M2: the epoch of broker {broker.id} falls from {known} to {broker.epoch}"
                )
            if broker.epoch != known:
                self._cluster.trace.note("metadata", "registered", broker.id, broker.epoch, broker.fenced)
            self._broker_epochs[broker.id] = broker.epoch

    def _check_epochs(self, key: Key, partition: PartitionImage) -> None:
        old = self._partitions.get(key)
        name = f"{self.image.topic_names.get(key[0])}-{key[1]}"
        if old is None:
            return
        if partition == old:
            return
        self._cluster.trace.note(
            "metadata", "partition", name, f"leader={partition.leader}/{partition.leader_epoch}",
            f"isr={list(partition.isr)}", f"elr={list(partition.elr)}", f"epoch={partition.partition_epoch}",
        )  # fmt: skip
        if partition.leader_epoch < old.leader_epoch:
            raise InvariantViolation(f"M2: leader epoch of {name} falls: {old} to {partition}")
        if partition.partition_epoch <= old.partition_epoch:
            raise InvariantViolation(f"M2: partition epoch of {name} does not rise: {old} to {partition}")
        if partition.leader != old.leader and partition.leader_epoch == old.leader_epoch:
            raise InvariantViolation(f"M2: another leader of {name} in the same epoch: {old} to {partition}")
        self._cluster.nemesis.on_isr(old, partition)
        self._cluster.trace.count(
            "metadata: ISR shrunk" if len(partition.isr) < len(old.isr) else "metadata: partition changed"
        )

    def _check_members(self, key: Key, partition: PartitionImage) -> None:
        name = f"{self.image.topic_names.get(key[0])}-{key[1]}"
        isr, elr = set(partition.isr), set(partition.elr)
        if not isr <= set(partition.replicas):
            raise InvariantViolation(f"M3: ISR of {name} beyond its replicas: {partition}")
        if isr & elr:
            raise InvariantViolation(f"M3: ISR and ELR of {name} overlap: {partition}")
        for member in partition.isr:
            broker = self.image.brokers.get(member)
            if broker is None or broker.fenced:
                raise InvariantViolation(f"M3: fenced broker {member} in the ISR of {name}: {partition}")
        topic = self.image.topic_names.get(key[0], "")
        if elr and len(isr) >= self._cluster.min_isr(topic, len(partition.replicas)):
            raise InvariantViolation(f"M3: ELR of {name} with enough in sync: {partition}")
        if partition.leader >= 0 and partition.leader not in isr:
            raise InvariantViolation(f"M4: the leader of {name} is not in the ISR: {partition}")
