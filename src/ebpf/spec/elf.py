"""A small reader of ELF64 relocatable objects, for both byte orders.

It trusts nothing in the file: every count and offset is checked against the file's size before it is used,
so that a malformed object costs an ObjectError and never time or memory out of proportion.
Layouts are those of the System V gABI (elf.h); relocation types those of LLVM's BPF backend
(Documentation/bpf/llvm_reloc.rst).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from ebpf.errors import ObjectError

EM_NONE = 0  # what clang wrote before 2016, when BPF had no number yet
EM_BPF = 247
ET_REL = 1

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00
SHN_COMMON = 0xFFF2
SHN_XINDEX = 0xFFFF

SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4

_HEADER_SIZE = 64
_SECTION_SIZE = 64
_SYMBOL_SIZE = 24


class SectionType:
    """The sh_type values that matter to a BPF object."""

    NULL = 0
    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    RELA = 4
    NOBITS = 8
    REL = 9
    SYMTAB_SHNDX = 18


class SymbolType:
    """The low half of st_info."""

    NOTYPE = 0
    OBJECT = 1
    FUNC = 2
    SECTION = 3
    FILE = 4


class Binding:
    """The high half of st_info."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2


class Visibility:
    """The low two bits of st_other."""

    DEFAULT = 0
    INTERNAL = 1
    HIDDEN = 2
    PROTECTED = 3


class RelocationType:
    """R_BPF_*, Documentation/bpf/llvm_reloc.rst."""

    NONE = 0
    R64_64 = 1  #: ld_imm64
    ABS64 = 2  #: 8 bytes of data
    ABS32 = 3  #: 4 bytes of data
    NODYLD32 = 4  #: 4 bytes in .BTF and .BTF.ext
    R64_32 = 10  #: call


class _RawSection(NamedTuple):
    """Elf64_Shdr."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Section(NamedTuple):
    """One section header; offsets and sizes in bytes."""

    number: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int

    @property
    def is_code(self) -> bool:
        """Whether it holds instructions."""
        return self.type == SectionType.PROGBITS and bool(self.flags & SHF_EXECINSTR) and self.size > 0


class Symbol(NamedTuple):
    """One symbol; `value` and `size` in bytes, `value` counted from the start of its section."""

    number: int
    name: str  #: the section's name for a section symbol, which has none of its own
    type: int
    binding: int
    visibility: int
    section: int  #: index of its section; 0 when undefined, from 0xff00 on for special ones
    value: int
    size: int

    @property
    def is_undefined(self) -> bool:
        """Whether another object or the kernel has to provide it."""
        return self.section == SHN_UNDEF

    @property
    def is_global(self) -> bool:
        """Whether other objects can see it."""
        return self.binding != Binding.LOCAL


class Relocation(NamedTuple):
    """One relocation of a section."""

    offset: int  #: bytes into the section that it applies to
    symbol: Symbol
    type: int
    addend: int | None  #: None: the addend stands in the place that is relocated (SHT_REL)


class Elf:
    """An ELF64 object over its bytes; raises ObjectError where they contradict themselves."""

    def __init__(self, data: bytes, *, name: str = "object") -> None:
        self.name = name
        self._data = memoryview(data)
        self._name_budget = 16 * len(data)  # far more than an honest file spells; see _string
        self.byteorder: Literal["little", "big"] = self._byteorder()
        self._order = "<" if self.byteorder == "little" else ">"
        self.sections: list[Section] = self._read_sections()
        self._by_name: dict[str, Section] = {}
        for section in self.sections:
            self._by_name.setdefault(section.name, section)
        self._symbol_table = 0
        self.symbols: list[Symbol] = self._read_symbols()
        self._relocation_sections: dict[int, list[Section]] = {}
        for section in self.sections:
            if section.type in (SectionType.REL, SectionType.RELA):
                self._relocation_sections.setdefault(section.info, []).append(section)

    def section(self, name: str) -> Section | None:
        """The first section of this name."""
        return self._by_name.get(name)

    def data(self, section: Section) -> memoryview:
        """The bytes of a section; empty for one that takes no room in the file (.bss)."""
        if section.type in (SectionType.NOBITS, SectionType.NULL):
            return self._data[:0]
        return self._data[section.offset : section.offset + section.size]

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """The relocations that apply to `section`, in file order."""
        for table in self._relocation_sections.get(section.number, ()):
            yield from self._read_relocations(table, section)

    def _error(self, what: str) -> ObjectError:
        return ObjectError(f"{self.name}: {what}")

    def _byteorder(self) -> Literal["little", "big"]:
        data = self._data
        if len(data) < 4 or bytes(data[:4]) != b"\x7fELF":
            raise ObjectError(
                f"{self.name}: not an ELF object: it starts with {bytes(data[:4])!r}"
                if len(data)
                else f"{self.name}: the file is empty",
                hint="give the .o that `clang -target bpf -c` writes",
            )
        if len(data) < _HEADER_SIZE:
            raise self._error(f"ELF header cut short: {len(data)} bytes of {_HEADER_SIZE}")
        if data[4] != 2:
            raise self._error(f"32-bit ELF (class {data[4]}); BPF objects are 64-bit")
        if data[5] not in (1, 2):
            raise self._error(f"ELF header names byte order {data[5]}; 1 (little) or 2 (big) expected")
        return "little" if data[5] == 1 else "big"

    def _read_sections(self) -> list[Section]:
        (kind, machine, _version, _entry, _phoff, offset, _flags, _ehsize, _phentsize, _phnum, entry_size) = (
            struct.unpack_from(f"{self._order}HHIQQQIHHHH", self._data, 16)
        )
        count, names_index = struct.unpack_from(f"{self._order}HH", self._data, 60)
        if machine not in (EM_BPF, EM_NONE):
            raise ObjectError(
                f"{self.name}: ELF object for machine {machine}, not for BPF ({EM_BPF})",
                hint="compile with `clang -target bpf`",
            )
        if kind != ET_REL:
            raise self._error(f"ELF file of type {kind}; a relocatable object ({ET_REL}) is expected")
        if offset == 0:
            raise self._error("no section headers: the file has been stripped of them")
        if entry_size != _SECTION_SIZE:
            raise self._error(f"section headers of {entry_size} bytes; {_SECTION_SIZE} expected")
        room = max(0, len(self._data) - offset) // _SECTION_SIZE
        header = struct.Struct(f"{self._order}IIQQQQIIQQ")
        if room and (count == 0 or names_index == SHN_XINDEX):
            # More sections than 16 bits can count: the numbers stand in section 0.
            first = header.unpack_from(self._data, offset)
            count = count or first[5]
            names_index = first[6] if names_index == SHN_XINDEX else names_index
        if count > room:
            raise self._error(
                f"section headers cut short: {count} at offset {offset:#x}, the file has room for {room}"
            )
        raw = [
            _RawSection(*header.unpack_from(self._data, offset + index * _SECTION_SIZE))
            for index in range(count)
        ]
        self._check_extents(raw)
        if names_index >= count:
            raise self._error(f"section names are said to be in section {names_index} of {count}")
        names = raw[names_index]
        if names.type != SectionType.STRTAB:
            raise self._error(f"section {names_index} holds the section names but is no string table")
        table = bytes(self._data[names.offset : names.offset + names.size])
        return [
            Section(
                index,
                self._string(table, section.name, "section", index),
                section.type,
                section.flags,
                section.offset,
                section.size,
                section.link,
                section.info,
            )
            for index, section in enumerate(raw)
        ]

    def _check_extents(self, raw: list[_RawSection]) -> None:
        total = 0
        for index, section in enumerate(raw):
            if section.type in (SectionType.NOBITS, SectionType.NULL):
                continue
            if section.offset + section.size > len(self._data):
                raise self._error(
                    f"section {index} cut short: {section.size} bytes at offset {section.offset:#x}, "
                    f"the file ends at {len(self._data):#x}"
                )
            total += section.size
        if total > len(self._data):
            raise self._error(f"sections overlap: together {total} bytes in a file of {len(self._data)}")

    def _string(self, table: bytes, offset: int, kind: str, number: int) -> str:
        """The NUL-terminated string at `offset` of a string table."""
        if offset >= len(table):
            raise self._error(
                f"name of {kind} {number} at offset {offset:#x} of a string table of {len(table)} bytes"
            )
        end = table.find(b"\0", offset)
        if end < 0:
            raise self._error(f"name of {kind} {number} does not end inside its string table")
        # Names may share their tails, so a hostile file could spell one long string from many offsets.
        self._name_budget -= end - offset
        if self._name_budget < 0:
            raise self._error(f"the names up to {kind} {number} are longer than the file could hold")
        return table[offset:end].decode("utf-8", "backslashreplace")

    def _read_symbols(self) -> list[Symbol]:
        tables = [section for section in self.sections if section.type == SectionType.SYMTAB]
        if not tables:
            return []
        if len(tables) > 1:
            raise self._error(f"{len(tables)} symbol tables; one is expected")
        table = tables[0]
        self._symbol_table = table.number
        if table.size % _SYMBOL_SIZE:
            raise self._error(f"symbol table of {table.size} bytes is no multiple of {_SYMBOL_SIZE}")
        if table.link >= len(self.sections) or self.sections[table.link].type != SectionType.STRTAB:
            raise self._error(f"symbol names are in section {table.link}, which is no string table")
        strings = bytes(self.data(self.sections[table.link]))
        extended = self._extended_indexes(table)
        symbols = []
        entries = struct.iter_unpack(f"{self._order}IBBHQQ", self.data(table))
        for index, (name, info, other, section, value, size) in enumerate(entries):
            if section == SHN_XINDEX:
                section = extended[index] if index < len(extended) else len(self.sections)
            if section >= len(self.sections) and not SHN_LORESERVE <= section < SHN_XINDEX:
                raise self._error(f"symbol {index} is in section {section} of {len(self.sections)}")
            kind = info & 0xF
            if kind == SymbolType.SECTION and section < len(self.sections):
                text = self.sections[section].name
            else:
                text = self._string(strings, name, "symbol", index)
            symbols.append(Symbol(index, text, kind, info >> 4, other & 3, section, value, size))
        return symbols

    def _extended_indexes(self, table: Section) -> tuple[int, ...]:
        for section in self.sections:
            if section.type == SectionType.SYMTAB_SHNDX and section.link == table.number:
                data = self.data(section)
                return struct.unpack_from(f"{self._order}{len(data) // 4}I", data)
        return ()

    def _read_relocations(self, table: Section, target: Section) -> Iterator[Relocation]:
        has_addend = table.type == SectionType.RELA
        entry_size = 24 if has_addend else 16
        if table.size % entry_size:
            raise self._error(f"section {table.name!r} of {table.size} bytes is no multiple of {entry_size}")
        if not self._symbol_table or table.link != self._symbol_table:
            raise self._error(
                f"section {table.name!r} refers to section {table.link}, not to the symbol table"
            )
        entry = struct.Struct(f"{self._order}QQq" if has_addend else f"{self._order}QQ")
        for number, (offset, info, *rest) in enumerate(entry.iter_unpack(self.data(table))):
            symbol = info >> 32
            if symbol >= len(self.symbols):
                raise self._error(
                    f"relocation {number} of {target.name!r} refers to symbol {symbol} of {len(self.symbols)}"
                )
            if offset >= target.size:
                raise self._error(
                    f"relocation {number} of {target.name!r} is at offset {offset:#x}, "
                    f"past its {target.size} bytes"
                )
            yield Relocation(offset, self.symbols[symbol], info & 0xFFFFFFFF, rest[0] if rest else None)
