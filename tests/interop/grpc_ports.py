"""Ports for servers of tests."""

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody has at present."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port
