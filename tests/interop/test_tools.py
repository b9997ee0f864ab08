"""The command-line tools as people and scripts use them: typed, piped, interrupted, mistyped."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from interop.cluster import PATIENCE_S, ended, eventually, tool, unique

CreateTopic = Callable[..., str]


def start(name: str, *args: str, **streams: int) -> subprocess.Popen[bytes]:
    """A tool that goes on until somebody stops it."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **streams}
    return subprocess.Popen([sys.executable, "-m", "odradek.cli.main", name, *args], **settings)  # type: ignore[call-overload,no-any-return]


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """The next lines of a tool's output."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip(b"\n") for _ in range(count)]


def test_the_quick_start_word_for_word(bootstrap: str) -> None:
    topic, at = unique("quickstart-events"), ("--bootstrap-server", bootstrap)
    made = tool("topics", "--create", "--topic", topic, *at, "--partitions", "3", "--replication-factor", "1")
    assert made.stdout == f"Created topic {topic}.\n".encode()
    assert topic.encode() in tool("topics", "--list", *at).stdout.splitlines()
    described = tool("topics", "--describe", "--topic", topic, *at).stdout.decode().splitlines()
    assert described[0].startswith(f"Topic: {topic}\tTopicId: ")
    assert [line.split("\t")[2] for line in described[1:]] == ["Partition: 0", "Partition: 1", "Partition: 2"]

    typed = b"This is my first event\nThis is my second event\n"
    assert tool("console-producer", "--topic", topic, *at, stdin=typed).returncode == 0
    # the old name of the option, with a file
    assert (
        tool("console-producer", "--topic", topic, "--broker-list", bootstrap, stdin=b"third\n").returncode
        == 0
    )
    read = tool("console-consumer", "--topic", topic, "--from-beginning", *at, "--max-messages", "3")
    assert sorted(read.stdout.splitlines()) == [
        b"This is my first event",
        b"This is my second event",
        b"third",
    ]
    assert read.stderr == b"Processed a total of 3 messages\n"

    group = unique("readers")
    tool(
        "console-consumer", "--topic", topic, "--from-beginning", *at, "--group", group, "--max-messages", "3"
    )
    assert group.encode() in tool("consumer-groups", "--list", *at).stdout.splitlines()
    assert b"LAG" in tool("consumer-groups", "--describe", "--group", group, *at).stdout
    reset = ("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert tool("consumer-groups", *reset, *at).returncode == 0
    again = tool("console-consumer", "--topic", topic, *at, "--group", group, "--max-messages", "3")
    assert len(again.stdout.splitlines()) == 3
    assert tool("topics", "--delete", "--topic", topic, *at).returncode == 0


def test_typed_lines_are_prompted_for_and_sent_at_once(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, at = new_topic("typed"), ("--bootstrap-server", bootstrap)
    reader = start("console-consumer", "--topic", topic, "--from-beginning", *at)
    master, slave = pty.openpty()
    writer = start("console-producer", "--topic", topic, *at, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""

    def screen(wanted: bytes) -> bool:
        nonlocal shown
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 4096)
        return wanted in shown

    try:
        eventually(lambda: screen(b">"), PATIENCE_S, "there is no prompt")
        os.write(master, "grüß dich\n".encode())
        assert lines_of(reader, 1) == ["grüß dich".encode()]
        shown = shown.replace(b">", b"", 1)
        eventually(lambda: screen(b">"), PATIENCE_S, "there is no second prompt")
        os.write(master, b"\x04")  # Ctrl-D
        assert writer.wait(PATIENCE_S) == 0
    finally:
        ended([reader, writer])
        os.close(master)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_consumer_in_order(
    bootstrap: str, new_topic: CreateTopic, number: signal.Signals
) -> None:
    """It commits, leaves the group and says how far it came."""
    topic, group, at = new_topic("stopped"), unique("group"), ("--bootstrap-server", bootstrap)
    tool("console-producer", "--topic", topic, *at, stdin=b"a\nb\nc\n")
    reader = start("console-consumer", "--topic", topic, "--from-beginning", "--group", group, *at)
    assert lines_of(reader, 3) == [b"a", b"b", b"c"]
    reader.send_signal(number)
    _, said = reader.communicate(timeout=PATIENCE_S)
    assert (reader.returncode, said) == (128 + number, b"Processed a total of 3 messages\n")
    described = tool("consumer-groups", "--describe", "--group", group, *at)
    assert b"has no active members" in described.stderr
    assert described.stdout.decode().split("\n")[2].split()[:6] == [group, topic, "0", "3", "3", "0"]


def test_the_consumer_ends_when_nobody_reads_it(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, at = new_topic("piped"), ("--bootstrap-server", bootstrap)
    tool(
        "console-producer",
        "--topic",
        topic,
        *at,
        stdin=b"".join(b"line %d\n" % number for number in range(50)),
    )
    reader = start("console-consumer", "--topic", topic, "--from-beginning", *at)
    assert lines_of(reader, 2) == [b"line 0", b"line 1"]
    assert reader.stdout is not None and reader.stderr is not None
    reader.stdout.close()
    assert reader.wait(PATIENCE_S) == 0
    assert b"Unable to write to standard out, closing consumer.\n" in reader.stderr.read()
    ended([reader])


def test_a_limit_commits_only_what_was_printed(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group, at = new_topic("limited"), unique("group"), ("--bootstrap-server", bootstrap)
    tool("console-producer", "--topic", topic, *at, stdin=b"".join(b"%d\n" % number for number in range(20)))
    args = ("--topic", topic, "--group", group, "--from-beginning", *at)
    assert tool("console-consumer", *args, "--max-messages", "7").stdout.split() == [
        b"%d" % n for n in range(7)
    ]
    rest = tool("console-consumer", *args, "--max-messages", "13").stdout.split()
    assert rest == [b"%d" % number for number in range(7, 20)]


def test_a_timeout_ends_the_consumer(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("idle")
    done = tool("console-consumer", "--topic", topic, "--bootstrap-server", bootstrap, "--timeout-ms", "300")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"Processed a total of 0 messages\n")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_written_and_read(bootstrap: str, new_topic: CreateTopic, codec: str) -> None:
    topic, at = new_topic("codec"), ("--bootstrap-server", bootstrap)
    text = b"".join(b"again and again the same words, %d\n" % number for number in range(400))
    assert (
        tool("console-producer", "--topic", topic, *at, "--compression-codec", codec, stdin=text).returncode
        == 0
    )
    read = tool("console-consumer", "--topic", topic, *at, "--from-beginning", "--max-messages", "400")
    assert read.stdout == text


def test_a_record_that_is_refused_is_an_error(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, at = new_topic("small", 1, **{"max.message.bytes": "1000"}), ("--bootstrap-server", bootstrap)
    done = tool("console-producer", "--topic", topic, *at, stdin=b"x" * 5_000 + b"\n")
    assert done.returncode == 1
    assert b"Error when sending message to topic" in done.stderr
    assert b"Traceback" not in done.stderr
