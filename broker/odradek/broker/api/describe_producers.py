"""DescribeProducers (key 61), version 0 (KIP-664): the idempotent producers a partition remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import KafkaError
from odradek.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node


def describe_producers(
    node: Node, context: RequestContext, request: DescribeProducersRequest, done: Done
) -> None:
    """Answers at once; a partition asked for twice is answered once."""
    topics = []
    seen: set[tuple[str, int]] = set()
    for topic in request.topics:
        answers = []
        for index in topic.partition_indexes:
            if (topic.name, index) in seen:
                continue
            seen.add((topic.name, index))
            answer = PartitionResponse(partition_index=index)
            try:
                # Any replica tells what its log knows: `kafka-transactions --broker-id` asks a broker for all it has.
                log = node.replicas.readable(topic.name, index).log
                answer.active_producers = [
                    ProducerState(
                        producer_id=producer.producer_id,
                        producer_epoch=producer.epoch,
                        last_sequence=producer.last_sequence,
                        last_timestamp=producer.last_timestamp,
                        coordinator_epoch=producer.coordinator_epoch,
                        current_txn_start_offset=producer.transaction_start,
                    )
                    for producer in log.active_producers()
                ]
            except KafkaError as error:
                answer.error_code = error.code
                answer.error_message = error.message
            answers.append(answer)
        topics.append(TopicResponse(name=topic.name, partitions=answers))
    done(DescribeProducersResponse(topics=topics))
