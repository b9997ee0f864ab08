"""Lines in, lines out: how the console tools read and print records, and which client settings they make."""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odradek.cli import console_consumer, console_producer
from odradek.cli.formatters import formatter
from odradek.cli.line_reader import LineReader
from odradek.cli.options import ToolError, UsageError
from odradek.cli.properties import client_settings, load_properties

DEFAULT = "org.apache.kafka.tools.consumer.DefaultMessageFormatter"
SERIALIZATION = "org.apache.kafka.common.serialization."

# --- lines ---


def test_a_plain_line_is_a_value() -> None:
    assert LineReader({}).parse(b"a\tb") == (None, b"a\tb", [])


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    assert LineReader({}).parse(b"\xff\xfe\x00").value == b"\xff\xfe\x00"


def test_keys_end_at_the_first_separator() -> None:
    reader = LineReader({"parse.key": "true", "key.separator": "::"})
    assert reader.parse(b"k::v::w") == (b"k", b"v::w", [])
    assert reader.parse(b"::") == (b"", b"", [])


def test_headers_come_before_the_key() -> None:
    reader = LineReader({"parse.key": "TRUE ", "parse.headers": "true"})
    line = reader.parse("a:1,ü:2:3\tkey\tvalue".encode())
    assert line == (b"key", b"value", [("a", b"1"), ("ü", b"2:3")])


def test_the_null_marker_stands_for_null_in_each_place() -> None:
    reader = LineReader({"parse.key": "true", "parse.headers": "true", "null.marker": "N"})
    assert reader.parse(b"N\tN\tN") == (None, None, [])
    assert reader.parse(b"a:N\tk\tv").headers == [("a", None)]
    with pytest.raises(
        ToolError, match="Header keys should not be equal to the null marker 'N' as they can't be null"
    ):
        reader.parse(b"N:1\tk\tv")


def test_a_missing_separator_is_named_with_its_line() -> None:
    reader = LineReader({"parse.key": "true"})
    reader.parse(b"k\tv")
    with pytest.raises(ToolError, match="No key separator found on line number 2: 'no key'"):
        reader.parse(b"no key")
    with pytest.raises(ToolError, match="No headers delimiter found on line number 1: 'x'"):
        LineReader({"parse.headers": "true"}).parse(b"x")
    with pytest.raises(ToolError, match="No header key separator found in pair 'a' on line number 1"):
        LineReader({"parse.headers": "true"}).parse(b"a\tv")


def test_errors_may_be_ignored() -> None:
    reader = LineReader({"parse.key": "true", "parse.headers": "true", "ignore.error": "true"})
    assert reader.parse(b"only a value") == (None, b"only a value", [])
    assert reader.parse(b"a\tk\tv") == (b"k", b"v", [("a", None)])


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"headers.delimiter": ","}, "headers.delimiter and headers.separator may not be equal"),
        ({"headers.separator": ":"}, "headers.separator and headers.key.separator may not be equal"),
        ({"null.marker": "\t"}, "null.marker and headers.delimiter may not be equal"),
        ({"key.separator": "x", "null.marker": "x"}, "null.marker and key.separator may not be equal"),
    ],
)
def test_separators_that_cannot_be_told_apart_are_refused(properties: dict[str, str], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        LineReader(properties)


# --- records ---


def record(**fields: Any) -> SimpleNamespace:
    base = {"topic": "t", "partition": 2, "offset": 7, "timestamp": 1234, "timestamp_type": 0}
    return SimpleNamespace(**{**base, "key": b"k", "value": b"v", "headers": (), **fields})


def printed(properties: dict[str, str], **fields: Any) -> bytes:
    return formatter(DEFAULT, properties)(record(**fields))


def test_values_alone_by_default() -> None:
    assert printed({}) == b"v\n"
    assert printed({}, value=None) == b"null\n"
    assert printed({"null.literal": "-"}, value=None) == b"-\n"


def test_columns_in_kafkas_order() -> None:
    names = ("value", "key", "headers", "epoch", "offset", "partition", "timestamp")
    everything = {f"print.{name}": "true" for name in names}
    assert (
        printed(everything)
        == b"CreateTime:1234\tPartition:2\tOffset:7\tEpoch:NOT_PRESENT\tNO_HEADERS\tk\tv\n"
    )
    assert printed({**everything, "key.separator": "|", "line.separator": ";"}).endswith(b"|k|v;")
    assert printed({"print.timestamp": "true"}, timestamp_type=1) == b"LogAppendTime:1234\tv\n"
    assert printed({"print.timestamp": "true"}, timestamp=-1) == b"NO_TIMESTAMP\tv\n"


def test_headers() -> None:
    headers = [("a", b"1"), ("b", None)]
    assert printed({"print.headers": "true"}, headers=headers) == b"a:1,b:null\tv\n"
    assert printed({"print.headers": "true", "headers.separator": " "}, headers=headers) == b"a:1 b:null\tv\n"


def test_keys_without_values() -> None:
    assert printed({"print.key": "true", "print.value": "false"}) == b"k\n"


@pytest.mark.parametrize(
    ("java_class", "raw", "text"),
    [
        ("LongDeserializer", struct.pack(">q", -5), b"-5"),
        ("IntegerDeserializer", struct.pack(">i", 70_000), b"70000"),
        ("ShortDeserializer", struct.pack(">h", 12), b"12"),
        ("DoubleDeserializer", struct.pack(">d", 1.5), b"1.5"),
        ("FloatDeserializer", struct.pack(">f", 0.25), b"0.25"),
        ("BooleanDeserializer", b"\x01", b"true"),
        ("StringDeserializer", "ß".encode(), "ß".encode()),
    ],
)
def test_deserializers(java_class: str, raw: bytes, text: bytes) -> None:
    assert printed({"value.deserializer": SERIALIZATION + java_class}, value=raw) == text + b"\n"


def test_a_value_of_the_wrong_size_is_an_error_of_that_record() -> None:
    with pytest.raises(ValueError, match="Size of data received by LongDeserializer is not 8"):
        printed({"value.deserializer": SERIALIZATION + "LongDeserializer"}, value=b"short")


def test_classes_that_are_not_there_are_named() -> None:
    with pytest.raises(ToolError, match=r"com\.example\.Mine"):
        formatter("com.example.Mine", {})
    with pytest.raises(ToolError, match=r"com\.example\.Mine could not be found"):
        formatter(DEFAULT, {"value.deserializer": "com.example.Mine"})


# --- settings ---


def producer_options(*argv: str) -> argparse.Namespace:
    parser = console_producer.build_parser()
    options = parser.parse(["--bootstrap-server", "h:1", "--topic", "t", *argv])
    console_producer.check(parser, options)
    return options


def test_producer_settings_are_merged_as_kafka_merges_them(tmp_path: Path) -> None:
    file = tmp_path / "producer.properties"
    file.write_text("acks=1\nlinger.ms=7\nretries=9\ncustom=1\n")
    options = producer_options(
        "--producer.config",
        str(file),
        "--producer-property",
        "retries=4",
        "--timeout",
        "50",
        "--compression-codec",
    )
    properties = console_producer.producer_properties(options, interactive=False)
    assert properties["acks"] == "1"
    assert properties["linger.ms"] == "50"
    assert properties["retries"] == "4"
    assert properties["compression.type"] == "gzip"
    assert properties["request.timeout.ms"] == "1500"
    assert properties["client.id"] == "console-producer"


def test_on_a_terminal_lines_do_not_wait() -> None:
    assert console_producer.producer_properties(producer_options(), interactive=True)["linger.ms"] == "0"
    assert console_producer.producer_properties(producer_options(), interactive=False)["linger.ms"] == "1000"


def test_an_unknown_codec() -> None:
    with pytest.raises(UsageError, match="Unknown compression name: brotli"):
        producer_options("--compression-codec", "brotli")


def consumer_settings(*argv: str) -> dict[str, str]:
    parser = console_consumer.build_parser()
    options = parser.parse(["--bootstrap-server", "h:1", *argv])
    console_consumer.check(parser, options)
    return console_consumer.consumer_properties(parser, options)


def test_without_a_group_nothing_is_committed() -> None:
    settings = consumer_settings("--topic", "t", "--from-beginning")
    assert settings["group.id"].startswith("console-consumer-")
    assert settings["enable.auto.commit"] == "false"
    assert settings["auto.offset.reset"] == "earliest"


def test_with_a_group_its_offsets_are() -> None:
    settings = consumer_settings("--topic", "t", "--group", "g")
    assert settings["group.id"] == "g"
    assert "enable.auto.commit" not in settings
    assert settings["auto.offset.reset"] == "latest"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], r"Exactly one of the following arguments is required: \[topic\], \[include\]"),
        (["--topic", "t", "--include", "t"], "Exactly one of the following arguments is required"),
        (["--include", "t", "--partition", "1"], "The topic is required when partition is specified."),
        (["--topic", "t", "--offset", "1"], "The partition is required when offset is specified."),
        (
            ["--topic", "t", "--partition", "1", "--offset", "first"],
            "The provided offset value 'first' is incorrect.",
        ),
        (
            ["--topic", "t", "--partition", "1", "--offset", "1", "--from-beginning"],
            "Options from-beginning and offset cannot be specified together.",
        ),
        (
            ["--topic", "t", "--partition", "1", "--group", "g"],
            "Options group and partition cannot be specified",
        ),
        (
            ["--topic", "t", "--group", "g", "--consumer-property", "group.id=h"],
            "Detected group ids: 'g', 'h'",
        ),
        (
            ["--topic", "t", "--from-beginning", "--consumer-property", "auto.offset.reset=latest"],
            "Can't simultaneously specify --from-beginning and 'auto.offset.reset=latest'",
        ),
    ],
)
def test_consumer_options_that_do_not_go_together(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        consumer_settings(*argv)


@pytest.mark.parametrize("name", ["", "..", "bad name", "x" * 250, "a/b"])
def test_names_that_no_topic_can_have(name: str) -> None:
    with pytest.raises(ToolError, match="Topic name is invalid"):
        consumer_settings("--topic", name)


KNOWN = {"acks": -1, "retries": float("inf"), "linger_ms": 0, "compression_type": None, "client_id": None}
KNOWN |= {"reconnect_backoff_max_ms": 30_000}
KNOWN |= {"enable_idempotence": True, "partition_assignment_strategy": (), "send_buffer_bytes": None}


def test_java_settings_become_python_settings() -> None:
    java = {
        "acks": "-1",
        "retries": "3",
        "linger.ms": "5",
        "reconnect.backoff.max.ms": "500",
        "compression.type": "none",
        "client.id": "me",
        "enable.idempotence": "False",
        "send.buffer.bytes": "100",
        "key.serializer": "org.apache.kafka.common.serialization.StringSerializer",
    }
    assert client_settings(java, KNOWN) == {
        "reconnect_backoff_max_ms": 500,
        "acks": "all",
        "retries": 3,
        "linger_ms": 5,
        "compression_type": None,
        "client_id": "me",
        "enable_idempotence": False,
        "send_buffer_bytes": 100,
    }


def test_settings_nobody_knows_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert client_settings({"max.speed": "1", "colour": "red", "acks": "1"}, KNOWN)["acks"] == 1
    assert capsys.readouterr().err == (
        "WARN These configurations '[max.speed, colour]' were supplied but are not used yet.\n"
    )


def test_values_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(
        ToolError, match=r"Invalid value soon for configuration linger\.ms: Not a number of type INT"
    ):
        client_settings({"linger.ms": "soon"}, KNOWN)
    with pytest.raises(ToolError, match="Expected value to be either true or false"):
        client_settings({"enable.idempotence": "yes"}, KNOWN)


def test_security_settings() -> None:
    jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="ann" password="p w=1";'
    java = {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN", "sasl.jaas.config": jaas}
    java |= {"ssl.truststore.location": "/ca.pem", "ssl.truststore.type": "PEM"}
    java |= {"ssl.endpoint.identification.algorithm": ""}
    assert client_settings(java, KNOWN) == {
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ann",
        "sasl_plain_password": "p w=1",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
    }
    with pytest.raises(ToolError, match=r"only PEM files are read"):
        client_settings({"ssl.truststore.location": "/trust.jks"}, KNOWN)


def test_assignors_by_their_java_names() -> None:
    package = "org.apache.kafka.clients.consumer."
    java = f"{package}RangeAssignor, {package}CooperativeStickyAssignor"
    [first, second] = client_settings({"partition.assignment.strategy": java}, KNOWN)[
        "partition_assignment_strategy"
    ]
    assert (first.name, second.name) == ("range", "cooperative-sticky")
    with pytest.raises(ToolError, match="MyAssignor"):
        client_settings({"partition.assignment.strategy": "MyAssignor"}, KNOWN)


def test_properties_files_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# a comment\nacks = all\n")
    assert load_properties(str(file)) == {"acks": "all"}
    with pytest.raises(ToolError, match="Unable to read file nowhere: No such file or directory"):
        load_properties("nowhere")
    file.write_text('{"acks": "all"}\n')
    with pytest.raises(ToolError, match="line 1"):
        load_properties(str(file))
