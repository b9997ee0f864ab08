"""Members of the consumer protocol against a coordinator in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    DescribedGroup,
)
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from unit.coordinator.group_harness import GROUP, Answer, Harness, context

Owned = Mapping[str, Sequence[int]]


class ConsumerHarness(Harness):
    """A coordinator, with the requests of consumer groups."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**{"group_initial_rebalance_delay_ms": 0, **config})

    def beat(
        self,
        member_id: str,
        epoch: int,
        *,
        owned: Owned | None = None,
        group: str = GROUP,
        instance: str | None = None,
        topics: Sequence[str] | None = None,
        regex: str | None = None,
        assignor: str | None = None,
        rack: str | None = None,
        rebalance_ms: int = -1,
        version: int = 1,
        client: str = "client",
    ) -> Answer:
        request = ConsumerGroupHeartbeatRequest(
            group_id=group,
            member_id=member_id,
            member_epoch=epoch,
            instance_id=instance,
            rack_id=rack,
            rebalance_timeout_ms=rebalance_ms,
            subscribed_topic_names=None if topics is None else list(topics),
            subscribed_topic_regex=regex,
            server_assignor=assignor,
            topic_partitions=None
            if owned is None
            else [
                ConsumerGroupHeartbeatRequestTopicPartitions(self.topics.ids[name], list(numbers))
                for name, numbers in owned.items()
            ],
        )
        request = ConsumerGroupHeartbeatRequest.decode(request.encode(version), version)
        answer = Answer()
        self.coordinator.consumer_group_heartbeat(context(version, client), request, answer)
        if answer.response is not None:
            answer.response.encode(version)
        return answer

    def enter(self, member_id: str, *topics: str, **kwargs: Any) -> Answer:
        """A first heartbeat."""
        wanted: dict[str, Any] = {"topics": topics, "rebalance_ms": 60_000, **kwargs}
        return self.beat(member_id, 0, owned={}, **wanted)

    def describe_consumer(self, group: str = GROUP) -> DescribedGroup:
        answer = Answer()
        request = ConsumerGroupDescribeRequest([group])
        self.coordinator.describe_consumer_groups(context(1), request, answer)
        answer.response.encode(1)
        (described,) = answer.response.groups
        assert isinstance(described, DescribedGroup)
        return described

    def group(self, group: str = GROUP) -> ConsumerGroup:
        shard = self.coordinator.runtime.read(self.coordinator.partition_for(group))
        found = shard.groups.get(group)
        assert isinstance(found, ConsumerGroup)
        return found

    def assigned(self, answer: Answer) -> dict[str, list[int]] | None:
        """What a response assigns, by name."""
        response = heartbeat_response(answer)
        if response.assignment is None:
            return None
        return {
            self.topics.topic_name(topic.topic_id) or "?": sorted(topic.partitions)
            for topic in response.assignment.topic_partitions
        }

    def client(self, member_id: str, **kwargs: Any) -> Client:
        return Client(self, member_id, **kwargs)

    def settle(self, *clients: Client, rounds: int = 12, pause_ms: int = 1_000) -> None:
        """Everybody heartbeats until nothing changes any more."""
        for _ in range(rounds):
            for client in clients:
                client.beat()
            self.advance(pause_ms)
        assert self.group(clients[0].group).state.value == "Stable"


class Client:
    """A member that does as it is told: gives up at once, takes over at once."""

    def __init__(
        self,
        harness: ConsumerHarness,
        member_id: str,
        *,
        group: str = GROUP,
        instance: str | None = None,
        on_owned: Callable[[Client], None] | None = None,
    ) -> None:
        self.harness = harness
        self.member_id = member_id
        self.group = group
        self.instance = instance
        self.epoch = 0
        self.owned: dict[str, list[int]] = {}
        self.on_owned = on_owned

    def join(self, *topics: str, **kwargs: Any) -> Answer:
        self.epoch, self.owned = 0, {}
        return self._take(
            self.harness.enter(self.member_id, *topics, group=self.group, instance=self.instance, **kwargs)
        )

    def beat(self, **kwargs: Any) -> Answer:
        kwargs.setdefault("owned", self.owned)
        return self._take(
            self.harness.beat(self.member_id, self.epoch, group=self.group, instance=self.instance, **kwargs)
        )

    def leave(self, epoch: int = -1) -> Answer:
        return self.harness.beat(self.member_id, epoch, group=self.group, instance=self.instance)

    def _take(self, answer: Answer) -> Answer:
        response = heartbeat_response(answer)
        assert response.error_code == ErrorCode.NONE, response
        self.epoch = response.member_epoch
        assigned = self.harness.assigned(answer)
        if assigned is not None:
            self.owned = assigned
            if self.on_owned is not None:
                self.on_owned(self)
        return answer

    def partitions(self) -> set[tuple[str, int]]:
        return {(name, number) for name, numbers in self.owned.items() for number in numbers}


def heartbeat_response(answer: Answer) -> ConsumerGroupHeartbeatResponse:
    assert isinstance(answer.response, ConsumerGroupHeartbeatResponse)
    return answer.response
