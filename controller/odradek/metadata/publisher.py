"""From committed records to images to whoever wants to know: the metadata loader and its publishers.

Every node has one loader, and committed records come in encoded and by no other way: what the active
controller decided becomes visible, to itself as a broker too, by the same bytes and the same replay as
everywhere else. M1 follows: the image is always that of a prefix of the committed log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import MetadataImage
from odradek.metadata.records import BadRecord, decode


class CommittedBatch(NamedTuple):
    """Records with consecutive offsets from `base_offset`, written in Raft epoch `epoch`."""

    base_offset: int
    epoch: int
    records: Sequence[bytes]

    @property
    def last_offset(self) -> int:
        return self.base_offset + len(self.records) - 1


class MetadataPublisher(Protocol):
    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """`image` is the newest state, `delta` what is new in it. Both may be kept, neither changed."""
        ...


class MetadataFault(RuntimeError):  # noqa: N818 - Kafka's word
    """A committed record cannot be applied. The node must stop: it would diverge from the others."""

    def __init__(self, offset: int, reason: object) -> None:
        super().__init__(f"metadata record at offset {offset} cannot be applied: {reason}")
        self.offset = offset


class MetadataLoader:
    """Owns the newest committed image of a node and tells publishers, in the order in which they were added.

    Until `caught_up` nothing is published: a node that starts sees its log as one change, not as its history.
    """

    def __init__(self, cluster_id: str) -> None:
        self.image = MetadataImage(cluster_id=cluster_id)
        self.bytes_since_snapshot = 0
        """Size of the records applied since the newest snapshot."""
        self._publishers: list[MetadataPublisher] = []
        self._published: MetadataImage | None = None

    @property
    def publishing(self) -> bool:
        return self._published is not None

    def add_publisher(self, publisher: MetadataPublisher) -> None:
        """Tell `publisher` of every change from now on, and at once of what has been published up to now."""
        if self._published is not None:
            empty = MetadataImage(cluster_id=self.image.cluster_id)
            publisher.on_metadata(MetadataDelta.between(empty, self._published), self._published)
        self._publishers.append(publisher)

    def caught_up(self) -> None:
        """The log that was there at the start has been applied: publish, now and from now on."""
        if self._published is None:
            self._published = empty = MetadataImage(cluster_id=self.image.cluster_id)
            self._tell(MetadataDelta.between(empty, self.image), self.image)

    def on_commit(self, batches: Iterable[CommittedBatch]) -> None:
        """Apply committed records as one change. MetadataFault if one cannot be applied."""
        delta = MetadataDelta(self.image)
        offset, epoch = self.image.offset, self.image.epoch
        for batch in batches:
            for position, data in enumerate(batch.records):
                replay_committed(delta, batch.base_offset + position, data)
                self.bytes_since_snapshot += len(data)
            offset, epoch = max(offset, batch.last_offset), batch.epoch
        if offset > self.image.offset:
            self._publish(delta, delta.apply(offset, epoch))

    def on_snapshot(self, end_offset: int, epoch: int, records: Iterable[bytes]) -> None:
        """Replace everything by a snapshot of all records below `end_offset`."""
        before = self.image
        delta = MetadataDelta(MetadataImage(cluster_id=before.cluster_id, controller_id=before.controller_id))
        for data in records:
            replay_committed(delta, end_offset - 1, data)
        self.bytes_since_snapshot = 0
        image = delta.apply(end_offset - 1, epoch)
        self._publish(MetadataDelta.between(before, image), image)

    def on_controller(self, controller_id: int) -> None:
        """The quorum has another leader (-1: none)."""
        if controller_id == self.image.controller_id:
            return
        delta = MetadataDelta(self.image)
        delta.controller_changed = True
        image = delta.apply(self.image.offset, self.image.epoch)
        image.controller_id = controller_id
        self._publish(delta, image)

    def _publish(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Make `image`, built from the present one by `delta`, the newest."""
        assert image.offset >= self.image.offset, "the committed log does not shrink"
        self.image = image
        if self._published is not None:
            self._tell(delta, image)

    def _tell(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self._published = image
        for publisher in tuple(self._publishers):
            publisher.on_metadata(delta, image)


def replay_committed(delta: MetadataDelta, offset: int, data: bytes) -> None:
    """Decode and replay one committed record; MetadataFault, with its offset, if that cannot be done."""
    try:
        delta.replay(decode(data))
    except BadRecord as error:
        raise MetadataFault(offset, error) from error
