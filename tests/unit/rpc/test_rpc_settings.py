"""Settings of the RPC between nodes."""

import pytest

from odradek.rpc.settings import RpcSettings, client_options, server_options


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
