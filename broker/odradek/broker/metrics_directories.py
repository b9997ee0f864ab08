"""Metrics of log directories, with the names of Kafka's LogManager."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.broker.node import Node

_MANAGER = "kafka_log_logmanager_"


def gauges(node: Node) -> dict[str, tuple[str, float]]:
    """Name → help and value."""
    dirs = node.log_directories()
    return {
        f"{_MANAGER}offlinelogdirectorycount": (
            "Log directories that have failed.",
            sum(not online for _, online in dirs),
        ),
        f"{_MANAGER}cordonedlogdirectorycount": (
            "Log directories that get no new replicas.",
            len(node.logs.cordoned),
        ),
    }


def by_directory(node: Node) -> dict[str, tuple[str, dict[str, float]]]:
    """Name → help, and value by log directory."""
    dirs = node.log_directories()
    return {
        f"{_MANAGER}logdirectoryoffline": (
            "1 for a log directory that has failed.",
            {path: float(not online) for path, online in dirs},
        ),
        f"{_MANAGER}logdirectorycordoned": (
            "1 for a log directory that gets no new replicas.",
            {path: float(path in node.logs.cordoned) for path, _ in dirs},
        ),
    }
