"""What holds for one consumer group: the broker's configuration, or the group's own (ConfigResource GROUP, KIP-848)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from odradek.coordinator.config import GroupConfig

SESSION, HEARTBEAT, ASSIGNMENT = "session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms"


class ConsumerSettings:
    """Milliseconds. A group's own value is kept between the broker's bounds, which may have changed since."""

    def __init__(
        self,
        config: GroupConfig,
        of_group: Callable[[str], Mapping[str, str]],
        of_broker: Callable[[str], str | None] = lambda _key: None,
    ) -> None:
        """`of_group(group id)`: the group's own configuration, valid when it was set. `of_broker(key)`: what was set
        while the broker runs, which group.consumer.assignment.interval.ms can be.
        """
        self._config = config
        self._of_group = of_group
        self._of_broker = of_broker

    def session_timeout_ms(self, group_id: str) -> int:
        return self._number(group_id, SESSION)

    def heartbeat_interval_ms(self, group_id: str) -> int:
        return self._number(group_id, HEARTBEAT)

    def assignment_interval_ms(self, group_id: str) -> int:
        return self._number(group_id, ASSIGNMENT)

    def _number(self, group_id: str, what: str) -> int:
        field = what.replace(".", "_")
        text = self._of_group(group_id).get(f"consumer.{what}")
        if text is None and what is ASSIGNMENT:
            text = self._of_broker(f"group.consumer.{ASSIGNMENT}")
        if text is None:
            value: int = getattr(self._config, f"group_consumer_{field}")
            return value
        low: int = getattr(self._config, f"group_consumer_min_{field}")
        high: int = getattr(self._config, f"group_consumer_max_{field}")
        return min(max(int(text), low), high)
