"""The APIs of the transaction coordinator: producers that FindCoordinator sent here, brokers, and tools.

InitProducerId 22 (0-5, without a transactional id from any broker), AddPartitionsToTxn 24 (0-5; from 4 on of brokers),
AddOffsetsToTxn 25 (0-4), EndTxn 26 (0-5), DescribeTransactions 65 (0), ListTransactions 66 (0-2). Everything is
decided by the transaction coordinator; here requests only find their way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, Function, RequestContext
    from odradek.broker.node import Node


def _to_coordinator(method: str) -> Function:
    def forward(node: Node, context: RequestContext, request: Any, done: Done) -> None:
        getattr(node.transactions, method)(context.api_version, request, done)

    return forward


FUNCTIONS: dict[int, Function] = {
    ApiKey.INIT_PRODUCER_ID: _to_coordinator("init_producer_id"),
    ApiKey.ADD_PARTITIONS_TO_TXN: _to_coordinator("add_partitions_to_txn"),
    ApiKey.ADD_OFFSETS_TO_TXN: _to_coordinator("add_offsets_to_txn"),
    ApiKey.END_TXN: _to_coordinator("end_txn"),
    ApiKey.DESCRIBE_TRANSACTIONS: _to_coordinator("describe_transactions"),
    ApiKey.LIST_TRANSACTIONS: _to_coordinator("list_transactions"),
}
