"""`kafka-log-dirs` on answers that a healthy node does not give."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.cli import log_dirs
from odradek.cli.options import ToolError


def answer(*results: dict[str, Any]) -> dict[str, Any]:
    return {"error_code": 0, "results": list(results)}


def replica(index: int, *, future: bool = False) -> dict[str, Any]:
    return {
        "partition_index": index,
        "partition_size": 7 * index,
        "offset_lag": index,
        "is_future_key": future,
    }


def test_a_failed_directory_is_named_with_kafkas_exception() -> None:
    failed = {"error_code": 56, "log_dir": "/gone", "topics": []}
    fine = {"error_code": 0, "log_dir": "/fine", "topics": []}
    assert log_dirs.directories(answer(failed, fine), set()) == [
        {
            "partitions": [],
            "error": "org.apache.kafka.common.errors.KafkaStorageException",
            "logDir": "/gone",
        },
        {"partitions": [], "error": None, "logDir": "/fine"},
    ]


def test_replicas_on_their_way_are_told_and_other_topics_left_out() -> None:
    topics = [
        {"name": "b", "partitions": [replica(0)]},
        {"name": "a", "partitions": [replica(2, future=True), replica(1)]},
    ]
    (found,) = log_dirs.directories(answer({"error_code": 0, "log_dir": "/d", "topics": topics}), {"a"})
    assert found["partitions"] == [
        {"partition": "a-1", "size": 7, "offsetLag": 1, "isFuture": False},
        {"partition": "a-2", "size": 14, "offsetLag": 2, "isFuture": True},
    ]


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(ToolError):
        log_dirs.directories({"error_code": 31, "results": []}, set())


@pytest.mark.parametrize("text", ["a", "1,b", "-1", "1.5"])
def test_a_list_of_brokers_has_numbers(text: str) -> None:
    with pytest.raises(ToolError, match="broker-list"):
        log_dirs.broker_ids(text)
    assert log_dirs.broker_ids("2,,1") == {1, 2}


def test_describe_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert log_dirs.main(["--bootstrap-server", "localhost:1"]) == 1
    assert 'Missing required argument "[describe]"' in capsys.readouterr().err
