"""A node with the controller role only: a place in the metadata quorum, and no clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from odradek.broker.health import missing_of_quorum
from odradek.broker.metadata_quorum import metadata_quorum

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.connection import Connection
    from odradek.broker.metrics import BrokerMetrics
    from odradek.broker.node import Ports
    from odradek.broker.partition import Partition
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage
    from odradek.storage.manager import LogManager


class ControllerProcess:
    """What `server.py` runs in place of a Node; the same life, without listeners for clients."""

    def __init__(
        self, config: BrokerConfig, ports: Ports, logs: LogManager, metrics: BrokerMetrics, metadata_dir: str
    ) -> None:
        self.config = config
        self.ports = ports
        self.logs = logs
        self.metrics = metrics
        self.stopping = False
        self.listening = True
        self.unfenced = False
        self.connections: set[Connection] = set()
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.groups = None
        self.on_ready: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None
        self.on_fatal: Callable[[str], None] = lambda reason: None
        self._ready = False
        assert ports.peers is not None, "a controller without brokers is of use to other nodes only"
        self.quorum = metadata_quorum(config, ports, logs, metadata_dir)
        self.quorum.stop_node = self._stop_node
        self.image: MetadataImage = self.quorum.image

    def start(self, bound_ports: dict[str, int]) -> None:
        """Take part in the quorum; `on_ready` follows once it has a leader."""
        self.quorum.add_publisher(self)
        self.quorum.start(self.ports.clock.monotonic_ms())

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.image = image
        if not self._ready and self.quorum.has_leader:
            self._ready = True
            self.on_ready()

    def settle(self) -> None:
        """Nothing is staged here: the metadata log writes when it is told to."""

    def leave(self, done: Callable[[], None]) -> None:
        """A controller gives its place up by stopping; the quorum elects another one."""
        done()

    def stop(self) -> None:
        self.stopping = True
        self.quorum.close()
        for directory, reason in self.logs.close({}):
            self.ports.log.warning("not closed cleanly", directory=directory, reason=reason)

    def _stop_node(self, reason: str) -> None:
        self.stopping = True
        self.on_fatal(reason)

    def readiness(self) -> tuple[bool, list[str]]:
        reasons = ["the node is shutting down"] if self.stopping else []
        reasons += missing_of_quorum(self.quorum)
        return not reasons, reasons
