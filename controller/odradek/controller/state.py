"""What a decision is made from, and what it consists of.

Handlers are plain functions `(state, request, version) → Decision`. They read; they change nothing but
broker sessions, which are not part of the metadata. quorum_controller.py replays the records of the
decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from odradek.controller.sessions import Sessions
from odradek.controller.settings import ControllerConfig
from odradek.controller.topic_names import TopicNames
from odradek.metadata.image import TOPIC_RESOURCE, MetadataImage, TopicImage
from odradek.metadata.records import Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.primitives import Message


@dataclass(slots=True)
class Decision:
    """What to write and what to answer once it is committed. The controller appends `records` all or
    nothing unless `atomic` is false, when it may cut them into several batches, each of which must leave a
    valid state.
    """

    records: list[Record]
    response: Message | None = None
    atomic: bool = True


@dataclass(slots=True)
class ControllerState:
    """The active controller's view: everything it has appended, committed or not."""

    config: ControllerConfig
    rng: Random
    image: MetadataImage
    sessions: Sessions
    names: TopicNames = field(default_factory=TopicNames)
    now_ms: int = 0
    """Monotonic time of the event being handled."""
    next_offset: int = 0
    """Offset of the next record to be appended."""

    def is_active(self, broker_id: int) -> bool:
        """Whether a broker may lead and be in an ISR."""
        broker = self.image.brokers.get(broker_id)
        return broker is not None and broker.active

    def topic_config(self, topic: str, name: str) -> str | None:
        """A topic's configuration value in force."""
        from odradek.metadata.configs import broker_layers, topic_config

        layers = broker_layers(self.image.configs, self.config.node_id, self.config.static_configs)
        return topic_config(name, self.image.config(TOPIC_RESOURCE, topic), layers)

    def min_isr(self, topic: TopicImage) -> int:
        """min.insync.replicas in force, but never more than the topic has replicas."""
        configured = int(self.topic_config(topic.name, "min.insync.replicas") or 1)
        return min(configured, len(topic.partitions[0].replicas))

    def unclean_election(self, topic: TopicImage) -> bool:
        return self.topic_config(topic.name, "unclean.leader.election.enable") == "true"

    def check_broker_epoch(self, broker_id: int, broker_epoch: int) -> None:
        """KafkaError(STALE_BROKER_EPOCH) unless this is the registered incarnation (F1)."""
        broker = self.image.brokers.get(broker_id)
        if broker is None:
            raise KafkaError(
                ErrorCode.STALE_BROKER_EPOCH, f"No broker registration found for broker id {broker_id}"
            )
        if broker.epoch != broker_epoch:
            raise KafkaError(
                ErrorCode.STALE_BROKER_EPOCH,
                f"Expected broker epoch {broker.epoch}, but got broker epoch {broker_epoch}",
            )
