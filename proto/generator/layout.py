"""Which bytes each structure has at each version, with equal versions folded together.

A `Layout` is one shape of one structure. Generated code has one reading and one writing function per layout,
so that no function ever asks for the version.
"""

from dataclasses import dataclass, field

from generator.schema import FIXED, Field, MessageSpec, StructSpec

SIZES = {"?": 1, "b": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "d": 8, "16s": 16}


@dataclass(frozen=True)
class Item:
    """A field as one layout carries it."""

    field: Field
    compact: bool
    nullable: bool
    layout: "Layout | None"
    """Layout of the structure, or of the array's elements."""
    tagged: bool
    """A nullable structure starts with an int8 (-1 for null), or with an unsigned varint (0) if tagged."""

    @property
    def key(self) -> tuple[object, ...]:
        return self.field.name, self.compact, self.nullable, id(self.layout)

    @property
    def size_min(self) -> int:
        if self.field.is_fixed:
            return SIZES[FIXED[self.field.type]]
        if self.layout is not None and not self.field.is_array:
            return 1 if self.nullable else self.layout.size_min
        if self.compact:
            return 1
        return 2 if self.field.type == "string" and not self.field.is_array else 4

    @property
    def element_size_min(self) -> int:
        """Smallest size of an element of this array, at least 1 so that every count is bounded."""
        if self.layout is not None:
            return max(1, self.layout.size_min)
        if self.field.type == "string":
            return 1 if self.compact else 2
        return SIZES[FIXED[self.field.type]]


@dataclass
class Layout:
    struct: StructSpec
    items: list[Item]
    tagged: list[Item]
    """In the order of their tags."""
    absent: list[Field]
    flexible: bool
    versions: list[int] = field(default_factory=list)

    @property
    def key(self) -> tuple[object, ...]:
        return self.flexible, tuple(i.key for i in self.items), tuple(i.key for i in self.tagged)

    @property
    def suffix(self) -> str:
        return f"{self.struct.name}_v{self.versions[0]}"

    @property
    def versions_text(self) -> str:
        low, high = self.versions[0], self.versions[-1]
        return str(low) if low == high else f"{low} to {high}"

    @property
    def size_min(self) -> int:
        return sum(item.size_min for item in self.items) + self.flexible

    def present(self) -> set[str]:
        return {item.field.name for item in (*self.items, *self.tagged)}


@dataclass
class Layouts:
    """All layouts of one message."""

    message: MessageSpec
    by_struct: dict[str, list[Layout]] = field(default_factory=dict)
    """Layouts of each structure, innermost structures first."""
    by_version: dict[tuple[str, int], Layout] = field(default_factory=dict)

    @classmethod
    def of(cls, message: MessageSpec) -> "Layouts":
        layouts = cls(message)
        for version in message.versions:
            layouts.add(message.root, version)
        return layouts

    def root(self, version: int) -> Layout:
        return self.by_version[self.message.root.name, version]

    def add(self, struct: StructSpec, version: int) -> Layout:
        known = self.by_version.get((struct.name, version))
        if known is not None:
            return known
        if version not in struct.versions:
            raise ValueError(f"{struct.name} is used at version {version}, which it does not have")
        layout = self.build(struct, version)
        shapes = self.by_struct.setdefault(struct.name, [])
        same = next((shape for shape in shapes if shape.key == layout.key), None)
        if same is None:
            shapes.append(layout)
        else:
            layout = same
        layout.versions.append(version)
        self.by_version[struct.name, version] = layout
        return layout

    def build(self, struct: StructSpec, version: int) -> Layout:
        items: list[Item] = []
        tagged: list[Item] = []
        absent: list[Field] = []
        for f in struct.fields:
            if version not in f.versions:
                absent.append(f)
                continue
            item = Item(
                field=f,
                compact=version in f.flexible and not f.is_fixed,
                nullable=version in f.nullable,
                layout=self.add(f.struct, version) if f.struct else None,
                tagged=version in f.tagged,
            )
            (tagged if item.tagged else items).append(item)
        tagged.sort(key=lambda item: item.field.tag)
        return Layout(struct, items, tagged, absent, flexible=version in self.message.flexible)
