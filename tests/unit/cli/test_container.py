"""`odradek container`: variables, secrets, a mounted file and the defaults of the image, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from odradek.broker.config import BrokerConfig, StartupError
from odradek.cli import container
from odradek.cli.container import arguments, check_grace, require_writable, with_secrets

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
VOTERS = "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093"
NODE = {
    "CLUSTER_ID": CLUSTER,
    "KAFKA_NODE_ID": "2",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": VOTERS,
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka-2:9092",
}
BROKER = {
    "CLUSTER_ID": CLUSTER,
    "KAFKA_NODE_ID": "7",
    "KAFKA_PROCESS_ROLES": "broker",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": VOTERS,
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://broker.example.com:9092",
}


def without(variables: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key != name}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


def configure(here: Path, variables: dict[str, str], *words: str) -> BrokerConfig:
    return container.configure(
        words,
        variables,
        mounted=str(here / "server.properties"),
        data=str(here / "data"),
        hostname=lambda: "c0ffee",
    )


def test_without_anything_it_is_a_node_for_everything(here: Path) -> None:
    config = configure(here, {"PATH": "/bin"})
    assert config.alone
    assert config.bootstrap() == "localhost:9092"
    assert config.log_dirs == (str(here / "data"),)
    assert config.odradek_metrics_port == 9644
    assert config.odradek_metrics_host == ""


def test_one_setting_does_not_take_the_others_away(here: Path) -> None:
    config = configure(here, {"KAFKA_LOG_RETENTION_HOURS": "1"})
    assert config.alone
    assert config.bootstrap() == "localhost:9092"
    assert config.static["log.retention.hours"] == "1"


def test_listeners_of_a_lone_node_replace_the_address_that_belonged_to_the_default(here: Path) -> None:
    config = configure(here, {"KAFKA_LISTENERS": "PLAINTEXT://:9192"})
    assert config.bootstrap() == "c0ffee:9192"


def test_listeners_follow_from_what_is_advertised(here: Path) -> None:
    """A rule of the official image."""
    config = configure(here, BROKER)
    assert [(each.host, each.port) for each in config.listeners] == [("0.0.0.0", 9092)]
    assert config.bootstrap() == "broker.example.com:9092"


def test_a_node_of_three(here: Path) -> None:
    config = configure(here, NODE)
    assert (config.node_id, config.cluster_id) == (2, CLUSTER)
    assert config.roles == {"broker", "controller"}
    assert [voter.node_id for voter in config.voters] == [1, 2, 3]
    assert not config.alone


def test_kafkas_default_for_registration_holds_in_containers(here: Path) -> None:
    assert configure(here, NODE).static["initial.broker.registration.timeout.ms"] == "60000"


def test_a_mounted_file_is_read_and_variables_beat_it(here: Path) -> None:
    (here / "server.properties").write_text("num.partitions=5\nlog.retention.hours=2\nlog.dirs=/elsewhere\n")
    config = configure(here, {"KAFKA_NUM_PARTITIONS": "7"})
    assert config.static["num.partitions"] == "7"
    assert config.static["log.retention.hours"] == "2"
    assert config.log_dirs == ("/elsewhere",)


def test_arguments_are_variables_too(here: Path) -> None:
    config = configure(here, NODE, "KAFKA_NUM_PARTITIONS=9", "KAFKA_NODE_ID=3")
    assert config.static["num.partitions"] == "9"
    assert config.node_id == 3


@pytest.mark.parametrize("word", ["--help", "server.properties", "=x", "a b=c"])
def test_other_arguments_are_refused(word: str) -> None:
    with pytest.raises(StartupError, match="expected KEY=VALUE"):
        arguments([word])


class TestSecrets:
    def test_a_file_holds_the_value(self, here: Path) -> None:
        (here / "id").write_text(f"{CLUSTER}\n")
        (here / "partitions").write_text("11")
        given = {
            **without(NODE, "CLUSTER_ID"),
            "CLUSTER_ID_FILE": str(here / "id"),
            "KAFKA_NUM_PARTITIONS_FILE": str(here / "partitions"),
        }
        config = configure(here, given)
        assert config.cluster_id == CLUSTER
        assert config.static["num.partitions"] == "11"
        assert not [key for key in config.static if key.endswith("file")]

    def test_one_line_end_is_no_part_of_it(self, here: Path) -> None:
        (here / "word").write_bytes(b" pass word \r\n")
        assert with_secrets({"KAFKA_SSL_KEY_PASSWORD_FILE": str(here / "word")}) == {
            "KAFKA_SSL_KEY_PASSWORD": " pass word "
        }

    def test_both_is_a_mistake(self, here: Path) -> None:
        with pytest.raises(StartupError, match="both KAFKA_NODE_ID_FILE and KAFKA_NODE_ID are set"):
            with_secrets({"KAFKA_NODE_ID": "1", "KAFKA_NODE_ID_FILE": str(here / "id")})

    def test_a_file_that_is_not_there(self, here: Path) -> None:
        with pytest.raises(
            StartupError, match=r"CLUSTER_ID_FILE: cannot read /nowhere/id: No such file or directory"
        ):
            with_secrets({"CLUSTER_ID_FILE": "/nowhere/id"})

    def test_a_file_that_is_no_text(self, here: Path) -> None:
        (here / "key").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(StartupError, match="is not text in UTF-8"):
            with_secrets({"KAFKA_SSL_KEY_PASSWORD_FILE": str(here / "key")})

    def test_a_large_file_is_not_read_into_memory(self, here: Path) -> None:
        (here / "big").write_bytes(b"x" * (container.SECRET_BYTES_MAX + 5))
        with pytest.raises(StartupError, match="is larger than"):
            with_secrets({"KAFKA_SSL_KEY_PASSWORD_FILE": str(here / "big")})

    def test_other_programs_variables_are_left_alone(self) -> None:
        given = {"PASSWORD_FILE": "/nowhere", "SSL_CERT_FILE": "/nowhere"}
        assert with_secrets(given) == given

    @pytest.mark.parametrize(
        "name", ["KAFKA_SASL_OAUTHBEARER_ASSERTION_FILE", "ODRADEK_INTERNAL_SECRET_FILE"]
    )
    def test_a_key_that_ends_like_that_is_a_key(self, name: str) -> None:
        assert with_secrets({name: "/nowhere"}) == {name: "/nowhere"}


class TestRefused:
    def test_new_storage_of_a_cluster_needs_its_id(self, here: Path) -> None:
        with pytest.raises(StartupError, match="CLUSTER_ID environment variable not set"):
            configure(here, without(NODE, "CLUSTER_ID"))

    def test_an_empty_id_is_none(self, here: Path) -> None:
        with pytest.raises(StartupError, match="CLUSTER_ID environment variable not set"):
            configure(here, {**NODE, "CLUSTER_ID": " "})

    def test_formatted_storage_knows_its_id(self, here: Path) -> None:
        (here / "data").mkdir()
        (here / "data" / "meta.properties").write_text("version=1\n")
        assert configure(here, without(NODE, "CLUSTER_ID")).cluster_id is None

    def test_an_id_that_is_none(self, here: Path) -> None:
        with pytest.raises(StartupError, match="does not appear to be a valid UUID"):
            configure(here, {**NODE, "CLUSTER_ID": "my-cluster"})

    def test_a_node_id_that_is_not_among_the_voters(self, here: Path) -> None:
        with pytest.raises(
            StartupError, match=r"the node id 4 must be included in the set of voters .*1,2,3"
        ):
            configure(here, {**NODE, "KAFKA_NODE_ID": "4"})

    def test_a_controller_advertises_nothing(self, here: Path) -> None:
        """In the official image's words."""
        given = {
            **NODE,
            "KAFKA_PROCESS_ROLES": "controller",
            "KAFKA_LISTENERS": "CONTROLLER://:9093",
        }
        with pytest.raises(
            StartupError, match="KAFKA_ADVERTISED_LISTENERS is not supported on a KRaft contr"
        ):
            configure(here, given)

    @pytest.mark.parametrize("seconds", ["5", "14", "10s"])
    def test_a_grace_period_in_which_nobody_can_leave(self, seconds: str) -> None:
        with pytest.raises(StartupError, match="a controlled shutdown may take 15 s"):
            check_grace({"ODRADEK_STOP_GRACE_SECONDS": seconds})

    @pytest.mark.parametrize("text", ["soon", "-1", "1.5"])
    def test_a_grace_period_that_is_none(self, text: str) -> None:
        with pytest.raises(StartupError, match="expected a number of seconds"):
            check_grace({"ODRADEK_STOP_GRACE_SECONDS": text})

    @pytest.mark.parametrize("text", ["15", "30s", "", " 60 "])
    def test_a_grace_period_that_suffices_or_is_not_told(self, text: str) -> None:
        check_grace({"ODRADEK_STOP_GRACE_SECONDS": text})
        check_grace({})

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_volume_of_somebody_else(self, here: Path) -> None:
        (here / "data").mkdir(mode=0o500)
        with pytest.raises(StartupError, match="is not writable for this process"):
            require_writable([str(here / "data" / "not-yet")])

    def test_a_volume_of_ones_own(self, here: Path) -> None:
        require_writable([str(here / "data" / "not-yet")])
        assert not (here / "data").exists()
