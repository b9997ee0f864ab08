"""Tells the controller in which log directory a replica is, where metadata has another (KIP-858).

That is so with several log directories, of which metadata knows none until it is told, and after a disk was replaced:
what the controller takes for gone is never elected, and leaves ISR and ELR with the next registration.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.assign_replicas_to_dirs import (
    AssignReplicasToDirsRequest,
    AssignReplicasToDirsRequestDirectoryData,
    AssignReplicasToDirsRequestPartitionData,
    AssignReplicasToDirsRequestTopicData,
    AssignReplicasToDirsResponse,
)

Key = tuple[bytes, int]
"""(topic id, partition)."""
PER_REQUEST_MAX = 2_250
"""As Kafka's."""


class DirectoryAssignments:
    """One request at a time; what failed is tried again a moment later."""

    def __init__(self, node_id: int) -> None:
        self.ask: Callable[[AssignReplicasToDirsRequest, Callable[[Any], None]], None] | None = None
        """The way to the active controller, which always answers."""
        self.again: Callable[[], None] = lambda: None
        """Has `send` called a moment later."""
        self.broker_epoch = -1
        self._node_id = node_id
        self._wanted: dict[Key, bytes] = {}
        self._asking = False

    def note(self, key: Key, known: bytes, actual: bytes) -> None:
        """A replica is in directory `actual`, and metadata says `known`."""
        if known == actual:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = actual

    def forget(self, key: Key) -> None:
        self._wanted.pop(key, None)

    def send(self) -> None:
        """Tell what is to be told, unless an answer is waited for."""
        if not self._wanted or self._asking or self.ask is None or self.broker_epoch < 0:
            return
        self._asking = True
        told = dict(islice(self._wanted.items(), PER_REQUEST_MAX))
        request = AssignReplicasToDirsRequest(self._node_id, self.broker_epoch, _directories(told))
        self.ask(request, lambda response: self._answered(told, response))

    def _answered(self, told: dict[Key, bytes], response: AssignReplicasToDirsResponse) -> None:
        self._asking = False
        if response.error_code != ErrorCode.NONE:
            self.again()
            return
        for key, directory in told.items():
            # Done; or there is no such replica any more, and metadata will tell.
            if self._wanted.get(key) == directory:
                del self._wanted[key]
        self.send()


def _directories(told: dict[Key, bytes]) -> list[AssignReplicasToDirsRequestDirectoryData]:
    found: dict[bytes, dict[bytes, AssignReplicasToDirsRequestTopicData]] = {}
    for (topic_id, index), directory in told.items():
        topics = found.setdefault(directory, {})
        if topic_id not in topics:
            topics[topic_id] = AssignReplicasToDirsRequestTopicData(topic_id)
        topics[topic_id].partitions.append(AssignReplicasToDirsRequestPartitionData(index))
    return [
        AssignReplicasToDirsRequestDirectoryData(directory, list(topics.values()))
        for directory, topics in found.items()
    ]
