"""What replication goes by, from the node's configuration."""

from __future__ import annotations

from odradek.broker.config_builder import build_config, settings_of, zero_config
from odradek.broker.replica_manager import SELECTOR, replication_config
from odradek.replication.config import FOLLOWERS_READ_LINGER_MS, ReplicationConfig
from odradek.replication.read_replica import LEADER, RACK_AWARE


def linger_ms(**settings: str) -> int:
    keys = {key.replace("_", "."): value for key, value in settings.items()}
    config = build_config(zero_config(), settings_of({"replica.lag.time.max.ms": "7000", **keys}, "test"))
    found = replication_config(config)
    assert found.replica_lag_time_max_ms == 7000
    return found.high_watermark_linger_ms


def test_followers_hear_of_high_watermarks_sooner_where_consumers_read_from_them() -> None:
    assert SELECTOR == "replica.selector.class"
    assert linger_ms(replica_selector_class=RACK_AWARE) == FOLLOWERS_READ_LINGER_MS == 5
    assert (
        linger_ms()
        == linger_ms(replica_selector_class=LEADER)
        == ReplicationConfig().high_watermark_linger_ms
    )
