"""What `kafka-transactions` asks a cluster, on the client of `admin.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from odradek.cli.admin import ADMIN_TIMEOUT_MS, ClusterError
from odradek.cli.options import ToolError
from odradek.wire.errors import ErrorCode

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

R = TypeVar("R")
Partition = tuple[str, int]

TRANSACTION = 1
"""The type of coordinator."""
FENCE_TIMEOUT_MS = 1
"""The timeout of the transaction that a fence begins and nobody goes on with."""
RETRY_S = 0.1
PARTITIONS_PER_REQUEST = 500

COME_AGAIN = frozenset(
    {
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
    }
)


class TransactionAdmin:
    """ClusterError with the broker's words where it refuses."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def listed(
        self,
        *,
        duration_ms: int | None = None,
        pattern: str | None = None,
        producer_ids: Collection[int] = (),
    ) -> list[tuple[int, dict[str, Any]]]:
        """(coordinator, state) of all brokers, by broker and id."""
        from kafka.protocol.admin import ListTransactionsRequest

        # An older broker would answer as if it had not been asked for so much.
        lowest = 2 if pattern is not None else 1 if duration_ms is not None else 0
        found = []
        for broker in self._admin.broker_ids():
            request = ListTransactionsRequest(
                state_filters=[],
                producer_id_filters=sorted(producer_ids),
                duration_filter=-1 if duration_ms is None else duration_ms,
                transactional_id_pattern=pattern,
                min_version=lowest,
            )
            answer = self._admin.send(request, broker).to_dict()
            _check(answer["error_code"])
            states = sorted(answer["transaction_states"], key=lambda state: str(state["transactional_id"]))
            found += [(broker, state) for state in states]
        return found

    def described(self, transactional_id: str) -> tuple[int, dict[str, Any]]:
        """(coordinator, state)."""
        from kafka.protocol.admin import DescribeTransactionsRequest

        def ask() -> tuple[int, dict[str, Any]]:
            node = self._coordinator(transactional_id)
            request = DescribeTransactionsRequest(transactional_ids=[transactional_id])
            (state,) = self._admin.send(request, node).to_dict()["transaction_states"]
            words = None
            if state["error_code"] == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
                words = (
                    f"DescribeTransactions request for transactionalId `{transactional_id}` failed because the ID "
                    "could not be found"
                )
            _check(state["error_code"], words)
            return node, state

        return _again(ask)

    def partitions_of(self, state: dict[str, Any]) -> list[Partition]:
        """The partitions of a described transaction."""
        return [(topic["topic"], index) for topic in state["topics"] for index in topic["partitions"]]

    def producers(
        self, parts: Iterable[Partition], broker: int | None = None
    ) -> dict[Partition, list[dict[str, Any]]]:
        """What the leaders, or one broker, remember of producers."""
        wanted = list(parts)
        found: dict[Partition, list[dict[str, Any]]] = {}
        for begin in range(0, len(wanted), PARTITIONS_PER_REQUEST):
            some = wanted[begin : begin + PARTITIONS_PER_REQUEST]
            found |= _again(partial(self._producers, some, broker))
        return found

    def _producers(self, parts: list[Partition], broker: int | None) -> dict[Partition, list[dict[str, Any]]]:
        from kafka.protocol.admin import DescribeProducersRequest as Request

        if broker is not None and broker not in self._admin.broker_ids():
            raise ToolError(
                "Timed out waiting for a node assignment. Call: describeProducers(api=DESCRIBE_PRODUCERS)"
            )
        found: dict[Partition, list[dict[str, Any]]] = {}
        for node, mine in self._by_node(parts, broker).items():
            topics: dict[str, list[int]] = {}
            for topic, index in mine:
                topics.setdefault(topic, []).append(index)
            request = Request(
                topics=[
                    Request.TopicRequest(name=name, partition_indexes=indexes)
                    for name, indexes in topics.items()
                ]
            )
            for topic_answer in self._admin.send(request, node).to_dict()["topics"]:
                for answer in topic_answer["partitions"]:
                    _check(answer["error_code"], answer["error_message"])
                    part = (topic_answer["name"], answer["partition_index"])
                    found[part] = answer["active_producers"]
        return {part: found[part] for part in parts}

    def _by_node(self, parts: list[Partition], broker: int | None) -> dict[int, list[Partition]]:
        if broker is not None:
            return {broker: parts}
        known = self._admin.partitions({topic for topic, _ in parts})
        leaders = {
            (topic, part["partition_index"]): part["leader_id"]
            for topic, entries in known.items()
            for part in entries
        }
        nodes: dict[int, list[Partition]] = {}
        for part in parts:
            if part not in leaders:
                raise ClusterError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
            if leaders[part] < 0:
                raise ClusterError(ErrorCode.LEADER_NOT_AVAILABLE, None)
            nodes.setdefault(leaders[part], []).append(part)
        return nodes

    def partitions(self, topic: str | None, broker: int | None) -> list[Partition]:
        """All of a topic, or of all topics; those that a broker has a replica of, if one is named."""
        names = self._admin.topic_names() if topic is None else [topic]
        return [
            (name, part["partition_index"])
            for name, entries in self._admin.partitions(names).items()
            for part in entries
            if broker is None or broker in part["replica_nodes"]
        ]

    def abort(self, topic: str, index: int, producer_id: int, epoch: int, coordinator_epoch: int) -> None:
        """WriteTxnMarkers to the leader."""
        from kafka.protocol.producer import WriteTxnMarkersRequest as Request

        def ask() -> None:
            ((node, _),) = self._by_node([(topic, index)], None).items()
            request = Request(
                markers=[
                    Request.WritableTxnMarker(
                        producer_id=producer_id,
                        producer_epoch=epoch,
                        transaction_result=False,
                        topics=[
                            Request.WritableTxnMarker.WritableTxnMarkerTopic(
                                name=topic, partition_indexes=[index]
                            )
                        ],
                        coordinator_epoch=coordinator_epoch,
                    )
                ],
                max_version=1,
            )
            answer = self._admin.send(request, node).to_dict()
            (marker,) = answer["markers"]
            _check(marker["topics"][0]["partitions"][0]["error_code"])

        _again(ask)

    def expected(self, producer_ids: Collection[int]) -> dict[int, set[Partition]]:
        """The partitions that the transactions of these producers have open, as their coordinators know."""
        found: dict[int, set[Partition]] = {}
        for _, listed in self.listed(producer_ids=producer_ids):
            try:
                _, state = self.described(listed["transactional_id"])
            except ClusterError as error:
                if error.code is not ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
                    raise
            else:
                found[listed["producer_id"]] = set(self.partitions_of(state))
        return found

    def fence(self, transactional_id: str) -> None:
        """InitProducerId in place of the producer."""
        from kafka.protocol.producer import InitProducerIdRequest

        def ask() -> None:
            request = InitProducerIdRequest(
                transactional_id=transactional_id,
                transaction_timeout_ms=FENCE_TIMEOUT_MS,
                producer_id=-1,
                producer_epoch=-1,
                max_version=5,
            )
            _check(self._admin.send(request, self._coordinator(transactional_id)).to_dict()["error_code"])

        _again(ask)

    def _coordinator(self, transactional_id: str) -> int:
        return int(self._admin.coordinator(transactional_id, TRANSACTION)["node_id"])


def _check(code: int, words: str | None = None) -> None:
    if code:
        raise ClusterError(code, words)


def _again(ask: Callable[[], R]) -> R:
    """Ask until the cluster has an answer."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_MS / 1000
    while True:
        try:
            return ask()
        except ClusterError as error:
            if error.code not in COME_AGAIN or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)
