"""Raft's messages over gRPC: the `Transport` of a `RaftDriver`, and the service that its peers call.

Requests go out on a stream that this node opens; it needs the peer's address. Responses go back on the stream that
the peer opened, so that an observer, whose address no voter knows, gets its answers. Either may be dropped: Raft asks
again. The sender of a message is who shook hands, never what a message says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from odradek.raft import messages as m
from odradek.raft.control_records import CorruptBatch, decode_batches
from odradek.raft.log_index import OffsetAndEpoch, SnapshotId
from odradek.raft.messages import Message, Response
from odradek.raft.voters import ReplicaKey
from odradek.rpc.dialer import Dialer
from odradek.rpc.framing import Assembler, MalformedFrame, parse, split
from odradek.rpc.identity import NodeIdentity
from odradek.rpc.peers import Peers
from odradek.rpc.server import Method
from odradek.rpc.streams import Call, LocalNode, Outbox, Served, converse
from odradek.rpc.v1 import raft_pb2 as pb
from odradek.wire.errors import ErrorCode
from odradek.wire.uuid import UUID_SIZE

EXCHANGE = "/odradek.rpc.v1.Raft/Exchange"
TOLD_MAX = 32
"""Nodes whose address is taken from what others say."""


class GrpcRaftTransport:
    """Create on the running loop; set `receive` (of the RaftDriver) before anything can arrive."""

    def __init__(self, node: LocalNode, peers: Peers) -> None:
        self.receive: Callable[[Message], object] = _nobody_listens
        self.method = Method(EXCHANGE, self._serve)
        self._node = node
        self._peers = peers
        self._dialers: dict[int, Dialer] = {}
        self.own_address: tuple[str, int] | None = None
        """Where this node is as a voter, told to those who do not know."""
        self._told: set[int] = set()
        """Nodes whose address others told."""
        self._callers: dict[int, tuple[Outbox, Served]] = {}
        """The newest stream that each peer has opened."""
        self._closed = False

    def send(self, to: ReplicaKey, message: Message) -> None:
        outbox = self._outbox(to.id, isinstance(message, Response))
        if outbox is None:
            return
        while outbox.full:
            outbox.drop_oldest()
        data = encode(message, self._leader_address(message))
        outbox.put(split(data, self._node.settings.message_bytes_max))

    def _leader_address(self, message: Message) -> tuple[str, int] | None:
        """What a response says of the leader: a replica without voters knows it by its id only."""
        if not isinstance(message, Response) or message.leader_id < 0:
            return None
        if message.leader_id == self._node.me.node_id:
            return self.own_address
        return self._peers.address(message.leader_id)

    def _learn_leader(self, frame: pb.RaftFrame) -> None:
        """The leader's address, unless it is known from a better source: the configuration, or the voters."""
        leader_id, address = frame.leader_id, (frame.leader_host, frame.leader_port)
        if not frame.leader_host or leader_id == self._node.me.node_id or not 0 < frame.leader_port < 1 << 16:
            return
        if leader_id in self._told or (not self._peers.knows(leader_id) and len(self._told) < TOLD_MAX):
            self._told.add(leader_id)
            if self._peers.address(leader_id) != address:
                self._peers.set_address(leader_id, *address)

    def set_address(self, node_id: int, host: str, port: int) -> None:
        """From the configuration, or the voters in force."""
        self._told.discard(node_id)
        if node_id != self._node.me.node_id and self._peers.address(node_id) != (host, port):
            self._peers.set_address(node_id, host, port)

    def _outbox(self, node_id: int, is_response: bool) -> Outbox | None:
        if self._closed:
            return None
        if is_response and node_id in self._callers:
            return self._callers[node_id][0]
        if not self._peers.knows(node_id):
            return None
        dialer = self._dialers.get(node_id)
        if dialer is None:
            dialer = Dialer(self._node, self._peers, node_id, EXCHANGE, self._arrivals)
            self._dialers[node_id] = dialer
        return dialer.outbox

    async def _serve(self, caller: NodeIdentity, call: Call) -> None:
        outbox = Outbox(self._node.settings)
        served = Served()
        before = self._callers.get(caller.node_id)
        mine = self._callers[caller.node_id] = (outbox, served)
        if before is not None:
            before[1].close()  # the peer knows nothing of its old stream any more
        try:
            await served.run(converse(call, outbox, self._arrivals(caller)))
        finally:
            if self._callers.get(caller.node_id) is mine:
                del self._callers[caller.node_id]

    def _arrivals(self, peer: NodeIdentity) -> Callable[[bytes], None]:
        """Takes the messages of one stream, in order."""
        assembler = Assembler(self._node.settings.frame_bytes_max)
        sender = ReplicaKey(peer.node_id, peer.directory_id)

        def arrived(data: bytes) -> None:
            frame = parse(pb.RaftFrame, data)
            if frame.HasField("part"):
                whole = assembler.add(frame.part)
                if whole is None:
                    return
                frame = parse(pb.RaftFrame, whole)
            message = decode(frame, sender)
            self._learn_leader(frame)
            if not self._closed:
                self._node.deliver(self.receive, message)

        return arrived

    async def close(self) -> None:
        """Send what waits on open streams; take nothing more."""
        self._closed = True
        await asyncio.gather(*(dialer.close() for dialer in self._dialers.values()))


def _nobody_listens(_message: Message) -> None:
    """Until the driver is there."""


# Encoding


def encode(message: Message, leader_address: tuple[str, int] | None = None) -> bytes:
    """The frame of a message, without its sender."""
    frame = pb.RaftFrame(epoch=message.epoch, request_id=message.request_id)
    if leader_address is not None:
        frame.leader_host, frame.leader_port = leader_address
    if isinstance(message, Response):
        frame.leader_id, frame.error = message.leader_id, message.error
    match message:
        case m.FetchRequest():
            request = frame.fetch_request
            request.fetch_offset = message.fetch_offset
            request.last_fetched_epoch = message.last_fetched_epoch
            request.high_watermark = message.high_watermark
        case m.FetchResponse():
            frame.fetch_response.CopyFrom(_fetch_response(message))
        case m.VoteRequest():
            frame.vote_request.CopyFrom(
                pb.VoteRequest(
                    pre_vote=message.pre_vote,
                    last=_position(message.last),
                    voter_directory_id=message.voter_directory_id,
                )
            )
        case m.VoteResponse():
            frame.vote_response.CopyFrom(pb.VoteResponse(pre_vote=message.pre_vote, granted=message.granted))
        case m.BeginQuorumEpochRequest():
            frame.begin_quorum_epoch_request.SetInParent()
        case m.BeginQuorumEpochResponse():
            frame.begin_quorum_epoch_response.SetInParent()
        case m.EndQuorumEpochRequest():
            frame.end_quorum_epoch_request.SetInParent()
            frame.end_quorum_epoch_request.successors.extend(
                pb.ReplicaKey(id=key.id, directory_id=key.directory_id) for key in message.successors
            )
        case m.EndQuorumEpochResponse():
            frame.end_quorum_epoch_response.SetInParent()
        case m.FetchSnapshotRequest():
            frame.fetch_snapshot_request.CopyFrom(
                pb.FetchSnapshotRequest(snapshot=_position(message.snapshot), position=message.position)
            )
        case m.FetchSnapshotResponse():
            frame.fetch_snapshot_response.CopyFrom(
                pb.FetchSnapshotResponse(
                    snapshot=_position(message.snapshot),
                    position=message.position,
                    size=message.size,
                    data=message.data,
                )
            )
        case _:
            raise AssertionError(f"no frame for {message!r}")
    return frame.SerializeToString()


def _position(position: OffsetAndEpoch | SnapshotId) -> pb.OffsetAndEpoch:
    return pb.OffsetAndEpoch(offset=position.offset, epoch=position.epoch)


def _fetch_response(message: m.FetchResponse) -> pb.FetchResponse:
    buffers: list[bytes | bytearray | memoryview] = []
    for batch in message.batches:
        assert isinstance(batch.data, bytes | bytearray | memoryview), (
            "batches of a response are encoded ones"
        )
        buffers.append(batch.data)
    return pb.FetchResponse(
        high_watermark=message.high_watermark,
        diverging=None if message.diverging is None else _position(message.diverging),
        snapshot=None if message.snapshot is None else _position(message.snapshot),
        batches=b"".join(buffers),
    )


def decode(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    """The message of a frame. MalformedFrame."""
    kind = frame.WhichOneof("body")
    decoder = _DECODERS.get(kind or "")
    if decoder is None:
        raise MalformedFrame(f"a frame of Raft without a known message ({kind})")
    if frame.epoch < 0:
        raise MalformedFrame(f"epoch {frame.epoch}")
    return decoder(frame, sender)


def _decode_vote_request(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.vote_request
    last = OffsetAndEpoch(_offset(body.last.offset), body.last.epoch)
    directory_id = _uuid(body.voter_directory_id)
    return m.VoteRequest(sender, frame.epoch, frame.request_id, body.pre_vote, last, directory_id)


def _decode_vote_response(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.vote_response
    return m.VoteResponse(*_response(frame, sender), body.pre_vote, body.granted)


def _decode_begin_request(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    return m.BeginQuorumEpochRequest(sender, frame.epoch, frame.request_id)


def _decode_begin_response(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    return m.BeginQuorumEpochResponse(*_response(frame, sender))


def _decode_end_request(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    successors = tuple(
        ReplicaKey(key.id, _uuid(key.directory_id)) for key in frame.end_quorum_epoch_request.successors
    )
    return m.EndQuorumEpochRequest(sender, frame.epoch, frame.request_id, successors)


def _decode_end_response(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    return m.EndQuorumEpochResponse(*_response(frame, sender))


def _decode_fetch_request(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.fetch_request
    return m.FetchRequest(
        sender,
        frame.epoch,
        frame.request_id,
        _offset(body.fetch_offset),
        body.last_fetched_epoch,
        body.high_watermark,
    )


def _decode_fetch_response(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.fetch_response
    diverging = snapshot = None
    if body.HasField("diverging"):
        diverging = OffsetAndEpoch(_offset(body.diverging.offset), body.diverging.epoch)
    if body.HasField("snapshot"):
        snapshot = _snapshot(body.snapshot)
    try:
        batches = decode_batches(body.batches)
    except CorruptBatch as error:
        raise MalformedFrame(f"batches of the metadata log: {error}") from error
    return m.FetchResponse(*_response(frame, sender), body.high_watermark, diverging, snapshot, batches)


def _decode_snapshot_request(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.fetch_snapshot_request
    position = _offset(body.position)
    return m.FetchSnapshotRequest(sender, frame.epoch, frame.request_id, _snapshot(body.snapshot), position)


def _decode_snapshot_response(frame: pb.RaftFrame, sender: ReplicaKey) -> Message:
    body = frame.fetch_snapshot_response
    return m.FetchSnapshotResponse(
        *_response(frame, sender),
        _snapshot(body.snapshot),
        _offset(body.position),
        _offset(body.size),
        body.data,
    )


_DECODERS: dict[str, Callable[[pb.RaftFrame, ReplicaKey], Message]] = {
    "vote_request": _decode_vote_request,
    "vote_response": _decode_vote_response,
    "begin_quorum_epoch_request": _decode_begin_request,
    "begin_quorum_epoch_response": _decode_begin_response,
    "end_quorum_epoch_request": _decode_end_request,
    "end_quorum_epoch_response": _decode_end_response,
    "fetch_request": _decode_fetch_request,
    "fetch_response": _decode_fetch_response,
    "fetch_snapshot_request": _decode_snapshot_request,
    "fetch_snapshot_response": _decode_snapshot_response,
}


def _response(frame: pb.RaftFrame, sender: ReplicaKey) -> tuple[ReplicaKey, int, int, int, ErrorCode]:
    """The fields that every response has, in the order of its class."""
    try:
        error = ErrorCode(frame.error)
    except ValueError:
        raise MalformedFrame(f"error code {frame.error}") from None
    return sender, frame.epoch, frame.request_id, frame.leader_id, error


def _snapshot(position: pb.OffsetAndEpoch) -> SnapshotId:
    return SnapshotId(_offset(position.offset), position.epoch)


def _offset(value: int) -> int:
    if value < 0:
        raise MalformedFrame(f"offset {value}")
    return value


def _uuid(value: bytes) -> bytes:
    if len(value) != UUID_SIZE:
        raise MalformedFrame(f"an id of {len(value)} bytes")
    return value
