"""Connecting: the difference between nobody, nowhere, and not Kafka."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from odradek.cli import admin
from odradek.cli.admin import ClusterError, TopicPartition, parse_servers, uuid_text
from odradek.cli.main import main as odradek
from odradek.cli.options import ToolError
from odradek.wire.errors import ErrorCode


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def web_server() -> Iterator[int]:
    """Something that listens and does not speak Kafka's protocol."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

    threading.Thread(target=talk, daemon=True).start()
    yield int(server.getsockname()[1])
    server.close()


def test_addresses() -> None:
    assert parse_servers("a:1, b:2") == [("a", 1), ("b", 2)]
    assert parse_servers("[::1]:9092") == [("::1", 9092)]


@pytest.mark.parametrize("text", ["localhost", "localhost:", ":9092", "a:1,b", "a:99999", "a:x", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ToolError, match="Please provide valid host:port like host1:9091,host2:9092"):
        parse_servers(text)


@pytest.mark.parametrize(
    "argv",
    [
        ["topics", "--list"],
        ["consumer-groups", "--list"],
        ["configs", "--describe", "--topic", "t"],
        ["get-offsets", "--topic", "t"],
        ["console-producer", "--topic", "t"],
        ["console-consumer", "--topic", "t"],
        ["broker-api-versions"],
        ["cluster", "cluster-id"],
        ["metadata-quorum"],
    ],
)
def test_where_nobody_listens_every_tool_says_what_to_do(
    argv: list[str], closed_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(admin, "CONNECT_MS", 0)
    at = ["--bootstrap-server", f"127.0.0.1:{closed_port}"]
    assert odradek([*argv, *at, *(["describe", "--status"] if argv == ["metadata-quorum"] else [])]) == 1
    assert "".join(capsys.readouterr()).removeprefix("Error occurred: ") == (
        f"Connection to 127.0.0.1:{closed_port} could not be established. Is a node running? "
        f"Start one: odradek start --port {closed_port}\n"
    )


def test_a_host_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert odradek(["topics", "--list", "--bootstrap-server", "no-such-host.invalid:9092"]) == 1
    assert "There is no host of that name: check --bootstrap-server" in capsys.readouterr().err


def test_a_port_that_is_not_kafkas(
    web_server: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(admin, "BOOTSTRAP_MS", 500)
    assert odradek(["topics", "--list", "--bootstrap-server", f"127.0.0.1:{web_server}"]) == 1
    assert "was made, but no Kafka broker answered there" in capsys.readouterr().err


def test_errors_are_named_as_java_names_them() -> None:
    refusal = ClusterError(ErrorCode.GROUP_ID_NOT_FOUND, "Group x not found.")
    assert refusal.java == "org.apache.kafka.common.errors.GroupIdNotFoundException: Group x not found."
    assert "TopicExistsException" in ClusterError(36, None).java
    assert "GroupNotEmptyException" in ClusterError(68, None).java
    assert ClusterError(31_000, "from the future").code is ErrorCode.UNKNOWN_SERVER_ERROR


def test_uuids_in_kafkas_form() -> None:
    assert uuid_text(None) == "A" * 22
    assert uuid_text("00000000-0000-0000-0000-000000000001") == "AAAAAAAAAAAAAAAAAAAAAQ"


def test_partitions_are_written_as_in_kafka() -> None:
    assert str(TopicPartition("orders", 3)) == "orders-3"


class Library:
    """kafka-python that finds nobody at the brokers it takes, for so many tries."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "topics"


def guarded(library: Library) -> object:
    from kafka.errors import KafkaError

    client = admin.Admin.__new__(admin.Admin)
    client.servers, client._error = "localhost:9092", KafkaError
    return client._guarded(library)


def test_brokers_that_are_gone_and_that_metadata_still_names_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kafka.errors import KafkaConnectionError

    monkeypatch.setattr(admin, "REFUSED_PAUSE_S", 0)
    library = Library(*(KafkaConnectionError("111 ECONNREFUSED") for _ in range(3)))
    assert guarded(library) == "topics"
    assert library.calls == 4


def test_what_may_have_been_heard_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from kafka.errors import KafkaConnectionError

    library = Library(KafkaConnectionError("Connection reset"))
    with pytest.raises(ToolError, match="The broker closed the connection"):
        guarded(library)
    assert library.calls == 1
    monkeypatch.setattr(admin, "REFUSED_MS", 0)
    with pytest.raises(ToolError, match="cannot be reached at its advertised address"):
        guarded(Library(KafkaConnectionError("111 ECONNREFUSED")))
