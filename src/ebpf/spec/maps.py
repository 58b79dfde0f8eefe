"""Map definitions in the .maps section: what the BTF of each variable there says (libbpf's convention).

A definition is a struct of pointers that nothing ever points with: `__uint(max_entries, 8)` is a member
`int (*max_entries)[8]`, `__type(key, u32)` a member `u32 *key`, see bpf_helpers.h.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.layout import resolve, size_of
from ebpf.errors import BTFError, ObjectError
from ebpf.spec.code import Function
from ebpf.spec.elf import Section, Symbol
from ebpf.spec.model import MapSpec, Pinning
from ebpf.spec.source import ObjectSource
from ebpf.uapi import MapType

SECTION = ".maps"
_POINTER_SIZE = 8
_FD_SIZE = 4


class MapPlace(NamedTuple):
    """A map definition, and where it stands; bytes."""

    spec: MapSpec
    section: int
    offset: int
    size: int
    values: int | None = None  #: offset of `values` in the definition


def read_maps(source: ObjectSource) -> list[MapPlace]:
    """The maps that the .maps section defines, in the order that they have there."""
    section = source.elf.section(SECTION)
    if section is None or not section.size:
        return []
    entries = source.data_section(SECTION)
    if entries is None:
        raise source.error(
            f"section {SECTION!r} without BTF, which says what the maps are", hint="compile with `clang -g`"
        )
    symbols = {symbol.name: symbol for symbol in source.symbols_of(section)}
    places = [_read_map(source, section, symbols, entry) for entry in entries.entries]
    defined = {place.offset for place in places}
    for symbol in symbols.values():
        if symbol.is_global and symbol.value not in defined:
            raise source.error(f"{symbol.name!r} in section {SECTION!r} has no BTF that says what map it is")
    return sorted(places, key=_offset)


def _offset(place: MapPlace) -> int:
    return place.offset


def _read_map(
    source: ObjectSource, section: Section, symbols: Mapping[str, Symbol], entry: t.SectionEntry
) -> MapPlace:
    variable = t.expect(entry.type, t.Variable)
    name = variable.name
    if variable.linkage == t.Linkage.EXTERN:
        raise source.error(
            f"map {name!r} is declared extern: another object defines it",
            hint="link the two with `bpftool gen object`",
        )
    definition = resolve(variable.target)
    if not isinstance(definition, t.Struct):
        raise source.error(f"map {name!r} is defined as {variable.target}, not as a struct")
    # Compilers leave the offsets of global variables to the linker; the symbol knows.
    offset = symbols[name].value if name in symbols else entry.offset
    if offset + definition.size > section.size:
        raise source.error(
            f"map {name!r} at {offset:#x} runs past the {section.size:#x} bytes of {SECTION!r}"
        )
    spec = _define(source, name, definition, is_inner=False)
    values = next((member.offset for member in definition.members if member.name == "values"), None)
    return MapPlace(spec, section.number, offset, definition.size, values)


def _define(source: ObjectSource, name: str, definition: t.Struct, *, is_inner: bool) -> MapSpec:
    spec = MapSpec(name, MapType.ARRAY)
    reader = _Definition(source, spec, definition, is_inner)
    for member in definition.members:
        read = _FIELDS.get(member.name)
        if read is None:
            raise source.error(
                f"map {name!r}: unknown field {member.name or '(anonymous)'!r} in its definition",
                hint="the fields are " + ", ".join(_FIELDS),
            )
        try:
            read(reader, member)
        except BTFError as error:
            raise source.error(f"map {name!r}: field {member.name!r}: {error.message}") from None
    if not reader.has_type:
        raise source.error(f"map {name!r}: its definition has no `type`")
    return spec


class _Definition:
    """The fields of one definition, each read into the spec."""

    def __init__(self, source: ObjectSource, spec: MapSpec, struct: t.Struct, is_inner: bool) -> None:
        self.source = source
        self.spec = spec
        self.struct = struct
        self.is_inner = is_inner
        self.has_type = False

    def error(self, member: t.Member, what: str) -> ObjectError:
        return self.source.error(f"map {self.spec.name!r}: field {member.name!r}: {what}")

    def number(self, member: t.Member) -> int:
        """The number of `__uint` (length of an array pointed to) or `__ulong` (value of an enum)."""
        type = resolve(member.type)
        if isinstance(type, t.Enum) and len(type.members) == 1:
            return type.members[0].value
        if isinstance(type, t.Pointer):
            array = resolve(type.target)
            if isinstance(array, t.Array):
                return array.length
        raise self.source.error(
            f"map {self.spec.name!r}: field {member.name!r} is {member.type}; a number is expected",
            hint=f"write __uint({member.name}, …)",
        )

    def pointee(self, member: t.Member) -> t.Type:
        """The type of `__type`."""
        type = resolve(member.type)
        if not isinstance(type, t.Pointer):
            raise self.source.error(
                f"map {self.spec.name!r}: field {member.name!r} is {member.type}; a type is expected",
                hint=f"write __type({member.name}, …)",
            )
        return type.target

    def type(self, member: t.Member) -> None:
        number = self.number(member)
        try:
            self.spec.type = MapType(number)
        except ValueError:
            raise self.error(member, f"{number} is no known map type") from None
        self.has_type = True

    def max_entries(self, member: t.Member) -> None:
        self.spec.max_entries = self.number(member)

    def map_flags(self, member: t.Member) -> None:
        self.spec.flags = self.number(member)

    def numa_node(self, member: t.Member) -> None:
        self.spec.numa_node = self.number(member)

    def map_extra(self, member: t.Member) -> None:
        self.spec.extra = self.number(member)

    def key_size(self, member: t.Member) -> None:
        self.spec.key_size = self.agree(member, self.spec.key_size, self.number(member))

    def value_size(self, member: t.Member) -> None:
        self.spec.value_size = self.agree(member, self.spec.value_size, self.number(member))

    def key(self, member: t.Member) -> None:
        self.spec.key = self.pointee(member)
        self.spec.key_size = self.agree(member, self.spec.key_size, size_of(self.spec.key))

    def value(self, member: t.Member) -> None:
        self.spec.value = self.pointee(member)
        self.spec.value_size = self.agree(member, self.spec.value_size, size_of(self.spec.value))

    def agree(self, member: t.Member, known: int, size: int) -> int:
        if known and known != size:
            raise self.error(member, f"{size} bytes contradict the {known} bytes said before")
        return size

    def pinning(self, member: t.Member) -> None:
        number = self.number(member)
        if number not in tuple(Pinning):
            raise self.error(member, f"{number} is neither LIBBPF_PIN_NONE (0) nor LIBBPF_PIN_BY_NAME (1)")
        if self.is_inner and number:
            raise self.error(member, "an inner map cannot be pinned")
        self.spec.pinning = Pinning(number)

    def values(self, member: t.Member) -> None:
        """`__array(values, …)`: an array of pointers to inner maps or programs."""
        if self.is_inner:
            raise self.error(member, "maps nest only one deep")
        is_prog_array = self.spec.type is MapType.PROG_ARRAY
        if not is_prog_array and not self.spec.type.is_map_in_map:
            raise self.error(member, f"a map of type {self.spec.type} takes no initial values")
        if member is not self.struct.members[-1]:
            raise self.error(member, "it has to be the last field")
        self.spec.value_size = self.agree(member, self.spec.value_size, _FD_SIZE)
        array = resolve(member.type)
        element = resolve(array.element) if isinstance(array, t.Array) else None
        target = resolve(element.target) if isinstance(element, t.Pointer) else None
        if is_prog_array and isinstance(target, t.FunctionProto):
            return
        if not is_prog_array and isinstance(target, t.Struct):
            self.spec.inner = _define(self.source, f"{self.spec.name}.inner", target, is_inner=True)
            return
        what = "functions" if is_prog_array else "map definitions"
        raise self.error(member, f"{member.type} is no array of pointers to {what}")


_FIELDS: dict[str, Callable[[_Definition, t.Member], None]] = {
    "type": _Definition.type,
    "key": _Definition.key,
    "value": _Definition.value,
    "key_size": _Definition.key_size,
    "value_size": _Definition.value_size,
    "max_entries": _Definition.max_entries,
    "map_flags": _Definition.map_flags,
    "numa_node": _Definition.numa_node,
    "map_extra": _Definition.map_extra,
    "pinning": _Definition.pinning,
    "values": _Definition.values,
}


def read_slots(source: ObjectSource, places: Sequence[MapPlace], functions: Sequence[Function]) -> None:
    """Fill in the slots of maps whose `.values` are initialised: relocations inside the definitions."""
    section = source.elf.section(SECTION)
    if section is None or not places:
        return
    places = sorted((place for place in places if place.section == section.number), key=_offset)
    offsets = [place.offset for place in places]
    maps = {(place.section, place.offset): place.spec.name for place in places}
    programs = {
        (function.section.number, function.start): function.name
        for function in functions
        if function.is_program
    }
    data = source.elf.data(section)
    for relocation in source.elf.relocations(section):
        at = bisect_right(offsets, relocation.offset) - 1
        place = places[at] if at >= 0 else None
        if place is None or place.values is None or relocation.offset < place.offset + place.values:
            raise source.error(
                f"relocation at {relocation.offset:#x} of {SECTION!r} is in no `values` of a map definition"
            )
        index, rest = divmod(relocation.offset - place.offset - place.values, _POINTER_SIZE)
        if rest:
            raise source.error(f"map {place.spec.name!r}: relocation inside slot {index} of its values")
        symbol, addend = relocation.symbol, relocation.addend
        if addend is None:
            raw = data[relocation.offset : relocation.offset + _POINTER_SIZE]
            addend = int.from_bytes(raw, source.elf.byteorder, signed=True)
        known = programs if place.spec.type is MapType.PROG_ARRAY else maps
        name = known.get((symbol.section, symbol.value + addend))
        if name is None:
            what = "program" if known is programs else "map"
            raise source.error(
                f"map {place.spec.name!r}: slot {index} is {symbol.name!r}, which is no {what} here"
            )
        place.spec.slots[index] = name
