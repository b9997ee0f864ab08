"""The vote file `quorum-state`: what a replica must remember of elections, in Kafka's JSON form (KIP-595,
KIP-853).

Pure: only the text. The driver writes it to a temporary file, fsyncs, renames and fsyncs the directory
before any message leaves that depends on it.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from odradek.raft.voters import ReplicaKey
from odradek.wire.uuid import ZERO_UUID, uuid_from_string, uuid_to_string

FILE_NAME = "quorum-state"
NO_LEADER = -1


class CorruptQuorumState(ValueError):  # noqa: N818 - named after what was found
    """The vote file cannot be read; guessing its content could vote twice in one epoch."""


class QuorumState(NamedTuple):
    """Epoch, its leader if known (else `NO_LEADER`), and who got this replica's vote in it."""

    epoch: int = 0
    leader_id: int = NO_LEADER
    voted: ReplicaKey | None = None

    def encode(self) -> bytes:
        """The file of kraft.version 1 (`data_version` 1), byte for byte as Kafka writes it."""
        voted = self.voted or ReplicaKey(-1, ZERO_UUID)
        fields = {
            "leaderId": self.leader_id,
            "leaderEpoch": self.epoch,
            "votedId": voted.id,
            "votedDirectoryId": uuid_to_string(voted.directory_id),
            "data_version": 1,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> QuorumState:
        """Read either of Kafka's two versions. CorruptQuorumState names what is wrong."""
        try:
            fields = json.loads(data)
            if not isinstance(fields, dict):
                raise ValueError("not a JSON object")
            version = _integer(fields, "data_version")
            if version not in (0, 1):
                raise ValueError(f"data_version {version} is not known")
            directory = uuid_from_string(fields["votedDirectoryId"]) if version == 1 else ZERO_UUID
            epoch = _integer(fields, "leaderEpoch")
            leader_id, voted_id = _integer(fields, "leaderId"), _integer(fields, "votedId")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptQuorumState(f"{type(error).__name__}: {error}") from error
        if epoch < 0 or leader_id < NO_LEADER or voted_id < -1:
            raise CorruptQuorumState(f"epoch {epoch}, leader {leader_id} or vote {voted_id} is out of range")
        return cls(epoch, leader_id, None if voted_id == -1 else ReplicaKey(voted_id, directory))


def _integer(fields: dict[str, object], name: str) -> int:
    value = fields[name]
    if type(value) is not int:
        raise ValueError(f"{name} is {value!r}, not an integer")
    return value
