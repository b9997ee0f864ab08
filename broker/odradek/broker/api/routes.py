"""Which handler answers which API, and the versions told to clients.

What is not in this table is not advertised. Versions are those of Kafka 4.3, except where this file says why not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.broker.api import (
    alter_configs,
    alter_replica_log_dirs,
    api_versions,
    delete_records,
    describe_cluster,
    describe_configs,
    describe_log_dirs,
    describe_producers,
    describe_topic_partitions,
    fetch,
    find_coordinator,
    forwarded,
    groups,
    list_config_resources,
    list_offsets,
    metadata,
    offset_for_leader_epoch,
    produce,
    transactions,
    write_txn_markers,
)
from odradek.broker.dispatch import Function, generic
from odradek.wire.apis import APIS, ApiKey

if TYPE_CHECKING:
    from odradek.broker.node import Node

HAND_WRITTEN: dict[int, Any] = {
    ApiKey.PRODUCE: produce.handler,
    ApiKey.FETCH: fetch.handler,
    ApiKey.METADATA: metadata.handler,
    ApiKey.API_VERSIONS: api_versions.handler,
}
FUNCTIONS: dict[int, Function] = {
    ApiKey.LIST_OFFSETS: list_offsets.list_offsets,
    ApiKey.FIND_COORDINATOR: find_coordinator.find_coordinator,
    ApiKey.DELETE_RECORDS: delete_records.delete_records,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch.offset_for_leader_epoch,
    ApiKey.DESCRIBE_CONFIGS: describe_configs.describe_configs,
    ApiKey.LIST_CONFIG_RESOURCES: list_config_resources.list_config_resources,
    ApiKey.DESCRIBE_CLUSTER: describe_cluster.describe_cluster,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: describe_topic_partitions.describe_topic_partitions,
    ApiKey.DESCRIBE_LOG_DIRS: describe_log_dirs.describe_log_dirs,
    ApiKey.ALTER_REPLICA_LOG_DIRS: alter_replica_log_dirs.alter_replica_log_dirs,
    ApiKey.DESCRIBE_PRODUCERS: describe_producers.describe_producers,
    ApiKey.WRITE_TXN_MARKERS: write_txn_markers.write_txn_markers,
    **dict.fromkeys(forwarded.KEYS, forwarded.to_controller),
    ApiKey.ALTER_CONFIGS: alter_configs.alter_configs,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: alter_configs.incremental_alter_configs,
    **groups.FUNCTIONS,
    **transactions.FUNCTIONS,
}
VERSIONS: dict[int, range] = {
    # 0-2 are told so that librdkafka compresses (KAFKA-18659) and refused when used.
    ApiKey.PRODUCE: range(14),
    # 6 carries two-phase commit (KIP-939), which is not stable in 4.3.
    ApiKey.INIT_PRODUCER_ID: range(6),
}


def build(node: Node) -> tuple[dict[int, range], dict[int, Any]]:
    """(versions to advertise, handlers) by API key."""
    advertised: dict[int, range] = {}
    handlers: dict[int, Any] = {}
    for key, make in HAND_WRITTEN.items():
        advertised[key] = VERSIONS.get(key, range(APIS[key].min_version, APIS[key].max_version + 1))
        handlers[key] = make(node)
    for key, function in FUNCTIONS.items():
        advertised[key] = VERSIONS.get(key, range(APIS[key].min_version, APIS[key].max_version + 1))
        handlers[key] = generic(node, key, function, advertised[key])
    return advertised, handlers
