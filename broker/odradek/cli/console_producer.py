"""`kafka-console-producer`: lines from standard input, each one a record.

On a terminal it prompts with `>` as Kafka does, with line editing, and sends each line at once; from a pipe or a file
it batches (`--timeout`). The exit code is 1 when a record could not be delivered.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from odradek.cli.line_reader import Line, LineReader
from odradek.cli.options import (
    ToolError,
    ToolParser,
    add_bootstrap,
    check_topic_name,
    end_cleanly_on_sigterm,
    key_values,
    program_name,
    run_tool,
    warn,
)
from odradek.cli.properties import client_settings, load_properties

READER_HELP = (
    "How lines are read: parse.key=true, key.separator=TEXT (a tab), parse.headers=true, headers.delimiter=TEXT "
    "(a tab), headers.separator=TEXT (a comma), headers.key.separator=TEXT (a colon), null.marker=TEXT, "
    "ignore.error=true."
)
READER_CLASS = "org.apache.kafka.tools.LineMessageReader"

# option, setting of the Java producer, default, what it is. The option beats properties, these beat the default.
SETTINGS: tuple[tuple[str, str, int, str], ...] = (
    (
        "timeout",
        "linger.ms",
        1000,
        "Milliseconds a record waits for more to fill its batch (linger.ms); on a terminal 0.",
    ),
    ("request-timeout-ms", "request.timeout.ms", 1500, "The ack timeout of the producer requests."),
    ("message-send-max-retries", "retries", 3, "How often a record is sent again before it is given up."),
    ("retry-backoff-ms", "retry.backoff.ms", 100, "Milliseconds between two tries."),
    ("socket-buffer-size", "send.buffer.bytes", 102400, "The size of the TCP send buffer."),
    ("max-memory-bytes", "buffer.memory", 33554432, "Memory to buffer records waiting to be sent."),
    ("batch-size", "batch.size", 16384, "The buffer size in bytes of a partition's batch."),
    ("max-partition-memory-bytes", "batch.size", 16384, "(Deprecated) as --batch-size."),
    ("metadata-expiry-ms", "metadata.max.age.ms", 300000, "Milliseconds after which metadata is refreshed."),
    ("max-block-ms", "max.block.ms", 60000, "Milliseconds a send may block."),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse, connect, and send until the input ends."""
    parser = build_parser()
    options = parser.parse(argv)
    check(parser, options)
    reader = LineReader(reader_properties(options))
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    end_cleanly_on_sigterm()
    producer = connect(options, interactive)
    sender = Sender(producer, options.topic, options.sync)
    try:
        for line in typed_lines() if interactive else piped_lines():
            sender.send(reader.parse(line))
    finally:
        sender.close()
    return 1 if sender.failed else 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek console-producer"),
        description="This tool helps to read data from standard input and publish it to Kafka.",
    )
    add_bootstrap(parser, config_help="Producer config properties file; --command-property takes precedence.")
    parser.add_argument("--producer.config", dest="command_config", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help="REQUIRED: The topic name to produce messages to.")
    parser.add_argument(
        "--sync", action="store_true", help="Send one record at a time, waiting for each acknowledgement."
    )
    parser.add_argument(
        "--compression-codec", nargs="?", const="gzip", default="none", metavar="CODEC",
        help="'none', 'gzip', 'snappy', 'lz4' or 'zstd'; without a value 'gzip'.",
    )  # fmt: skip
    parser.add_argument(
        "--request-required-acks",
        "--producer-acks",
        metavar="ACKS",
        help="The required acks: 0, 1, -1 or all (default: -1).",
    )
    for option, setting, default, text in SETTINGS:
        parser.add_argument(
            f"--{option}", type=int, metavar="N", help=f"{text} ({setting}, default: {default})"
        )
    for option in ("--command-property", "--producer-property"):
        hidden = option == "--producer-property"
        parser.add_argument(
            option, dest="command_property", action="append", default=[], metavar="KEY=VALUE",
            help=argparse.SUPPRESS if hidden else "Producer config properties in the form key=value.",
        )  # fmt: skip
    for option in ("--reader-property", "--property"):
        hidden = option == "--property"
        parser.add_argument(
            option, dest="reader_property", action="append", default=[], metavar="KEY=VALUE",
            help=argparse.SUPPRESS if hidden else READER_HELP,
        )  # fmt: skip
    parser.add_argument(
        "--reader-config",
        metavar="FILE",
        help="Properties file for the reader; --reader-property takes precedence.",
    )
    parser.add_argument("--line-reader", default=READER_CLASS, help=argparse.SUPPRESS)
    parser.add_version()
    return parser


def check(parser: ToolParser, options: argparse.Namespace) -> None:
    parser.require(options, "topic")
    if not options.bootstrap_server:
        parser.error('Missing required argument "[bootstrap-server]"')
    check_topic_name(options.topic)
    if options.line_reader.rpartition(".")[2] != "LineMessageReader":
        parser.error(f"--line-reader {options.line_reader}: only Kafka's own LineMessageReader is there")
    codec = options.compression_codec or "gzip"
    if codec not in ("none", "gzip", "snappy", "lz4", "zstd"):
        parser.error(f"Unknown compression name: {codec}; it is one of none, gzip, snappy, lz4, zstd")


def reader_properties(options: argparse.Namespace) -> dict[str, str]:
    """Properties of the reader, from the file and then the command line."""
    properties = load_properties(options.reader_config) if options.reader_config else {}
    properties.update(key_values(options.reader_property))
    return properties


def producer_properties(options: argparse.Namespace, interactive: bool) -> dict[str, str]:
    """Settings of the Java producer, merged as Kafka merges them."""
    properties = load_properties(options.command_config) if options.command_config else {}
    properties.update(key_values(options.command_property))
    properties["compression.type"] = options.compression_codec or "gzip"
    properties.setdefault("client.id", "console-producer")
    if options.request_required_acks is not None or "acks" not in properties:
        properties["acks"] = options.request_required_acks or "-1"
    for option, setting, default, _ in SETTINGS:
        value = getattr(options, option.replace("-", "_"))
        if value is not None:
            properties[setting] = str(value)
        elif interactive and setting == "linger.ms":
            properties.setdefault(setting, "0")
        else:
            properties.setdefault(setting, str(default))
    properties.pop(
        "buffer.memory"
    )  # the Python client has no such bound; its batches are bounded by max.in.flight
    return properties


def connect(options: argparse.Namespace, interactive: bool) -> Any:
    """The producer, once something listens at the bootstrap address."""
    from odradek.cli.admin import BOOTSTRAP_MS, announce_lost_connections, client_failure, reachable

    servers = reachable(options.bootstrap_server)
    announce_lost_connections(options.bootstrap_server)
    from kafka import KafkaProducer
    from kafka.errors import KafkaError
    from kafka.partitioner import StickyPartitioner
    from kafka.serializer import Serializer

    from odradek.cli import codecs

    codecs.install()
    Serializer.register(LineSerializer)
    settings = client_settings(producer_properties(options, interactive), KafkaProducer.DEFAULT_CONFIG)
    if settings["acks"] != "all" or settings["retries"] == 0:
        settings.setdefault("enable_idempotence", False)
    try:
        return KafkaProducer(
            bootstrap_servers=servers,
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            partitioner=StickyPartitioner(),
            value_serializer=LineSerializer(),
            **settings,
        )
    except KafkaError as error:
        raise client_failure(error, options.bootstrap_server) from error


class LineSerializer:
    """Takes the place of a value serializer: a record whose key and value are both null passes only there."""

    def serialize(self, _topic: str, headers: list[tuple[str, bytes]], line: Line) -> bytes | None:
        """The line's value; its headers go into the list that is being sent."""
        for name, value in line.headers:
            if value is None:
                raise ToolError(
                    f"Header '{name}' is null, which the Python client cannot send: give it an empty value or "
                    "leave it out"
                )
            headers.append((name, value))
        return line.value

    def close(self) -> None:
        """Nothing to release."""


class Sender:
    """Sends lines and remembers whether any was lost."""

    def __init__(self, producer: Any, topic: str, sync: bool) -> None:
        from kafka.errors import KafkaError

        self._error = KafkaError
        self._producer = producer
        self._topic = topic
        self._sync = sync
        self.failed = 0

    def send(self, line: Line) -> None:
        """Hand one record to the producer; with --sync wait for its acknowledgement."""
        from odradek.cli.admin import client_failure

        try:
            future = self._producer.send(self._topic, line, line.key, [])
            if self._sync:
                future.get()
                return
        except self._error as error:
            if type(error).__name__ == "KafkaTimeoutError":
                raise ToolError(
                    f"Topic {self._topic} not present in metadata: it does not exist, or the broker cannot be reached"
                ) from error
            raise ToolError(
                f"Error when sending message to topic {self._topic}: {client_failure(error, '')}"
            ) from error
        future.add_errback(self._report, line)

    def _report(self, line: Line, error: Exception) -> None:
        from odradek.cli.admin import client_failure

        self.failed += 1
        key = "null" if line.key is None else f"{len(line.key)} bytes"
        value = "null" if line.value is None else f"{len(line.value)} bytes"
        warn(
            f"ERROR Error when sending message to topic {self._topic} with key: {key}, value: {value} with error: "
            f"{client_failure(error, '')}"
        )

    def close(self) -> None:
        """Deliver what is pending."""
        self._producer.close()


def piped_lines() -> Iterator[bytes]:
    """Lines of standard input without their line ends."""
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def typed_lines() -> Iterator[bytes]:
    """Lines typed after the prompt `>`; Ctrl-D ends them."""
    with contextlib.suppress(ImportError):  # a Python without it still reads lines
        import readline  # noqa: F401  gives input() line editing and a history
    while True:
        try:
            line = input(">")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()  # the shell's prompt gets a line of its own
            raise
        yield line.encode(sys.stdin.encoding or "utf-8", "surrogateescape")
