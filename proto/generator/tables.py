"""The text of the two tables over all messages: `_registry` for the node, `_schema` for tests and tools."""

from collections.abc import Iterator

from generator.modules import HEADER
from generator.schema import Field, MessageSpec, StructSpec, Versions, snake_case


def registry_text(messages: list[MessageSpec]) -> str:
    requests = sorted((m for m in messages if m.kind == "request"), key=lambda m: m.api_key)
    lines = [
        HEADER + '"""All APIs: keys, versions, listeners. Light on purpose: no message is imported."""\n',
        "from enum import IntEnum",
        "from typing import NamedTuple\n\n",
        "class ApiInfo(NamedTuple):",
        "    name: str",
        "    module: str",
        '    """Module of the request and response, below `odradek.wire.messages`."""',
        "    min_version: int",
        "    max_version: int",
        "    stable_max_version: int",
        '    """Below `max_version` where Kafka still calls its latest version unstable."""',
        "    flexible_from: int",
        '    """32767 for an API without flexible versions."""',
        "    listeners: tuple[str, ...]",
        '    """Kinds of nodes that serve it: `broker`, `controller`."""\n\n',
        "class ApiKey(IntEnum):",
    ]
    lines += [f"    {snake_case(api_name(m)).upper()} = {m.api_key}" for m in requests]
    lines += ["\n", "APIS: dict[int, ApiInfo] = {"]
    for m in requests:
        high = m.versions.high
        stable = high - 1 if m.unstable_latest else high
        lines.append(
            f'    {m.api_key}: ApiInfo("{api_name(m)}", "{m.module}", {m.versions.low}, {high}, {stable}, '
            f"{m.flexible_from}, {tuple(sorted(m.listeners))!r}),"
        )
    return "\n".join([*lines, "}"]) + "\n"


def api_name(message: MessageSpec) -> str:
    return message.name.removesuffix("Request")


def schema_text(messages: list[MessageSpec]) -> str:
    lines = [
        HEADER + '"""What every message consists of. For tests and tools; the node never imports it."""\n',
        "from typing import Any, NamedTuple\n\n",
        "class FieldInfo(NamedTuple):",
        "    name: str",
        "    type: str",
        '    """Kafka\'s simple type, or the name of the structure\'s class; of the element for arrays."""',
        "    is_array: bool",
        "    is_struct: bool",
        "    versions: tuple[int, int]",
        '    """First and last version, both inclusive; (0, -1) for none."""',
        "    nullable: tuple[int, int]",
        "    tagged: tuple[int, int]",
        "    tag: int",
        "    ignorable: bool",
        "    default: Any\n\n",
        "class MessageInfo(NamedTuple):",
        "    module: str",
        "    kind: str",
        "    java_class: str",
        "    versions: tuple[int, int]",
        "    flexible_from: int",
        "    structs: dict[str, tuple[FieldInfo, ...]]",
        '    """The message itself first, then its nested structures."""\n\n',
        "MESSAGES: dict[str, MessageInfo] = {",
    ]
    for m in messages:
        lines += message_lines(m)
    return "\n".join([*lines, "}"]) + "\n"


def message_lines(m: MessageSpec) -> Iterator[str]:
    yield f'    "{m.name}": MessageInfo('
    yield f'        "{m.module}", "{m.kind}", "{m.java_class}", {pair(m.versions)}, {m.flexible_from}, {{'
    for struct in m.structs:
        yield from struct_lines(struct)
    yield "        },"
    yield "    ),"


def struct_lines(struct: StructSpec) -> Iterator[str]:
    yield f'            "{struct.name}": ('
    for f in struct.fields:
        yield f"                {field_text(f)},"
    yield "            ),"


def field_text(f: Field) -> str:
    default = "None" if f.struct and f.default is ... else repr(f.default)
    if f.struct and not f.is_array and f.default is ...:
        default = "..."
    type_ = f.struct.name if f.struct else f.type
    return (
        f'FieldInfo("{f.name}", "{type_}", {f.is_array}, {f.struct is not None}, {pair(f.versions)}, '
        f"{pair(f.nullable)}, {pair(f.tagged)}, {f.tag}, {f.ignorable}, {default})"
    )


def pair(versions: Versions) -> str:
    return f"({versions.low}, {versions.high})"
