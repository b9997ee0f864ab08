"""Topics that come into being because somebody asked for them: `auto.create.topics.enable`, and internal topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odradek.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig

OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, TRANSACTIONS_TOPIC, "__share_group_state"})
"""Written by the cluster only."""
TRANSACTIONS_SEGMENT_BYTES = ("transaction.state.log.segment.bytes", "104857600")


class TopicCreation:
    """One request to the controller per topic at a time; everybody who asks meanwhile waits for the same answer."""

    def __init__(
        self,
        config: BrokerConfig,
        ask_controller: Callable[[CreateTopicsRequest, Callable[[Any], None]], None],
    ) -> None:
        self._config = config
        self._ask_controller = ask_controller
        self._under_way: dict[str, list[Callable[[], None]]] = {}

    def create(self, names: list[str], done: Callable[[], None]) -> None:
        """Call `done` when every name was created or refused; which of them, the image tells."""
        left = set(names)

        def one_done(name: str) -> None:
            left.discard(name)
            if not left:
                done()

        fresh = [name for name in dict.fromkeys(names) if name not in self._under_way]
        for name in left.copy():
            self._under_way.setdefault(name, []).append(lambda name=name: one_done(name))  # type: ignore[misc]
        if fresh:
            request = CreateTopicsRequest(topics=[self._topic(name) for name in fresh], timeout_ms=30_000)
            self._ask_controller(request, lambda _response: self._answered(fresh))

    def _answered(self, names: list[str]) -> None:
        for name in names:
            for done in self._under_way.pop(name, ()):
                done()

    def _topic(self, name: str) -> CreatableTopic:
        config = self._config
        if name == OFFSETS_TOPIC:
            return _internal(
                name,
                config.offsets_topic_num_partitions,
                config.offsets_topic_replication_factor,
                {
                    "cleanup.policy": "compact",
                    "compression.type": "producer",
                    "segment.bytes": str(config.offsets_topic_segment_bytes),
                },
            )
        if name == TRANSACTIONS_TOPIC:
            return _internal(
                name,
                config.transaction_state_log_num_partitions,
                config.transaction_state_log_replication_factor,
                {
                    "cleanup.policy": "compact",
                    "compression.type": "uncompressed",
                    "min.insync.replicas": str(config.transaction_state_log_min_isr),
                    "segment.bytes": config.static.get(*TRANSACTIONS_SEGMENT_BYTES),
                    "unclean.leader.election.enable": "false",
                },
            )
        return CreatableTopic(name=name, num_partitions=-1, replication_factor=-1)


def _internal(name: str, partitions: int, replicas: int, configs: dict[str, str]) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replicas,
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
    )
