"""Whom a node takes for the voters of the metadata quorum before its log says so (KIP-595, 853).

what is configured                            | the first voters
controller.quorum.voters                      | these, by id alone: static, their set cannot be changed
no address for other nodes                    | this node alone
a controller, no bootstrap server but itself  | this node alone, by id and directory: others may be added
anything else                                 | what `kafka-storage format` wrote. Without that none: the node observes,
                                              | and finds the leader through controller.quorum.bootstrap.servers
"""

from __future__ import annotations

from collections.abc import Callable

from odradek.broker.config import BrokerConfig, StartupError
from odradek.raft.voters import Endpoint, ReplicaKey, Voter


def first_voters(config: BrokerConfig, directory_id: bytes, port: int) -> list[Voter]:
    """`port`: where this node serves other nodes, 0 for a node without any."""
    if config.voters:
        name = config.controller_listener_names[0]
        return [
            Voter(ReplicaKey(voter.node_id), (Endpoint(name, voter.host, voter.port),))
            for voter in config.voters
        ]
    if config.alone:
        return [Voter(ReplicaKey(config.node_id))]
    if config.standalone:
        return [Voter(ReplicaKey(config.node_id, directory_id), own_endpoints(config, port))]
    return []


def own_endpoints(config: BrokerConfig, port: int) -> tuple[Endpoint, ...]:
    """Where other nodes reach this controller."""
    return tuple(Endpoint(each.name, each.host, each.port or port) for each in config.controller_advertised)


def require_formatted(config: BrokerConfig, exists: Callable[[str], bool]) -> None:
    """StartupError for a controller that must be told first which quorum it belongs to: two that guess make two."""
    told = bool(config.voters) or config.standalone or config.alone
    if told or "controller" not in config.roles or exists(f"{config.metadata_dir}/meta.properties"):
        return
    raise StartupError(
        f"{config.metadata_dir} is not formatted, and controller.quorum.voters is not set: run kafka-storage format "
        "with --standalone for the first controller, --initial-controllers for several, or --no-initial-controllers "
        "for one that joins"
    )
