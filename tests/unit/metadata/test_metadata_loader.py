import pytest

from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import MetadataImage
from odradek.metadata.publisher import CommittedBatch, MetadataFault, MetadataLoader
from odradek.metadata.records import (
    ConfigRecord,
    NoOpRecord,
    PartitionRecord,
    Record,
    RemoveTopicRecord,
    TopicRecord,
)

ID = bytes(15) + b"\x07"
ORDERS: list[Record] = [TopicRecord("orders", ID), PartitionRecord(ID, 0, (1,), (1,), 1)]


class Seen:
    def __init__(self) -> None:
        self.calls: list[tuple[MetadataDelta, MetadataImage]] = []

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.calls.append((delta, image))


def batch(base_offset: int, *records: Record, epoch: int = 1) -> CommittedBatch:
    return CommittedBatch(base_offset, epoch, [record.encode() for record in records])


def test_the_log_at_start_is_published_as_one_change() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.add_publisher(seen)
    loader.on_commit([batch(1, *ORDERS)])
    loader.on_commit([batch(4, RemoveTopicRecord(ID), epoch=2), batch(6, TopicRecord("b", ID), epoch=3)])
    assert not seen.calls
    loader.caught_up()
    [(delta, image)] = seen.calls
    assert delta.topics_created == {"b"}
    assert not delta.topics_deleted
    assert (image.offset, image.epoch) == (6, 3)
    assert image is loader.image


def test_committed_records_are_published_as_they_come() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.caught_up()
    loader.add_publisher(seen)
    loader.on_commit([batch(0, *ORDERS)])
    assert [image.offset for _, image in seen.calls] == [-1, 1]
    assert seen.calls[-1][0].topics_created == {"orders"}


def test_a_late_publisher_is_told_everything_at_once() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.on_commit([batch(0, *ORDERS)])
    loader.caught_up()
    loader.add_publisher(seen)
    assert seen.calls[0][0].topics_created == {"orders"}


def test_a_commit_without_records_publishes_nothing() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.caught_up()
    loader.add_publisher(seen)
    loader.on_commit([])
    assert len(seen.calls) == 1


def test_a_snapshot_replaces_the_image_and_publishers_hear_the_difference() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.caught_up()
    loader.add_publisher(seen)
    loader.on_commit([batch(0, *ORDERS)])
    other = bytes(15) + b"\x08"
    loader.on_snapshot(40, 5, [TopicRecord("new", other).encode(), ConfigRecord(2, "new", "a", "b").encode()])
    delta, image = seen.calls[-1]
    assert (image.offset, image.epoch) == (39, 5)
    assert list(image.topics) == ["new"]
    assert (set(delta.topics_deleted), delta.topics_created) == ({"orders"}, {"new"})
    assert delta.configs_changed == {(2, "new")}
    assert loader.bytes_since_snapshot == 0


def test_bytes_since_the_snapshot_are_counted() -> None:
    loader = MetadataLoader("c")
    loader.on_commit([batch(0, *ORDERS)])
    assert loader.bytes_since_snapshot == sum(len(record.encode()) for record in ORDERS)


def test_a_bad_committed_record_is_a_fault_that_names_its_offset() -> None:
    loader = MetadataLoader("c")
    with pytest.raises(
        MetadataFault, match="offset 8 cannot be applied: there is no topic with id"
    ) as caught:
        loader.on_commit([batch(7, NoOpRecord(), RemoveTopicRecord(ID))])
    assert caught.value.offset == 8
    assert loader.image.offset == -1
    with pytest.raises(MetadataFault, match="offset 7 cannot be applied: not a msgpack map"):
        loader.on_commit([CommittedBatch(7, 1, [b"\x91"])])


def test_a_new_controller_is_published_once() -> None:
    loader, seen = MetadataLoader("c"), Seen()
    loader.caught_up()
    loader.add_publisher(seen)
    loader.on_controller(3)
    loader.on_controller(3)
    delta, image = seen.calls[-1]
    assert len(seen.calls) == 2
    assert delta.controller_changed
    assert image.controller_id == 3
    loader.on_commit([batch(0, *ORDERS)])
    assert loader.image.controller_id == 3
