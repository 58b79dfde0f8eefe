"""Symbols that the kernel provides: `__ksym` and `__kconfig` externs."""

from __future__ import annotations

from typing import Literal

from ebpf.btf import types as t
from ebpf.btf.layout import align_of, resolve, size_of
from ebpf.errors import BTFError
from ebpf.spec.elf import Binding, Symbol
from ebpf.spec.model import ExternSpec, MapSpec
from ebpf.spec.source import ObjectSource
from ebpf.uapi import MapFlags, MapType

KCONFIG: Literal[".kconfig"] = ".kconfig"
KSYMS: Literal[".ksyms"] = ".ksyms"

#: What the declared types may ask for, in bytes; the kernel's longest values are strings of a few hundred.
_MAX_KCONFIG = 1 << 20


def read_externs(source: ObjectSource) -> dict[str, ExternSpec]:
    """The externs that the object's code uses, by name, with the places of those in .kconfig laid out."""
    declared: dict[str, tuple[Literal[".ksyms", ".kconfig"], t.Type]] = {}
    for section in (KCONFIG, KSYMS):
        entries = source.data_section(section)
        for entry in entries.entries if entries else ():
            declared[entry.type.name] = (section, entry.type)
    if not declared:
        return {}
    externs: dict[str, ExternSpec] = {}
    for symbol in source.elf.symbols:
        if symbol.is_undefined and symbol.name in declared and symbol.name not in externs:
            section, type = declared[symbol.name]
            externs[symbol.name] = _extern(source, symbol, section, type)
    _lay_out(source, externs)
    return externs


def _extern(
    source: ObjectSource, symbol: Symbol, section: Literal[".ksyms", ".kconfig"], type: t.Type
) -> ExternSpec:
    is_weak = symbol.binding == Binding.WEAK
    if isinstance(type, t.Function):
        if section == KCONFIG:
            raise source.error(f"{symbol.name!r}: a function cannot be a __kconfig")
        return ExternSpec(symbol.name, section, type, is_function=True, is_weak=is_weak)
    target = t.expect(type, t.Variable).target
    if section == KSYMS:
        known = None if isinstance(resolve(target), t.Void) else target
        return ExternSpec(symbol.name, section, known, is_weak=is_weak)
    try:
        size = size_of(target)
    except BTFError as error:
        raise source.error(f"__kconfig {symbol.name!r}: {error.message}") from None
    return ExternSpec(symbol.name, section, target, is_weak=is_weak, size=size)


def _lay_out(source: ObjectSource, externs: dict[str, ExternSpec]) -> None:
    """Give each __kconfig its offset, in libbpf's order: by falling alignment, then size, then name."""
    configs = []
    for extern in externs.values():
        if extern.section == KCONFIG:
            assert extern.type is not None
            configs.append((-align_of(extern.type), extern.size, extern.name, extern))
    end = 0
    for negative_align, size, _, extern in sorted(configs, key=lambda config: config[:3]):
        align = -negative_align
        extern.offset = (end + align - 1) // align * align
        end = extern.offset + size
    if end > _MAX_KCONFIG:
        raise source.error(f"the __kconfig externs take {end} bytes; {_MAX_KCONFIG} are the limit")


def kconfig_map(externs: dict[str, ExternSpec], entries: t.DataSection | None) -> MapSpec | None:
    """The map behind .kconfig, of zeros that the loader replaces; None if nothing needs it."""
    ends = [extern.offset + extern.size for extern in externs.values() if extern.section == KCONFIG]
    if not ends:
        return None
    return MapSpec(
        KCONFIG,
        MapType.ARRAY,
        key_size=4,
        value_size=max(ends),
        max_entries=1,
        flags=MapFlags.RDONLY_PROG | MapFlags.MMAPABLE,
        value=entries,
        data=bytearray(max(ends)),
    )
