"""Settings of the RPC between nodes."""

import asyncio
import contextlib

import pytest

from odradek.rpc.identity import NodeIdentity
from odradek.rpc.server import NodeServer
from odradek.rpc.settings import RpcSettings, client_options, server_options
from odradek.rpc.streams import LocalNode


@pytest.mark.parametrize(
    "wrong",
    [{"backoff_ms_min": 0}, {"backoff_ms_min": 300}, {"message_bytes_max": 0}, {"frame_bytes_max": 1000}],
)
def test_settings_that_make_no_sense_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RpcSettings(**wrong)


def test_a_channel_shares_no_connection_and_asks_no_proxy():
    options = dict(client_options(RpcSettings()))
    assert options["grpc.use_local_subchannel_pool"] == 1
    assert options["grpc.enable_http_proxy"] == 0


def test_a_ping_that_stays_unanswered_closes_the_connection_later_where_bulk_data_flows():
    settings = RpcSettings()
    for options, timeout_ms in (
        (client_options(settings), settings.keepalive_timeout_ms),
        (client_options(settings, bulk=True), settings.bulk_keepalive_timeout_ms),
        (server_options(settings), settings.bulk_keepalive_timeout_ms),
    ):
        assert dict(options)["grpc.http2.ping_timeout_ms"] == timeout_ms
        assert dict(options)["grpc.keepalive_timeout_ms"] == timeout_ms
    assert settings.keepalive_timeout_ms < settings.bulk_keepalive_timeout_ms


def test_both_ends_take_a_message_with_the_largest_part():
    settings = RpcSettings()
    for options in (client_options(settings), server_options(settings)):
        assert dict(options)["grpc.max_receive_message_length"] > settings.message_bytes_max + 20


def test_a_port_is_never_shared():
    assert dict(server_options(RpcSettings()))["grpc.so_reuseport"] == 0


def test_who_connects_to_a_node_cannot_take_all_of_its_descriptors():
    async def serve() -> int:
        settings = RpcSettings(connections_max=20)
        node = LocalNode(
            NodeIdentity("prod-1", 1, b"d" * 16, b"i" * 16), lambda *_, **__: None, settings=settings
        )
        server = NodeServer(node, [])
        port = await server.start("127.0.0.1", 0)
        strangers = []
        for _ in range(100):
            strangers.append(await asyncio.open_connection("127.0.0.1", port))
            strangers[-1][1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        served = 0
        for reader, _ in strangers:
            with contextlib.suppress(ConnectionResetError):
                served += len(await reader.read(1))  # its settings, or the end
        for _, writer in strangers:
            writer.close()
        await server.stop()
        return served

    assert asyncio.run(serve()) == 20
