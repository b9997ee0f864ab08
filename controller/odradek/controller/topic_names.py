"""Which topic names are allowed, and which would be mistaken for each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.metadata.delta import MetadataDelta

NAME_LENGTH_MAX = 249
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def topic_name_error(name: str) -> str | None:
    """Why a topic cannot be called so (path tricks included), in Kafka's words; None if it can."""
    if not name:
        reason = "the empty string is not allowed"
    elif name in (".", ".."):
        reason = f"'{name}' is not allowed"
    elif len(name) > NAME_LENGTH_MAX:
        reason = f"the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    elif not _CHARACTERS.issuperset(name):
        reason = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    else:
        return None
    return f"Topic name is invalid: {reason}"


class TopicNames:
    """Topic names by what they become in metrics, where '.' turns into '_': two may not become the same.

    An index of the image, kept by its deltas, because 10,000 names take 1 ms to go through.
    """

    def __init__(self) -> None:
        self._by_metric: dict[str, set[str]] = {}

    def rebuild(self, names: Iterable[str]) -> None:
        self._by_metric.clear()
        for name in names:
            self._add(name)

    def update(self, delta: MetadataDelta) -> None:
        for name in delta.topics_deleted:
            self._discard(name)
        for name in delta.topics_created:
            self._add(name)

    def collision(self, name: str) -> str | None:
        """An existing topic whose name collides with this one, itself included."""
        return min(self._by_metric.get(name.replace(".", "_"), ()), default=None)

    def _add(self, name: str) -> None:
        if "." in name or "_" in name:
            self._by_metric.setdefault(name.replace(".", "_"), set()).add(name)

    def _discard(self, name: str) -> None:
        metric = name.replace(".", "_")
        names = self._by_metric.get(metric)
        if names is not None:
            names.discard(name)
            if not names:
                del self._by_metric[metric]
