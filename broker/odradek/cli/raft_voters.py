"""`kafka-metadata-quorum add-controller` and `remove-controller` (KIP-853)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

TIMEOUT_MS = 25_000
VALID = "Is this a valid controller configuration file?"


def add_controller(admin: Admin, file: str, dry_run: bool) -> None:
    """Add the controller whose configuration file this is: it runs, and has caught up."""
    from odradek.broker.properties import parse_properties
    from odradek.wire.uuid import uuid_from_string

    with open(file, encoding="latin-1") as opened:
        settings = {key: each.value for key, each in parse_properties(opened.read(), file).items()}
    node_id = controller_id(settings)
    directory_id = directory_id_in(metadata_directory(settings))
    endpoints = controller_endpoints(settings)
    if not dry_run:
        listeners = [(name, host, port) for name, host, port in endpoints]
        request = _messages().AddRaftVoterRequest(
            cluster_id=None,
            timeout_ms=TIMEOUT_MS,
            voter_id=node_id,
            voter_directory_id=_uuid(uuid_from_string(directory_id)),
            listeners=listeners,
        )
        _send(admin, request)
    done = "DRY RUN of adding" if dry_run else "Added"
    shown = ", ".join(
        f"{name}://{f'[{host}]' if ':' in host else host}:{port}" for name, host, port in endpoints
    )
    print(f"{done} controller {node_id} with directory id {directory_id} and endpoints: {shown}")


def remove_controller(admin: Admin, node_id: int, directory_id: str, dry_run: bool) -> None:
    from odradek.wire.uuid import uuid_from_string

    if node_id < 0:
        raise ToolError(f"Invalid negative --controller-id: {node_id}")
    try:
        directory = uuid_from_string(directory_id)
    except ValueError as error:
        raise ToolError(f"Failed to parse --controller-directory-id: {error}") from error
    if not dry_run:
        request = _messages().RemoveRaftVoterRequest(
            cluster_id=None, voter_id=node_id, voter_directory_id=_uuid(directory)
        )
        _send(admin, request)
    done = "DRY RUN of removing " if dry_run else "Removed "
    print(f"{done} KRaft controller {node_id} with directory id {directory_id}")


def _send(admin: Admin, request: Any) -> None:
    from odradek.cli.admin import ClusterError

    answer = admin.send(request).to_dict()
    if answer["error_code"]:
        raise ClusterError(answer["error_code"], answer.get("error_message"))


def _messages() -> Any:
    from odradek.cli import raft_voter_messages

    return raft_voter_messages


def _uuid(value: bytes) -> Any:
    from uuid import UUID

    return UUID(bytes=value)


# --- what the configuration of a controller says, as Kafka's tool reads it ---


def controller_id(settings: Mapping[str, str]) -> int:
    if "node.id" not in settings:
        raise ToolError(f"node.id not found in configuration file. {VALID}")
    try:
        node_id = int(settings["node.id"])
    except ValueError as error:
        raise ToolError(f'For input string: "{settings["node.id"]}"') from error
    if node_id < 0:
        raise ToolError(f"node.id was negative in configuration file. {VALID}")
    if "controller" not in settings.get("process.roles", ""):
        raise ToolError(f"process.roles did not contain 'controller' in configuration file. {VALID}")
    return node_id


def metadata_directory(settings: Mapping[str, str]) -> str:
    if "metadata.log.dir" in settings:
        return settings["metadata.log.dir"]
    if "log.dirs" in settings:
        return settings["log.dirs"].strip().split(",")[0]
    raise ToolError(f"Neither metadata.log.dir nor log.dirs were found. {VALID}")


def directory_id_in(directory: str) -> str:
    """Of meta.properties."""
    from odradek.storage.checkpoints import parse_properties

    try:
        with open(os.path.join(directory, "meta.properties"), encoding="utf-8") as file:
            values = parse_properties(file.read())
    except (OSError, ValueError) as error:
        raise ToolError(f"Unable to read meta.properties from {directory}") from error
    if not values.get("directory.id"):
        raise ToolError(f"No directory id found in {directory}")
    return values["directory.id"]


def controller_endpoints(settings: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """(listener, host, port): as advertised, else as bound."""
    from odradek.broker.listeners import PROTOCOLS, Listener, parse_listeners
    from odradek.metadata.config_def import ConfigError

    if "controller.listener.names" not in settings:
        raise ToolError(f"controller.listener.names was not found. {VALID}")
    names = [name.strip().upper() for name in settings["controller.listener.names"].split(",")]
    found: dict[str, Listener] = {}
    for key in ("listeners", "advertised.listeners"):
        entries = [entry.strip() for entry in settings.get(key, "").split(",") if entry.strip()]
        protocols = dict.fromkeys((entry.partition(":")[0].upper() for entry in entries), PROTOCOLS[0])
        try:
            found |= {each.name: each for each in parse_listeners(entries, protocols, distinct_ports=False)}
        except ConfigError as error:
            raise ToolError(str(error)) from error
    for name in names:
        if name not in found:
            raise ToolError(f"Cannot find information about controller listener name: {name}")
    return [(name, found[name].host or "localhost", found[name].port) for name in names]
