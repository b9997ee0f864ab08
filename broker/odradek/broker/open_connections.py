"""Open connections of clients: how many there may be, in all and from one address, and who has been idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.connection import Connection

EOF_LINGER_MS = 60_000
"""How long a peer that has closed its side waits for the answers to what it asked before."""


class OpenConnections:
    """`all` is read by others."""

    def __init__(self, config: BrokerConfig, monotonic_ms: Callable[[], int], log: Any) -> None:
        self.all: set[Connection] = set()
        self._from: dict[str, int] = {}
        """How many there are by address."""
        self._config = config
        self._monotonic_ms = monotonic_ms
        self._log = log

    def add(self, connection: Connection) -> bool:
        """False if there are too many: max.connections, max.connections.per.ip and its overrides."""
        config = self._config
        address = connection.peer_host.removeprefix("/")
        from_there = self._from.get(address, 0)
        if len(self.all) >= config.max_connections or from_there >= config.ip_connections.get(
            address, config.max_connections_per_ip
        ):
            self._log.limited_warning(
                "too many connections", peer=connection.peer, connections=len(self.all), from_there=from_there
            )
            return False
        self._from[address] = from_there + 1
        connection.last_active_ms = self._monotonic_ms()
        self.all.add(connection)
        return True

    def remove(self, connection: Connection) -> bool:
        """Whether it was the last."""
        if connection not in self.all:
            return False
        self.all.remove(connection)
        address = connection.peer_host.removeprefix("/")
        left = self._from[address] - 1
        if left:
            self._from[address] = left
        else:
            del self._from[address]
        return not self.all

    def close_idle(self) -> None:
        """connections.max.idle.ms."""
        now_ms = self._monotonic_ms()
        limit = self._config.connections_max_idle_ms
        oldest = now_ms - limit
        for connection in list(self.all):
            if connection.has_moved():
                connection.last_active_ms = now_ms
            elif limit >= 0 and connection.last_active_ms < oldest and connection.is_idle:
                if connection.closed or connection.unsent:
                    connection.abort()  # it does not read: what was written never leaves
                else:
                    connection.close()
            elif connection.at_eof and connection.last_active_ms < now_ms - EOF_LINGER_MS:
                connection.close()
