"""What a proxy does to bytes is what was asked of the wire, and nothing else."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from interop.cluster import PATIENCE_S, free_ports
from odradek.chaos.mesh import CLIENTS, Mesh, pairs_of
from odradek.chaos.proxy import RETRANSMISSION_S, Proxies, Wire


class Echo:
    """Sends back what comes."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(accepted)
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        try:
            while data := accepted.recv(65_536):
                accepted.sendall(data)
            accepted.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the test has ended

    def close(self) -> None:
        """As often as one likes."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    found = Echo()
    yield found
    found.close()


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    found = Proxies()
    yield found
    found.close()


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def receive(client: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length and (more := client.recv(length - len(found))):
        found += more
    return found


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # the proxy was just about to stop listening
    return False


def await_refused(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not refused(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bytes_pass_and_the_end_too(echo: Echo, proxies: Proxies) -> None:
    port = free_ports(1)[0]
    proxies.add(port, lambda: echo.port, Wire(), Wire())
    data = random.Random(1).randbytes(3_000_000)
    with connect(port) as client:
        threading.Thread(
            target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)), daemon=True
        ).start()
        assert receive(client, len(data)) == data
        assert client.recv(1) == b""


def test_silence_one_way_holds_bytes_until_it_ends(echo: Echo, proxies: Proxies) -> None:
    port, forth, back = free_ports(1)[0], Wire(), Wire()
    proxies.add(port, lambda: echo.port, forth, back)
    with connect(port) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        for wire in (forth, back):
            proxies.change(wire.silence)
            client.sendall(b"b")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(PATIENCE_S)
            proxies.change(wire.heal)
            assert client.recv(1) == b"b"


def test_delay(echo: Echo, proxies: Proxies) -> None:
    port, forth, back = free_ports(1)[0], Wire(), Wire()
    forth.delay_s = back.delay_s = 0.1
    proxies.add(port, lambda: echo.port, forth, back)
    with connect(port) as client:
        began = time.monotonic()
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        assert time.monotonic() - began >= 0.2


def test_bandwidth(echo: Echo, proxies: Proxies) -> None:
    port, forth = free_ports(1)[0], Wire()
    forth.bytes_per_s = 200_000
    proxies.add(port, lambda: echo.port, forth, Wire())
    data = bytes(100_000)
    with connect(port) as client:
        began = time.monotonic()
        client.sendall(data)
        assert receive(client, len(data)) == data
        assert time.monotonic() - began >= 0.45


def test_loss_is_late_and_sometimes_the_end() -> None:
    wire, rng = Wire(), random.Random(3)
    wire.loss = 0.2
    told = [wire.due(1_448, 100.0, rng) for _ in range(2_000)]
    late = [due - 100.0 for due in told if due is not None and due > 100.0]
    assert 300 < len(late) < 500 and min(late) >= RETRANSMISSION_S
    assert 0 < told.count(None) < 20


def test_who_refuses_is_refused_for_and_who_comes_back_is_reached(proxies: Proxies) -> None:
    port, target = free_ports(2)
    proxies.add(port, lambda: target, Wire(), Wire())
    assert refused(port)
    echo = Echo(target)
    with connect(port) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        echo.close()
        await_refused(port)
    again = Echo(target)
    with connect(port) as client:
        client.sendall(b"b")
        assert client.recv(1) == b"b"
    again.close()


def test_a_connection_to_who_is_gone_breaks(echo: Echo, proxies: Proxies) -> None:
    port = free_ports(1)[0]
    proxies.add(port, lambda: echo.port, Wire(), Wire())
    with connect(port) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        echo.close()
        with contextlib.suppress(ConnectionResetError):  # either is how connections end
            assert client.recv(1) == b""


def test_a_mesh_has_a_way_for_each_pair_and_for_clients(echo: Echo) -> None:
    mesh = Mesh((1, 2), free_ports(3)[0], lambda node: echo.port if node == 2 else None, {2: echo.port})
    try:
        with connect(mesh.peers[1, 2]) as peer, connect(mesh.clients[2]) as client:
            mesh.silence([(1, 2)])
            peer.sendall(b"a")
            client.sendall(b"c")
            assert client.recv(1) == b"c"
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            mesh.heal()
            peer.settimeout(PATIENCE_S)
            assert peer.recv(1) == b"a"
    finally:
        mesh.close()


def test_pairs_of_partitions() -> None:
    assert sorted(pairs_of("isolate", 1, {2, 3})) == [(1, 2), (1, 3), (2, 1), (3, 1)]
    assert pairs_of("one-way", 1, {2, 3}, "out") == [(1, 2), (1, 3)]
    assert pairs_of("one-way", 1, {2, 3}, "in") == [(2, 1), (3, 1)]
    assert sorted(pairs_of("bridge", 1, {2, 3})) == [(2, 3), (3, 2)]
    assert CLIENTS not in {node for pair in pairs_of("bridge", 1, {2, 3, 4, 5}) for node in pair}
