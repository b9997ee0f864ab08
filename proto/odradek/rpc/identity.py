"""Who is at the other end: said in the metadata of every stream, by both sides, before anything else.

With a secret (`odradek.internal.secret`) each side proves that it knows it: HMAC-SHA256 over all it says of itself.
That keeps out whoever can reach the port; whoever can read the network as well could say the same again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from odradek.wire.uuid import uuid_to_string

RPC_VERSION = 1
"""Of the messages in `v1` and of this handshake. Nodes of different versions do not talk."""

_VERSION = "odradek-rpc-version"
_CLUSTER = "odradek-cluster-id-bin"
_NODE = "odradek-node-id"
_DIRECTORY = "odradek-directory-id-bin"
_INCARNATION = "odradek-incarnation-bin"
_PROOF = "odradek-proof-bin"
_UUID_BYTES = 16
_CLUSTER_BYTES_MAX = 500
_NODE_DIGITS_MAX = 10


class Mismatch(Exception):  # noqa: N818 - what was found, not what went wrong here
    """The peer is not who it should be; the text says so to people, and what to do."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """`directory_id` is that of the metadata directory in meta.properties; `incarnation` is drawn at each start."""

    cluster_id: str
    node_id: int
    directory_id: bytes
    incarnation: bytes

    def metadata(self, secret: bytes = b"") -> tuple[tuple[str, str | bytes], ...]:
        """What this node says of itself, and that it knows the secret, if there is one."""
        said: tuple[tuple[str, str | bytes], ...] = (
            (_VERSION, str(RPC_VERSION)),
            (_CLUSTER, self.cluster_id.encode()),
            (_NODE, str(self.node_id)),
            (_DIRECTORY, self.directory_id),
            (_INCARNATION, self.incarnation),
        )
        return (*said, (_PROOF, _proof(secret, dict(said)))) if secret else said

    def __str__(self) -> str:
        return f"node {self.node_id} (directory {uuid_to_string(self.directory_id)})"


def read_identity(metadata: Iterable[tuple[str, str | bytes]], secret: bytes = b"") -> NodeIdentity:
    """What a peer said of itself. Mismatch if it is no Odradek node, one of another version, or does not know the
    secret.
    """
    found = dict(metadata)
    version = found.get(_VERSION)
    if version is None:
        raise Mismatch("the peer did not say who it is: it is not an Odradek node")
    if version != str(RPC_VERSION):
        raise Mismatch(
            f"the peer speaks version {version!s} between nodes, this node version {RPC_VERSION}: "
            "run the same version of Odradek on every node"
        )
    cluster, node_id = found.get(_CLUSTER), found.get(_NODE)
    directory_id, incarnation = found.get(_DIRECTORY), found.get(_INCARNATION)
    if (
        not isinstance(cluster, bytes)
        or not 0 < len(cluster) <= _CLUSTER_BYTES_MAX
        or not isinstance(node_id, str)
        or not (node_id.isascii() and node_id.isdecimal() and len(node_id) <= _NODE_DIGITS_MAX)
        or int(node_id) >= 1 << 31
        or not _is_uuid(directory_id)
        or not _is_uuid(incarnation)
    ):
        raise Mismatch("what the peer says of itself makes no sense: it is not an Odradek node")
    assert isinstance(directory_id, bytes) and isinstance(incarnation, bytes)
    if secret:
        proof = found.get(_PROOF)
        if not isinstance(proof, bytes) or not hmac.compare_digest(proof, _proof(secret, found)):
            raise Mismatch(
                f"node {node_id} does not know the secret between nodes: give every node of the cluster the same "
                "odradek.internal.secret"
            )
    return NodeIdentity(cluster.decode(errors="replace"), int(node_id), directory_id, incarnation)


def _proof(secret: bytes, said: Mapping[str, str | bytes]) -> bytes:
    values = (said[key] for key in (_VERSION, _CLUSTER, _NODE, _DIRECTORY, _INCARNATION))
    message = b"".join(
        len(value).to_bytes(2, "big") + (value if isinstance(value, bytes) else value.encode())
        for value in values
    )
    return hmac.digest(secret, message, "sha256")


def _is_uuid(value: str | bytes | None) -> bool:
    return isinstance(value, bytes) and len(value) == _UUID_BYTES


def check_caller(me: NodeIdentity, caller: NodeIdentity) -> None:
    """Mismatch if `caller` cannot be another node of this cluster."""
    _check_cluster(me, caller)
    if caller.node_id == me.node_id:
        raise Mismatch(
            f"{caller} calls {me}: two nodes have node.id={me.node_id}; give each node an id of its own"
        )


def check_callee(me: NodeIdentity, callee: NodeIdentity, expected_id: int) -> None:
    """Mismatch if `callee` is not node `expected_id` of this cluster."""
    _check_cluster(me, callee)
    if callee.node_id != expected_id:
        raise Mismatch(
            f"at the address of node {expected_id} answers {callee}: correct the address "
            "(controller.quorum.voters, advertised.listeners)"
        )


def _check_cluster(me: NodeIdentity, peer: NodeIdentity) -> None:
    if peer.cluster_id != me.cluster_id:
        raise Mismatch(
            f"node {peer.node_id} belongs to cluster {peer.cluster_id}, node {me.node_id} to cluster "
            f"{me.cluster_id}: give both the same cluster id, or remove the data directory of the one that is wrong"
        )
