"""Topics made, changed and deleted by a client, and what must follow from the answers (D4)."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client
from odradek.simulation.scenario import TopicPlan
from odradek.simulation.trace import InvariantViolation
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster


class Admin(Client):
    """Creates the topics of the scenario; with `admin`, makes and deletes others meanwhile."""

    def __init__(self, cluster: Cluster, name: str, rng: Random) -> None:
        super().__init__(cluster, name, rng)
        self.created_all = False
        self._missing: dict[str, TopicPlan] = {}
        self._changing = cluster.scenario.admin
        self._under_way = False
        self._count = 0
        self._there: dict[str, bytes] = {}
        """Topics that were acknowledged as created, and are not asked to be deleted."""
        self._doomed: set[str] = set()

    def start(self) -> None:
        if self._changing:
            self.after(self.between(20, 300), self._change)

    def stop_changing(self) -> None:
        self._changing = False

    @property
    def done(self) -> bool:
        return not self._under_way

    # -- the scenario's topics -----------------------------------------------------------------------------------

    def create_all(self, plans: Mapping[str, TopicPlan]) -> None:
        self._missing = dict(plans)
        self._ask_creation()

    def _ask_creation(self) -> None:
        topics = [
            CreatableTopic(
                name=name,
                num_partitions=plan.partitions,
                replication_factor=plan.replication,
                configs=[CreatableTopicConfig(name=key, value=value) for key, value in plan.configs.items()],
            )
            for name, plan in self._missing.items()
        ]
        request = CreateTopicsRequest(topics=topics, timeout_ms=2_000)
        self.ask(self.any_host(), request, 7, self._created)

    def _created(self, response: Any) -> None:
        if response is not None:
            for topic in response.topics:
                if topic.error_code in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
                    self._missing.pop(topic.name, None)
        if self._missing:
            self.after(self.between(50, 200), self._ask_creation)
        else:
            self.created_all = True

    # -- topics that come and go ---------------------------------------------------------------------------------

    def _change(self) -> None:
        if not self._changing:
            return
        if self._there and self.rng.random() < 0.4:
            self._delete(self.rng.choice(sorted(self._there)))
        else:
            self._create()

    def _again(self) -> None:
        self._under_way = False
        self.after(self.between(20, 400), self._change)

    def _create(self) -> None:
        self._under_way = True
        self._count += 1
        name = f"extra{self._count}"
        topic = CreatableTopic(name=name, num_partitions=self.rng.randrange(1, 4), replication_factor=-1)
        request = CreateTopicsRequest(topics=[topic], timeout_ms=1_000)

        def done(response: Any) -> None:
            if response is not None and response.topics[0].error_code == ErrorCode.NONE:
                topic_id = response.topics[0].topic_id
                self.cluster.trace.note(self.name, "created", name)
                self._there[name] = topic_id
                self._check_there(name, topic_id)
            self._again()

        self.ask(self.any_host(), request, 7, done)

    def _delete(self, name: str) -> None:
        self._under_way = True
        del self._there[name]
        self._doomed.add(name)
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name, topic_id=bytes(16))], timeout_ms=1_000
        )

        def done(response: Any) -> None:
            if response is not None and response.responses[0].error_code == ErrorCode.NONE:
                self.cluster.trace.note(self.name, "deleted", name)
                if name in self.cluster.invariants.metadata.image.topics:
                    raise InvariantViolation(
                        f"D4: deletion of {name} is acknowledged, and it is in the metadata"
                    )
            self._again()

        self.ask(self.any_host(), request, 6, done)

    def _check_there(self, name: str, topic_id: bytes) -> None:
        topic = self.cluster.invariants.metadata.image.topics.get(name)
        if topic is None or topic.id != topic_id:
            raise InvariantViolation(f"D4: creation of {name} is acknowledged, and it is not in the metadata")

    def check_deleted(self, name: str, topic_id: bytes) -> None:
        """A topic is gone from the metadata: somebody must have asked for that."""
        if name not in self._doomed:
            raise InvariantViolation(f"D4: topic {name} is gone, and nobody has deleted it")
