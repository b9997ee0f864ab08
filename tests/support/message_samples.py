"""Random instances of any generated message, built from `messages/_schema.py` alone."""

from importlib import import_module
from random import Random
from typing import Any

from odradek.wire.messages._schema import MESSAGES, FieldInfo, MessageInfo
from odradek.wire.primitives import Message, Struct

INT_BITS = {
    "int8": (8, True),
    "int16": (16, True),
    "uint16": (16, False),
    "int32": (32, True),
    "uint32": (32, False),
    "int64": (64, True),
}
LETTERS = "abcXYZ019._- äßŁ中日𝄞\0"
UNKNOWN_TAG_MIN = 100


def message_class(name: str) -> type[Message]:
    module = import_module(f"odradek.wire.messages.{MESSAGES[name].module}")
    return getattr(module, name)  # type: ignore[no-any-return]


def all_versions() -> list[tuple[str, int]]:
    """Every message at every version."""
    return [
        (name, version)
        for name, info in MESSAGES.items()
        for version in range(info.versions[0], info.versions[1] + 1)
    ]


def within(versions: tuple[int, int], version: int) -> bool:
    return versions[0] <= version <= versions[1]


class Sampler:
    """`size` bounds the length of arrays; 0 gives the smallest messages."""

    def __init__(self, rng: Random, *, size: int = 3, unknown_tags: bool = True) -> None:
        self.rng = rng
        self.size = size
        self.unknown_tags = unknown_tags

    def message(self, name: str, version: int) -> Any:
        info = MESSAGES[name]
        return self.struct(info, name, version)

    def struct(self, info: MessageInfo, name: str, version: int) -> Struct:
        cls = getattr(import_module(f"odradek.wire.messages.{info.module}"), name)
        values = {
            field.name: self.field(info, field, version)
            for field in info.structs[name]
            if within(field.versions, version)
            and not (within(field.tagged, version) and self.rng.random() < 0.4)
        }
        if self.unknown_tags and version >= info.flexible_from and self.rng.random() < 0.3:
            values["unknown_tagged_fields"] = self.tags()
        return cls(**values)  # type: ignore[no-any-return]

    def tags(self) -> dict[int, bytes]:
        tags = sorted(self.rng.sample(range(UNKNOWN_TAG_MIN, 100_000), self.rng.randint(1, 3)))
        return {tag: self.rng.randbytes(self.rng.randint(0, 5)) for tag in tags}

    def field(self, info: MessageInfo, field: FieldInfo, version: int) -> Any:
        if within(field.nullable, version) and self.rng.random() < 0.25:
            return None
        if field.is_array:
            count = self.rng.randint(0, self.size)
            return [self.value(info, field, version) for _ in range(count)]
        return self.value(info, field, version)

    def value(self, info: MessageInfo, field: FieldInfo, version: int) -> Any:
        rng = self.rng
        if field.is_struct:
            return self.struct(info, field.type, version)
        if field.type in INT_BITS:
            return self.integer(*INT_BITS[field.type])
        if field.type == "bool":
            return rng.random() < 0.5
        if field.type == "string":
            length = rng.choice((0, 1, 3, 10, 150)) if self.size else 0
            return "".join(rng.choices(LETTERS, k=length))
        if field.type == "uuid":
            return rng.randbytes(16)
        if field.type == "float64":
            return rng.choice((0.0, -0.0, 1.5, -1e300, float("inf")))
        return rng.randbytes(rng.choice((0, 1, 5, 200)) if self.size else 0)

    def integer(self, bits: int, signed: bool) -> int:
        low = -(1 << bits - 1) if signed else 0
        high = (1 << bits - signed) - 1
        return self.rng.choice((0, 1, low, high, self.rng.randint(low, high)))
