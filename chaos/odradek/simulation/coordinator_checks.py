"""G4, and the same for transactions: what a coordinator knows is what a replay of its log would tell it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.broker.coordinator_log import _Load
from odradek.coordinator.group.classic.group import EMPTY, STABLE, ClassicGroup
from odradek.coordinator.runtime import CoordinatorRuntime
from odradek.ports.timers import TimerQueue
from odradek.simulation.trace import InvariantViolation
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.simulation.machine import Process


def check_coordinators(process: Process) -> int:
    """Of all partitions that this node coordinates and that are at rest; how many there were."""
    node, checked = process.node, 0
    for topic, (_, runtime) in node.coordinators.led.items():
        for index in runtime.partitions():
            partition = node.partitions.get((topic, index))
            quiet = partition is not None and partition.high_watermark == partition.log.log_end_offset
            if partition is None or not quiet or runtime.error_of(index) is not ErrorCode.NONE:
                continue
            where = f"{topic}-{index} at {process.machine.host}"
            try:
                replayed = _replay(partition, runtime)
            except KafkaError as error:
                if error.code is not ErrorCode.CORRUPT_MESSAGE:
                    raise
                process.machine.cluster.trace.count("coordinator: its log is damaged")
                continue  # a bit has flipped in it, and nobody has read that since
            _compare(where, runtime.read(index), replayed)
            checked += 1
    return checked


def _replay(partition: Partition, live: CoordinatorRuntime[Any]) -> Any:
    """The state machine that a load would make now, of which nobody hears."""
    replayed: CoordinatorRuntime[Any] = CoordinatorRuntime(
        live._make_shard, live._writer, TimerQueue(), live._clock, write_timeout_ms=1_000
    )
    replayed.load_begin(partition.index, partition.leader_epoch)
    load = _Load(partition, replayed)
    while load.offset < load.end:
        load.read()
        for _ in load.batches:
            pass
    return replayed._partitions[partition.index].shard


def _compare(where: str, live: Any, replayed: Any) -> None:
    view = _transactions if hasattr(live, "transactions") else _groups
    known, told = view(live, live), view(replayed, live)
    for name in sorted({*known, *told}):
        if known.get(name) != told.get(name):
            raise InvariantViolation(
                f"G4: {where}: {name} is {known.get(name)}, a replay says {told.get(name)}"
            )


def _transactions(shard: Any, _live: Any) -> dict[str, object]:
    return {
        name: (each.state.name, each.producer_id, each.producer_epoch, sorted(each.partitions))
        for name, each in shard.transactions.committed_items()
    }


def _groups(shard: Any, live: Any) -> dict[str, object]:
    """Committed offsets; and classic groups, but for those that are between two generations."""
    found: dict[str, object] = {
        f"offset of {group} in {topic}-{index}": value.offset
        for group, offsets in shard.offsets.items()
        for (topic, index), value in offsets.committed_items()
    }
    for name, group in live.groups.items():
        other = shard.groups.get(name)
        at_rest = isinstance(group, ClassicGroup) and group.state in (STABLE, EMPTY) and not group.is_simple
        if at_rest and isinstance(other, ClassicGroup):
            found[f"group {name}"] = (other.generation, other.protocol, sorted(other.members))
        elif at_rest:
            found[f"group {name}"] = other
    return found
