"""Whom a node takes for the voters before its log names any, and what it must be told first."""

from __future__ import annotations

import pytest

from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.config_builder import build_config, settings_of
from odradek.broker.quorum_members import first_voters, require_formatted
from odradek.raft.voters import Endpoint, ReplicaKey, Voter

DIRECTORY = b"d" * 16
BOTH = {"process.roles": "broker,controller", "node.id": "1", "log.dirs": "/data"}
LISTENERS = {
    "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "advertised.listeners": "PLAINTEXT://h:9092,CONTROLLER://h:9093",
    "controller.listener.names": "CONTROLLER",
}


def config(**settings: str) -> BrokerConfig:
    values = BOTH | {key.replace("__", "."): value for key, value in settings.items()}
    return build_config(settings_of(values, "test"))


def dynamic(servers: str, **more: str) -> BrokerConfig:
    listeners = {key.replace(".", "__"): value for key, value in LISTENERS.items()}
    return config(**(listeners | {"controller__quorum__bootstrap__servers": servers} | more))


def test_static_voters_are_known_by_id_and_address() -> None:
    listeners = {key.replace(".", "__"): value for key, value in LISTENERS.items()}
    static = config(**listeners, controller__quorum__voters="1@h:9093,2@other:9093")
    assert first_voters(static, DIRECTORY, 9093) == [
        Voter(ReplicaKey(1), (Endpoint("CONTROLLER", "h", 9093),)),
        Voter(ReplicaKey(2), (Endpoint("CONTROLLER", "other", 9093),)),
    ]
    assert not static.alone


def test_a_node_without_an_address_for_others_is_the_whole_quorum() -> None:
    alone = config(listeners="PLAINTEXT://:9092")
    assert alone.alone
    assert first_voters(alone, DIRECTORY, 0) == [Voter(ReplicaKey(1))]
    require_formatted(alone, lambda _path: False)


@pytest.mark.parametrize("servers", ["", "h:9093", "localhost:9093"])
def test_a_controller_that_knows_no_other_begins_a_quorum_that_others_may_join(servers: str) -> None:
    first = dynamic(servers)
    assert not first.alone
    own = Voter(ReplicaKey(1, DIRECTORY), (Endpoint("CONTROLLER", "h", 9093),))
    assert first_voters(first, DIRECTORY, 9093) == [own]
    require_formatted(first, lambda _path: False)


def test_a_controller_of_a_larger_quorum_is_told_its_voters_by_the_format() -> None:
    one_of_many = dynamic("h:9093,other:9093")
    assert first_voters(one_of_many, DIRECTORY, 9093) == []
    with pytest.raises(StartupError, match="run kafka-storage format"):
        require_formatted(one_of_many, lambda _path: False)
    require_formatted(one_of_many, lambda path: path == "/data/meta.properties")


def test_a_broker_observes_and_needs_no_format() -> None:
    broker = config(
        process__roles="broker",
        listeners="PLAINTEXT://:9092",
        controller__quorum__bootstrap__servers="other:9093",
        controller__listener__names="CONTROLLER",
    )
    assert first_voters(broker, DIRECTORY, 0) == []
    require_formatted(broker, lambda _path: False)
