import pytest

from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import (
    BROKER_RESOURCE,
    LOST_DIRECTORY,
    MIGRATING_DIRECTORY,
    TOPIC_RESOURCE,
    UNASSIGNED_DIRECTORY,
    MetadataImage,
    PartitionImage,
)
from odradek.metadata.records import (
    RECOVERING,
    BadRecord,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    FeatureLevelRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)


def uuid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def topic(name: str, number: int, partitions: int = 1) -> list[Record]:
    rows: list[Record] = [TopicRecord(name, uuid(number))]
    rows += [PartitionRecord(uuid(number), p, (1, 2), (1, 2), 1) for p in range(partitions)]
    return rows


def broker(broker_id: int, epoch: int, incarnation: int = 1, **more: object) -> RegisterBrokerRecord:
    return RegisterBrokerRecord(broker_id, uuid(incarnation), epoch, **more)  # type: ignore[arg-type]


def step(image: MetadataImage, *records: Record) -> tuple[MetadataDelta, MetadataImage]:
    delta = MetadataDelta(image)
    for record in records:
        delta.replay(record)
    return delta, delta.apply(image.offset + len(records), 1)


def image_of(*records: Record) -> MetadataImage:
    return step(MetadataImage(cluster_id="c"), *records)[1]


EVERYTHING = [
    FeatureLevelRecord("metadata.version", 30),
    broker(
        1,
        5,
        endpoints=(("PLAINTEXT", "localhost", 9092, 0),),
        rack="a",
        features=(("metadata.version", 7, 30),),
    ),
    broker(2, 6, incarnation=2, directories=(uuid(900),)),
    BrokerRegistrationChangeRecord(1, 5, fenced=False),
    *topic("orders", 10, 3),
    *topic("payments", 11, 1),
    PartitionChangeRecord(
        uuid(10), 1, leader=-1, isr=(), elr=(1,), last_known_elr=(), leader_recovery_state=RECOVERING
    ),
    PartitionChangeRecord(uuid(10), 2, adding_replicas=(3,), removing_replicas=(2,), replicas=(1, 2, 3)),
    ConfigRecord(TOPIC_RESOURCE, "orders", "retention.ms", "1"),
    ConfigRecord(BROKER_RESOURCE, "", "min.insync.replicas", "1"),
    ProducerIdsRecord(1, 5, 1000),
]


def test_a_topic_is_created_with_its_partitions() -> None:
    delta, image = step(MetadataImage(), *topic("orders", 10, 2))
    assert delta.topics_created == {"orders"}
    assert not delta.topics_changed
    assert image.topic_names == {uuid(10): "orders"}
    assert list(image.topics["orders"].partitions) == [0, 1]
    assert image.topics["orders"].partitions[1] == PartitionImage(replicas=(1, 2), isr=(1, 2), leader=1)
    assert image.topic_by_id(uuid(10)) is image.topics["orders"]
    assert image.topic_by_id(uuid(11)) is None
    assert (image.offset, image.epoch) == (2, 1)


def test_older_images_stay_as_they_were() -> None:
    first = image_of(*EVERYTHING)
    kept = image_of(*EVERYTHING)
    step(
        first,
        PartitionChangeRecord(uuid(10), 0, leader=2),
        RemoveTopicRecord(uuid(11)),
        *topic("new", 12),
        ConfigRecord(BROKER_RESOURCE, "", "min.insync.replicas", "2"),
        ConfigRecord(TOPIC_RESOURCE, "orders", "retention.ms"),
        UnregisterBrokerRecord(2, 6),
        BrokerRegistrationChangeRecord(1, 5, fenced=True),
        FeatureLevelRecord("metadata.version", 0),
        ProducerIdsRecord(1, 5, 2000),
    )
    assert first == kept


def test_what_a_change_does_not_touch_is_shared() -> None:
    before = image_of(*EVERYTHING)
    _, after = step(before, *topic("new", 12))
    assert after.topics["orders"] is before.topics["orders"]
    assert after.brokers is before.brokers
    assert after.configs is before.configs
    assert after.features is before.features
    _, later = step(after, PartitionChangeRecord(uuid(10), 0, leader=2))
    assert later.topics["orders"].partitions[1] is after.topics["orders"].partitions[1]
    assert later.topics["payments"] is after.topics["payments"]
    assert later.topic_names == after.topic_names


def test_a_change_raises_the_partition_epoch_and_a_named_leader_the_leader_epoch() -> None:
    image = image_of(*topic("orders", 10))
    _, image = step(image, PartitionChangeRecord(uuid(10), 0, isr=(1,)))
    partition = image.topics["orders"].partitions[0]
    assert (partition.leader, partition.leader_epoch, partition.partition_epoch) == (1, 0, 1)
    delta, image = step(image, PartitionChangeRecord(uuid(10), 0, leader=1))
    partition = image.topics["orders"].partitions[0]
    assert (partition.leader, partition.leader_epoch, partition.partition_epoch) == (1, 1, 2)
    assert partition.isr == (1,)
    assert delta.topics_changed == {"orders"}


def test_a_removed_topic_takes_its_configuration_along() -> None:
    before = image_of(*EVERYTHING)
    delta, image = step(before, RemoveTopicRecord(uuid(10)))
    assert delta.topics_deleted == {"orders": before.topics["orders"]}
    assert not delta.topics_created
    assert delta.configs_changed == {(TOPIC_RESOURCE, "orders")}
    assert "orders" not in image.topics
    assert uuid(10) not in image.topic_names
    assert (TOPIC_RESOURCE, "orders") not in image.configs


def test_a_topic_created_and_removed_in_one_step_leaves_no_trace() -> None:
    delta, image = step(MetadataImage(), *topic("orders", 10), RemoveTopicRecord(uuid(10)))
    assert not delta
    assert image.topics == {}


def test_a_name_taken_again_is_both_deleted_and_created() -> None:
    before = image_of(*topic("orders", 10))
    delta, image = step(
        before,
        PartitionChangeRecord(uuid(10), 0, leader=2),
        RemoveTopicRecord(uuid(10)),
        *topic("orders", 11),
    )
    assert delta.topics_deleted["orders"].id == uuid(10)
    assert delta.topics_created == {"orders"}
    assert not delta.topics_changed
    assert image.topic_names == {uuid(11): "orders"}


def test_configs_are_set_and_the_last_removal_drops_the_resource() -> None:
    image = image_of(
        ConfigRecord(4, "1", "a", "x"), ConfigRecord(4, "1", "b", "y"), ConfigRecord(4, "1", "a")
    )
    assert image.config(4, "1") == {"b": "y"}
    _, image = step(image, ConfigRecord(4, "1", "b"))
    assert image.configs == {}
    assert image.config(4, "1") == {}


def test_a_broker_comes_changes_and_goes() -> None:
    delta, image = step(MetadataImage(), broker(1, 7))
    assert delta.brokers_changed == {1}
    assert image.brokers[1].fenced
    assert not image.brokers[1].active
    _, image = step(image, BrokerRegistrationChangeRecord(1, 7, fenced=False))
    assert image.brokers[1].active
    _, image = step(image, BrokerRegistrationChangeRecord(1, 7, in_controlled_shutdown=True))
    assert not image.brokers[1].active
    delta, image = step(image, UnregisterBrokerRecord(1, 7))
    assert delta.brokers_changed == {1}
    assert image.brokers == {}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (TopicRecord("orders", uuid(99)), "exists already"),
        (TopicRecord("other", uuid(10)), "is taken by 'orders'"),
        (RemoveTopicRecord(uuid(99)), "no topic with id"),
        (PartitionRecord(uuid(99), 0, (1,), (1,), 1), "no topic with id"),
        (PartitionRecord(uuid(10), 0, (1,), (1,), 1), "partition 0 of 'orders' where 3 is next"),
        (PartitionRecord(uuid(10), 4, (1,), (1,), 1), "partition 4 of 'orders' where 3 is next"),
        (PartitionChangeRecord(uuid(10), 3, leader=1), "no partition 3"),
        (PartitionChangeRecord(uuid(99), 0, leader=1), "no topic with id"),
        (broker(1, 4, incarnation=9), "epoch 4 after 5"),
        (broker(1, 5, incarnation=9), "epoch 5 after 5"),
        (BrokerRegistrationChangeRecord(1, 4, fenced=True), "has epoch 5, not 4"),
        (BrokerRegistrationChangeRecord(9, 4, fenced=True), "broker 9 is not registered"),
        (UnregisterBrokerRecord(9, 4), "broker 9 is not registered"),
        (ProducerIdsRecord(1, 5, 1000), "next producer id 1000 after 1000"),
    ],
)
def test_a_record_that_contradicts_the_state_is_refused(record: Record, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        step(image_of(*EVERYTHING), record)


def test_the_same_incarnation_may_amend_its_registration() -> None:
    image = image_of(broker(1, 5))
    _, image = step(image, broker(1, 5, fenced=False, rack="b"))
    assert image.brokers[1].rack == "b"


def test_a_no_op_changes_nothing_but_the_offset() -> None:
    before = image_of(*EVERYTHING)
    delta, after = step(before, NoOpRecord())
    assert not delta
    assert after.offset == before.offset + 1
    after.offset = before.offset
    assert after == before


def test_the_records_of_an_image_build_the_same_image() -> None:
    image = image_of(*EVERYTHING)
    again = MetadataDelta(MetadataImage(cluster_id="c"))
    for record in image.records():
        again.replay(record)
    assert again.apply(image.offset, image.epoch) == image


def test_between_names_every_difference_of_two_images() -> None:
    old = image_of(*EVERYTHING)
    _, new = step(
        old,
        PartitionChangeRecord(uuid(10), 0, leader=2),
        RemoveTopicRecord(uuid(11)),
        *topic("payments", 12),
        *topic("new", 13),
        ConfigRecord(4, "", "min.insync.replicas", "2"),
        UnregisterBrokerRecord(2, 6),
        FeatureLevelRecord("group.version", 1),
    )
    delta = MetadataDelta.between(old, new)
    assert delta.topics_created == {"payments", "new"}
    assert delta.topics_deleted == {"payments": old.topics["payments"]}
    assert delta.topics_changed == {"orders"}
    assert delta.configs_changed == {(4, "")}
    assert delta.brokers_changed == {2}
    assert delta.features_changed == {"group.version"}
    assert not MetadataDelta.between(old, old)


def test_in_place_the_private_copy_changes_and_the_image_it_came_from_does_not() -> None:
    image = image_of(*EVERYTHING)
    kept = image_of(*EVERYTHING)
    private = image.private_copy()
    topics = private.topics
    changes: list[Record] = [
        PartitionChangeRecord(uuid(10), 0, leader=2),
        RemoveTopicRecord(uuid(11)),
        *topic("new", 12),
        ConfigRecord(TOPIC_RESOURCE, "orders", "retention.ms", "9"),
        UnregisterBrokerRecord(2, 6),
        FeatureLevelRecord("metadata.version", 0),
    ]
    delta = MetadataDelta(private, in_place=True)
    for record in changes:
        delta.replay(record)
    changed = delta.apply(image.offset + len(changes), 1)
    assert changed.topics is topics
    assert changed == step(image, *changes)[1]
    assert (delta.topics_created, delta.topics_changed, set(delta.topics_deleted)) == (
        {"new"},
        {"orders"},
        {"payments"},
    )
    assert image == kept


def test_a_delta_that_gave_its_image_takes_no_more_records() -> None:
    delta, _ = step(MetadataImage(), *topic("orders", 10))
    with pytest.raises(AssertionError):
        delta.replay(NoOpRecord())


def test_directories_of_replicas_and_brokers() -> None:
    partition = PartitionImage(replicas=(1, 2), isr=(1,), leader=1, directories=(uuid(500), uuid(0)))
    assert partition.directory(1) == uuid(500)
    with pytest.raises(KeyError):
        partition.directory(3)
    image = image_of(broker(2, 6, directories=(uuid(500),)))
    assert image.brokers[2].has_online_directory(uuid(500))
    assert image.brokers[2].has_online_directory(MIGRATING_DIRECTORY)
    assert image.brokers[2].has_online_directory(UNASSIGNED_DIRECTORY)
    assert not image.brokers[2].has_online_directory(uuid(501))
    assert not image.brokers[2].has_online_directory(LOST_DIRECTORY)


def test_what_a_broker_may_lack_is_remembered_until_it_is_unfenced_or_registers_anew() -> None:
    started = broker(2, 6, directories=(uuid(500), uuid(501)))
    started.complete_epoch = 3
    image = image_of(started)
    assert image.brokers[2].complete_epoch == 3
    assert not image.brokers[2].lost_directories
    image = step(image, BrokerRegistrationChangeRecord(2, 6, directories=(uuid(500),)))[1]
    assert (image.brokers[2].complete_epoch, image.brokers[2].lost_directories) == (3, True)
    image = step(image, BrokerRegistrationChangeRecord(2, 6, fenced=False))[1]
    assert (image.brokers[2].complete_epoch, image.brokers[2].lost_directories) == (-1, True)
    image = step(image, broker(2, 9, incarnation=2, directories=(uuid(500),)))[1]
    assert not image.brokers[2].lost_directories
