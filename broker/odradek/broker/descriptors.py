"""Open files of this process: as many as the system grants, shared out so that no kind starves another.

Whoever opens connections must not be able to take the descriptors that the log needs: a checkpoint that cannot be
written takes its directory offline.
"""

from __future__ import annotations

from typing import NamedTuple

RESERVED = 128
"""For the event loop, directories, checkpoints, the metadata log, the HTTP endpoint."""
SEGMENT_FILES_MAX = 4096
NODES_MAX = 1000
ASKED_MAX = 1 << 20
WITHOUT_LIMITS = 8192
"""Assumed where the system has no such limits."""


class Descriptors(NamedTuple):
    """How many of each kind may be open."""

    segment_files: int
    connections: int
    file_senders: int
    """Second descriptors of connections that are sent files (file_sender.py); who gets none is sent copies."""
    nodes: int
    """Connections that other nodes open (`RpcSettings.connections_max`)."""


def share_out(limit: int) -> Descriptors:
    """Of few descriptors, half are for segment files; what they do not need is for connections, once or twice each."""
    free = max(limit - RESERVED, limit // 2)
    nodes = min(NODES_MAX, free // 8)
    segment_files = max(1, min(SEGMENT_FILES_MAX, (free - nodes) // 2))
    clients = max(1, free - nodes - segment_files)
    file_senders = clients // 5
    return Descriptors(segment_files, clients - file_senders, file_senders, nodes)


def raise_limit() -> int:
    """Ask for as many as are allowed; how many there are now."""
    try:
        import resource
    except ImportError:  # not a Unix
        return WITHOUT_LIMITS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ASKED_MAX if hard == resource.RLIM_INFINITY else min(hard, ASKED_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # some systems allow less than they say
            pass
    return ASKED_MAX if soft == resource.RLIM_INFINITY else soft
