"""Committed offsets of simple consumers, without group membership: each has a group of its own and counts up (G2)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, error_of
from odradek.simulation.trace import InvariantViolation
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster


class OffsetReader(Client):
    """Asks once for a group's offset of partition 0 of the first topic, and waits for transactions to end."""

    def __init__(self, cluster: Cluster, name: str, rng: Random, group: str) -> None:
        super().__init__(cluster, name, rng)
        self.group = group
        self.found: int | None = None
        """-1: nothing is committed."""

    def start(self) -> None:
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=[self.group])

        def done(response: Any) -> None:
            if response is None or response.coordinators[0].error_code:
                self.after(self.between(20, 150), self.start)
            else:
                self._ask(response.coordinators[0].host)

        self.ask(self.any_host(), request, 4, done)

    def _ask(self, host: str) -> None:
        topics = [OffsetFetchRequestTopics(name=self.cluster.topics[0], partition_indexes=[0])]
        group = OffsetFetchRequestGroup(group_id=self.group, topics=topics)

        def done(response: Any) -> None:
            answer = response.groups[0] if response is not None else None
            if answer is not None and answer.error_code == 0:
                found = answer.topics[0].partitions[0]
                if found.error_code == 0:
                    self.found = found.committed_offset
                    return
                self.cluster.trace.count(f"offsets: {error_of(found.error_code).name}")
            self.after(self.between(20, 150), self.start)

        self.ask(host, OffsetFetchRequest(groups=[group], require_stable=True), 9, done)


class Committer(Client):
    """Commits rising offsets of one partition, reads them back now and then: never less than was acknowledged."""

    abandons = True

    def __init__(self, cluster: Cluster, name: str, rng: Random) -> None:
        super().__init__(cluster, name, rng)
        self.group = f"g-{name}"
        self._coordinator: str | None = None
        self._tried = 0
        self._acked = 0
        self._finishing = False
        self.done = False

    def start(self) -> None:
        self._next()

    def finish(self) -> None:
        """One more commit, one more look, then it is done."""
        self._finishing = True

    def _next(self) -> None:
        if not self.done:
            self.after(self.between(5, 150), self._act)

    def _act(self) -> None:
        if self._coordinator is None:
            self._find()
        elif self.rng.random() < 0.3 and not (self._finishing and self._acked < self._tried):
            self._look()
        else:
            self._commit()

    def _find(self) -> None:
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=[self.group])

        def done(response: Any) -> None:
            if response is not None:
                found = response.coordinators[0]
                if found.error_code == 0:
                    self._coordinator = found.host
                else:
                    self.cluster.trace.count(f"coordinator: {error_of(found.error_code).name}")
            self._next()

        self.ask(self.any_host(), request, 4, done)

    def _failed(self, code: int | None) -> None:
        if code is not None:
            self.cluster.trace.count(f"offsets: {error_of(code).name}")
        if code != ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            self._coordinator = None

    def _lossy(self) -> bool:
        return self.cluster.offsets_may_be_lost()

    def _commit(self) -> None:
        self._tried += 1
        offset = self._tried
        topic = self.cluster.topics[0]
        partition = OffsetCommitRequestPartition(
            partition_index=0, committed_offset=offset, committed_metadata=""
        )
        request = OffsetCommitRequest(
            group_id=self.group,
            generation_id_or_member_epoch=-1,
            member_id="",
            topics=[OffsetCommitRequestTopic(name=topic, partitions=[partition])],
        )

        def done(response: Any) -> None:
            code = None if response is None else response.topics[0].partitions[0].error_code
            if code == 0:
                self._acked = offset
                self.cluster.trace.note(self.name, "committed", offset)
            else:
                self._failed(code)
            self._next()

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 9, done)

    def _look(self) -> None:
        acked, tried = self._acked, self._tried
        topic = self.cluster.topics[0]
        request = OffsetFetchRequest(
            groups=[
                OffsetFetchRequestGroup(
                    group_id=self.group,
                    topics=[OffsetFetchRequestTopics(name=topic, partition_indexes=[0])],
                )
            ],
            require_stable=False,
        )

        def done(response: Any) -> None:
            code = None if response is None else response.groups[0].error_code
            if code == 0:
                found = response.groups[0].topics[0].partitions[0]
                if found.error_code == 0:
                    self._check(max(0, found.committed_offset), acked, tried)
                    self.done = self._finishing and self._acked == self._tried
            else:
                self._failed(code)
            self._next()

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 9, done)

    def _check(self, found: int, acked: int, tried: int) -> None:
        self.cluster.trace.note(self.name, "fetched", found)
        if not acked <= found <= tried and not self._lossy():
            raise InvariantViolation(
                f"G2: group {self.group} committed {acked}, tried {tried}, and reads {found}"
            )
        self._acked = found if self._lossy() else self._acked
