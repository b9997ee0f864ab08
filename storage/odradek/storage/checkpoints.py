"""The small text files of a data directory, in Kafka's formats. Parsing is pure; callers read and write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from odradek.wire.uuid import uuid_from_string, uuid_to_string

TopicPartition = tuple[str, int]


class CheckpointError(ValueError):
    """A checkpoint file does not parse; the text says which line."""


def _lines(text: str) -> list[str]:
    """The entry lines after `0` (version) and the count, which must be right: it tells a torn file."""
    lines = text.split("\n")
    if len(lines) < 3 or lines[0].strip() != "0":
        raise CheckpointError(f"unknown version {lines[0][:20]!r}")
    if lines[-1]:
        raise CheckpointError(f"the last line, {lines[-1][:80]!r}, is cut off")
    entries = [line for line in lines[2:] if line]
    if not lines[1].strip().isdigit() or int(lines[1]) != len(entries):
        raise CheckpointError(f"{lines[1][:20]!r} entries promised, {len(entries)} there")
    return entries


def parse_offsets(text: str) -> dict[TopicPartition, int]:
    """`recovery-point-offset-checkpoint` and its like: lines of topic, partition, offset."""
    offsets: dict[TopicPartition, int] = {}
    for number, line in enumerate(_lines(text), 3):
        fields = line.split()
        try:
            topic, partition, offset = fields
            offsets[topic, int(partition)] = int(offset)
        except ValueError:
            raise CheckpointError(f"line {number}: {line[:80]!r}") from None
    return offsets


def render_offsets(offsets: Mapping[TopicPartition, int]) -> str:
    lines = [f"{topic} {partition} {offset}\n" for (topic, partition), offset in sorted(offsets.items())]
    return f"0\n{len(lines)}\n{''.join(lines)}"


def parse_pairs(text: str) -> list[tuple[int, int]]:
    """`leader-epoch-checkpoint`: lines of epoch and start offset."""
    pairs = []
    for number, line in enumerate(_lines(text), 3):
        try:
            epoch, start = map(int, line.split())
        except ValueError:
            raise CheckpointError(f"line {number}: {line[:80]!r}") from None
        if epoch < 0 or start < 0:
            raise CheckpointError(f"line {number}: {line[:80]!r} is negative")
        pairs.append((epoch, start))
    return pairs


def render_pairs(pairs: Iterable[tuple[int, int]]) -> str:
    lines = [f"{epoch} {start}\n" for epoch, start in pairs]
    return f"0\n{len(lines)}\n{''.join(lines)}"


def parse_partition_metadata(text: str) -> bytes:
    """The topic id in `partition.metadata`."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    if values.get("version") != "0" or "topic_id" not in values:
        raise CheckpointError("no `version: 0` and `topic_id`")
    try:
        return uuid_from_string(values["topic_id"].strip())
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def render_partition_metadata(topic_id: bytes) -> str:
    return f"version: 0\ntopic_id: {uuid_to_string(topic_id)}"


def parse_properties(text: str) -> dict[str, str]:
    """`meta.properties`: Java properties without continuation lines; `\\:` and `\\=` are unescaped."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#!":
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise CheckpointError(f"{line[:80]!r} is not key=value")
        values[key.strip()] = value.strip().replace("\\:", ":").replace("\\=", "=").replace("\\\\", "\\")
    return values


def render_properties(values: Mapping[str, str]) -> str:
    return "#\n" + "".join(f"{key}={value}\n" for key, value in sorted(values.items()))


def parse_clean_shutdown(text: str) -> int:
    """The broker epoch in `.kafka_cleanshutdown`; -1 if it is not there (older Kafka left the file empty)."""
    try:
        epoch = json.loads(text)["brokerEpoch"]
    except (ValueError, KeyError, TypeError):
        return -1
    return epoch if isinstance(epoch, int) else -1


def parse_registration(text: str) -> tuple[str, int]:
    """(boot id, broker epoch) in `odradek-registration`; ("", -1) for what does not parse."""
    try:
        values = json.loads(text)
        boot_id, epoch = values["bootId"], values["brokerEpoch"]
    except (ValueError, KeyError, TypeError):
        return "", -1
    return (boot_id, epoch) if isinstance(boot_id, str) and isinstance(epoch, int) else ("", -1)


def render_registration(boot_id: str, broker_epoch: int) -> str:
    return json.dumps({"version": 0, "bootId": boot_id, "brokerEpoch": broker_epoch}, separators=(",", ":"))


def render_clean_shutdown(broker_epoch: int) -> str:
    return json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":"))
