"""Python's side of Kafka's types: annotations and default values."""

from generator.schema import Field

HINTS = {
    "bool": "bool",
    "float64": "float",
    "string": "str",
    "bytes": "bytes",
    "records": "bytes | bytearray | memoryview",
    "uuid": "bytes",
}


def hint(f: Field) -> str:
    """Annotation of a field."""
    text = f.struct.name if f.struct else HINTS.get(f.type, "int")
    if f.is_array:
        text = f"list[{text}]"
    return f"{text} | None" if f.is_nullable else text


def is_unset(f: Field) -> bool:
    """Whether the default must be made anew for each instance."""
    return f.default == [] or f.default is ...


def default_text(f: Field, *, fresh: bool) -> str:
    """Default value as source text: as a parameter's default, or `fresh` for a new instance."""
    if is_unset(f):
        if not fresh:
            return "UNSET"
        return f"{f.struct.name}()" if f.struct and not f.is_array else "[]"
    if f.type == "uuid" and not f.is_array and f.default is not None:
        return "ZERO"
    if isinstance(f.default, str):
        return f'"{f.default}"'
    return repr(f.default)
