"""Properties files, `--override` and `KAFKA_*` variables, as Java and the official image read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.broker.properties import PropertiesError, from_environment, parse_overrides, parse_properties


def values(text: str) -> dict[str, str]:
    return {key: setting.value for key, setting in parse_properties(text, "f").items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1\nb:2\nc 3\nd\t=\t4", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("  a = 1 2  ", {"a": "1 2  "}),
        ("# a=1\n! b=2\n\n  # c=3\nd=4", {"d": "4"}),
        ("a=1,\\\n   2,\\\r\n\t3\nb=4", {"a": "1,2,3", "b": "4"}),
        ("a=ends with\\\\\nb=1", {"a": "ends with\\", "b": "1"}),
        ("a=1 # not a comment", {"a": "1 # not a comment"}),
        ("a\\=b\\:c=1", {"a=b:c": "1"}),
        ("a=\\u00e4\\t\\n\\q", {"a": "ä\t\nq"}),
        ("a==1", {"a": "=1"}),
        ("a", {"a": ""}),
        ("a=\nb=\\", {"a": "", "b": ""}),
        ("a=1\na=2", {"a": "2"}),
        ("a=PLAINTEXT://:9092,SSL://h:9093", {"a": "PLAINTEXT://:9092,SSL://h:9093"}),
        ("", {}),
        ("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1\\\n# still the value", {"a": "1# still the value"}),
    ],
)
def test_a_file_reads_as_java_reads_it(text: str, expected: dict[str, str]) -> None:
    assert values(text) == expected


def test_a_setting_knows_the_line_it_begins_on() -> None:
    found = parse_properties("# one\n\na=1,\\\n  2\nb=3\n", "server.properties")
    assert found["a"].origin == "server.properties, line 3"
    assert found["b"].origin == "server.properties, line 5"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("ok=1\nlog.dirs=\\u00g1", "f, line 2: malformed \\uxxxx escape in the value of log.dirs"),
        ("log\\u12=1", "f, line 1: malformed \\uxxxx escape in the key"),
        ('{\n"a": 1}', "f, line 1: '{' is not a key"),
        ("<configuration>", "f, line 1: '<configuration>' is not a key"),
        ("a=1\n<<<<<<< HEAD", "f, line 2: '<<<<<<<' is not a key"),
        ("a=1\n=5", "f, line 2: '' is not a key"),
        ("\x1f\x8b\x08\x00", "f, line 1: '\\x1f"),
    ],
)
def test_what_is_no_properties_file_is_refused_naming_line_and_key(text: str, where: str) -> None:
    with pytest.raises(PropertiesError) as caught:
        parse_properties(text, "f")
    assert where in str(caught.value)


def test_an_override_needs_an_equals_sign_and_may_hold_more() -> None:
    assert parse_overrides(["a.b=c=d", " x = y "])["a.b"].value == "c=d"
    assert parse_overrides([" x = y "])["x"].value == "y"
    for bad in ("a", "=b", ""):
        with pytest.raises(PropertiesError, match="expected key=value"):
            parse_overrides([bad])


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("KAFKA_LOG_RETENTION_MS", "log.retention.ms"),
        ("KAFKA_NODE_ID", "node.id"),
        ("KAFKA_A__B", "a_b"),
        ("KAFKA_A___B", "a-b"),
        ("KAFKA_LISTENER_NAME_INTERNAL_SSL_KEY_PASSWORD", "listener.name.internal.ssl.key.password"),
        ("KAFKA_ODRADEK_METRICS_PORT", "odradek.metrics.port"),
    ],
)
def test_a_variable_names_a_key_by_the_rule_of_the_image(variable: str, key: str) -> None:
    found = from_environment({variable: "1", "HOME": "/", "kafka_x": "2"})
    assert {k: s.value for k, s in found.items()} == {key: "1"}
    assert found[key].origin == f"environment variable {variable}"


@pytest.mark.parametrize(
    "variable",
    [
        "KAFKA_HEAP_OPTS",
        "KAFKA_OPTS",
        "KAFKA_JMX_OPTS",
        "KAFKA_LOG4J_ROOT_LOGLEVEL",
        "KAFKA_VERSION",
        "KAFKA_PORT",
        "KAFKA_PORT_9092_TCP",
        "KAFKA_PORT_9092_TCP_ADDR",
        "KAFKA_SERVICE_HOST",
        "KAFKA_SERVICE_PORT_CLIENT",
        "KAFKA_0_SERVICE_HOST",
        "KAFKA_BOOTSTRAP_PORT",
        "CLUSTER_ID",
    ],
)
def test_variables_for_the_jvm_and_of_kubernetes_are_no_settings(variable: str) -> None:
    assert from_environment({variable: "tcp://10.0.0.1:9092"}) == {}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        found = parse_properties(text, "f")
    except PropertiesError as error:
        assert str(error).startswith("f, line ")
    else:
        assert all(setting.origin.startswith("f, line ") for setting in found.values())
