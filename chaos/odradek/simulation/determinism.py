"""What of the product depends on the order of a set, put in order: a seed must give the same run in every process.

Strings hash differently in each process and objects by their address, so iterating a set of either draws lots. Nothing
in the product relies on such an order; here everything that is iterated gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage
    from odradek.simulation.machine import Process

_SETS = ("topics_created", "topics_changed", "configs_changed", "brokers_changed", "features_changed")


class SortedSet(set[Any]):
    """Iterates in order of its elements."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__()))


class InsertionOrder(set[Any]):
    """Iterates in the order in which elements came."""

    def __init__(self, elements: Iterable[Any] = ()) -> None:
        super().__init__(elements)
        self._order = dict.fromkeys(elements)

    def add(self, element: Any) -> None:
        super().add(element)
        self._order[element] = None

    def remove(self, element: Any) -> None:
        super().remove(element)
        del self._order[element]

    def discard(self, element: Any) -> None:
        super().discard(element)
        self._order.pop(element, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._order))


def put_in_order(process: Process) -> None:
    """To be called for a node that has not started yet."""
    process.node.connections = InsertionOrder()
    loader = process.node.quorum._loader
    tell = loader._tell

    def orderly(delta: MetadataDelta, image: MetadataImage) -> None:
        for name in _SETS:
            setattr(delta, name, SortedSet(getattr(delta, name)))
        tell(delta, image)

    loader._tell = orderly  # type: ignore[method-assign]
