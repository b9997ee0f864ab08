"""Who votes: replica keys, voter sets and their history along the log (KIP-853).

A voter is (id, directory id): a node whose disk was wiped comes back as somebody else, not as an amnesiac.
The set in force is the *last* one in the log, committed or not; truncating the log therefore brings an
older set back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from odradek.wire.uuid import ZERO_UUID, uuid_to_string


class ReplicaKey(NamedTuple):
    """A replica of the metadata log. `ZERO_UUID` as directory id: not known, or not asked for."""

    id: int
    directory_id: bytes = ZERO_UUID

    def __repr__(self) -> str:
        suffix = "" if self.directory_id == ZERO_UUID else f":{self.directory_id.hex()[-4:]}"
        return f"{self.id}{suffix}"

    def __str__(self) -> str:
        """As Kafka shows it to people."""
        unknown = self.directory_id == ZERO_UUID
        directory = "<undefined>" if unknown else uuid_to_string(self.directory_id)
        return f"ReplicaKey(id={self.id}, directoryId={directory})"


class Endpoint(NamedTuple):
    """Where a voter listens for its peers."""

    listener: str
    host: str
    port: int


class Voter(NamedTuple):
    """One member of the quorum. A voter whose directory id is unknown is matched by its id alone."""

    key: ReplicaKey
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def id(self) -> int:
        return self.key.id

    def is_same_as(self, key: ReplicaKey) -> bool:
        if self.key.id != key.id:
            return False
        return self.key.directory_id == ZERO_UUID or self.key.directory_id == key.directory_id


@dataclass(frozen=True, slots=True)
class VoterSet:
    """An immutable set of voters, ordered by id; ids are unique."""

    voters: tuple[Voter, ...] = ()

    def __post_init__(self) -> None:
        ids = [voter.id for voter in self.voters]
        assert ids == sorted(set(ids)), f"voter ids must be unique and ordered: {ids}"

    @classmethod
    def of(cls, voters: Iterable[Voter]) -> VoterSet:
        return cls(tuple(sorted(voters, key=lambda voter: voter.id)))

    def __len__(self) -> int:
        return len(self.voters)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(voter.id for voter in self.voters)

    def __str__(self) -> str:
        return f"[{', '.join(str(voter.key) for voter in self.voters)}]"

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    @property
    def has_all_directories(self) -> bool:
        """Whether the set may be written into the log; without directory ids it stays configuration."""
        return bool(self.voters) and all(voter.key.directory_id != ZERO_UUID for voter in self.voters)

    def find(self, key: ReplicaKey) -> Voter | None:
        for voter in self.voters:
            if voter.is_same_as(key):
                return voter
        return None

    def contains(self, key: ReplicaKey) -> bool:
        return self.find(key) is not None

    def is_only(self, key: ReplicaKey) -> bool:
        return len(self.voters) == 1 and self.voters[0].is_same_as(key)

    def canonical(self, key: ReplicaKey) -> ReplicaKey:
        """The key under which progress and votes of this replica are counted."""
        voter = self.find(key)
        return key if voter is None else voter.key

    def with_voter(self, voter: Voter) -> VoterSet:
        return VoterSet.of([*self.voters, voter])

    def without(self, key: ReplicaKey) -> VoterSet:
        return VoterSet(tuple(voter for voter in self.voters if not voter.is_same_as(key)))

    def changes_to(self, other: VoterSet) -> int:
        """How many voters must be added or removed to make the other set of this one."""
        return len({voter.key for voter in self.voters} ^ {voter.key for voter in other.voters})


@dataclass(slots=True, eq=False)
class VoterHistory:
    """The voter sets of the log by the offset of their record, above the static or bootstrap set."""

    bootstrap: VoterSet
    offsets: list[int] = field(default_factory=list)
    _sets: list[VoterSet] = field(default_factory=list)

    @property
    def current(self) -> VoterSet:
        return self._sets[-1] if self._sets else self.bootstrap

    @property
    def previous(self) -> VoterSet:
        """The set before the current one."""
        return self._sets[-2] if len(self._sets) > 1 else self.bootstrap

    @property
    def last_offset(self) -> int:
        """Offset of the record that put the current set in force; -1 if no record has."""
        return self.offsets[-1] if self.offsets else -1

    def at(self, end_offset: int) -> VoterSet | None:
        """The set written below `end_offset` (for a snapshot that ends there); None if no record has set
        it.
        """
        for offset, voters in zip(reversed(self.offsets), reversed(self._sets), strict=True):
            if offset < end_offset:
                return voters
        return None

    def append(self, offset: int, voters: VoterSet) -> None:
        assert offset > self.last_offset, f"voters at {offset} do not follow those at {self.last_offset}"
        self.offsets.append(offset)
        self._sets.append(voters)

    def truncate_to(self, end_offset: int) -> None:
        while self.offsets and self.offsets[-1] >= end_offset:
            self.offsets.pop()
            self._sets.pop()

    def restart_at(self, end_offset: int, voters: VoterSet | None) -> None:
        """A snapshot that ends at `end_offset` replaces everything; `voters` is None if it names none.

        Those of a bootstrap snapshot, which ends at 0, count as not written into the log yet.
        """
        self.offsets.clear()
        self._sets.clear()
        if voters is not None:
            self.offsets.append(end_offset - 1)
            self._sets.append(voters)

    def trim(self, start_offset: int) -> None:
        """Forget sets that a snapshot ending at `start_offset` makes unreachable; the newest below it
        stays.
        """
        while len(self.offsets) > 1 and self.offsets[1] < start_offset:
            del self.offsets[0], self._sets[0]
