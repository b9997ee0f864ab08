"""`socket.send.buffer.bytes` and `socket.receive.buffer.bytes` reach the sockets."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from odradek.broker.config import BrokerConfig
from odradek.broker.config_builder import build_config, zero_config
from odradek.broker.properties import Setting
from odradek.broker.server import KafkaProtocol, _bind
from unit.broker.test_connection import FakeHost

DOUBLED = 2 if sys.platform == "linux" else 1
"""Linux takes as much again for itself, and tells the sum."""


def config(**settings: str) -> BrokerConfig:
    layer = {key.replace("_", "."): Setting(value, "test") for key, value in settings.items()}
    layer["listeners"] = Setting("PLAINTEXT://127.0.0.1:0", "test")
    return build_config(zero_config(data="/data"), layer)


def receive_buffer(**settings: str) -> int:
    ((_, sock),) = _bind(config(**settings))
    with sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def send_buffer(**settings: str) -> tuple[int, int]:
    """(SO_SNDBUF, whether idle peers are probed) of an accepted connection."""
    host: Any = FakeHost()
    host.config = config(**settings)
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            transport: Any = SimpleNamespace(
                set_write_buffer_limits=lambda high: None,
                get_extra_info={"socket": accepted, "peername": ("127.0.0.1", 1)}.get,
            )
            KafkaProtocol(host, "PLAINTEXT", None).connection_made(transport)
            return (
                accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
                accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )


@pytest.fixture(scope="module")
def system() -> tuple[int, int]:
    """What the system gives, to listen and to send."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            return (
                listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
                accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            )


def test_the_receive_buffer_is_the_systems_unless_configured(system: tuple[int, int]) -> None:
    assert receive_buffer() == receive_buffer(socket_receive_buffer_bytes="-1") == system[0]
    assert receive_buffer(socket_receive_buffer_bytes="20000") == 20_000 * DOUBLED


def test_the_send_buffer_is_kafkas_unless_configured(system: tuple[int, int]) -> None:
    assert send_buffer() == (102_400 * DOUBLED, 1)
    assert send_buffer(socket_send_buffer_bytes="20000") == (20_000 * DOUBLED, 1)
    assert send_buffer(socket_send_buffer_bytes="-1") == (system[1], 1)
