"""From settings to a BrokerConfig: defaults, precedence, addresses, and what is refused with which words."""

from __future__ import annotations

import pytest

from odradek.broker.config import KEY_FIELDS, BrokerConfig, StartupError
from odradek.broker.config_builder import build_config, settings_of, zero_config
from odradek.broker.keys_without_effect import KEYS
from odradek.broker.listeners import Listener, Voter
from odradek.broker.properties import from_environment, parse_overrides, parse_properties
from odradek.metadata.configs import BROKERS

KRAFT = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": "1@localhost:9093",
    "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
}


def build(settings: dict[str, str], **more: str) -> BrokerConfig:
    return build_config(settings_of(settings, "test.properties, line 1"), **more)


def kraft(changes: dict[str, str], **more: str) -> BrokerConfig:
    return build(KRAFT | changes, **more)


def test_zero_config_is_one_node_for_everything_on_localhost() -> None:
    config = build_config(zero_config())
    assert config.node_id == 1
    assert config.roles == {"broker", "controller"}
    assert config.listeners == (Listener("PLAINTEXT", "", 9092, "PLAINTEXT"),)
    assert config.controller_listeners == ()
    assert config.bootstrap() == "localhost:9092"
    assert config.log_dirs == ("data",)
    assert config.offsets_topic_replication_factor == 1
    assert config.odradek_metrics_port == 9644
    assert config.warnings == ()
    assert config.alone


def test_failover_is_quicker_than_kafkas_by_default() -> None:
    config = build_config(zero_config())
    assert config.broker_heartbeat_interval_ms == 500
    assert config.broker_session_timeout_ms == 3000
    assert config.controller_quorum_fetch_timeout_ms == 1000
    assert config.replica_lag_time_max_ms == 5000


def test_the_sample_file_of_kafka_starts_a_node() -> None:
    config = kraft(
        {
            "advertised.listeners": "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            "num.network.threads": "3",
            "log.dirs": "/tmp/kraft-combined-logs",
            "log.retention.hours": "168",
        }
    )
    assert config.bootstrap() == "localhost:9092"
    assert config.voters == (Voter(1, "localhost", 9093),)
    assert config.metadata_dir == "/tmp/kraft-combined-logs"
    assert config.static["log.retention.hours"] == "168"
    assert config.warnings == ()
    assert not config.alone  # others may join at the controller listener


def test_what_changes_nothing_is_told_of_once_unless_it_is_the_default() -> None:
    idle = {
        "num.io.threads": "16",
        "metadata.log.segment.bytes": "2147483647",
        "replica.fetch.min.bytes": "1",
    }
    known = {"num.network.threads": "3", "num.partitions": "7"}
    config = build({**idle, **known})
    assert config.warnings == (
        "These configurations have no effect here: metadata.log.segment.bytes, num.io.threads",
    )


def test_no_key_without_effect_is_read_somewhere() -> None:
    assert not KEYS & set(KEY_FIELDS.values())
    assert set(BROKERS) >= KEYS


@pytest.mark.parametrize(
    ("cordoned", "text"),
    [
        (
            "/a,/c",
            "All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : /c",
        ),
        ("*,/a", "When cordoned.log.dirs is set to \\*, it must not contain other values"),
    ],
)
def test_only_log_directories_can_be_cordoned(cordoned: str, text: str) -> None:
    build({"log.dirs": "/a,/b", "cordoned.log.dirs": "/b"})
    build({"log.dirs": "/a,/b", "cordoned.log.dirs": "*"})
    with pytest.raises(StartupError, match=text):
        build({"log.dirs": "/a,/b", "cordoned.log.dirs": cordoned})


def test_an_override_beats_the_environment_beats_the_file_beats_the_default() -> None:
    file = parse_properties("num.partitions=2\nfetch.max.bytes=2048\nsocket.send.buffer.bytes=7\n", "f")
    environment = from_environment({"KAFKA_NUM_PARTITIONS": "3", "KAFKA_FETCH_MAX_BYTES": "4096"})
    override = parse_overrides(["num.partitions=4"])
    config = build_config(zero_config(), file, environment, override)
    assert (config.num_partitions, config.fetch_max_bytes, config.socket_send_buffer_bytes) == (4, 4096, 7)
    assert config.default_replication_factor == 1


@pytest.mark.parametrize(
    ("advertise", "expected"),
    [(None, "localhost:9093"), ("kafka.example", "kafka.example:9093"), ("h:19092", "h:19092")],
)
def test_advertise_takes_a_host_or_a_host_and_port(advertise: str | None, expected: str) -> None:
    assert build_config(zero_config(port=9093, advertise=advertise)).bootstrap() == expected


def test_advertise_takes_an_ipv6_address_and_refuses_nonsense() -> None:
    assert build_config(zero_config(advertise="[::1]:9092")).bootstrap() == "[::1]:9092"
    with pytest.raises(StartupError, match="expected HOST or HOST:PORT"):
        zero_config(advertise="no spaces please")


def test_a_listener_on_all_interfaces_is_advertised_by_the_name_of_the_host() -> None:
    assert build({"listeners": "PLAINTEXT://:9092"}, hostname="box").bootstrap() == "box:9092"


def test_port_zero_is_advertised_as_the_port_that_was_bound() -> None:
    config = build_config(zero_config(port=0))
    assert config.bootstrap({"PLAINTEXT": 41234}) == "localhost:41234"


def test_broker_id_still_names_the_node() -> None:
    assert build({"broker.id": "7"}).node_id == 7


def test_a_cluster_id_must_be_one() -> None:
    assert build({}, cluster_id="4L6g3nShT-eMCtK--X86sw").cluster_id == "4L6g3nShT-eMCtK--X86sw"
    with pytest.raises(StartupError, match="Cluster ID string foo does not appear to be a valid UUID"):
        build({}, cluster_id="foo")


MUST_VOTE = (
    "If process.roles contains the 'controller' role, the node id 1 must be included in the set of voters "
    "controller.quorum.voters=2"
)
MUST_NOT_VOTE = (
    "If process.roles contains just the 'broker' role, the node id 1 must not be included in the set of "
    "voters "
    "controller.quorum.voters=1"
)
VOTER_FORM = "Each entry should be in the form `{id}@{host}:{port}`."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"listeners": "PLAINTEXT:9092"},
            "Error creating broker listeners from '[PLAINTEXT:9092]': "
            "Unable to parse PLAINTEXT:9092 to a broker endpoint",
        ),
        (
            {"listeners": "PLAINTEXT://:9092,FOO://:9093"},
            "Error creating broker listeners from '[PLAINTEXT://:9092, FOO://:9093]': "
            "No security protocol defined for listener FOO",
        ),
        (
            {"listeners": "PLAINTEXT://:9092,CONTROLLER://:9092"},
            "Error creating broker listeners from '[PLAINTEXT://:9092, CONTROLLER://:9092]': Each listener "
            "must "
            "have a different port, listeners: [PLAINTEXT://:9092, CONTROLLER://:9092]",
        ),
        (
            {"listeners": "PLAINTEXT://:9092,PLAINTEXT://:9094"},
            "Error creating broker listeners from '[PLAINTEXT://:9092, PLAINTEXT://:9094]': Each listener "
            "must "
            "have a different name, listeners: [PLAINTEXT://:9092, PLAINTEXT://:9094]",
        ),
        (
            {"advertised.listeners": "PLAINTEXT://0.0.0.0:9092"},
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP "
            "address.",
        ),
        (
            {"inter.broker.listener.name": "FOO"},
            "Listener with name FOO defined in inter.broker.listener.name not found in "
            "listener.security.protocol.map.",
        ),
        (
            {"inter.broker.listener.name": "CONTROLLER"},
            "inter.broker.listener.name must be a listener name defined in advertised.listeners. The valid "
            "options "
            "based on currently configured listeners are PLAINTEXT",
        ),
        (
            {"inter.broker.listener.name": "PLAINTEXT", "security.inter.broker.protocol": "PLAINTEXT"},
            "Only one of inter.broker.listener.name and security.inter.broker.protocol should be set.",
        ),
        (
            {"listener.security.protocol.map": "PLAINTEXT:FOO"},
            "Invalid security protocol `FOO` defined in listener.security.protocol.map",
        ),
        (
            {"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT"},
            "Error creating broker listeners from '[PLAINTEXT://:9092, CONTROLLER://:9093]': "
            "No security protocol defined for listener CONTROLLER",
        ),
        (
            {"controller.quorum.voters": "1localhost"},
            f"Invalid configuration value for controller.quorum.voters. {VOTER_FORM}",
        ),
        ({"controller.quorum.voters": "x@h:1"}, "Failed to parse voter ID as an integer from x"),
        (
            {"controller.quorum.voters": "1@localhost"},
            "Failed to parse host name from entry 1@localhost for the configuration "
            "controller.quorum.voters. "
            f"{VOTER_FORM}",
        ),
        ({"controller.quorum.voters": "2@localhost:9093"}, MUST_VOTE),
        ({"process.roles": "broker"}, MUST_NOT_VOTE),
        (
            {"controller.quorum.bootstrap.servers": "localhost"},
            "Failed to parse host name from localhost for the configuration "
            "controller.quorum.bootstrap.servers. "
            'Each entry should be in the form "{host}:{port}"',
        ),
        (
            {"process.roles": "foo"},
            "Invalid value foo for configuration process.roles: String must be one of: broker, controller",
        ),
        (
            {"process.roles": ""},
            "Configuration 'process.roles' must not be empty. Valid values include: [broker, controller]",
        ),
        (
            {"process.roles": "controller"},
            "The listeners config must only contain KRaft controller listeners from "
            "controller.listener.names when "
            "process.roles=controller",
        ),
        ({"node.id": "-1"}, "Invalid value -1 for configuration node.id: Value must be at least 0"),
        ({"broker.id": "2"}, "You must set `node.id` to the same value as `broker.id`."),
        (
            {"log.retention.ms": "0"},
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        ),
        ({"log.roll.ms": "0"}, "log.roll.ms must be greater than or equal to 1"),
        (
            {"log.cleaner.dedupe.buffer.size": "2097152", "log.cleaner.threads": "2"},
            "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
        ),
        (
            {"log.dirs": ""},
            "Configuration 'log.dirs' must not be empty. Valid values include: any non-empty value",
        ),
        ({"log.dirs": "/a,,/b"}, "Configuration 'log.dirs' values must not be empty."),
        (
            {"queued.max.request.bytes": "10"},
            "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
        ),
        (
            {"max.connections.per.ip": "0"},
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is "
            "set.",
        ),
        (
            {"max.connections.per.ip.overrides": "a b:3"},
            "max.connections.per.ip.overrides contains invalid addresses : a b",
        ),
        (
            {"replica.lag.time.max.ms": "100"},
            "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms "
            "to prevent frequent changes in ISR",
        ),
        (
            {"auto.create.topics.enable": "maybe"},
            "Invalid value maybe for configuration auto.create.topics.enable: "
            "Expected value to be either true or false",
        ),
        (
            {"log.cleaner.threads": "x"},
            "Invalid value x for configuration log.cleaner.threads: Not a number of type INT",
        ),
        (
            {"group.consumer.session.timeout.ms": "10"},
            "group.consumer.session.timeout.ms must be greater than or equal to "
            "group.consumer.min.session.timeout.ms",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_kafka_refuses_is_refused_in_its_words_and_with_the_line(
    changes: dict[str, str], text: str
) -> None:
    with pytest.raises(StartupError) as caught:
        kraft(changes)
    assert str(caught.value) == f"test.properties, line 1: {text}"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"zookeeper.connect": "zk:2181"}, "zookeeper.connect belongs to ZooKeeper"),
        ({"zookeeper.session.timeout.ms": "1"}, "belongs to ZooKeeper"),
        ({"listeners": "SSL://:9092"}, "the listener SSL asks for SSL: TLS and SASL come later"),
        (
            {
                "listeners": "OUT://:9092",
                "listener.security.protocol.map": "OUT:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT",
                "inter.broker.listener.name": "OUT",
            },
            "the listener OUT asks for SASL_PLAINTEXT: TLS and SASL come later",
        ),
        (
            {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"},
            "asks for an authorizer",
        ),
        ({"remote.log.storage.system.enable": "true"}, "asks for tiered storage"),
        (
            {"listeners": "PLAINTEXT://:99999"},
            "Unable to parse PLAINTEXT://:99999 to a broker endpoint: no port has the number 99999",
        ),
    ],
)
def test_what_cannot_be_served_is_an_error_and_never_silently_open(
    changes: dict[str, str], part: str
) -> None:
    with pytest.raises(StartupError, match="line 1: ") as caught:
        build(changes)
    assert part in str(caught.value)


def test_two_listeners_may_share_a_port_on_ipv4_and_ipv6() -> None:
    mapping = {"listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT", "inter.broker.listener.name": "A"}
    both = {"listeners": "A://127.0.0.1:9092,B://[::1]:9092", "controller.listener.names": "CONTROLLER"}
    assert build(mapping | both).bootstrap() == "127.0.0.1:9092,[::1]:9092"
    with pytest.raises(StartupError, match="one needs to be IPv4 and the other IPv6"):
        build(mapping | {"listeners": "A://127.0.0.1:9092,B://10.0.0.1:9092"})


def test_keys_nobody_knows_are_told_in_one_line_and_keys_of_the_jvm_not_at_all() -> None:
    config = build(
        {
            "foo": "1",
            "bar": "2",
            "metric.reporters": "x",
            "confluent.support.metrics.enable": "false",
            "listener.name.external.ssl.keystore.location": "/k",
        }
    )
    assert config.warnings == ("These configurations '[bar, foo]' were supplied but are not used yet.",)


def test_a_java_class_to_load_is_a_warning() -> None:
    (warning,) = build({"create.topic.policy.class.name": "com.example.P"}).warnings
    assert "names a Java class" in warning
    assert warning.startswith("test.properties, line 1")


def test_defaults_of_ours_do_not_make_a_file_of_kafka_an_error() -> None:
    assert build({"socket.request.max.bytes": "1000000000"}).queued_max_request_bytes == 1_000_000_000
    assert build({"replica.fetch.wait.max.ms": "20000"}).replica_lag_time_max_ms == 20_000
    (warning,) = build({"broker.heartbeat.interval.ms": "2000"}).warnings
    assert "half of the broker.session.timeout.ms" in warning


def test_where_a_node_of_a_cluster_serves_the_others() -> None:
    combined = kraft({"controller.quorum.voters": "1@a:9093,2@b:9093,3@c:9093"})
    assert not combined.alone
    assert combined.internal_address == (combined.controller_listeners[0].host, 9093)
    values = {
        "process.roles": "broker",
        "controller.quorum.voters": "2@b:9093",
        "listeners": "PLAINTEXT://:9092",
    }
    assert kraft(values).internal_address == ("", 9093)
    assert kraft({**values, "odradek.replication.port": "7000"}).internal_address == ("", 7000)


def test_limits_per_address() -> None:
    config = build({"max.connections.per.ip.overrides": "10.0.0.1:5, host:3"})
    assert config.ip_connections == {"10.0.0.1": 5, "host": 3}


def test_dynamic_settings_come_before_the_file() -> None:
    config = build({"log.retention.ms": "5", "node.id": "3"})
    image = {(4, ""): {"log.retention.ms": "6"}, (4, "3"): {"log.retention.ms": "7"}, (4, "9"): {}}
    assert config.layers(image).get("log.retention.ms") == "7"
    assert config.layers({}).get("log.retention.ms") == "5"


def test_every_field_that_is_a_key_has_a_definition() -> None:
    for key in KEY_FIELDS.values():
        assert key in BROKERS
