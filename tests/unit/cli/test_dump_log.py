"""`kafka-dump-log` where no JVM is needed: metadata records, options, and files that are not what their names say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from odradek.cli import dump_log
from odradek.metadata.records import RemoveTopicRecord, TopicRecord
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
ID = bytes(range(16))


def write(directory: Path, *items: tuple[bytes | None, bytes | None]) -> Path:
    log = Log.open(RealDisk(), str(directory / "t-0"), LogConfig(), topic="t", partition=0, wall_ms=NOW)
    log.append_as_leader(memoryview(simple_batch(items, base_offset=0, timestamp=NOW)), 0, NOW)
    log.close()
    return Path(log.dir) / f"{0:020}.log"


def test_metadata_records_have_kafkas_shape_and_our_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, removed = TopicRecord(name="orders", topic_id=ID), RemoveTopicRecord(topic_id=ID)
    path = write(tmp_path, (None, topic.encode()), (None, b"what?"), (None, removed.encode()))
    assert dump_log.main(["--files", str(path), "--cluster-metadata-decoder"]) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    payloads = [line.partition(" payload: ")[2] for line in lines]
    assert json.loads(payloads[0]) == {
        "type": "TOPIC_RECORD", "version": 0, "data": {"name": "orders", "topicId": "AAECAwQFBgcICQoLDA0ODw"},
    }  # fmt: skip
    assert payloads[1].startswith("Error at 1, skipping. ")
    assert json.loads(payloads[2])["type"] == "REMOVE_TOPIC_RECORD"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], 'Missing required argument "[files]"'),
        (
            ["--value-decoder-class", "acme.Mine"],
            "--value-decoder-class acme.Mine: there is only StringDecoder",
        ),
        (["--offsets-decoder"], "Failed to decode message at offset 0 using the specified decoder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    files = ["--files", str(write(tmp_path, (None, b"v")))] if arguments else ["--deep-iteration"]
    assert dump_log.main([*files, *arguments]) == 1
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    ["00000000000000000000.log", "00000000000000000000.timeindex", "x.log", "x.checkpoint", "none.log"],
)
def test_files_that_are_not_what_their_names_say_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name != "none.log":
        (tmp_path / name).write_bytes(b"no batch of any format" * 10)
    assert dump_log.main(["--files", str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_changed_byte_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, (b"k", b"value"))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert dump_log.main(["--files", str(path)]) == 0
    assert "isvalid: false" in capsys.readouterr().out


def test_a_snapshot_of_producers_that_is_damaged_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{5:020}.snapshot"
    path.write_bytes(b"\0\1\0\0\0\0\0\0\0\0")
    assert dump_log.main(["--files", str(path)]) == 0
    assert "is corrupt" in capsys.readouterr().err
