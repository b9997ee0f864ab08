"""Who may talk to whom, and what people are told otherwise."""

from dataclasses import replace

import pytest

from odradek.rpc.identity import Mismatch, NodeIdentity, check_callee, check_caller, read_identity

ME = NodeIdentity("prod-1", 1, b"d" * 16, b"i" * 16)
PEER = NodeIdentity("prod-1", 2, b"e" * 16, b"j" * 16)


@pytest.mark.parametrize("cluster_id", ["prod-1", "Ünïcode cluster", "x" * 400])
def test_what_a_node_says_of_itself_is_what_the_peer_reads(cluster_id):
    identity = replace(PEER, cluster_id=cluster_id)
    assert read_identity([("user-agent", "grpc"), *identity.metadata()]) == identity


def test_a_node_of_the_cluster_may_call_and_be_called():
    check_caller(ME, PEER)
    check_callee(ME, PEER, 2)


def test_another_cluster_is_refused_with_both_names_and_what_to_do():
    with pytest.raises(
        Mismatch, match=r"node 2 belongs to cluster other, node 1 to cluster prod-1: .*remove the data"
    ):
        check_caller(ME, replace(PEER, cluster_id="other"))
    with pytest.raises(Mismatch, match="belongs to cluster other"):
        check_callee(ME, replace(PEER, cluster_id="other"), 2)


def test_two_nodes_with_one_id_are_told_so():
    with pytest.raises(Mismatch, match=r"two nodes have node\.id=1"):
        check_caller(ME, replace(PEER, node_id=1))


def test_another_node_at_an_address_is_not_taken_for_the_expected_one():
    with pytest.raises(
        Mismatch, match=r"at the address of node 3 answers node 2 .*controller\.quorum\.voters"
    ):
        check_callee(ME, PEER, 3)


def test_another_version_is_told_to_upgrade():
    metadata = [("odradek-rpc-version", "7"), *PEER.metadata()[1:]]
    with pytest.raises(
        Mismatch, match="speaks version 7 between nodes, this node version 1: run the same version"
    ):
        read_identity(metadata)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("odradek-cluster-id-bin", b""),
        ("odradek-cluster-id-bin", b"x" * 501),
        ("odradek-node-id", "-1"),
        ("odradek-node-id", "2147483648"),
        ("odradek-node-id", "9" * 5000),  # more digits than Python turns into a number
        ("odradek-node-id", "²"),
        ("odradek-node-id", ""),
        ("odradek-directory-id-bin", b"short"),
        ("odradek-incarnation-bin", b"short"),
    ],
)
def test_nonsense_is_refused(key, value):
    metadata = dict(PEER.metadata()) | {key: value}
    with pytest.raises(Mismatch, match="makes no sense"):
        read_identity(metadata.items())


def test_somebody_who_says_nothing_is_no_node():
    with pytest.raises(Mismatch, match="not an Odradek node"):
        read_identity([("user-agent", "grpc-go")])


SECRET = b"a secret of the cluster"


def test_who_knows_the_secret_is_known():
    assert read_identity([("user-agent", "grpc"), *PEER.metadata(SECRET)], SECRET) == PEER


@pytest.mark.parametrize("metadata", [PEER.metadata(), PEER.metadata(b"another secret of a cluster")])
def test_who_does_not_know_the_secret_is_refused(metadata):
    with pytest.raises(Mismatch, match=r"node 2 does not know .* the same odradek\.internal\.secret"):
        read_identity(metadata, SECRET)


@pytest.mark.parametrize(
    "other",
    [
        replace(PEER, cluster_id="prod-2"),
        replace(PEER, node_id=3),
        replace(PEER, directory_id=b"f" * 16),
        replace(PEER, incarnation=b"k" * 16),
        replace(PEER, cluster_id="prod-", directory_id=b"1" + PEER.directory_id[1:]),
    ],
)
def test_a_proof_is_of_one_process_only(other):
    metadata = dict(other.metadata()) | {
        "odradek-proof-bin": dict(PEER.metadata(SECRET))["odradek-proof-bin"]
    }
    with pytest.raises(Mismatch, match="does not know the secret"):
        read_identity(metadata.items(), SECRET)


def test_the_secret_itself_is_never_said():
    said = dict(PEER.metadata(SECRET))
    assert len(said["odradek-proof-bin"]) == 32
    assert SECRET not in b"".join(value for value in said.values() if isinstance(value, bytes))
