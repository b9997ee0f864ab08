"""From a node's configuration to those of controller and quorum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from odradek.controller.settings import ControllerConfig, raft_config
from odradek.raft.config import RaftConfig
from unit.controller.test_metadata_quorum import Config

NODE = Config()


def test_timings_of_the_quorum_are_those_of_the_node() -> None:
    node = replace(
        NODE,
        controller_quorum_election_timeout_ms=700,
        controller_quorum_election_backoff_max_ms=90,
        controller_quorum_fetch_timeout_ms=1_500,
    )
    config = raft_config(node)
    assert (config.election_timeout_ms, config.election_backoff_max_ms, config.fetch_timeout_ms) == (
        700,
        90,
        1_500,
    )
    default = RaftConfig()
    assert config == replace(
        default, election_timeout_ms=700, election_backoff_max_ms=90, fetch_timeout_ms=1_500
    )


def test_what_was_set_by_name_counts_and_what_was_not_keeps_the_quorums_default() -> None:
    static = {"controller.quorum.request.timeout.ms": "5000", "controller.quorum.retry.backoff.ms": "70"}
    config = raft_config(replace(NODE, static=static))
    assert (config.request_timeout_ms, config.retry_backoff_ms) == (5_000, 70)
    assert raft_config(NODE).request_timeout_ms == RaftConfig().request_timeout_ms


@pytest.mark.parametrize("fetch_timeout_ms", [0, 1, 2, 50, 10_000])
@pytest.mark.parametrize("request_timeout_ms", ["0", "1", "400", "60000"])
def test_no_value_that_a_node_accepts_is_refused_by_the_quorum(
    fetch_timeout_ms: int, request_timeout_ms: str
) -> None:
    node = replace(
        NODE,
        controller_quorum_election_timeout_ms=0,
        controller_quorum_election_backoff_max_ms=0,
        controller_quorum_fetch_timeout_ms=fetch_timeout_ms,
        static={
            "controller.quorum.request.timeout.ms": request_timeout_ms,
            "controller.quorum.retry.backoff.ms": "0",
        },
    )
    config = raft_config(node)
    assert config.fetch_max_wait_ms < min(config.fetch_timeout_ms, config.request_timeout_ms)


def test_elections_follow_the_nodes_properties() -> None:
    default = ControllerConfig.of_node(1, "c", NODE)
    assert default.auto_leader_rebalance_enable
    assert (default.leader_imbalance_check_interval_ms, default.unclean_election_interval_ms) == (
        300_000,
        300_000,
    )
    static = {
        "auto.leader.rebalance.enable": "false",
        "leader.imbalance.check.interval.seconds": "7",
        "unclean.leader.election.interval.ms": "60000",
    }
    config = ControllerConfig.of_node(1, "c", replace(NODE, static=static, request_timeout_ms=9_000))
    assert not config.auto_leader_rebalance_enable
    assert config.leader_imbalance_check_interval_ms == 7_000
    assert config.unclean_election_interval_ms == 60_000
    assert config.request_timeout_ms == 9_000


@pytest.mark.parametrize(
    "field",
    [
        "request_timeout_ms",
        "leader_imbalance_check_interval_ms",
        "unclean_election_interval_ms",
    ],
)
def test_a_bad_value_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        ControllerConfig(1, "c", **{field: -1})
