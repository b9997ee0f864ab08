"""The generator, on definitions of our own: needs neither Maven nor Kafka's jars."""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from generator.__main__ import generate
from generator.schema import NONE, Versions, load_jar, parse_default, parse_message, snake_case
from odradek.wire.errors import MalformedMessage
from odradek.wire.primitives import UnsupportedVersion

DEFINITION = """
// A comment in front of everything.
{
  "apiKey": 1000, "type": "request", "name": "ProbeRequest", "listeners": ["broker"],
  // Version 1 is flexible.
  "validVersions": "0-2", "flexibleVersions": "1+", "latestVersionUnstable": true,
  "fields": [
    { "name": "OldName", "type": "string", "versions": "0+", "flexibleVersions": "none", "about": "x" },
    { "name": "Limit", "type": "int32", "versions": "1+", "default": "0x7fffffff", "ignorable": true },
    { "name": "Spots", "type": "[]Spot", "versions": "0+", "nullableVersions": "1+" },
    { "name": "Cursor", "type": "Spot", "versions": "1+", "nullableVersions": "1+", "default": "null" },
    { "name": "Best", "type": "Spot", "versions": "2+", "nullableVersions": "2+", "taggedVersions": "2+", "tag": 1,
      "default": "null" },
    { "name": "Ratio", "type": "float64", "versions": "2+", "taggedVersions": "2+", "tag": 0, "default": "0.5" }
  ],
  "commonStructs": [
    { "name": "Spot", "versions": "0+", "fields": [
      { "name": "Id", "type": "uuid", "versions": "0+" },
      { "name": "Depths", "type": "[]int16", "versions": "1+" }
    ]}
  ]
}
"""


@pytest.fixture
def jar(tmp_path: Path) -> str:
    path = tmp_path / "kafka-clients-9.9.jar"
    removed = {"apiKey": 4, "type": "request", "name": "GoneRequest", "validVersions": "none"}
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("common/message/ProbeRequest.json", DEFINITION)
        out.writestr("common/message/GoneRequest.json", json.dumps(removed))
        out.writestr("common/metadata/Other.json", "{}")
    return str(path)


@pytest.fixture
def probe(jar: str) -> Iterator[ModuleType]:
    module = ModuleType("probe")
    sys.modules["probe"] = module
    exec(generate([jar])["probe.py"], module.__dict__)
    yield module
    del sys.modules["probe"]


def test_definitions_are_read_from_the_jar_without_those_of_removed_apis(jar: str) -> None:
    (message,) = load_jar(jar)
    assert (message.name, message.module, message.flexible_from) == ("ProbeRequest", "probe", 1)
    assert message.java_class == "org.apache.kafka.common.message.ProbeRequestData"


def test_versions_of_equal_shape_share_their_functions(probe: ModuleType) -> None:
    names = [reader.__name__ for reader in probe.ProbeRequest.READERS]
    assert names == ["_read_ProbeRequest_v0", "_read_ProbeRequest_v1", "_read_ProbeRequest_v2"]
    assert not hasattr(probe, "_read_Spot_v2")


def test_generated_bytes_are_those_of_kafkas_encoding(probe: ModuleType) -> None:
    spot = probe.Spot(bytes(15) + b"\7")
    tail = "00" * 15 + "07"
    request = probe.ProbeRequest("n", spots=[spot])
    assert request.encode(0).hex() == "00016e00000001" + tail
    assert request.encode(1).hex() == "00016e7fffffff02" + tail + "0100ff00"
    request.cursor = probe.Spot(bytes(16), [3])
    request.best = probe.Spot(bytes(16))
    request.ratio = 0.0
    data = request.encode(2)
    assert data.hex().endswith("01" + "00" * 16 + "02000300020008" + "00" * 8 + "011301" + "00" * 16 + "0100")
    assert probe.ProbeRequest.decode(data, 2) == request


def test_generated_checks_follow_the_definition(probe: ModuleType) -> None:
    assert probe.ProbeRequest(limit=3).encode(0) == probe.ProbeRequest().encode(0)
    with pytest.raises(UnsupportedVersion, match=r"ProbeRequest\.best is set, but version 1"):
        probe.ProbeRequest(best=probe.Spot()).encode(1)
    with pytest.raises(UnsupportedVersion, match=r"Spot\.depths is set, but version 0"):
        probe.ProbeRequest(spots=[probe.Spot(depths=[1])]).encode(0)
    with pytest.raises(ValueError, match=r"ProbeRequest\.spots is None"):
        probe.ProbeRequest(spots=None).encode(0)
    with pytest.raises(MalformedMessage, match="null"):
        probe.ProbeRequest.decode(b"\0\0\xff\xff\xff\xff", 0)


def test_a_tagged_structure_may_be_null_by_its_own_marker(probe: ModuleType) -> None:
    data = probe.ProbeRequest().encode(2)[:-1] + b"\1\1\1\0"
    assert probe.ProbeRequest.decode(data, 2).best is None


def test_the_registry_marks_the_unstable_latest_version(jar: str) -> None:
    text = generate([jar])["_registry.py"]
    assert "PROBE = 1000" in text
    assert '1000: ApiInfo("Probe", "probe", 0, 2, 1, 1, (\'broker\',))' in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ThrottleTimeMs", "throttle_time_ms"),
        ("KRaftVersion", "kraft_version"),
        ("IsKRaftController", "is_kraft_controller"),
        ("SomeURLPart", "some_url_part"),
        ("Id", "id"),
    ],
)
def test_names_become_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@pytest.mark.parametrize(
    ("text", "low", "high"), [("3", 3, 3), ("0-2", 0, 2), ("4+", 4, 32767), ("none", 0, -1), (None, 0, -1)]
)
def test_version_ranges(text: str | None, low: int, high: int) -> None:
    versions = Versions.parse(text, NONE)
    assert (versions.low, versions.high) == (low, high)


@pytest.mark.parametrize(
    ("type_", "is_array", "text", "expected"),
    [
        ("int32", False, "0x7fffffff", 0x7FFFFFFF),
        ("int64", False, -1, -1),
        ("bool", False, "true", True),
        ("string", False, "null", None),
        ("string", False, None, ""),
        ("int32", True, None, []),
        ("int32", True, "null", None),
    ],
)
def test_defaults_follow_kafkas_rules(type_: str, is_array: bool, text: Any, expected: Any) -> None:
    assert parse_default(type_, is_array, text) == expected


def test_what_the_generator_does_not_understand_stops_it() -> None:
    definition = {"type": "data", "name": "X", "validVersions": "0", "flexibleVersions": "none"}
    field = {"name": "A", "type": "int8", "versions": "0+"}
    with pytest.raises(ValueError, match="novelty"):
        parse_message({**definition, "fields": [{**field, "novelty": 1}]}, "p")
    with pytest.raises(ValueError, match="unknown type Nowhere"):
        parse_message({**definition, "fields": [{**field, "type": "Nowhere"}]}, "p")
