"""The text of the reading and the writing function of a layout."""

from collections.abc import Iterator
from itertools import groupby

from generator.layout import SIZES, Item, Layout
from generator.pytypes import default_text, hint
from generator.schema import FIXED, Field, StructSpec

RESERVED = {"buf", "pos", "out", "self"}


def indent(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield "    " + line


def local(field: Field) -> str:
    """Name of the local variable for a field."""
    return field.name + "_" if field.name in RESERVED else field.name


def struct_name(codes: list[str]) -> str:
    """Codes of a run as part of an identifier."""
    return "".join(codes).replace("?", "o")


def prefix(item: Item) -> str:
    return ("compact_" if item.compact else "") + ("nullable_" if item.nullable else "")


def is_i32s(item: Item) -> bool:
    """An array of int32 that cannot be null: the one case that is worth functions of its own."""
    return item.field.is_array and item.field.type == "int32" and not item.nullable


def runs(items: list[Item]) -> Iterator[tuple[bool, list[Item]]]:
    """Neighbours of fixed size belong together: one `struct` call reads or writes them all."""
    for fixed, group in groupby(items, key=lambda item: item.field.is_fixed):
        yield fixed, list(group)


class Functions:
    """Emits functions, and remembers the `struct` formats that they need."""

    def __init__(self, zero_copy: bool) -> None:
        self.formats: set[tuple[str, ...]] = set()
        self.set_checks: dict[str, StructSpec] = {}
        """Structures that need a function which tells whether they differ from their default."""
        self.buffer = "memoryview" if zero_copy else "bytes"

    # Reading -------------------------------------------------------------------------------------------

    def read(self, layout: Layout) -> Iterator[str]:
        name = layout.struct.name
        yield f"def _read_{layout.suffix}(buf: {self.buffer}, pos: int) -> tuple[{name}, int]:"
        yield from indent(self.read_body(layout))

    def read_body(self, layout: Layout) -> Iterator[str]:
        for fixed, items in runs(layout.items):
            if fixed:
                yield from self.read_run(items, "pos")
            else:
                for item in items:
                    yield from self.read_item(item, "pos")
        if layout.flexible:
            yield from self.read_tags(layout)
        yield f"return {layout.struct.name}({', '.join(self.arguments(layout))}), pos"

    def arguments(self, layout: Layout) -> list[str]:
        present = layout.present()
        arguments = [
            local(f) if f.name in present else default_text(f, fresh=True) for f in layout.struct.fields
        ]
        if layout.flexible:
            return [*arguments, "_unknown"]
        while arguments and layout.struct.fields[len(arguments) - 1].name not in present:
            arguments.pop()
        return arguments

    def read_run(self, items: list[Item], pos: str) -> Iterator[str]:
        codes = [FIXED[item.field.type] for item in items]
        self.formats.add(tuple(codes))
        names = ", ".join(local(item.field) for item in items)
        targets = names if len(items) > 1 else f"({names},)"
        yield f"{targets} = _unpack_{struct_name(codes)}(buf, {pos})"
        yield f"{pos} += {sum(SIZES[code] for code in codes)}"

    def read_item(self, item: Item, pos: str) -> Iterator[str]:
        f = item.field
        name = local(f)
        if f.is_array:
            yield from self.read_array(item, pos)
        elif item.layout is None:
            yield f"{name}, {pos} = read_{prefix(item)}{f.type}(buf, {pos})"
        elif item.nullable:
            null = f"buf[{pos}] == 0" if item.tagged else f"buf[{pos}] > 127"
            yield f"if {null}:"
            yield f"    {name}: {hint(f)} = None"
            yield f"    {pos} += 1"
            yield "else:"
            yield f"    {name}, {pos} = _read_{item.layout.suffix}(buf, {pos} + 1)"
        else:
            yield f"{name}, {pos} = _read_{item.layout.suffix}(buf, {pos})"

    def read_array(self, item: Item, pos: str) -> Iterator[str]:
        name = local(item.field)
        if is_i32s(item):
            yield f"{name}, {pos} = read_{prefix(item)}i32s(buf, {pos})"
            return
        yield f"_n, {pos} = read_{prefix(item)}array_length(buf, {pos}, {item.element_size_min})"
        if not item.nullable:
            yield f"{name}, {pos} = {self.read_elements(item, pos)}"
            return
        yield "if _n < 0:"
        yield f"    {name}: {hint(item.field)} = None"
        yield "else:"
        yield f"    {name}, {pos} = {self.read_elements(item, pos)}"

    def read_elements(self, item: Item, pos: str) -> str:
        if item.layout is not None:
            return f"read_structs(buf, {pos}, _n, _read_{item.layout.suffix})"
        if item.field.type == "string":
            return f"read_{'compact_' if item.compact else ''}strings(buf, {pos}, _n)"
        if item.field.type == "uuid":
            return f"read_uuids(buf, {pos}, _n)"
        code = FIXED[item.field.type]
        return f'read_ints(buf, {pos}, _n, "{code}", {SIZES[code]})'

    def read_tags(self, layout: Layout) -> Iterator[str]:
        for item in layout.tagged:
            yield f"{local(item.field)}: {hint(item.field)} = {default_text(item.field, fresh=True)}"
        yield "_unknown: dict[int, bytes] | None = None"
        yield "if buf[pos]:"
        yield "    _tags, pos = read_tags(buf, pos)"
        for item in layout.tagged:
            yield from indent(self.read_tag(item))
        yield "    _unknown = unknown_tags(buf, _tags)"
        yield "else:"
        yield "    pos += 1"

    def read_tag(self, item: Item) -> Iterator[str]:
        tag = item.field.tag
        yield f"if {tag} in _tags:"
        yield f"    _at, _end = _tags.pop({tag})"
        if item.field.is_fixed:
            yield from indent(self.read_run([item], "_at"))
        else:
            name = local(item.field)
            for line in self.read_item(item, "_at"):
                yield "    " + line.replace(f"{name}: {hint(item.field)} =", f"{name} =")
        yield "    if _at != _end:"
        yield f"        raise bad_tag({tag})"

    # Writing -------------------------------------------------------------------------------------------

    def write(self, layout: Layout) -> Iterator[str]:
        yield f"def _write_{layout.suffix}(self: {layout.struct.name}, out: bytearray) -> None:"
        yield from indent(self.write_body(layout))

    def write_body(self, layout: Layout) -> Iterator[str]:
        empty = True
        for line in self.write_lines(layout):
            empty = False
            yield line
        if empty:
            yield "pass"

    def write_lines(self, layout: Layout) -> Iterator[str]:
        name = layout.struct.name
        for f in layout.absent:
            if not f.ignorable:
                yield f"if {self.is_set(f)}:"
                yield f'    raise unsupported_field("{name}.{f.name}", "{layout.versions_text}")'
        for fixed, items in runs(layout.items):
            if fixed:
                yield from self.write_run(layout, items, "out")
            else:
                for item in items:
                    yield from self.write_item(layout, item, "out")
        if layout.flexible:
            yield from self.write_tags(layout)
        elif layout.struct.keeps_unknown:
            yield "if self.unknown_tagged_fields:"
            yield f'    raise unsupported_field("{name}.unknown_tagged_fields", "{layout.versions_text}")'

    def write_run(self, layout: Layout, items: list[Item], out: str) -> Iterator[str]:
        codes = [FIXED[item.field.type] for item in items]
        self.formats.add(tuple(codes))
        for item in items:
            if item.field.type == "uuid":
                yield f"if len(self.{item.field.name}) != 16:"
                yield f'    raise bad_uuid("{layout.struct.name}.{item.field.name}")'
        values = ", ".join(f"self.{item.field.name}" for item in items)
        yield f"{out} += _pack_{struct_name(codes)}({values})"

    def write_item(self, layout: Layout, item: Item, out: str) -> Iterator[str]:
        f = item.field
        if f.is_nullable and not item.nullable:
            yield f"if self.{f.name} is None:"
            yield f'    raise null_field("{layout.struct.name}.{f.name}")'
        if is_i32s(item):
            yield f"write_{prefix(item)}i32s({out}, self.{f.name})"
        elif f.is_array:
            yield f"write_{prefix(item)}array_length({out}, self.{f.name})"
            if item.nullable:
                yield f"if self.{f.name} is not None:"
                yield from indent(self.write_elements(item, out))
            else:
                yield from self.write_elements(item, out)
        elif item.layout is None:
            kind = "bytes" if f.type == "records" else f.type
            yield f"write_{prefix(item)}{kind}({out}, self.{f.name})"
        elif item.nullable:
            yield f"if self.{f.name} is None:"
            yield f"    {out}.append({0 if item.tagged else 255})"
            yield "else:"
            yield f"    {out}.append(1)"
            yield f"    _write_{item.layout.suffix}(self.{f.name}, {out})"
        else:
            yield f"_write_{item.layout.suffix}(self.{f.name}, {out})"

    def write_elements(self, item: Item, out: str) -> Iterator[str]:
        f = item.field
        if item.layout is not None:
            yield f"for _{f.name}_item in self.{f.name}:"
            yield f"    _write_{item.layout.suffix}(_{f.name}_item, {out})"
        elif f.type == "string":
            yield f"write_{'compact_' if item.compact else ''}strings({out}, self.{f.name})"
        elif f.type == "uuid":
            yield f"write_uuids({out}, self.{f.name})"
        else:
            yield f'write_ints({out}, self.{f.name}, "{FIXED[f.type]}")'

    def write_tags(self, layout: Layout) -> Iterator[str]:
        known = "()"
        if layout.tagged:
            known = "_known"
            yield "_known: list[tuple[int, bytearray]] = []"
            for item in layout.tagged:
                yield f"if {self.is_set(item.field)}:"
                yield from indent(self.write_tag(layout, item))
        yield f"if {'_known or ' if layout.tagged else ''}self.unknown_tagged_fields:"
        yield f"    write_tags(out, {known}, self.unknown_tagged_fields)"
        yield "else:"
        yield "    out.append(0)"

    def write_tag(self, layout: Layout, item: Item) -> Iterator[str]:
        yield "_t = bytearray()"
        if item.field.is_fixed:
            yield from self.write_run(layout, [item], "_t")
        else:
            yield from self.write_item(layout, item, "_t")
        yield f"_known.append(({item.field.tag}, _t))"

    # Defaults ------------------------------------------------------------------------------------------

    def is_set(self, f: Field) -> str:
        """Expression: the field differs from its default, by the rules of Kafka's generator."""
        value = f"self.{f.name}"
        if f.struct is not None and not f.is_array and f.default is not None:
            self.set_checks[f.struct.name] = f.struct
            null = f"{value} is None or " if f.is_nullable else ""
            return f"{null}_is_set_{f.struct.name}({value})"
        if f.default is None:
            return f"{value} is not None"
        if f.is_array:
            return f"{value} != []" if f.is_nullable else value
        if f.type == "bool":
            return f"not {value}" if f.default else value
        return f"{value} != {default_text(f, fresh=True)}"

    def set_check(self, struct: StructSpec) -> Iterator[str]:
        checks = [self.is_set(f) for f in struct.fields]
        if struct.keeps_unknown:
            checks.append("self.unknown_tagged_fields")
        yield f"def _is_set_{struct.name}(self: {struct.name}) -> bool:"
        yield "    return bool("
        for number, check in enumerate(checks):
            yield f"        {'or ' if number else ''}{check}"
        yield "    )"
