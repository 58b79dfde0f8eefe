"""The ELF reader: what it reads, and that malformed files cost an error that says what is wrong."""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest
from elf_writer import CODE, EXIT, FUNC, GLOBAL, LOCAL, NOBITS, SECTION, ElfWriter

from ebpf.errors import ObjectError
from ebpf.spec.elf import Elf


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
