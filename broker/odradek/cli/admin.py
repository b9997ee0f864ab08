"""What the tools ask a cluster: a thin, typed layer over kafka-python's admin client.

Its own methods are used where they keep what the broker said; requests are built here where they drop it (error
messages of partitions and configs, empty lists told from absent ones, the default broker's resource name ""). Errors
become `ClusterError` with the code and the broker's own sentence.

Connecting is tried first with plain sockets: the difference between "nobody listens", "no such host" and "that is not
a Kafka broker" is what the user needs to know, and no client library tells it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from odradek.cli.options import ToolError, warn
from odradek.cli.properties import client_settings, load_properties
from odradek.wire.errors import ErrorCode
from odradek.wire.uuid import ZERO_UUID, uuid_to_string

CONNECT_MS = 1_000  # how long a refused connection is tried again: a node that is just starting
BOOTSTRAP_MS = 10_000  # for a node that listens but does not yet know the cluster
ADMIN_TIMEOUT_MS: Final = 30_000
REFUSED_MS = 5_000  # how long other brokers are tried in place of those that are gone
REFUSED_PAUSE_S = 0.05

# Names of exceptions of the Java client that do not follow from the name of the error code.
_JAVA_NAMES: Final = {
    "TOPIC_ALREADY_EXISTS": "TopicExistsException",
    "INVALID_TOPIC_EXCEPTION": "InvalidTopicException",
    "INVALID_CONFIG": "InvalidConfigurationException",
    "NON_EMPTY_GROUP": "GroupNotEmptyException",
    "GROUP_SUBSCRIBED_TO_TOPIC": "GroupSubscribedToTopicException",
    "REQUEST_TIMED_OUT": "TimeoutException",
    "CORRUPT_MESSAGE": "CorruptRecordException",
    "MESSAGE_TOO_LARGE": "RecordTooLargeException",
    "KAFKA_STORAGE_ERROR": "KafkaStorageException",
    "UNKNOWN_SERVER_ERROR": "UnknownServerException",
    "NETWORK_EXCEPTION": "NetworkException",
    "INVALID_TXN_STATE": "InvalidTxnStateException",
}


class ClusterError(ToolError):
    """The cluster refused, and this is what it said."""

    def __init__(self, code: int, message: str | None) -> None:
        self.code = next((known for known in ErrorCode if known == code), ErrorCode.UNKNOWN_SERVER_ERROR)
        self.said = message or self.code.message
        super().__init__(self.said)

    @property
    def java(self) -> str:
        """As Java prints it, for scripts: `org.apache.kafka.common.errors.GroupIdNotFoundException: …`."""
        name = self.code.name
        simple = _JAVA_NAMES.get(name) or "".join(part.capitalize() for part in name.split("_")) + "Exception"
        return f"org.apache.kafka.common.errors.{simple}: {self.said}"


class TopicPartition(NamedTuple):
    """`str()` gives Kafka's `topic-0`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Committed(NamedTuple):
    """A committed offset; `leader_epoch` is None where the client did not give one."""

    offset: int
    leader_epoch: int | None


def uuid_text(value: UUID | str | None) -> str:
    """A uuid in Kafka's url-safe base64, whichever way the client library gave it (None is the zero one)."""
    if value is None:
        return uuid_to_string(ZERO_UUID)
    return uuid_to_string((value if isinstance(value, UUID) else UUID(value)).bytes)


# --- connecting ------------------------------------------------------------------------------------------------------


def parse_servers(text: str) -> list[tuple[str, int]]:
    """`host:port,host:port` (`[::1]:9092` too); ToolError with Kafka's sentence where that is not what it is."""
    servers = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ToolError(f"Please provide valid host:port like host1:9091,host2:9092 (got '{text}')")
        servers.append((host.strip("[]"), int(port)))
    return servers


def await_listener(servers: Sequence[tuple[str, int]]) -> None:
    """Return when one of the servers accepts a connection; ToolError saying why none does."""
    deadline = time.monotonic() + CONNECT_MS / 1000
    while True:
        reasons = []
        for host, port in servers:
            try:
                socket.create_connection((host, port), timeout=10.0).close()
                return
            except OSError as error:
                reasons.append((host, port, error))
        refused = any(isinstance(error, ConnectionRefusedError) for _, _, error in reasons)
        if not refused or time.monotonic() >= deadline:
            raise ToolError(_unreachable(*reasons[0]))
        time.sleep(0.1)


def _unreachable(host: str, port: int, error: OSError) -> str:
    where = f"Connection to {host}:{port} could not be established."
    if isinstance(error, socket.gaierror):
        return f"{where} There is no host of that name: check --bootstrap-server"
    if isinstance(error, ConnectionRefusedError):
        start = "odradek start" if port == 9092 else f"odradek start --port {port}"
        return f"{where} Is a node running? Start one: {start}"
    return f"{where} {error.strerror or 'No answer'}: check the address and the network"


def quiet_client() -> None:
    """Keep the client library's log off the terminal; `ODRADEK_CLIENT_LOG=debug` brings it back."""
    logger = logging.getLogger("kafka")
    level = os.environ.get("ODRADEK_CLIENT_LOG")
    if level:
        logging.basicConfig(level=level.upper())
        return
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)


class _Lost(logging.Handler):
    """Says that the broker cannot be reached, once in a while: a tool that waits should say what for."""

    EVERY_S = 30.0

    def __init__(self, servers: str) -> None:
        super().__init__(logging.ERROR)
        self._servers = servers
        self._said_at = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if str(record.msg).startswith("Connection failed") and now - self._said_at >= self.EVERY_S:
            self._said_at = now
            warn(f"WARN Connection to {self._servers} could not be established; trying again.")


def announce_lost_connections(servers: str) -> None:
    """For tools that live as long as their cluster does not: the console producer and consumer."""
    logger = logging.getLogger("kafka.net.manager")
    logger.addHandler(_Lost(servers))
    logger.propagate = False
    logger.setLevel(logging.ERROR)


def connect(
    bootstrap_server: str | None, command_config: str | None, client_id: str = "adminclient-1"
) -> Admin:
    """The admin client of a tool, from its two options."""
    properties = load_properties(command_config) if command_config else {}
    servers = bootstrap_server or properties.get("bootstrap.servers")
    if not servers:
        raise ToolError(
            "--bootstrap-server must be specified (a node on this machine: --bootstrap-server localhost:9092)"
        )
    return Admin(reachable(servers), properties, client_id)


def reachable(servers: str) -> list[str]:
    """The servers, one of which listens, as the client library takes them; from here on it is silent."""
    addresses = parse_servers(servers)
    await_listener(addresses)
    quiet_client()
    return [f"{host}:{port}" for host, port in addresses]


def client_failure(error: Exception, servers: str) -> ToolError:
    """A kafka-python exception as one line for the user."""
    name = type(error).__name__
    detail = str(error.args[0]) if error.args else ""
    code = getattr(error, "errno", None)
    if isinstance(code, int):
        return ClusterError(code, None)
    if name == "KafkaTimeoutError" and "bootstrap" in detail:
        return ToolError(
            f"Connection to {servers} was made, but no Kafka broker answered there within {BOOTSTRAP_MS // 1000} s"
        )
    if name in ("NodeNotReadyError", "KafkaConnectionError"):
        return ToolError(
            f"The broker closed the connection or cannot be reached at its advertised address ({detail or servers})"
        )
    if name == "IncompatibleBrokerVersion":
        return ToolError("The broker does not support the request that this needs.")
    return ToolError(detail or name)


def _was_refused(error: Exception) -> bool:
    """Whether nobody listens at a broker's address."""
    return type(error).__name__ == "KafkaConnectionError" and "ECONNREFUSED" in str(error.args[:1])


class Admin:
    """One connection to a cluster. Use as a context manager."""

    def __init__(self, servers: Sequence[str], properties: Mapping[str, str], client_id: str) -> None:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        self.servers = ",".join(servers)
        self._error = KafkaError
        settings = client_settings(properties, KafkaAdminClient.DEFAULT_CONFIG)
        settings.setdefault("client_id", client_id)
        settings["bootstrap_timeout_ms"] = BOOTSTRAP_MS
        self._client = self._guarded(lambda: KafkaAdminClient(bootstrap_servers=list(servers), **settings))

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """What the library answers. Metadata may name brokers that are gone, as long as no controller has said so: one
        that refuses has not heard the request, and the library takes another one next.
        """
        deadline = time.monotonic() + REFUSED_MS / 1000
        while True:
            try:
                return call()
            except self._error as error:
                if not _was_refused(error) or time.monotonic() >= deadline:
                    raise client_failure(error, self.servers) from error
            time.sleep(REFUSED_PAUSE_S)

    def send(self, request: Any, node_id: int | None = None) -> Any:
        """Send one request (a kafka-python message) to a node, or to any; the response."""
        manager = self._client._manager
        return self._guarded(lambda: manager.run(manager.send, request, node_id))

    # --- cluster ---

    def cluster(self, *, fenced: bool = False) -> dict[str, Any]:
        """DescribeCluster: `cluster_id`, `controller_id`, `brokers` (broker_id, host, port, rack, is_fenced)."""
        from kafka.protocol.admin import DescribeClusterRequest

        answer = self.send(DescribeClusterRequest(include_fenced_brokers=fenced)).to_dict()
        _check(answer)
        return dict(answer)

    def broker_ids(self) -> list[int]:
        """Ids of the live brokers, ascending."""
        return sorted(broker["broker_id"] for broker in self.cluster()["brokers"])

    def api_versions(self, node_id: int) -> dict[int, tuple[int, int]]:
        """Ranges by API key, as this broker gives them."""
        from kafka.protocol.metadata import ApiVersionsRequest

        answer = self.send(
            ApiVersionsRequest(
                client_software_name="odradek-tools", client_software_version="1", min_version=3
            ),
            node_id,
        )
        _check(answer.to_dict())
        return {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}

    def quorum(self) -> dict[str, Any]:
        """DescribeQuorum of the metadata log."""
        return dict(self._guarded(self._client.describe_metadata_quorum))

    # --- topics ---

    def topic_names(self, *, internal: bool = True) -> list[str]:
        """Names of all topics, sorted."""
        return sorted(topic["name"] for topic in self._metadata(None) if internal or not topic["is_internal"])

    def topic_ids(self, *, internal: bool = True) -> dict[str, str]:
        """Topic id (Kafka's text form) → name."""
        return {
            uuid_text(topic["topic_id"]): topic["name"]
            for topic in self._metadata(None)
            if internal or not topic["is_internal"]
        }

    def _metadata(self, topics: Sequence[str] | None) -> list[dict[str, Any]]:
        return list(self._guarded(lambda: self._client.describe_topics(topics)))

    def partitions(self, topics: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """Partitions of each topic by Metadata; ClusterError for a topic that is not there."""
        names = sorted(set(topics))
        found: dict[str, list[dict[str, Any]]] = {}
        for topic in self._metadata(names) if names else []:
            if topic["error_code"]:
                raise ClusterError(topic["error_code"], None)
            found[topic["name"]] = sorted(topic["partitions"], key=lambda part: int(part["partition_index"]))
        return found

    def describe_topics(self, names: Sequence[str], page: int = 2000) -> list[dict[str, Any]]:
        """DescribeTopicPartitions, all pages: topics with `name`, `topic_id`, `partitions` (with their ELR)."""
        from kafka.protocol.admin import DescribeTopicPartitionsRequest as Request

        topics: dict[str, dict[str, Any]] = {}
        cursor = None
        while True:
            request = Request(
                topics=[Request.TopicRequest(name=name) for name in sorted(names)],
                response_partition_limit=page,
                cursor=cursor,
            )
            answer = self.send(request).to_dict()
            for topic in answer["topics"]:
                _check(topic)
                topics.setdefault(topic["name"], {**topic, "partitions": []})["partitions"] += topic[
                    "partitions"
                ]
            following = answer["next_cursor"]
            if following is None:
                return list(topics.values())
            cursor = Request.Cursor(
                topic_name=following["topic_name"], partition_index=following["partition_index"]
            )

    def create_topic(
        self,
        name: str,
        partitions: int,
        replication: int,
        assignment: Mapping[int, Sequence[int]],
        configs: Mapping[str, str],
    ) -> None:
        """-1 for counts means the cluster's default."""
        spec = {
            "num_partitions": partitions,
            "replication_factor": replication,
            "assignments": assignment,
            "configs": configs,
        }
        answer = self._guarded(lambda: self._client.create_topics({name: spec}, raise_errors=False))
        for topic in answer["topics"]:
            _check(topic)

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete all of them, then raise the first refusal."""
        answer = self._guarded(lambda: self._client.delete_topics(list(names), raise_errors=False))
        for topic in answer["topics"]:
            _check(topic)

    def create_partitions(self, counts: Mapping[str, int | dict[str, Any]]) -> None:
        """Raise the number of partitions of each topic to the count given."""
        answer = self._guarded(lambda: self._client.create_partitions(dict(counts), raise_errors=False))
        for topic in answer.results:
            _check(topic.to_dict())

    # --- records ---

    def list_offsets(
        self, partitions: Iterable[TopicPartition], timestamp: int
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, ClusterError]]:
        """ListOffsets at one timestamp (or -1 latest, -2 earliest, -3 max timestamp …): offsets, and what failed.

        Offset -1 means that there is no record at or after the timestamp.
        """
        from kafka.protocol.consumer import ListOffsetsRequest as Request

        wanted = sorted(set(partitions))
        found: dict[TopicPartition, int] = {}
        failed: dict[TopicPartition, ClusterError] = {}
        for node, parts in self._by_leader(wanted, failed).items():
            topics: dict[str, list[Any]] = {}
            for part in parts:
                entry = Request.ListOffsetsTopic.ListOffsetsPartition(
                    partition_index=part.partition, timestamp=timestamp
                )
                topics.setdefault(part.topic, []).append(entry)
            request = Request(
                isolation_level=0,
                topics=[
                    Request.ListOffsetsTopic(name=name, partitions=entries)
                    for name, entries in topics.items()
                ],
                min_version=max(0, Request.min_version_for_timestamp(timestamp) if timestamp < 0 else 1),
            )
            for topic in self.send(request, node).topics:
                for answer in topic.partitions:
                    key = TopicPartition(topic.name, answer.partition_index)
                    if answer.error_code:
                        failed[key] = ClusterError(answer.error_code, None)
                    else:
                        found[key] = answer.offset
        return found, failed

    def _by_leader(
        self, partitions: Sequence[TopicPartition], failed: dict[TopicPartition, ClusterError]
    ) -> dict[int, list[TopicPartition]]:
        leaders = {
            TopicPartition(topic, part["partition_index"]): part["leader_id"]
            for topic, parts in self.partitions(part.topic for part in partitions).items()
            for part in parts
        }
        by_leader: dict[int, list[TopicPartition]] = {}
        for part in partitions:
            leader = leaders.get(part)
            if leader is None:
                failed[part] = ClusterError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
            elif leader < 0:
                failed[part] = ClusterError(ErrorCode.LEADER_NOT_AVAILABLE, None)
            else:
                by_leader.setdefault(leader, []).append(part)
        return by_leader

    def delete_records(
        self, before: Mapping[TopicPartition, int]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, ClusterError]]:
        """Delete what lies below the offsets (-1: everything); new low watermarks, and what failed."""
        from kafka.protocol.admin import DeleteRecordsRequest as Request

        found: dict[TopicPartition, int] = {}
        failed: dict[TopicPartition, ClusterError] = {}
        for node, parts in self._by_leader(sorted(before), failed).items():
            topics: dict[str, list[tuple[int, int]]] = {}
            for part in parts:
                topics.setdefault(part.topic, []).append((part.partition, before[part]))
            answer = self.send(
                Request(topics=list(topics.items()), timeout_ms=ADMIN_TIMEOUT_MS), node
            ).to_dict()
            for topic in answer["topics"]:
                for entry in topic["partitions"]:
                    key = TopicPartition(topic["name"], entry["partition_index"])
                    if entry["error_code"]:
                        failed[key] = ClusterError(entry["error_code"], None)
                    else:
                        found[key] = entry["low_watermark"]
        return found, failed

    # --- configs ---

    def describe_configs(
        self, kind: int, names: Sequence[str], *, synonyms: bool = False
    ) -> dict[str, list[dict[str, Any]]]:
        """All configs of resources of one kind (2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group)."""
        from kafka.protocol.admin import DescribeConfigsRequest

        found: dict[str, list[dict[str, Any]]] = {}
        for node, group in _config_targets(kind, names):
            request = DescribeConfigsRequest(
                resources=[(kind, name, None) for name in group], include_synonyms=synonyms, min_version=1
            )
            for result in self.send(request, node).to_dict()["results"]:
                _check(result)
                found[result["resource_name"]] = result["configs"]
        return found

    def alter_configs(self, kind: int, name: str, sets: Mapping[str, str], deletes: Sequence[str]) -> None:
        """IncrementalAlterConfigs of one resource."""
        from kafka.protocol.admin import IncrementalAlterConfigsRequest

        entries = [(key, 1, None) for key in deletes] + [(key, 0, value) for key, value in sets.items()]
        request = IncrementalAlterConfigsRequest(resources=[(kind, name, entries)], validate_only=False)
        for node, _ in _config_targets(kind, [name]):
            for result in self.send(request, node).to_dict()["responses"]:
                _check(result)

    def list_config_resources(self, kind: int) -> list[str]:
        """Names of the resources of a kind that have configs; none where the broker cannot be asked (KIP-1142)."""
        from kafka.protocol.admin import ListConfigResourcesRequest

        try:
            answer = self.send(ListConfigResourcesRequest(resource_types=[kind])).to_dict()
        except ClusterError as error:
            if error.code == ErrorCode.UNSUPPORTED_VERSION:
                return []
            raise
        _check(answer)
        return sorted(entry["resource_name"] for entry in answer["config_resources"])

    # --- groups ---

    def list_groups(self, states: Sequence[str] = (), types: Sequence[str] = ()) -> list[dict[str, Any]]:
        """All groups of all brokers, sorted by name: group_id, protocol_type, group_state, group_type."""
        from kafka.protocol.admin import ListGroupsRequest

        lowest = 5 if types else 4 if states else 0
        request = {"states_filter": list(states), "types_filter": list(types), "min_version": lowest}
        groups = []
        for node in self.broker_ids():
            answer = self.send(ListGroupsRequest(**request), node).to_dict()
            _check(answer)
            groups += answer["groups"]
        return sorted(groups, key=lambda group: str(group["group_id"]))

    def coordinator(self, key: str, kind: int = 0) -> dict[str, Any]:
        """FindCoordinator of a group (kind 0) or a transactional id (1): node_id, host, port."""
        from kafka.protocol.metadata import FindCoordinatorRequest

        deadline = time.monotonic() + ADMIN_TIMEOUT_MS / 1000
        while True:
            answer = self.send(
                FindCoordinatorRequest(key_type=kind, coordinator_keys=[key], min_version=4)
            ).to_dict()["coordinators"][0]
            loading = answer["error_code"] in (
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
            )
            if not loading or time.monotonic() > deadline:
                _check(answer)
                return dict(answer)
            time.sleep(0.1)

    def describe_group(self, group: str) -> dict[str, Any]:
        """ConsumerGroupDescribe, or for a classic group DescribeGroups; GROUP_ID_NOT_FOUND where there is none.

        Both in the form of the latter, with members' assignments decoded; a consumer group has its epochs beside.
        """
        node = self.coordinator(group)
        described = self._describe_consumer_group(group, node["node_id"])
        if described is not None:
            return {**described, "coordinator": node}
        answer = self._guarded(lambda: self._client._manager.run(self._raw_describe, group, node["node_id"]))
        _check(answer)
        if answer["group_state"] == "Dead":
            raise ClusterError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group} not found.")
        return {**answer, "coordinator": node}

    def _describe_consumer_group(self, group: str, node_id: int) -> dict[str, Any] | None:
        """None if it is classic or not there, or if the broker has no consumer groups."""
        from odradek.cli.consumer_group_messages import ConsumerGroupDescribeRequest

        try:
            request = ConsumerGroupDescribeRequest(group_ids=[group], include_authorized_operations=False)
            (answer,) = self.send(request, node_id).to_dict()["groups"]
        except ClusterError as error:
            if error.code == ErrorCode.UNSUPPORTED_VERSION:
                return None
            raise
        if answer["error_code"] in (ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.UNSUPPORTED_VERSION):
            return None
        _check(answer)
        return {
            **answer,
            "protocol_data": answer["assignor_name"],
            "members": [_as_classic(member, answer["assignment_epoch"]) for member in answer["members"]],
        }

    async def _raw_describe(self, group: str, node_id: int) -> dict[str, Any]:
        request = self._client._describe_groups_request([group])
        response = await self._client._manager.send(request, node_id=node_id)
        entry = response.groups[0]
        code, message = entry.error_code, getattr(entry, "error_message", None)
        described = self._client._describe_groups_process_response(response)[group]
        return {**described, "error_code": code, "error_message": message}

    def committed(self, group: str) -> dict[TopicPartition, Committed]:
        """All committed offsets of a group."""
        answer = self._guarded(lambda: self._client.list_group_offsets({group: None}))[group]
        return {
            TopicPartition(part.topic, part.partition): Committed(
                entry.offset,
                entry.leader_epoch if entry.leader_epoch is not None and entry.leader_epoch >= 0 else None,
            )
            for part, entry in answer.items()
            if entry.offset >= 0
        }

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets for a group without members; the first refusal is raised."""
        from kafka.structs import OffsetAndMetadata
        from kafka.structs import TopicPartition as Part

        wanted = {Part(*part): OffsetAndMetadata(offset, "", -1) for part, offset in offsets.items()}
        for error in self._guarded(lambda: self._client.alter_group_offsets(group, wanted)).values():
            if error.errno:
                raise ClusterError(error.errno, None)

    def delete_offsets(
        self, group: str, partitions: Iterable[TopicPartition]
    ) -> tuple[int, dict[TopicPartition, int]]:
        """OffsetDelete: the error code of the whole request, and those of its partitions."""
        from kafka.protocol.consumer import OffsetDeleteRequest as Request

        topics: dict[str, list[Any]] = {}
        for part in partitions:
            entry = Request.OffsetDeleteRequestTopic.OffsetDeleteRequestPartition(
                partition_index=part.partition
            )
            topics.setdefault(part.topic, []).append(entry)
        request = Request(
            group_id=group,
            topics=[
                Request.OffsetDeleteRequestTopic(name=name, partitions=parts)
                for name, parts in topics.items()
            ],
        )
        answer = self.send(request, self.coordinator(group)["node_id"]).to_dict()
        codes = {
            TopicPartition(topic["name"], part["partition_index"]): part["error_code"]
            for topic in answer["topics"]
            for part in topic["partitions"]
        }
        return answer["error_code"], codes

    def delete_group(self, group: str) -> None:
        """DeleteGroups of one group."""
        from kafka.protocol.admin import DeleteGroupsRequest

        for result in self.send(
            DeleteGroupsRequest(groups_names=[group]), self.coordinator(group)["node_id"]
        ).to_dict()["results"]:
            _check(result)


def _as_classic(member: Mapping[str, Any], target_epoch: int) -> dict[str, Any]:
    """A member of a consumer group in the form of DescribeGroups."""

    def assigned(what: str) -> dict[str, Any]:
        topics = member[what]["topic_partitions"]
        return {
            "assigned_partitions": [
                {"topic": topic["topic_name"], "partitions": topic["partitions"]} for topic in topics
            ]
        }

    return {
        **member,
        "group_instance_id": member["instance_id"],
        "member_assignment": assigned("assignment"),
        "target": assigned("target_assignment"),
        "target_epoch": target_epoch,
    }


def _check(answer: Mapping[str, Any]) -> None:
    """Raise what the broker refused."""
    if answer["error_code"]:
        raise ClusterError(answer["error_code"], answer.get("error_message"))


def _config_targets(kind: int, names: Sequence[str]) -> list[tuple[int | None, list[str]]]:
    """Which node answers for which resources: a broker for itself, any node for the rest."""
    if kind not in (4, 8):
        return [(None, list(names))]
    own = [(int(name), [name]) for name in names if name]
    return [*own, (None, [""])] if "" in names else list(own)
