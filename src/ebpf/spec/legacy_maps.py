"""Map definitions in the maps section, as before BTF: libbpf's struct bpf_map_def, iproute2's bpf_elf_map.

Both are plain structs of 32-bit numbers, of several sizes over the years. Where the object has BTF its field
names tell which; else the size does, and what it leaves open is an error, not a guess.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.layout import resolve, size_of
from ebpf.spec.code import Function
from ebpf.spec.elf import Section, Symbol
from ebpf.spec.maps import MapPlace
from ebpf.spec.model import MapSpec, Pinning
from ebpf.spec.source import ObjectSource
from ebpf.uapi import MapType

SECTION = "maps"

_LIBBPF = ("type", "key_size", "value_size", "max_entries", "map_flags")
_IPROUTE2 = ("type", "size_key", "size_value", "max_elem", "flags", "id", "pinning", "inner_id", "inner_idx")
_COMMON_SIZE = 4 * len(_LIBBPF)

# What each field of either struct is called here.
_MEANINGS = {
    "type": "type",
    "map_type": "type",
    "key_size": "key_size",
    "size_key": "key_size",
    "value_size": "value_size",
    "size_value": "value_size",
    "max_entries": "max_entries",
    "max_elem": "max_entries",
    "map_flags": "flags",
    "flags": "flags",
    "numa_node": "numa_node",
    "id": "id",
    "pinning": "pinning",
    "inner_id": "inner_id",
    "inner_idx": "inner_idx",
}
_NO_SLOT = 0xFFFFFFFF
# iproute2's convention for tail calls: section "<map id>/<key>" (__section_tail in bpf_api.h).
_TAIL = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})/(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})")
# iproute2's PIN_OBJECT_NS and PIN_GLOBAL_NS.
_PIN_OBJECT, _PIN_GLOBAL = 1, 2


class _Definition(NamedTuple):
    place: MapPlace
    fields: dict[str, int]


def read_legacy_maps(source: ObjectSource, functions: Sequence[Function]) -> list[MapPlace]:
    """The maps of the sections "maps" and "maps/…", with iproute2's inner maps and tail calls as slots."""
    definitions: list[_Definition] = []
    for section in source.elf.sections:
        if section.size and is_legacy(section):
            definitions += _read_section(source, section)
    _connect(source, definitions, functions)
    return [definition.place for definition in definitions]


def is_legacy(section: Section) -> bool:
    """Whether its name says that maps are defined in it as before BTF."""
    return section.name == SECTION or section.name.startswith(f"{SECTION}/")


def _read_section(source: ObjectSource, section: Section) -> list[_Definition]:
    symbols = [symbol for symbol in source.symbols_of(section) if symbol.name]
    if not symbols:
        raise source.error(f"section {section.name!r} has no symbols that name the maps in it")
    entries = source.data_section(section.name)
    types = {}
    for entry in entries.entries if entries else ():
        types[entry.type.name] = resolve(t.expect(entry.type, t.Variable).target)
    definitions = []
    for number, symbol in enumerate(symbols):
        limit = symbols[number + 1].value if number + 1 < len(symbols) else section.size
        size = symbol.size or limit - symbol.value
        if symbol.value + size > section.size or size < 4 * 4:
            raise source.error(
                f"map {symbol.name!r} of {size} bytes at {symbol.value:#x} of section {section.name!r}: "
                "no definition fits there"
            )
        raw = bytes(source.elf.data(section)[symbol.value : symbol.value + size])
        type = types.get(symbol.name)
        if isinstance(type, t.Struct) and type.size == size:
            fields = _fields_by_btf(source, symbol, type, raw)
        else:
            fields = _fields_by_size(source, symbol, raw)
        spec = _spec(source, symbol, fields)
        place = MapPlace(spec, section.number, symbol.value, size)
        definitions.append(_Definition(place, fields))
    return definitions


def _fields_by_btf(source: ObjectSource, symbol: Symbol, type: t.Struct, raw: bytes) -> dict[str, int]:
    fields = {}
    for member in type.members:
        size = size_of(member.type)
        value = raw[member.offset : member.offset + size]
        meaning = _MEANINGS.get(member.name)
        if meaning is not None and size == 4:
            fields[meaning] = int.from_bytes(value, source.elf.byteorder)
        elif any(value):
            raise source.error(
                f"map {symbol.name!r}: field {member.name!r} of its definition is not supported"
            )
    return fields


def _fields_by_size(source: ObjectSource, symbol: Symbol, raw: bytes) -> dict[str, int]:
    names: tuple[str, ...] = _IPROUTE2 if len(raw) == 4 * len(_IPROUTE2) else _LIBBPF
    names = names[: len(raw) // 4]
    if any(raw[4 * len(names) :]):
        raise source.error(
            f"map {symbol.name!r}: its definition has {len(raw)} bytes, and those after the first "
            f"{_COMMON_SIZE} could mean several things",
            hint="compile with `clang -g`, so that BTF names the fields; or define the map in .maps",
        )
    order = "<" if source.elf.byteorder == "little" else ">"
    numbers = struct.unpack_from(f"{order}{len(names)}I", raw)
    return {_MEANINGS[name]: number for name, number in zip(names, numbers, strict=True)}


def _spec(source: ObjectSource, symbol: Symbol, fields: dict[str, int]) -> MapSpec:
    try:
        type = MapType(fields.get("type", 0))
    except ValueError:
        raise source.error(f"map {symbol.name!r}: {fields.get('type', 0)} is no known map type") from None
    spec = MapSpec(
        symbol.name,
        type,
        fields.get("key_size", 0),
        fields.get("value_size", 0),
        fields.get("max_entries", 0),
        fields.get("flags", 0),
        pinning=_pinning(source, symbol, fields.get("pinning", 0)),
        numa_node=fields.get("numa_node") or None,
    )
    # BPF_ANNOTATE_KV_PAIR of old kernel selftests: struct ____btf_map_NAME { key; value; }.
    pair = source.btf.get(f"____btf_map_{symbol.name}", t.Struct) if source.btf else None
    if pair is not None and [member.name for member in pair.members] == ["key", "value"]:
        key, value = (member.type for member in pair.members)
        if (size_of(key), size_of(value)) != (spec.key_size, spec.value_size):
            raise source.error(
                f"map {symbol.name!r}: its annotation has a key of {size_of(key)} and a value of "
                f"{size_of(value)} bytes, its definition {spec.key_size} and {spec.value_size}"
            )
        spec.key, spec.value = key, value
    return spec


def _pinning(source: ObjectSource, symbol: Symbol, number: int) -> Pinning:
    if number not in (0, _PIN_OBJECT, _PIN_GLOBAL):
        raise source.error(
            f"map {symbol.name!r}: pinning {number} names a directory of iproute2's own configuration"
        )
    if number == _PIN_OBJECT:
        source.warn(f"map {symbol.name!r} is to be pinned per object (PIN_OBJECT_NS); it is pinned by name")
    return Pinning.BY_NAME if number else Pinning.NONE


def _connect(source: ObjectSource, definitions: list[_Definition], functions: Sequence[Function]) -> None:
    by_id: dict[int, list[_Definition]] = {}
    for definition in definitions:
        if definition.fields.get("id"):
            by_id.setdefault(definition.fields["id"], []).append(definition)
    for outer in definitions:
        spec = outer.place.spec
        inner_id = outer.fields.get("inner_id", 0)
        if not spec.type.is_map_in_map or not inner_id:
            continue
        members = by_id.get(inner_id, [])
        if not members:
            raise source.error(f"map {spec.name!r}: no map here has the id {inner_id} of its inner maps")
        spec.inner = members[0].place.spec.copy()
        spec.inner.name, spec.inner.pinning = f"{spec.name}.inner", Pinning.NONE
        for member in members:
            index = member.fields.get("inner_idx", _NO_SLOT)
            if index != _NO_SLOT:
                spec.slots[index] = member.place.spec.name
    for name, (id, key) in tail_calls(functions).items():
        for array in by_id.get(id, ()):
            if array.place.spec.type is MapType.PROG_ARRAY:
                array.place.spec.slots[key] = name


def tail_calls(functions: Sequence[Function]) -> dict[str, tuple[int, int]]:
    """The programs that iproute2 puts into prog arrays: by name, the map's id and the key."""
    found = {}
    for function in functions:
        tail = _TAIL.fullmatch(function.section.name)
        if tail is not None and function.is_program:
            id, key = (int(number, 16 if number.startswith("0x") else 10) for number in tail.groups())
            found[function.name] = (id, key)
    return found
