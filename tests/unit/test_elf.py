"""Objects made by hand, well-formed and not: what is read, and errors that say what is wrong."""

from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import ebpf
from ebpf.errors import BTFError, ObjectError
from ebpf.isa.instruction import Reference, ReferenceKind
from ebpf.spec.elf import Elf
from ebpf.spec.reader import read_object

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


def small(byteorder: str = "little", **options: int) -> bytes:
    writer = ElfWriter(byteorder, **options)  # type: ignore[arg-type]
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.section(".bss", type=NOBITS, size=4096)
    writer.symbol("", code, type=SECTION, binding=LOCAL)
    program = writer.symbol("prog", code, 0, 16)
    writer.relocation(code, 8, program)
    return writer.build()


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_sections_symbols_and_relocations(byteorder: str) -> None:
    elf = Elf(small(byteorder))
    assert elf.byteorder == byteorder
    code = elf.section("xdp")
    assert code is not None and code.is_code and bytes(elf.data(code)) == EXIT
    bss = elf.section(".bss")
    assert bss is not None and bss.size == 4096 and len(elf.data(bss)) == 0
    section, program = elf.symbols[1:]
    assert (section.name, section.type, section.binding) == ("xdp", SECTION, LOCAL)
    assert (program.name, program.type, program.binding, program.value, program.size) == (
        "prog",
        FUNC,
        GLOBAL,
        0,
        16,
    )
    (relocation,) = elf.relocations(code)
    assert (relocation.offset, relocation.symbol, relocation.type, relocation.addend) == (8, program, 1, None)
    assert elf.section("none") is None and list(elf.relocations(bss)) == []


def test_relocations_with_addends() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.relocation(code, 0, writer.symbol("prog", code), addend=-8)
    elf = Elf(writer.build())
    (relocation,) = elf.relocations(elf.sections[code])
    assert relocation.addend == -8


def test_old_clang_wrote_no_machine() -> None:
    assert Elf(small(machine=0)).symbols


def patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(small())
    struct.pack_into(f"<{layout}", data, offset, value)
    return bytes(data)


def header_of(name: str) -> int:
    """File offset of a section's header."""
    data = small()
    elf = Elf(data)
    section = elf.section(name)
    assert section is not None
    (table,) = struct.unpack_from("<Q", data, 40)
    return int(table) + 64 * section.number


MALFORMED = {
    "empty": (b"", "is empty"),
    "text": (b"int main() {}", "not an ELF object"),
    "header": (small()[:50], "ELF header cut short: 50 bytes of 64"),
    "class": (patched(4, "B", 1), "32-bit ELF"),
    "byte order": (patched(5, "B", 3), "byte order 3"),
    "machine": (small(machine=62), "machine 62, not for BPF"),
    "type": (small(type=2), "type 2; a relocatable object"),
    "no sections": (patched(40, "Q", 0), "no section headers"),
    "section table": (patched(40, "Q", 1 << 63), "section headers cut short"),
    "entry size": (patched(58, "H", 40), "section headers of 40 bytes"),
    "section count": (patched(60, "H", 60000), "section headers cut short: 60000"),
    "names index": (patched(62, "H", 50), "section names are said to be in section 50"),
    "names kind": (patched(62, "H", 1), "is no string table"),
    "section data": (patched(header_of("xdp") + 32, "Q", 1 << 40), "section 1 cut short"),
    "section name": (patched(header_of("xdp"), "I", 1 << 20), "name of section 1 at offset 0x100000"),
    "symbol table size": (patched(header_of(".symtab") + 32, "Q", 71), "no multiple of 24"),
    "symbol names": (patched(header_of(".symtab") + 40, "I", 1), "symbol names are in section 1"),
    "overlap": (patched(header_of("xdp") + 32, "Q", len(small()) - 64), "sections overlap"),
    "relocation size": (patched(header_of(".relxdp") + 32, "Q", 15), "no multiple of 16"),
    "relocation link": (patched(header_of(".relxdp") + 40, "I", 1), "not to the symbol table"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    data, message = MALFORMED[case]
    with pytest.raises(ObjectError, match=message) as caught:
        elf = Elf(data, name="broken")
        for section in elf.sections:
            list(elf.relocations(section))
    assert str(caught.value).startswith("broken: ")


def test_every_truncation_is_an_error() -> None:
    data = small()
    for length in range(len(data)):
        with pytest.raises(ObjectError):
            Elf(data[:length])


def test_symbol_in_no_section_and_relocation_past_the_end() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.symbol("prog", 99)
    with pytest.raises(ObjectError, match="symbol 1 is in section 99 of"):
        Elf(writer.build())
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.relocation(code, 16, writer.symbol("prog", code))
    elf = Elf(writer.build())
    with pytest.raises(ObjectError, match=r"at offset 0x10, past its 16 bytes"):
        list(elf.relocations(elf.sections[code]))
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.relocation(code, 8, 77)
    elf = Elf(writer.build())
    with pytest.raises(ObjectError, match="symbol 77 of 1"):
        list(elf.relocations(elf.sections[code]))


def test_names_that_share_a_long_tail_cost_no_memory() -> None:
    """A file of 300 kB whose symbols name ever shorter tails of one string: 500 MB if each were kept."""
    count = 8000
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    for _ in range(count):
        writer.symbol("", code)
    writer.symbol("x" * 100_000, code)
    data = bytearray(writer.build())
    elf = Elf(bytes(data))
    table = elf.section(".symtab")
    assert table is not None
    long = struct.unpack_from("<I", data, table.offset + 24 * (count + 1))[0]
    for number in range(1, count + 1):
        struct.pack_into("<I", data, table.offset + 24 * number, long + number)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ObjectError, match="longer than the file could hold"):
        Elf(bytes(data))
    assert time.perf_counter() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_more_sections_than_16_bits_count() -> None:
    """Section 0 then holds the number of sections, and of the one with their names."""
    data = bytearray(small())
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    struct.pack_into("<Q", data, table + 32, count)
    struct.pack_into("<I", data, table + 40, names)
    assert [section.name for section in Elf(bytes(data)).sections] == [
        section.name for section in Elf(small()).sections
    ]


# Objects as compilers do not emit them today, read into Specs.


def test_assembly_without_types_and_sizes() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT + EXIT, flags=CODE)
    writer.symbol("one", code, 0, type=NOTYPE)
    writer.symbol("two", code, 16, type=NOTYPE)
    spec = read_object(writer.build(), name="test")
    assert [len(program.instructions) for program in spec.programs.values()] == [2, 2]


def test_calls_resolved_by_the_assembler() -> None:
    writer = ElfWriter()
    code = writer.section("xdp", call(1) + EXIT + EXIT, flags=CODE)
    writer.symbol("main", code, 0, 24)
    writer.symbol("sub", code, 24, 16, binding=LOCAL)
    with pytest.raises(ObjectError, match="no function starts at 0x10"):
        read_object(writer.build(), name="test")
    data = writer.build().replace(call(1), call(2))
    spec = read_object(data, name="test")
    assert list(spec.functions) == ["sub"], "a static function beside a program is a subprogram"
    assert spec.programs["main"].instructions[0].reference == Reference(ReferenceKind.CALL, "sub")


def test_section_symbols_and_addends() -> None:
    for addend in (None, 16):
        writer = ElfWriter()
        code = writer.section("xdp", load(0 if addend else 16) + EXIT, flags=CODE)
        bss = writer.section(".bss", type=NOBITS, size=64)
        writer.symbol("main", code, 0, 32)
        writer.relocation(code, 0, writer.symbol("", bss, type=SECTION, binding=LOCAL), addend=addend)
        spec = read_object(writer.build(), name="test")
        assert spec.programs["main"].instructions[0].reference == Reference(
            ReferenceKind.MAP_VALUE, ".bss", 16
        )


def test_static_functions_of_one_name() -> None:
    writer = ElfWriter()
    text = writer.section(".text", EXIT + EXIT, flags=CODE)
    code = writer.section("xdp", call() + call() + EXIT, flags=CODE)
    writer.symbol("sub", text, 0, 16, binding=LOCAL)
    writer.symbol("sub", text, 16, 16, binding=LOCAL)
    writer.symbol("main", code, 0, 32)
    writer.relocation(code, 0, 1, 10)
    writer.relocation(code, 8, 2, 10)
    spec = read_object(writer.build(), name="test")
    assert list(spec.functions) == ["sub", "sub.2"]
    names = [i.reference.name for i in spec.programs["main"].instructions if i.reference]
    assert names == ["sub", "sub.2"]


def test_a_lone_function_without_section_is_a_program() -> None:
    writer = ElfWriter()
    code = writer.section(".text", EXIT, flags=CODE)
    writer.symbol("main", code, 0, 16)
    spec = read_object(writer.build(), name="test")
    assert list(spec.programs) == ["main"] and spec.programs["main"].type is None


def hand_made(fault: str) -> bytes:
    writer = ElfWriter()
    body = {"half a load": EXIT[:8] + load()[:8], "odd size": EXIT + b"\0\0\0\0"}.get(fault, load() + EXIT)
    code = writer.section("xdp", body, flags=CODE)
    data = writer.section(".data", bytes(8))
    size = {"odd end": 12, "past the end": 4096}.get(fault, len(body) // 8 * 8)
    if fault != "no symbols":
        writer.symbol("main", code, 0, size)
    if fault == "overlap":
        writer.symbol("other", code, 8, 16)
    if fault == "two names":
        writer.section("tc", EXIT, flags=CODE)
        writer.symbol("main", 3, 0, 16)
    if fault == "two sections":
        writer.section("xdp", EXIT, flags=CODE)
    value = writer.symbol("value", data, 0, 8, type=OBJECT)
    common = writer.symbol("common", 0xFFF2, 0, 8, type=OBJECT)
    weak = writer.symbol("weak", 0, type=NOTYPE, binding=WEAK)
    places = {
        "not a load": [(16, value)],
        "second slot": [(8, value)],
        "twice": [(0, value), (0, value)],
        "common": [(0, common)],
        "weak": [(0, weak)],
        "outside": [(0, writer.symbol("far", data, 4096, 8, type=OBJECT))],
    }
    for offset, symbol in places.get(fault, []):
        writer.relocation(code, offset, symbol)
    if fault == "huge":
        writer.section(".bss", type=NOBITS, size=1 << 60)
    if fault == "aliases":
        for number in range(50):
            writer.symbol(f"alias{number}", code, 0, size)
    if fault == "version":
        writer.section("version", b"\1\2")
    if fault == "types":
        writer.section(".BTF", b"\x9f\xeb\1\0")
    return writer.build()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("half a load", "'main' of section 'xdp'"),
        ("odd size", "20 bytes, no multiple of 8"),
        ("odd end", "'main' is at 0x0 to 0xc"),
        ("past the end", "'main' is at 0x0 to 0x1000"),
        ("no symbols", "no symbol names a function"),
        ("overlap", "overlaps the one at 0x8"),
        ("two names", "two global functions are named 'main'"),
        ("two sections", "two sections of code are named 'xdp'"),
        ("not a load", "opcode 0xb7"),
        ("second slot", "not at the start of an instruction"),
        ("twice", "two relocations at 0x0"),
        ("common", "-fno-common"),
        ("weak", "'weak' is used, but nothing here defines it"),
        ("outside", "at 0x1000, outside '.data'"),
        ("huge", "bytes of zeros"),
        ("aliases", "too many names"),
        ("version", "2 bytes; a 32-bit number"),
        ("types", "test: "),
    ],
)
def test_malformed_objects(fault: str, message: str) -> None:
    with pytest.raises((ObjectError, BTFError), match=message):
        read_object(hand_made(fault), name="test")


def test_open(tmp_path: Path) -> None:
    writer = ElfWriter()
    code = writer.section("xdp", EXIT, flags=CODE)
    writer.symbol("main", code, 0, 16)
    path = tmp_path / "count.bpf.o"
    path.write_bytes(writer.build())
    spec = ebpf.open(path)
    assert (spec.name, list(spec.programs)) == ("count", ["main"])
    with pytest.raises(ObjectError, match="there is no file"):
        ebpf.open(tmp_path / "none.o")
    with pytest.raises(ObjectError, match="Is a directory"):
        ebpf.open(tmp_path)
    source = tmp_path / "count.bpf.c"
    source.write_text("int main() {}")
    with pytest.raises(ObjectError, match=r"ebpf.compile\(\)"):
        ebpf.open(source)
