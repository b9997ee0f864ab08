"""`odradek storage adopt`: a node takes over the data directories of an Apache Kafka that was a cluster of one node.

The logs stay as they are: both have the same files. The metadata log is another one: what it says of topics, their
configurations and producer ids becomes the first snapshot of ours, and Kafka's is kept beside it under another name.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from odradek.broker import kafka_metadata
from odradek.broker.kafka_metadata import BadKafkaRecord, CorruptBatch, KafkaMetadata
from odradek.cli.options import ToolError
from odradek.metadata.configs import validate_broker_config, validate_topic_config
from odradek.metadata.image import BROKER_RESOURCE, TOPIC_RESOURCE
from odradek.metadata.records import (
    NO_LEADER,
    ConfigRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    TopicRecord,
)
from odradek.raft import snapshots
from odradek.raft.log_index import SnapshotId
from odradek.storage import layout
from odradek.storage.batch import Damage
from odradek.storage.data_dir import DataDir, DataDirError
from odradek.storage.epochs import LeaderEpochCache
from odradek.wire.errors import KafkaError
from odradek.wire.uuid import uuid_to_string

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.ports.disk import Disk

KEPT_SUFFIX = ".kafka"
"""Behind the name of Kafka's metadata log, which is left for going back, or for a look."""
FIRST_EPOCH = 1
VALIDATE = {TOPIC_RESOURCE: validate_topic_config, BROKER_RESOURCE: validate_broker_config}


def adopt(config: BrokerConfig, disk: Disk, wall_ms: int) -> list[str]:
    """Do it; lines that tell what was taken over. ToolError, before anything is changed, says why not."""
    metadata_dir = os.path.abspath(config.metadata_dir)
    dirs = [DataDir(disk, path) for path in sorted({*map(os.path.abspath, config.log_dirs), metadata_dir})]
    try:
        for data_dir in dirs:
            if not disk.exists(f"{data_dir.path}/{layout.META_PROPERTIES}"):
                raise ToolError(f"{data_dir.path} has no {layout.META_PROPERTIES}: nobody has formatted it.")
            data_dir.take()
            data_dir.read_meta(config.node_id)
        if not kafka_metadata.is_kafkas(disk, metadata_dir):
            raise ToolError(f"The metadata log in {metadata_dir} was not written by Apache Kafka.")
        found = kafka_metadata.read(disk, metadata_dir)
        _check_alone(found, config.node_id)
        lines: list[str] = []
        records = _records(found, _partitions(disk, dirs, found, lines), config.node_id, lines)
        _put(disk, metadata_dir, records, wall_ms)
        lines += [f"Left behind: {count} {what}." for what, count in sorted(found.left_out.items())]
        return lines
    except (CorruptBatch, BadKafkaRecord) as error:
        raise ToolError(f"The metadata log in {metadata_dir} cannot be read: {error}.") from error
    except Damage as damage:
        raise ToolError(f"The metadata log in {metadata_dir} is damaged: {damage.reason}.") from damage
    except (DataDirError, OSError) as error:
        raise ToolError(str(error)) from error
    finally:
        for data_dir in dirs:
            data_dir.release()


def _check_alone(found: KafkaMetadata, node_id: int) -> None:
    others = {broker for replicas in found.replicas.values() for broker in replicas} - {node_id}
    if others:
        raise ToolError(
            f"Brokers {', '.join(map(str, sorted(others)))} have replicas too: only the directories of a cluster of "
            "one node can be adopted. Mirror a larger one."
        )


def _partitions(
    disk: Disk, dirs: list[DataDir], found: KafkaMetadata, lines: list[str]
) -> dict[tuple[bytes, int], tuple[bytes, int]]:
    """(topic id, partition) → (directory id, the leader epoch after the last one of its log)."""
    logs: dict[tuple[bytes, int], tuple[bytes, int]] = {}
    for data_dir in dirs:
        for name in disk.listdir(data_dir.path):
            key = layout.parse_log_dir_name(name)
            path = f"{data_dir.path}/{name}"
            if key is None or name == layout.METADATA_LOG_DIR or not disk.isdir(path):
                continue
            topic_id = data_dir.read_topic_id(path)
            if topic_id is None or found.topics.get(topic_id) != key[0]:
                lines.append(f"{path} is of no topic that there is; a node sets it aside.")
                continue
            logs[topic_id, key[1]] = data_dir.directory_id, LeaderEpochCache.load(disk, path).latest + 1
    return logs


def _records(
    found: KafkaMetadata, logs: dict[tuple[bytes, int], tuple[bytes, int]], node_id: int, lines: list[str]
) -> list[Record]:
    records: list[Record] = []
    counts = Counter(topic_id for topic_id, _ in found.replicas)
    for topic_id, name in sorted(found.topics.items(), key=lambda each: each[1]):
        records.append(TopicRecord(name, topic_id))
        for index in sorted(index for each, index in found.replicas if each == topic_id):
            directory, epoch = logs.get((topic_id, index), (b"", 0))
            records.append(
                PartitionRecord(
                    topic_id, index, replicas=(node_id,), isr=(node_id,), leader=NO_LEADER, leader_epoch=epoch,
                    directories=(directory,) if directory else (),
                )
            )  # fmt: skip
        lines.append(f"{name}: {counts[topic_id]} partitions, id {uuid_to_string(topic_id)}")
    for (kind, resource, key), value in sorted(found.configs.items()):
        validate = VALIDATE.get(kind)
        if validate is None:
            found.left_out[f"configurations of resources of type {kind}"] += 1
            continue
        try:
            validate(key, value)
        except KafkaError as error:
            lines.append(f"Left behind: {resource or 'all brokers'}: {key}={value} ({error}).")
            continue
        records.append(ConfigRecord(kind, resource, key, value))
    if found.next_producer_id:
        records.append(ProducerIdsRecord(node_id, -1, found.next_producer_id))
    return records


def _put(disk: Disk, metadata_dir: str, records: list[Record], wall_ms: int) -> None:
    """Ours in the place of Kafka's. After a crash in between there is none, and the copy to start again from."""
    path = f"{metadata_dir}/{layout.METADATA_LOG_DIR}"
    kept, new = (
        f"{metadata_dir}/{layout.METADATA_LOG_DIR}{KEPT_SUFFIX}",
        f"{metadata_dir}/{layout.METADATA_LOG_DIR}.new",
    )
    for name in (kept, new):
        if disk.exists(name):
            raise ToolError(f"{name} is in the way: move it elsewhere.")
    disk.makedirs(new)
    first = SnapshotId(len(records) + 1, FIRST_EPOCH)
    data = b"".join(snapshots.encode(first, None, [record.encode() for record in records], wall_ms))
    disk.write_file_atomic(f"{new}/{first.file_name}", data, durable=True)
    disk.rename(path, kept)
    disk.rename(new, path)
    disk.sync_dir(metadata_dir)
