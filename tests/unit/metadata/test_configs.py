"""Values, names and precedence of configurations. The error texts were printed by Apache Kafka 4.3.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.metadata import configs
from odradek.metadata.config_def import ConfigError, ConfigType, Update, canonical, java_double
from odradek.metadata.configs import BROKERS, TOPICS, BrokerLayers, ConfigSource, Synonym
from odradek.wire.errors import ErrorCode, KafkaError

REPLICA_FORM = "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
NOT_REPLICAS = (
    "follower.replication.throttled.replicas must be the literal '*' or a list of replicas "
    f"in the following format: {REPLICA_FORM}"
)

REFUSED_BY_KAFKA = [
    ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
    ("retention.ms", "1_0", "Invalid value 1_0 for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "1.5", "Invalid value 1.5 for configuration retention.ms: Not a number of type LONG"),
    (
        "retention.ms",
        "99999999999999999999",
        "Invalid value 99999999999999999999 for configuration retention.ms: Not a number of type LONG",
    ),
    (
        "segment.bytes",
        "2147483648",
        "Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT",
    ),
    (
        "segment.bytes",
        "14",
        "Invalid value 14 for configuration segment.bytes: Value must be at least 1048576",
    ),
    (
        "cleanup.policy",
        "delete,foo",
        "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
    ),
    ("cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."),
    (
        "compression.type",
        "GZIP",
        "Invalid value GZIP for configuration compression.type: "
        "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
    ),
    (
        "compression.gzip.level",
        "0",
        "Invalid value 0 for configuration compression.gzip.level: "
        "Value must be between 1 and 9 or equal to -1",
    ),
    (
        "compression.lz4.level",
        "18",
        "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
    ),
    (
        "min.cleanable.dirty.ratio",
        "2",
        "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
    ),
    (
        "min.cleanable.dirty.ratio",
        "x",
        "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
    ),
    (
        "preallocate",
        "maybe",
        "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
    ),
    (
        "follower.replication.throttled.replicas",
        "*,1:2",
        f"Invalid value [*, 1:2] for configuration follower.replication.throttled.replicas: {NOT_REPLICAS}",
    ),
    ("foo", "1", "Unknown topic config name: foo"),
    ("message.format.version", "2.0", "Unknown topic config name: message.format.version"),
]


@pytest.mark.parametrize(("name", "value", "text"), REFUSED_BY_KAFKA)
def test_a_topic_config_is_refused_with_the_text_of_kafka(name: str, value: str, text: str) -> None:
    with pytest.raises(KafkaError) as caught:
        configs.validate_topic_configs({name: value})
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_CONFIG, text)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("retention.ms", " 5 ", "5"),
        ("retention.ms", "+5", "5"),
        ("cleanup.policy", "compact , delete", "compact,delete"),
        ("cleanup.policy", "delete,delete", "delete"),
        ("cleanup.policy", "", ""),
        ("min.cleanable.dirty.ratio", "1e-3", "0.001"),
        ("min.cleanable.dirty.ratio", "0.5f", "0.5"),
        ("preallocate", "TRUE", "true"),
        ("compression.type", " gzip ", "gzip"),
        ("leader.replication.throttled.replicas", "1:2,3:4", "1:2,3:4"),
    ],
)
def test_an_accepted_value_is_shown_as_kafka_shows_it(name: str, value: str, shown: str) -> None:
    configs.validate_topic_configs({name: value})
    assert canonical(TOPICS[name], value) == shown


def test_compaction_lags_are_judged_together_and_against_the_broker() -> None:
    text = "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    with pytest.raises(KafkaError, match="conflict") as caught:
        configs.validate_topic_configs({"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"})
    assert caught.value.message == text
    broker = BrokerLayers(static={"log.cleaner.max.compaction.lag.ms": "5"})
    with pytest.raises(KafkaError) as caught:
        configs.validate_topic_configs({"min.compaction.lag.ms": "10"}, broker)
    assert caught.value.message == text


def test_a_null_value_names_its_key() -> None:
    with pytest.raises(KafkaError, match="Null value not supported for topic configs: retention"):
        configs.validate_topic_configs({"retention.ms": None})


def test_tiered_storage_is_refused_as_a_broker_without_it_does() -> None:
    with pytest.raises(KafkaError, match="Tiered Storage functionality is disabled in the broker"):
        configs.validate_topic_configs({"remote.storage.enable": "true"})


def test_a_topic_without_overrides_has_the_defaults_of_kafka() -> None:
    resolved = configs.effective_topic_configs({})
    assert resolved["retention.ms"] == "604800000"
    assert resolved["segment.ms"] == "604800000"
    assert resolved["flush.ms"] == str(2**63 - 1)
    assert resolved["segment.bytes"] == "1073741824"
    assert resolved["cleanup.policy"] == "delete"
    assert "internal.segment.bytes" not in resolved
    assert set(resolved) == set(TOPICS) - {"internal.segment.bytes"}


@pytest.mark.parametrize(
    ("static", "retention"),
    [
        ({"log.retention.hours": "1"}, "3600000"),
        ({"log.retention.hours": "1", "log.retention.minutes": "1"}, "60000"),
        ({"log.retention.hours": "1", "log.retention.minutes": "1", "log.retention.ms": "7"}, "7"),
        ({"log.retention.hours": "-1"}, "-1"),
    ],
)
def test_the_finest_unit_of_retention_counts(static: dict[str, str], retention: str) -> None:
    assert configs.effective_topic_configs({}, BrokerLayers(static=static))["retention.ms"] == retention


def test_precedence_is_topic_then_broker_then_all_brokers_then_properties() -> None:
    layers = [
        {"log.retention.ms": "1"},
        {"log.retention.ms": "2"},
        {"log.retention.ms": "3", "log.retention.hours": "9"},
    ]
    overrides = {"retention.ms": "0"}
    for expected in ("0", "1", "2", "3"):
        assert configs.topic_config("retention.ms", overrides, BrokerLayers(*layers)) == expected
        if overrides:
            overrides = {}
        else:
            layers[next(i for i, layer in enumerate(layers) if layer)] = {}
    assert configs.topic_config("retention.ms", {}, BrokerLayers()) == "604800000"


def test_a_topic_resolves_from_the_image_and_the_properties_of_the_broker() -> None:
    image = {(2, "orders"): {"retention.ms": "1"}, (4, "7"): {"log.segment.bytes": "2000000"}}
    resolved = configs.resolve_topic_configs("orders", image, 7, {"message.max.bytes": "5"})
    assert (resolved["retention.ms"], resolved["segment.bytes"], resolved["max.message.bytes"]) == (
        "1",
        "2000000",
        "5",
    )
    assert configs.resolve_topic_configs("other", image, 8, {})["segment.bytes"] == "1073741824"


def test_an_override_this_version_cannot_read_gives_way_to_the_default() -> None:
    assert configs.effective_topic_configs({"retention.ms": "forever"})["retention.ms"] == "604800000"


def test_synonyms_list_where_a_value_could_come_from_the_one_in_force_first() -> None:
    broker = BrokerLayers(
        {"log.segment.bytes": "3000000"}, {"log.segment.bytes": "2000000"}, {"log.segment.bytes": "4000000"}
    )
    assert configs.topic_synonyms("segment.bytes", {"segment.bytes": "1048576"}, broker) == [
        Synonym("segment.bytes", "1048576", ConfigSource.DYNAMIC_TOPIC),
        Synonym("log.segment.bytes", "3000000", ConfigSource.DYNAMIC_BROKER),
        Synonym("log.segment.bytes", "2000000", ConfigSource.DYNAMIC_DEFAULT_BROKER),
        Synonym("log.segment.bytes", "4000000", ConfigSource.STATIC_BROKER),
        Synonym("log.segment.bytes", "1073741824", ConfigSource.DEFAULT),
    ]


def test_a_value_that_comes_from_a_coarser_unit_alone_has_no_synonyms_as_in_kafka() -> None:
    assert configs.topic_synonyms("retention.ms", {}, configs.NO_LAYERS) == []
    broker = BrokerLayers(static={"log.retention.ms": "5"})
    assert configs.topic_synonyms("retention.ms", {}, broker) == [
        Synonym("log.retention.ms", "5", ConfigSource.STATIC_BROKER),
        Synonym("log.retention.hours", "168", ConfigSource.DEFAULT),
    ]


@pytest.mark.parametrize(
    ("name", "value", "per_broker", "text"),
    [
        (
            "log.retention.ms",
            "x",
            False,
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            "listeners",
            "",
            True,
            "Configuration 'listeners' must not be empty. Valid values include: any non-empty value",
        ),
        (
            "leader.replication.throttled.rate",
            "-1",
            True,
            "Invalid value -1 for configuration leader.replication.throttled.rate: Value must be at least 0",
        ),
        ("node.id", "3", True, "Cannot update these configs dynamically: [node.id]"),
        ("log.retention.hours", "3", False, "Cannot update these configs dynamically: [log.retention.hours]"),
        (
            "ssl.keystore.location",
            "x",
            True,
            "These security configs can be dynamically updated only per-listener using the listener prefix: "
            "[ssl.keystore.location]",
        ),
        (
            "listener.name.a.ssl.keystore.location",
            "x",
            False,
            "Cannot update these configs at default cluster level, broker id must be specified: "
            "[listener.name.a.ssl.keystore.location]",
        ),
    ],
)
def test_a_dynamic_broker_config_is_refused_with_the_text_of_kafka(
    name: str, value: str, per_broker: bool, text: str
) -> None:
    with pytest.raises(KafkaError) as caught:
        configs.validate_broker_configs({name: value}, per_broker=per_broker)
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_REQUEST, text)


def test_dynamic_broker_configs_that_kafka_accepts_are_accepted() -> None:
    configs.validate_broker_configs({"log.retention.ms": "5", "foo.bar": "x"}, per_broker=False)
    configs.validate_broker_configs({"listener.name.a.ssl.keystore.location": "x"}, per_broker=True)
    configs.validate_broker_configs({"leader.replication.throttled.rate": "0"}, per_broker=False)


def test_every_default_is_a_valid_value_and_is_written_canonically() -> None:
    for definition in (*TOPICS.values(), *BROKERS.values()):
        if definition.default is not None:
            assert canonical(definition, definition.default) == definition.default, definition.name


def test_every_dynamic_key_and_every_synonym_exists() -> None:
    assert set(BROKERS) >= configs.PER_BROKER
    assert all(configs.broker_definition(name) for name in configs.CLUSTER_WIDE)
    for name, synonyms in configs.TOPIC_SYNONYMS.items():
        assert name in TOPICS
        for broker_name, factor in synonyms:
            assert broker_name in BROKERS
            assert factor == 1 or BROKERS[broker_name].type is ConfigType.INT
        assert configs.update_mode(synonyms[0][0]) is Update.CLUSTER_WIDE


def test_append_and_subtract_apply_to_lists_only() -> None:
    assert configs.is_list("cleanup.policy")
    assert configs.is_list("listeners", configs.ResourceType.BROKER)
    assert not configs.is_list("retention.ms")
    assert not configs.is_list("no.such.key")


def test_passwords_and_unknown_keys_are_never_shown() -> None:
    assert configs.is_sensitive("ssl.key.password")
    assert configs.is_sensitive("listener.name.internal.ssl.key.password")
    assert configs.is_sensitive("what.is.this")
    assert not configs.is_sensitive("log.dirs")
    shown = configs.broker_synonyms("ssl.key.password", BrokerLayers(static={"ssl.key.password": "s3cret"}))
    assert shown == [Synonym("ssl.key.password", None, ConfigSource.STATIC_BROKER)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"),
        (1e-4, "1.0E-4"),
        (1.25e-5, "1.25E-5"),
        (1e7, "1.0E7"),
        (123456789.5, "1.234567895E8"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (-0.001, "-0.001"),
        (9999999.0, "9999999.0"),
    ],
)
def test_doubles_are_written_as_java_writes_them(value: float, shown: str) -> None:
    assert java_double(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_double_reads_back_as_itself(value: float) -> None:
    assert float(java_double(value)) == value


@given(st.sampled_from(sorted(TOPICS)), st.text(max_size=40))
def test_any_text_is_either_canonical_after_one_pass_or_refused(name: str, text: str) -> None:
    definition = TOPICS[name]
    try:
        once = canonical(definition, text)
    except ConfigError as error:
        assert name in str(error)
    else:
        assert canonical(definition, once) == once
