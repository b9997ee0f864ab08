"""What a node tells of transactions, under Kafka's names: producers, verifications, transactions that hang."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.broker.node import Node

LATE_MS = 5 * 60_000
"""Beyond `transaction.max.timeout.ms` a transaction without a write is late, as in Kafka: nobody seems to end it."""
_VERIFICATION = "kafka_server_addpartitionstotxnmanager_"


def gauges(node: Node) -> dict[str, tuple[str, float]]:
    """Name → help and value."""
    producers = late = 0
    wall_ms = node.clock.wall_ms()
    patience_ms = node.transactions.config.max_timeout_ms + LATE_MS
    for partition in node.partitions.values():
        known = partition.log.producers
        producers += len(known.entries)
        if known.ongoing and known.oldest_transaction_write() < wall_ms - patience_ms:
            late += 1
    manager = "kafka_server_replicamanager_"
    return {
        f"{manager}produceridcount": ("Producer ids that partitions remember.", producers),
        f"{manager}partitionswithlatetransactionscount": (
            "Partitions with a transaction that is open for longer than its timeout can be.",
            late,
        ),
    }


def counters(node: Node) -> dict[str, tuple[str, int]]:
    """Name → help and count."""
    verification = node.txn_verification
    return {
        f"{_VERIFICATION}verification": ("Writes whose transaction was verified.", verification.answered),
        f"{_VERIFICATION}verificationfailure": (
            "Writes whose transaction could not be verified.",
            verification.failed,
        ),
        f"{_VERIFICATION}verificationtimems": (
            "Time that writes have waited for it, ms.",
            verification.waited_ms,
        ),
    }
