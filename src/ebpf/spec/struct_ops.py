"""Tables of functions for the kernel: variables in .struct_ops and .struct_ops.link.

Each becomes a map of type STRUCT_OPS whose `data` is the struct as compiled, and whose `slots` name the
program of each member, by the member's index.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpf.btf import types as t
from ebpf.btf.layout import resolve
from ebpf.spec.code import Function
from ebpf.spec.elf import Section
from ebpf.spec.model import MapSpec
from ebpf.spec.source import ObjectSource
from ebpf.uapi import MapFlags, MapType

_SECTIONS = {".struct_ops": MapFlags(0), ".struct_ops.link": MapFlags.LINK}


def read_struct_ops(source: ObjectSource, functions: Sequence[Function]) -> list[MapSpec]:
    """The struct_ops maps of the object."""
    specs: list[MapSpec] = []
    for section in source.elf.sections:
        flags = _SECTIONS.get(section.name.removeprefix("?"))
        if flags is None or not section.size:
            continue
        entries = source.data_section(section.name)
        if entries is None:
            raise source.error(
                f"section {section.name!r} without BTF, which says what is in it",
                hint="compile with `clang -g`",
            )
        specs += _read_section(source, section, entries, flags, functions)
    return specs


def _read_section(
    source: ObjectSource,
    section: Section,
    entries: t.DataSection,
    flags: MapFlags,
    functions: Sequence[Function],
) -> list[MapSpec]:
    symbols = {symbol.name: symbol for symbol in source.symbols_of(section)}
    data = source.elf.data(section)
    specs: list[tuple[int, MapSpec, t.Struct]] = []
    for entry in entries.entries:
        variable = t.expect(entry.type, t.Variable)
        type = resolve(variable.target)
        if not isinstance(type, t.Struct):
            raise source.error(f"{variable.name!r} in {section.name!r} is {variable.target}, not a struct")
        offset = symbols[variable.name].value if variable.name in symbols else entry.offset
        if offset + type.size > section.size:
            raise source.error(f"{variable.name!r} runs past the {section.size:#x} bytes of {section.name!r}")
        spec = MapSpec(
            variable.name,
            MapType.STRUCT_OPS,
            key_size=4,
            value_size=type.size,
            max_entries=1,
            flags=flags,
            value=variable.target,
            data=bytearray(data[offset : offset + type.size]),
        )
        specs.append((offset, spec, type))
    programs = {
        (function.section.number, function.start): function.name
        for function in functions
        if function.is_program
    }
    members = {
        offset + member.offset: (spec, index, member.name)
        for offset, spec, type in specs
        for index, member in enumerate(type.members)
    }
    for relocation in source.elf.relocations(section):
        symbol = relocation.symbol
        program = programs.get((symbol.section, symbol.value + (relocation.addend or 0)))
        member = members.get(relocation.offset)
        if member is None or program is None:
            what = f"{member[0].name}.{member[2]}" if member else f"{section.name}+{relocation.offset:#x}"
            raise source.error(f"{what} is initialised with {symbol.name!r}, which is no program here")
        member[0].slots[member[1]] = program
    return [spec for _, spec, _ in specs]
