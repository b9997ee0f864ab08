"""A node's place in the metadata quorum: the same for every role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.quorum_members import first_voters
from odradek.controller.controller_node import MetadataQuorum
from odradek.wire.uuid import ZERO_UUID

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.node import Ports
    from odradek.storage.manager import LogManager


def metadata_quorum(
    config: BrokerConfig, ports: Ports, logs: LogManager, metadata_dir: str
) -> MetadataQuorum:
    """Not started. `metadata_dir` is an absolute path; its directory id is that of the log directory it is in."""
    peers = ports.peers
    directory_ids = [each.directory_id for each in logs.dirs if each.path == metadata_dir]
    directory_id = directory_ids[0] if directory_ids else ZERO_UUID
    return MetadataQuorum(
        disk=ports.disk,
        dir=metadata_dir,
        syncer=ports.metadata_syncer,
        clock=ports.clock,
        timers=ports.timers,
        rng=ports.rng,
        node_id=config.node_id,
        cluster_id=logs.cluster_id,
        config=config,
        directory_id=directory_id,
        voters=first_voters(config, directory_id, peers.port if peers is not None else 0),
        transport=peers.raft if peers is not None else None,
        channel=peers.controller if peers is not None else None,
        warn=ports.log.warning,
    )
