"""What a decision is made from, and what it consists of.

Handlers are plain functions `(state, request, version) → Decision`. They read; they change nothing but
broker sessions, which are not part of the metadata. quorum_controller.py replays the records of the
decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from odradek.controller.sessions import Sessions
from odradek.controller.settings import ControllerConfig
from odradek.controller.topic_names import TopicNames
from odradek.metadata.configs import NO_LAYERS, BrokerLayers, broker_layers, topic_config
from odradek.metadata.delta import MetadataDelta
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


class Fallbacks:
    """Values of topics without their own, each worked out once: a broker that goes asks for every topic it
    led.
    """

    def __init__(self, layers: BrokerLayers) -> None:
        self.layers = layers
        self.described: Any = None
        """configs.py keeps here what it tells of a new topic."""
        self._values: dict[str, str | None] = {}

    def get(self, name: str) -> str | None:
        if name not in self._values:
            self._values[name] = topic_config(name, {}, self.layers)
        return self._values[name]


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
    _fallbacks: Fallbacks = field(default_factory=lambda: Fallbacks(NO_LAYERS))

    def after(self, records: list[Record]) -> ControllerState:
        """The state as it will be after these records, to decide what else follows from them."""
        delta = MetadataDelta(self.image)
        for record in records:
            delta.replay(record)
        last_offset = self.next_offset + len(records) - 1
        return replace(self, image=delta.apply(last_offset, self.image.epoch), next_offset=last_offset + 1)

    def is_active(self, broker_id: int) -> bool:
        """Whether a broker may lead and be in an ISR."""
        broker = self.image.brokers.get(broker_id)
        return broker is not None and broker.active

    def layers(self) -> BrokerLayers:
        """What topics fall back to that have no value of their own."""
        return broker_layers(self.image.configs, self.config.node_id, self.config.static_configs)

    def fallbacks(self) -> Fallbacks:
        """The same, with what was worked out from it."""
        layers = self.layers()
        if layers != self._fallbacks.layers:
            self._fallbacks = Fallbacks(layers)
        return self._fallbacks

    def topic_config(self, topic: str, name: str) -> str | None:
        """A topic's configuration value in force."""
        overrides = self.image.config(TOPIC_RESOURCE, topic)
        return (
            topic_config(name, overrides, self.layers()) if name in overrides else self.fallbacks().get(name)
        )

    def min_isr(self, topic: TopicImage) -> int:
        """min.insync.replicas of a topic as configured; what it comes to is for partition_change.py to say."""
        return int(self.topic_config(topic.name, "min.insync.replicas") or 1)

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
