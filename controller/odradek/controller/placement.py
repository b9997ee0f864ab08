"""Where replicas of new partitions go: striped over racks, then over the brokers of each rack, from a
random start.

As Kafka's StripedReplicaPlacer: the goals, in order, are that replicas of a partition sit on different
brokers, that they sit on different racks as far as there are any, that the first one (the preferred leader)
is never fenced, that fenced brokers are used last, and that load is even. Each partition starts one rack
and one broker further than the one before; after as many partitions as there are unfenced brokers the order
is drawn anew, so that the same brokers do not always stand beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from odradek.metadata.image import BrokerImage
from odradek.metadata.records import Ints
from odradek.wire.errors import ErrorCode, KafkaError


@dataclass(frozen=True, slots=True)
class UsableBroker:
    id: int
    rack: str | None
    fenced: bool


def usable_brokers(brokers: Iterable[BrokerImage]) -> list[UsableBroker]:
    """Brokers that new replicas may be placed on: all that are not shutting down and have a directory for them."""
    usable = (b for b in brokers if b.takes_replicas and not b.in_controlled_shutdown)
    return [UsableBroker(b.id, b.rack, b.fenced) for b in usable]


class _Ring:
    """Brokers taken in turn. A round takes each once; the next round begins one broker further."""

    __slots__ = ("_brokers", "_offset", "_round", "_taken")

    def __init__(self, brokers: Iterable[int], rng: Random) -> None:
        self._brokers = sorted(brokers)
        self._offset = rng.randrange(len(self._brokers)) if self._brokers else 0
        self._round = 0
        self._taken = 0

    def shuffle(self, rng: Random) -> None:
        rng.shuffle(self._brokers)

    def next(self, round_: int) -> int | None:
        """The next broker of the round, None when all have been taken."""
        if not self._brokers:
            return None
        if round_ != self._round:
            self._round, self._taken = round_, 0
            self._offset = (self._offset + 1) % len(self._brokers)
        if self._taken == len(self._brokers):
            return None
        broker = self._brokers[(self._taken + self._offset) % len(self._brokers)]
        self._taken += 1
        return broker


class _Rack:
    __slots__ = ("fenced", "unfenced")

    def __init__(self, brokers: list[UsableBroker], rng: Random) -> None:
        self.fenced = _Ring((broker.id for broker in brokers if broker.fenced), rng)
        self.unfenced = _Ring((broker.id for broker in brokers if not broker.fenced), rng)

    def shuffle(self, rng: Random) -> None:
        self.fenced.shuffle(rng)
        self.unfenced.shuffle(rng)

    def next(self, round_: int) -> int | None:
        broker = self.unfenced.next(round_)
        return self.fenced.next(round_) if broker is None else broker


class _Placer:
    def __init__(self, brokers: list[UsableBroker], rng: Random) -> None:
        self._rng = rng
        by_rack: dict[str, list[UsableBroker]] = {}
        for broker in brokers:
            by_rack.setdefault("" if broker.rack is None else "." + broker.rack, []).append(broker)
        self._racks = [_Rack(by_rack[name], rng) for name in sorted(by_rack)]
        self._unfenced = sum(not broker.fenced for broker in brokers)
        self._round = 0
        self._first_rack = rng.randrange(len(self._racks))

    def place(self, replicas: int) -> Ints:
        if self._round and self._unfenced > 1 and self._round % self._unfenced == 0:
            self._rng.shuffle(self._racks)
            for ring in self._racks:
                ring.shuffle(self._rng)
        start = self._first_rack = self._first_rack % len(self._racks)
        index, leader = self._leader(start)
        chosen = [leader]
        skip: int | None = index  # the leader's rack, passed over once
        rack = start
        while len(chosen) < replicas:
            if rack == skip:
                skip = None
            elif (broker := self._racks[rack].next(self._round)) is not None:
                chosen.append(broker)
            rack = (rack + 1) % len(self._racks)
        self._round += 1
        self._first_rack += 1
        return tuple(chosen)

    def _leader(self, start: int) -> tuple[int, int]:
        """The first rack from `start` with an unfenced broker left, and that broker."""
        for step in range(len(self._racks)):
            index = (start + step) % len(self._racks)
            broker = self._racks[index].unfenced.next(self._round)
            if broker is not None:
                return index, broker
        raise AssertionError("a round takes no more leaders than there are unfenced brokers")


def place(brokers: list[UsableBroker], partitions: int, replicas: int, rng: Random) -> list[Ints]:
    """Replicas of each new partition, the preferred leader first. KafkaError(INVALID_REPLICATION_FACTOR)."""
    unfenced = sum(not broker.fenced for broker in brokers)
    if replicas <= 0:
        why = f"Invalid replication factor {replicas}: the replication factor must be positive."
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, why)
    if unfenced == 0:
        why = "All brokers are currently fenced, or have all their log directories cordoned."
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, why)
    if replicas > len(brokers):
        why = (
            f"The target replication factor of {replicas} cannot be reached because only {len(brokers)} "
            "broker(s) are registered or some brokers have all their log directories cordoned."
        )
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, why)
    placer = _Placer(brokers, rng)
    return [placer.place(replicas) for _ in range(partitions)]
