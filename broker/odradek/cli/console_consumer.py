"""`kafka-console-consumer`: a topic's records on standard output.

Ends on Ctrl-C, on SIGTERM, after `--max-messages`, after `--timeout-ms` without a record, and when nobody reads its
output any more; each time it commits (with --group), leaves the group and says how many records it processed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from odradek.cli.formatters import Formatter, formatter
from odradek.cli.options import (
    ToolError,
    ToolParser,
    add_bootstrap,
    check_topic_name,
    key_values,
    program_name,
    run_tool,
    warn,
)
from odradek.cli.properties import client_settings, load_properties

POLL_MS = 200  # the longest one poll waits: how soon a signal is noticed
POLL_RECORDS = 2000
NOTICE_MS = 2000  # without a record, after which a missing topic is worth a word
FORMATTER_HELP = (
    "What is printed: print.key, print.value, print.timestamp, print.partition, print.offset, print.epoch, "
    "print.headers =true|false; key.separator, line.separator, headers.separator, null.literal; "
    "key.deserializer, value.deserializer, headers.deserializer."
)
DEFAULT_FORMATTER = "org.apache.kafka.tools.consumer.DefaultMessageFormatter"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse, connect, and print until something ends it."""
    parser = build_parser()
    options = parser.parse(argv)
    check(parser, options)
    properties = consumer_properties(parser, options)
    write = formatter(options.formatter, formatter_properties(options))
    stop = Stop()
    printer = Printer(connect(options, properties), write, options, stop)
    try:
        printer.run()
    finally:
        printer.close()
        warn(f"Processed a total of {printer.count} messages")
    return stop.exit_code


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek console-consumer"),
        description="This tool helps to read data from Kafka topics and outputs it to standard output.",
    )
    add_bootstrap(parser, config_help="Consumer config properties file; --command-property takes precedence.")
    hidden = argparse.SUPPRESS
    parser.add_argument("--consumer.config", dest="command_config", help=hidden)
    parser.add_argument("--topic", help="The topic to consume from.")
    parser.add_argument(
        "--include", "--whitelist", metavar="REGEX", help="Regular expression of the topics to consume from."
    )
    parser.add_argument("--group", metavar="ID", help="The consumer group id of the consumer.")
    parser.add_argument(
        "--from-beginning",
        action="store_true",
        help="Start with the earliest message where the group has no committed offset.",
    )
    parser.add_argument(
        "--partition",
        type=int,
        metavar="N",
        help="The partition to consume from, from its end unless --offset is given.",
    )
    parser.add_argument(
        "--offset",
        metavar="OFFSET",
        help="A number, 'earliest' or 'latest' (default: latest). Needs --partition.",
    )
    parser.add_argument("--max-messages", type=int, metavar="N", help="Exit after this many messages.")
    parser.add_argument(
        "--timeout-ms", type=int, metavar="MS", help="Exit if no message is available for this long."
    )
    parser.add_argument(
        "--skip-message-on-error",
        action="store_true",
        help="Skip a message that cannot be printed instead of halting.",
    )
    parser.add_argument(
        "--isolation-level", choices=("read_uncommitted", "read_committed"), metavar="LEVEL",
        help="read_committed leaves out transactions that are not committed (default: read_uncommitted).",
    )  # fmt: skip
    for option in ("--command-property", "--consumer-property"):
        parser.add_argument(
            option, dest="command_property", action="append", default=[], metavar="KEY=VALUE",
            help=hidden if option == "--consumer-property" else "Consumer config properties in the form key=value.",
        )  # fmt: skip
    for option in ("--formatter-property", "--property"):
        parser.add_argument(
            option, dest="formatter_property", action="append", default=[], metavar="KEY=VALUE",
            help=hidden if option == "--property" else FORMATTER_HELP,
        )  # fmt: skip
    parser.add_argument("--formatter-config", metavar="FILE", help="Properties file for the formatter.")
    parser.add_argument(
        "--formatter",
        default=DEFAULT_FORMATTER,
        metavar="CLASS",
        help="DefaultMessageFormatter, LoggingMessageFormatter or NoOpMessageFormatter.",
    )
    parser.add_argument("--key-deserializer", metavar="CLASS", help="Class for deserializing keys.")
    parser.add_argument("--value-deserializer", metavar="CLASS", help="Class for deserializing values.")
    parser.add_argument("--enable-systest-events", action="store_true", help=hidden)
    parser.add_argument("--new-consumer", action="store_true", help=hidden)
    parser.add_version()
    return parser


def check(parser: ToolParser, options: argparse.Namespace) -> None:
    """Which options may meet, as in Kafka."""
    if (options.topic is None) == (options.include is None):
        parser.error("Exactly one of the following arguments is required: [topic], [include]")
    if options.partition is not None:
        if options.topic is None:
            parser.error("The topic is required when partition is specified.")
        if options.from_beginning and options.offset is not None:
            parser.error("Options from-beginning and offset cannot be specified together.")
    elif options.offset is not None:
        parser.error("The partition is required when offset is specified.")
    if not options.bootstrap_server:
        parser.error('Missing required argument "[bootstrap-server]"')
    if options.topic is not None:
        check_topic_name(options.topic)
    if (
        options.offset is not None
        and options.offset.lower() not in ("earliest", "latest")
        and not options.offset.isdigit()
    ):
        parser.error(
            f"The provided offset value '{options.offset}' is incorrect. Valid values are 'earliest', 'latest', "
            "or a non-negative long."
        )


def consumer_properties(parser: ToolParser, options: argparse.Namespace) -> dict[str, str]:
    """Settings of the Java consumer, merged as Kafka merges them."""
    from_file = load_properties(options.command_config) if options.command_config else {}
    extra = key_values(options.command_property)
    groups = {
        source
        for source in (options.group, from_file.get("group.id"), extra.get("group.id"))
        if source is not None
    }
    if len(groups) > 1:
        named = ", ".join(f"'{group}'" for group in sorted(groups))
        parser.error(
            "The group ids provided in different places (directly using '--group', via '--command-property', or via "
            f"'--command-config') do not match. Detected group ids: {named}"
        )
    if groups and options.partition is not None:
        parser.error("Options group and partition cannot be specified together.")
    properties = {**from_file, **extra}
    reset = properties.setdefault("auto.offset.reset", "earliest" if options.from_beginning else "latest")
    if options.from_beginning and reset != "earliest":
        parser.error(
            f"Can't simultaneously specify --from-beginning and 'auto.offset.reset={reset}', please remove one option"
        )
    properties.setdefault("client.id", "console-consumer")
    if options.isolation_level is not None:
        properties["isolation.level"] = options.isolation_level
    if groups:
        properties["group.id"] = groups.pop()
    else:
        # A group of a random name that is not meant to be used again, so nothing is committed for it.
        properties["group.id"] = f"console-consumer-{random.randrange(100000)}"
        properties.setdefault("enable.auto.commit", "false")
    if properties.pop("group.protocol", "classic") != "classic":
        warn(
            "WARN group.protocol=consumer is not spoken by this tool's client; the group uses the classic protocol."
        )
    properties.setdefault("max.poll.records", str(POLL_RECORDS))
    return properties


def formatter_properties(options: argparse.Namespace) -> dict[str, str]:
    """Properties of the formatter: file, deserializer options, then the command line."""
    properties = load_properties(options.formatter_config) if options.formatter_config else {}
    for side in ("key", "value"):
        chosen = getattr(options, f"{side}_deserializer")
        if chosen:
            properties[f"{side}.deserializer"] = chosen
    properties.update(key_values(options.formatter_property))
    return properties


def connect(options: argparse.Namespace, properties: dict[str, str]) -> Any:
    """The consumer, subscribed or assigned."""
    from odradek.cli.admin import BOOTSTRAP_MS, announce_lost_connections, client_failure, reachable

    servers = reachable(options.bootstrap_server)
    announce_lost_connections(options.bootstrap_server)
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    from odradek.cli import codecs

    codecs.install()
    settings = client_settings(properties, KafkaConsumer.DEFAULT_CONFIG)
    try:
        if options.partition is None:
            consumer = KafkaConsumer(bootstrap_servers=servers, bootstrap_timeout_ms=BOOTSTRAP_MS, **settings)
            if options.topic is not None:
                consumer.partitions_for_topic(options.topic)  # known before the group asks for an assignment
                consumer.subscribe([options.topic])
            else:
                consumer.subscribe(pattern=f"^(?:{include(options.include)})$")
            return consumer
        settings.pop("group_id")
        consumer = KafkaConsumer(bootstrap_servers=servers, bootstrap_timeout_ms=BOOTSTRAP_MS, **settings)
        part = TopicPartition(options.topic, options.partition)
        consumer.assign([part])
        start = options.offset or ("earliest" if options.from_beginning else "latest")
        if start.lower() == "earliest":
            consumer.seek_to_beginning(part)
        elif start.lower() == "latest":
            consumer.seek_to_end(part)
        else:
            consumer.seek(part, int(start))
        return consumer
    except KafkaError as error:
        raise client_failure(error, options.bootstrap_server) from error


def include(regex: str) -> str:
    """The pattern, once it is known to be one."""
    try:
        re.compile(regex)
    except re.error as error:
        raise ToolError(f"{regex} is an invalid regex.") from error
    return regex


class Stop:
    """Set by SIGINT and SIGTERM; a second signal interrupts whatever hangs."""

    def __init__(self) -> None:
        self.requested = False
        self.exit_code = 0
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.exit_code = 128 + number


class Printer:
    """Polls and prints; `count` records so far."""

    def __init__(self, consumer: Any, write: Formatter, options: argparse.Namespace, stop: Stop) -> None:
        self._consumer = consumer
        self._write = write
        self._options = options
        self._stop = stop
        self._left = (
            options.max_messages if options.max_messages is not None and options.max_messages >= 0 else None
        )
        self.count = 0

    def run(self) -> None:
        """Until stopped, timed out, complete, or until nobody reads the output."""
        timeout_ms = self._options.timeout_ms
        idle_since = time.monotonic()
        asked = False
        try:
            while not self._stop.requested and self._left != 0:
                batches = self._poll()
                if batches:
                    self._print(batches)
                    idle_since = time.monotonic()
                    continue
                if _nobody_reads():
                    raise BrokenPipeError
                idle_ms = (time.monotonic() - idle_since) * 1000
                if not asked and idle_ms > NOTICE_MS:
                    asked = True
                    self._say_what_is_missing()
                if timeout_ms is not None and timeout_ms >= 0 and idle_ms >= timeout_ms:
                    return
        except BrokenPipeError:
            warn("Unable to write to standard out, closing consumer.")
            _drop_stdout()

    def _poll(self) -> dict[Any, list[Any]]:
        from kafka.errors import KafkaError

        from odradek.cli.admin import client_failure

        try:
            batches: dict[Any, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
        except KafkaError as error:
            reason = client_failure(error, self._options.bootstrap_server)
            raise ToolError(
                f"ERROR Error processing message, terminating consumer process: {reason}"
            ) from error
        return batches

    def _print(self, batches: dict[Any, list[Any]]) -> None:
        out = sys.stdout.buffer
        for part, records in batches.items():
            taken = records if self._left is None else records[: self._left]
            lines = b"".join(self._lines(taken))
            out.write(lines)
            self.count += len(taken)
            if self._left is not None:
                self._left -= len(taken)
                if len(taken) < len(records):
                    # What was polled and not printed must not be committed.
                    self._consumer.seek(part, records[len(taken)].offset)
        out.flush()

    def _lines(self, records: list[Any]) -> list[bytes]:
        lines = []
        for record in records:
            try:
                lines.append(self._write(record))
            except (ValueError, UnicodeError) as error:
                where = f"{record.topic}-{record.partition} at offset {record.offset}"
                if not self._options.skip_message_on_error:
                    raise ToolError(
                        f"ERROR Error processing message {where}, terminating consumer process: {error}"
                    ) from error
                warn(f"ERROR Error processing message {where}, skipping this message: {error}")
        return lines

    def _say_what_is_missing(self) -> None:
        """A topic that does not exist is waited for; say so once."""
        topic, partition = self._options.topic, self._options.partition
        if topic is None:
            return
        known = self._consumer.partitions_for_topic(topic)
        if not known:
            warn(f"WARN Topic '{topic}' does not exist yet; waiting for it.")
        elif partition is not None and partition not in known:
            warn(
                f"WARN Topic '{topic}' has no partition {partition} yet, only {min(known)} to {max(known)}; "
                "waiting for it."
            )

    def close(self) -> None:
        """Commit where the group commits, leave, disconnect."""
        self._consumer.close()


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader is gone; found while idle, not only by the next write."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def _drop_stdout() -> None:
    """Nothing may be flushed to the closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
