"""Global variables, and the data maps that hold them: .data, .rodata, .bss, and sections named so."""

from __future__ import annotations

from ebpf.btf import types as t
from ebpf.btf.layout import size_of
from ebpf.spec.elf import Section, SectionType, Symbol, SymbolType
from ebpf.spec.model import MapSpec, VariableSpec
from ebpf.spec.source import ObjectSource
from ebpf.uapi import MapFlags, MapType

_NAMES = (".data", ".rodata", ".bss")
_PREFIXES = (".data.", ".rodata.", ".bss.")

#: A .bss takes no room in the file, so only this bounds what a file can ask for. Bytes.
_MAX_ZEROS = 1 << 28


def read_data(source: ObjectSource) -> dict[int, MapSpec]:
    """The data maps by the number of their section."""
    maps: dict[int, MapSpec] = {}
    names: set[str] = set()
    zeros = 0
    for section in source.elf.sections:
        name = section.name
        if name == ".addr_space.1" and section.size:
            raise source.error(
                "global variables in an arena (section '.addr_space.1') are not supported",
                hint="allocate them with bpf_arena_alloc_pages()",
            )
        if section.type not in (SectionType.PROGBITS, SectionType.NOBITS) or section.is_code:
            continue
        if not section.size or not (name in _NAMES or name.startswith(_PREFIXES)):
            continue
        if name in names:
            raise source.error(f"two sections are named {name!r}")
        names.add(name)
        if section.type == SectionType.NOBITS:
            zeros += section.size
            if zeros > _MAX_ZEROS:
                raise source.error(
                    f"section {name!r} asks for {section.size} bytes of zeros; {_MAX_ZEROS} are the limit",
                    hint="use a map for data that large",
                )
            data = bytearray(section.size)
        else:
            data = bytearray(source.elf.data(section))
        _warn_of_addresses(source, section)
        maps[section.number] = _data_map(name, data, source.data_section(name))
    return maps


def _data_map(name: str, data: bytearray, entries: t.DataSection | None) -> MapSpec:
    flags = MapFlags.RDONLY_PROG if name.startswith(".rodata") else MapFlags(0)
    # As libbpf: static variables alone are nothing that user space would look for through mmap.
    if entries is not None and any(
        isinstance(entry.type, t.Variable) and entry.type.linkage != t.Linkage.STATIC
        for entry in entries.entries
    ):
        flags |= MapFlags.MMAPABLE
    return MapSpec(
        name,
        MapType.ARRAY,
        key_size=4,
        value_size=len(data),
        max_entries=1,
        flags=flags,
        value=entries,
        data=data,
    )


def _warn_of_addresses(source: ObjectSource, section: Section) -> None:
    for relocation in source.elf.relocations(section):
        if relocation.type:
            symbol = relocation.symbol.name
            source.warn(
                f"{section.name}+{relocation.offset:#x} holds the address of {symbol!r}, "
                "which BPF cannot follow: programs read a plain number there"
            )
            return


def read_variables(source: ObjectSource, data: dict[int, MapSpec]) -> dict[str, VariableSpec]:
    """The variables of the data maps by name, typed where there is BTF."""
    variables: dict[str, VariableSpec] = {}
    for number, spec in data.items():
        section = source.elf.sections[number]
        symbols = [
            symbol
            for symbol in source.symbols_of(section)
            if symbol.type in (SymbolType.OBJECT, SymbolType.NOTYPE)
        ]
        entries = source.data_section(spec.name)
        if entries is not None:
            found = _typed(source, section, symbols, entries)
        elif source.btf is None:
            found = _untyped(section, symbols)
        else:
            continue  # string literals and the like
        for variable, alias in found:
            name = variable.name
            if name in variables:
                # `static int n` in two functions: the symbols "f.n" and "g.n" tell them apart.
                name = alias if alias not in variables else f"{alias}@{variable.map}+{variable.offset:#x}"
                variable.name = name
            variables[name] = variable
    return variables


def _typed(
    source: ObjectSource, section: Section, symbols: list[Symbol], entries: t.DataSection
) -> list[tuple[VariableSpec, str]]:
    by_name = {symbol.name: symbol for symbol in symbols if symbol.is_global}
    by_offset = {symbol.value: symbol.name for symbol in symbols if symbol.name}
    found = []
    for entry in entries.entries:
        variable = t.expect(entry.type, t.Variable)
        # Compilers leave the offsets of global variables to the linker; the symbol knows.
        symbol = by_name.get(variable.name) if variable.linkage != t.Linkage.STATIC else None
        offset = symbol.value if symbol else entry.offset
        size = size_of(variable.target) or (symbol.size if symbol else entry.size)
        if offset + size > section.size:
            raise source.error(
                f"variable {variable.name!r} of {size} bytes at {offset:#x} runs past "
                f"the {section.size:#x} bytes of {section.name!r}"
            )
        place = VariableSpec(variable.name, section.name, offset, size, variable.target)
        found.append((place, by_offset.get(offset, variable.name)))
    return found


def _untyped(section: Section, symbols: list[Symbol]) -> list[tuple[VariableSpec, str]]:
    return [
        (VariableSpec(symbol.name, section.name, symbol.value, symbol.size), symbol.name)
        for symbol in symbols
        if symbol.type == SymbolType.OBJECT
        and symbol.name
        and not symbol.name.startswith((".L", "__const."))
        and symbol.value + symbol.size <= section.size
    ]
