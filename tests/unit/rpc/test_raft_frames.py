"""Raft's messages as bytes, and bytes that are none."""

import pytest

from odradek.raft import messages as m
from odradek.raft.control_records import decode_batches
from odradek.raft.grpc_transport import decode, encode
from odradek.raft.log_index import OffsetAndEpoch, SnapshotId
from odradek.raft.voters import ReplicaKey
from odradek.rpc.framing import MalformedFrame
from odradek.rpc.v1 import raft_pb2 as pb
from odradek.wire.errors import ErrorCode
from odradek.wire.records import simple_batch

ME = ReplicaKey(3, b"d" * 16)
HEAD = (ME, 7, 1 << 40)
ANSWER = (*HEAD, 2, ErrorCode.FENCED_LEADER_EPOCH)
BATCHES = bytes(
    simple_batch([(None, b"one"), (None, b"two")], base_offset=10, timestamp=5, leader_epoch=6)
    + simple_batch([(None, b"three")], base_offset=12, timestamp=5, leader_epoch=7)
)

MESSAGES = [
    m.VoteRequest(*HEAD, True, OffsetAndEpoch(12, 6), b"v" * 16),
    m.VoteResponse(*ANSWER, True, False),
    m.VoteResponse(*HEAD, -1, ErrorCode.NONE, False, True),
    m.BeginQuorumEpochRequest(*HEAD),
    m.BeginQuorumEpochResponse(*ANSWER),
    m.EndQuorumEpochRequest(*HEAD, (ReplicaKey(2, b"2" * 16), ReplicaKey(1))),
    m.EndQuorumEpochResponse(*ANSWER),
    m.FetchRequest(*HEAD, 0, 0, -1),
    m.FetchRequest(*HEAD, 1 << 50, 9, 1 << 49),
    m.FetchResponse(*ANSWER),
    m.FetchResponse(*HEAD, 3, ErrorCode.NONE, 11, batches=decode_batches(BATCHES)),
    m.FetchResponse(*HEAD, 3, ErrorCode.NONE, 11, diverging=OffsetAndEpoch(0, 0)),
    m.FetchResponse(*HEAD, 3, ErrorCode.NONE, 11, snapshot=SnapshotId(100, 2)),
    m.FetchSnapshotRequest(*HEAD, SnapshotId(100, 2), 4096),
    m.FetchSnapshotResponse(*HEAD, 3, ErrorCode.NONE, SnapshotId(100, 2), 4096, 1 << 33, b"\x00chunk"),
]


def fields(message):
    """Messages have no equality; their fields do. Batches are compared by their bytes."""
    found = {
        name: getattr(message, name)
        for kind in type(message).__mro__
        for name in getattr(kind, "__slots__", ())
    }
    if "batches" in found:
        found["batches"] = [(*batch[:3], bytes(batch.data), *batch[4:]) for batch in found["batches"]]
    return type(message), found


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message):
    assert fields(decode(pb.RaftFrame.FromString(encode(message)), ME)) == fields(message)


def test_every_message_of_raft_has_a_frame():
    def leaves(kind):
        return {kind} if not kind.__subclasses__() else set().union(*map(leaves, kind.__subclasses__()))

    assert leaves(m.Message) == {type(message) for message in MESSAGES}


def frame(**body):
    return pb.RaftFrame(epoch=1, request_id=1, **body)


@pytest.mark.parametrize(
    "bad",
    [
        pb.RaftFrame(),
        pb.RaftFrame(epoch=-1, begin_quorum_epoch_request=pb.BeginQuorumEpochRequest()),
        frame(error=12345, begin_quorum_epoch_response=pb.BeginQuorumEpochResponse()),
        frame(vote_request=pb.VoteRequest(voter_directory_id=b"short")),
        frame(end_quorum_epoch_request=pb.EndQuorumEpochRequest(successors=[pb.ReplicaKey(id=1)])),
        frame(fetch_request=pb.FetchRequest(fetch_offset=-1)),
        frame(fetch_response=pb.FetchResponse(batches=BATCHES[:-1])),
        frame(fetch_response=pb.FetchResponse(batches=BATCHES[:-1] + b"\x01")),
        frame(fetch_response=pb.FetchResponse(diverging=pb.OffsetAndEpoch(offset=-1))),
        frame(fetch_snapshot_request=pb.FetchSnapshotRequest(position=-5)),
        frame(fetch_snapshot_response=pb.FetchSnapshotResponse(size=-5)),
    ],
)
def test_a_frame_that_makes_no_sense_is_malformed(bad):
    with pytest.raises(MalformedFrame):
        decode(bad, ME)
