"""kcat, the command-line client of librdkafka."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from interop.cluster import PATIENCE_S, unique

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")

CreateTopic = Callable[..., str]


def kcat(bootstrap: str, *args: str, stdin: bytes = b"") -> bytes:
    """What kcat prints."""
    done = subprocess.run(
        ["kcat", "-b", bootstrap, *args], input=stdin, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_lines_in_lines_out(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("lines")
    lines = b"".join(b"line %d\n" % number for number in range(500))
    kcat(bootstrap, "-P", "-t", topic, stdin=lines)
    assert kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q") == lines


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec(bootstrap: str, new_topic: CreateTopic, codec: str) -> None:
    topic = new_topic("codec")
    lines = b"".join(b"the same words over and over, number %d\n" % number for number in range(300))
    kcat(bootstrap, "-P", "-t", topic, "-z", codec, stdin=lines)
    assert kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q") == lines


def test_keys_headers_and_nulls(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("fields")
    kcat(bootstrap, "-P", "-t", topic, "-K", ":", "-Z", "-H", "trace=7", stdin=b"key:value\nkey:\n")
    printed = kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k|%S|%h|%o\n")
    assert printed == b"key|5|trace=7|0\nkey|-1|trace=7|1\n"


def test_metadata(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("listed", 3)
    described = json.loads(kcat(bootstrap, "-L", "-J", "-t", topic))
    assert [broker["name"] for broker in described["brokers"]] == [bootstrap]
    [entry] = described["topics"]
    assert (entry["topic"], len(entry["partitions"])) == (topic, 3)


def test_offsets_by_time(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("query")
    before = int(time.time() * 1000)
    kcat(bootstrap, "-P", "-t", topic, stdin=b"a\nb\nc\n")
    assert re.search(rb"\[0\] offset 0$", kcat(bootstrap, "-Q", "-t", f"{topic}:0:{before - 1000}").strip())
    assert re.search(rb"\[0\] offset 3$", kcat(bootstrap, "-Q", "-t", f"{topic}:0:-1").strip())


def test_a_balanced_group(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group = new_topic("balanced", 2), unique("group")
    for part in ("0", "1"):
        kcat(bootstrap, "-P", "-t", topic, "-p", part, stdin=b"in %s\n" % part.encode())
    printed = kcat(bootstrap, "-G", group, "-X", "auto.offset.reset=earliest", "-c", "2", "-q", topic)
    assert sorted(printed.split(b"\n")) == [b"", b"in 0", b"in 1"]
