"""Writes small ELF64 objects for tests, well-formed or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL = 1, 2, 3, 4, 8, 9
CODE = 0x6  # SHF_ALLOC | SHF_EXECINSTR
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
LOCAL, GLOBAL, WEAK = 0, 1, 2

EXIT = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit


def call(imm: int = -1, src: int = 1) -> bytes:
    return struct.pack("<BBhi", 0x85, src << 4, 0, imm)


def load(imm: int = 0, dst: int = 1) -> bytes:
    return struct.pack("<BBhiBBhi", 0x18, dst, 0, imm, 0, 0, 0, 0)


@dataclass
class ElfWriter:
    """Sections, symbols and relocations in the order that they are added."""

    byteorder: Literal["little", "big"] = "little"
    machine: int = 247
    type: int = 1
    _sections: list[tuple[str, int, int, bytes, int, int, int]] = field(default_factory=list)
    _symbols: list[tuple[str, int, int, int, int, int]] = field(default_factory=list)
    _relocations: dict[int, list[tuple[int, int, int, int | None]]] = field(default_factory=dict)

    def section(
        self, name: str, data: bytes = b"", *, type: int = PROGBITS, flags: int = 0, size: int = 0
    ) -> int:
        """Number of the new section; `size` is for NOBITS."""
        self._sections.append((name, type, flags, data, size or len(data), 0, 0))
        return len(self._sections)

    def symbol(
        self,
        name: str,
        section: int,
        value: int = 0,
        size: int = 0,
        *,
        type: int = FUNC,
        binding: int = GLOBAL,
        visibility: int = 0,
    ) -> int:
        """Number of the new symbol."""
        self._symbols.append((name, binding << 4 | type, visibility, section, value, size))
        return len(self._symbols)

    def relocation(
        self, section: int, offset: int, symbol: int, type: int = 1, addend: int | None = None
    ) -> None:
        self._relocations.setdefault(section, []).append((offset, symbol, type, addend))

    def build(self) -> bytes:
        order = "<" if self.byteorder == "little" else ">"
        sections = list(self._sections)
        symbol_table = len(sections) + len(self._relocations) + 1
        for target, entries in self._relocations.items():
            has_addend = entries[0][3] is not None
            data = b"".join(
                struct.pack(f"{order}QQ", offset, symbol << 32 | type)
                + (struct.pack(f"{order}q", addend) if addend is not None else b"")
                for offset, symbol, type, addend in entries
            )
            kind = RELA if has_addend else REL
            name = (".rela" if has_addend else ".rel") + sections[target - 1][0]
            sections.append((name, kind, 0, data, len(data), symbol_table, target))
        strings, table = bytearray(b"\0"), bytearray(24)
        for name, info, visibility, section, value, size in self._symbols:
            table += struct.pack(f"{order}IBBHQQ", len(strings), info, visibility, section, value, size)
            strings += name.encode() + b"\0"
        sections.append((".symtab", SYMTAB, 0, bytes(table), len(table), symbol_table + 1, 1))
        sections.append((".strtab", STRTAB, 0, bytes(strings), len(strings), 0, 0))

        names, headers, body = bytearray(b"\0"), bytearray(64), bytearray()
        name_starts = []
        for name, *_ in [*sections, (".shstrtab",)]:
            name_starts.append(len(names))
            names += name.encode() + b"\0"
        sections.append((".shstrtab", STRTAB, 0, bytes(names), len(names), 0, 0))
        for start, (_, kind, flags, data, size, link, info) in zip(name_starts, sections, strict=True):
            headers += struct.pack(
                f"{order}IIQQQQIIQQ", start, kind, flags, 0, 64 + len(body), size, link, info, 8, 0
            )
            body += data
        return (
            b"\x7fELF\x02"
            + (b"\x01" if self.byteorder == "little" else b"\x02")
            + b"\x01"
            + bytes(9)
            + struct.pack(
                f"{order}HHIQQQIHHHHHH",
                self.type,
                self.machine,
                1,
                0,
                0,
                64 + len(body),
                0,
                64,
                0,
                0,
                64,
                len(sections) + 1,
                len(sections),
            )
            + bytes(body)
            + bytes(headers)
        )
