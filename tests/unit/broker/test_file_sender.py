"""Parts of files to real sockets: peers that read slowly, go away, or take everything at once."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from interop.cluster import PATIENCE_S
from odradek.broker import file_sender
from odradek.broker.file_sender import IS_SUPPORTED, FileSender, FileSenders
from odradek.storage.real_disk import RealDisk

pytestmark = pytest.mark.skipif(not IS_SUPPORTED, reason="epoll and MSG_MORE are Linux's")

CONTENT = bytes(range(251)) * 20_000


class Peer:
    """Both ends of a connection, and what the sender has told."""

    def __init__(self, senders: FileSenders) -> None:
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)
        self.sent = asyncio.Event()
        self.failures: list[OSError] = []
        self.failed = asyncio.Event()
        self.sender = FileSender(senders, self.ours.fileno(), self.sent.set, self._failed)

    def _failed(self, error: OSError) -> None:
        self.failures.append(error)
        self.failed.set()

    async def read(self, length: int) -> bytes:
        data = bytearray()
        loop = asyncio.get_running_loop()
        while len(data) < length:
            more = await loop.sock_recv(self.theirs, length - len(data))
            assert more, "the connection ended"
            data += more
        return bytes(data)

    def close(self) -> None:
        self.sender.close()
        self.ours.close()
        self.theirs.close()


Body = Callable[[FileSenders], Awaitable[None]]


def run(body: Body, descriptors_max: int = 10) -> None:
    async def main() -> None:
        senders = FileSenders(asyncio.get_running_loop(), descriptors_max)
        try:
            await asyncio.wait_for(body(senders), PATIENCE_S)
        finally:
            senders.close()

    asyncio.run(main())


@pytest.fixture
def file(tmp_path: Path) -> Any:
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    file.append([CONTENT])
    yield file
    file.close()


def test_buffers_and_files_arrive_whole_and_in_order(file: Any) -> None:
    async def body(senders: FileSenders) -> None:
        peer = Peer(senders)
        parts = [b"head", file.range(10, 3_000_000), b"middle", file.range(0, 1_000_000), bytearray(b"tail")]
        expected = b"head" + CONTENT[10:3_000_010] + b"middle" + CONTENT[:1_000_000] + b"tail"
        assert peer.sender.send(parts)
        assert 0 < peer.sender.unsent < len(expected), "a socket does not take so much at once"
        assert await peer.read(len(expected)) == expected
        await peer.sent.wait()
        assert peer.sender.unsent == 0
        peer.sent.clear()
        assert peer.sender.send([b"again"])
        assert peer.sender.unsent == 0
        assert await peer.read(5) == b"again"
        assert not peer.sent.is_set(), "what was done at once is not told again"
        peer.close()

    run(body)


def test_many_peers_are_served_side_by_side(file: Any) -> None:
    async def body(senders: FileSenders) -> None:
        peers = [Peer(senders) for _ in range(8)]
        for number, peer in enumerate(peers):
            assert peer.sender.send([bytes([number]), file.range(number, 2_000_000)])
        answers = await asyncio.gather(*(peer.read(2_000_001) for peer in peers))
        for number, answer in enumerate(answers):
            assert answer == bytes([number]) + CONTENT[number : number + 2_000_000]
        for peer in peers:
            await peer.sent.wait()
            peer.close()

    run(body)


def test_a_peer_that_takes_everything_at_once_gives_others_their_turn(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sender, "TURN_BYTES_MAX", 1000)

    async def body(senders: FileSenders) -> None:
        peer = Peer(senders)
        assert peer.sender.send([b"x" * 900, file.range(0, 500), b"y" * 900, b"end"])
        assert peer.sender.unsent == 1303
        turns = 0
        while not peer.sent.is_set():
            await asyncio.sleep(0)
            turns += 1
            assert turns < 100
        assert await peer.read(2303) == b"x" * 900 + CONTENT[:500] + b"y" * 900 + b"end"
        peer.close()

    run(body)


@pytest.mark.parametrize("first", [b"", b"head"])
def test_a_peer_that_goes_away_is_noticed(file: Any, first: bytes) -> None:
    async def body(senders: FileSenders) -> None:
        peer = Peer(senders)
        assert peer.sender.send([first or b"h", file.range(0, 4_000_000)])
        peer.theirs.close()
        await peer.failed.wait()
        assert not peer.sent.is_set()
        assert [error.errno for error in peer.failures] in ([errno.EPIPE], [errno.ECONNRESET])
        assert peer.sender.unsent == 0
        peer.close()

    run(body)


def test_a_file_that_is_cut_on_the_way_ends_the_answer(file: Any) -> None:
    async def body(senders: FileSenders) -> None:
        peer = Peer(senders)
        assert peer.sender.send([b"head", file.range(0, 4_000_000)])
        file.truncate(100)
        file.append([CONTENT])
        received = bytearray()
        while not peer.failed.is_set():
            await asyncio.sleep(0)
            try:
                received += peer.theirs.recv(1 << 20)
            except BlockingIOError:
                continue
        assert [error.errno for error in peer.failures] == [errno.ESTALE]
        assert len(received) < 4_000_004
        peer.close()

    run(body)


def test_a_closed_sender_lets_go_of_files_and_descriptors(file: Any) -> None:
    async def body(senders: FileSenders) -> None:
        for _ in range(30):
            peer = Peer(senders)
            assert peer.sender.send([file.range(0, 4_000_000)])
            peer.close()
            assert peer.sender.unsent == 0
        await asyncio.sleep(0)
        assert not senders._by_fd

    run(body, descriptors_max=1)


def test_a_connection_may_end_after_the_node_has_stopped(file: Any) -> None:
    left = []

    async def body(senders: FileSenders) -> None:
        left.append(Peer(senders))
        assert left[0].sender.send([file.range(0, 4_000_000)])

    run(body)
    left[0].close()
    assert left[0].sender.unsent == 0


def test_without_a_descriptor_nothing_is_sent(file: Any) -> None:
    async def body(senders: FileSenders) -> None:
        one, other = Peer(senders), Peer(senders)
        assert one.sender.send([b"a"])
        assert not other.sender.send([file.range(0, 10)])
        assert other.sender.unsent == 0
        one.close()
        assert other.sender.send([file.range(0, 10)])
        assert await other.read(10) == CONTENT[:10]
        other.close()

    run(body, descriptors_max=1)
