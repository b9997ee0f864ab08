"""The message definitions: the JSON inside Kafka's jars as plain objects, with Kafka's rules applied.

The rules (what a default is, which versions are nullable, tagged or flexible) follow Kafka's own generator,
`org.apache.kafka.message.FieldSpec` and its neighbours.
"""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

NEVER = 32767
FIXED = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
"""Types of fixed size and their `struct` codes."""
VARIABLE = {"string", "bytes", "records"}
KINDS = {"request", "response", "header", "data", "coordinator-key", "coordinator-value"}
"""Definitions of Kafka's metadata records are left out: our metadata log has a format of its own."""


FIELD_KEYS = {
    *("name", "type", "fields", "versions", "nullableVersions", "taggedVersions", "tag", "flexibleVersions"),
    *("default", "ignorable", "about", "entityType", "mapKey", "zeroCopy"),
}
"""What a field's definition may say. `about` to `zeroCopy` change nothing in our code."""


@dataclass(frozen=True)
class Versions:
    """A closed range of versions; empty when `low > high`."""

    low: int
    high: int

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high

    def __bool__(self) -> bool:
        return self.low <= self.high

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.low, self.high + 1))

    def __str__(self) -> str:
        if not self:
            return "none"
        if self.high == NEVER:
            return f"{self.low}+"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @classmethod
    def parse(cls, text: str | None, default: "Versions") -> "Versions":
        """`none`, `3`, `0-2` or `4+`."""
        if text is None:
            return default
        if text == "none":
            return NONE
        if text.endswith("+"):
            return cls(int(text[:-1]), NEVER)
        low, _, high = text.partition("-")
        return cls(int(low), int(high or low))


NONE = Versions(0, -1)


@dataclass
class Field:
    name: str
    """snake_case of Kafka's name."""
    type: str
    """Type of the field, or of its elements."""
    is_array: bool
    struct: "StructSpec | None"
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int
    flexible: Versions
    ignorable: bool
    default: Any
    """A Python value: None for null, [] for arrays, and `...` for a fresh structure."""

    @property
    def is_nullable(self) -> bool:
        return bool(self.nullable)

    @property
    def is_fixed(self) -> bool:
        return not self.is_array and self.type in FIXED


@dataclass
class StructSpec:
    kafka_name: str
    name: str
    """Name of the Python class; set when all structures of a module are known."""
    versions: Versions
    keeps_unknown: bool
    """Whether there are versions in which it may carry tagged fields that we do not know."""
    fields: list[Field] = field(default_factory=list)


@dataclass
class MessageSpec:
    name: str
    kind: str
    module: str
    api_key: int
    versions: Versions
    flexible: Versions
    unstable_latest: bool
    listeners: tuple[str, ...]
    root: StructSpec
    structs: list[StructSpec]
    """Root first, then the nested ones in the order of their appearance."""
    package: str
    """Java package of the class that Kafka's generator makes of the same definition."""

    @property
    def flexible_from(self) -> int:
        return self.flexible.low if self.flexible else NEVER

    @property
    def java_class(self) -> str:
        suffix = "Data" if self.kind in ("request", "response", "header") else ""
        return f"{self.package}.{self.name}{suffix}"


def snake_case(name: str) -> str:
    """`ThrottleTimeMs` to `throttle_time_ms`; KRaft is one word."""
    name = name.replace("KRaft", "Kraft")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def parse_default(type_: str, is_array: bool, text: Any) -> Any:
    """Kafka's default of a field as a Python value (`FieldSpec.fieldDefault`)."""
    text = "" if text is None else str(text)
    if text == "null":
        return None
    if is_array:
        return []
    if type_ == "bool":
        return text.lower() == "true"
    if type_ == "string":
        return text
    if type_ in ("bytes", "records"):
        return b""
    if type_ == "uuid":
        return bytes(16)
    if type_ == "float64":
        return float(text or 0)
    return int(text or "0", 0) if type_ in FIXED else ...


class _Parser:
    """One definition; collects the structures it meets."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.flexible = Versions.parse(definition["flexibleVersions"], NONE)
        self.structs: dict[str, StructSpec] = {}
        self.common = {s["name"]: s for s in definition.get("commonStructs", ())}

    def struct(self, name: str, versions: Versions, fields: Iterable[dict[str, Any]]) -> StructSpec:
        if name in self.structs:
            raise ValueError(f"structure {name} is defined twice")
        spec = self.structs[name] = StructSpec(name, name, versions, bool(self.flexible))
        spec.fields = [self.field(f) for f in fields]
        return spec

    def field(self, f: dict[str, Any]) -> Field:
        if not f.keys() <= FIELD_KEYS:
            raise ValueError(f"field {f['name']} says what we do not know: {f.keys() - FIELD_KEYS}")
        is_array = f["type"].startswith("[]")
        type_ = f["type"].removeprefix("[]")
        tagged = Versions.parse(f.get("taggedVersions"), NONE)
        versions = Versions.parse(f.get("versions"), tagged)
        struct = None
        if type_ not in FIXED and type_ not in VARIABLE:
            struct = self.nested(type_, versions, f)
        # Records default to null in Kafka, nullable or not; ours to empty where null cannot be written.
        null_records = type_ == "records" and bool(f.get("nullableVersions"))
        return Field(
            name=snake_case(f["name"]),
            type=type_,
            is_array=is_array,
            struct=struct,
            versions=versions,
            nullable=Versions.parse(f.get("nullableVersions"), NONE),
            tagged=tagged,
            tag=f.get("tag", -1),
            flexible=Versions.parse(f.get("flexibleVersions"), self.flexible),
            ignorable=bool(f.get("ignorable", False)),
            default=parse_default(type_, is_array, "null" if null_records else f.get("default")),
        )

    def nested(self, name: str, versions: Versions, f: dict[str, Any]) -> StructSpec:
        if "fields" in f:
            return self.struct(name, versions, f["fields"])
        if name not in self.common:
            raise ValueError(f"field {f['name']} has the unknown type {name}")
        if name not in self.structs:
            common = self.common[name]
            self.struct(name, Versions.parse(common["versions"], NONE), common["fields"])
        return self.structs[name]


def parse_message(definition: dict[str, Any], package: str) -> MessageSpec | None:
    """None for definitions that only reserve the key of a removed API, and for kinds we leave out."""
    versions = Versions.parse(definition["validVersions"], NONE)
    if not versions or definition["type"] not in KINDS:
        return None
    parser = _Parser(definition)
    name = definition["name"]
    root = parser.struct(name, versions, definition["fields"])
    is_api = definition["type"] in ("request", "response")
    return MessageSpec(
        name=name,
        kind=definition["type"],
        module=snake_case(re.sub("(Request|Response)$", "", name) if is_api else name),
        api_key=definition.get("apiKey", -1),
        versions=versions,
        flexible=parser.flexible,
        unstable_latest=bool(definition.get("latestVersionUnstable", False)),
        listeners=tuple(definition.get("listeners", ())),
        root=root,
        structs=list(parser.structs.values()),
        package=package,
    )


PACKAGES = {
    "kafka-group-coordinator": "org.apache.kafka.coordinator.group.generated",
    "kafka-transaction-coordinator": "org.apache.kafka.coordinator.transaction.generated",
    "kafka-share-coordinator": "org.apache.kafka.coordinator.share.generated",
    "kafka-raft": "org.apache.kafka.raft.generated",
    "kafka-storage": "org.apache.kafka.server.log.remote.metadata.storage.generated",
}


def load_jar(path: str) -> list[MessageSpec]:
    """All definitions in a jar, sorted by name."""
    artifact = re.sub(r"-\d[^/]*\.jar$", "", path.rpartition("/")[2])
    package = PACKAGES.get(artifact, "org.apache.kafka.common.message")
    messages = []
    with zipfile.ZipFile(path) as jar:
        for entry in sorted(jar.namelist()):
            if entry.endswith(".json") and "message/" in entry:
                lines = jar.read(entry).decode().splitlines()
                text = "\n".join(line for line in lines if not line.lstrip().startswith("//"))
                message = parse_message(json.loads(text), package)
                if message is not None:
                    messages.append(message)
    return messages
