"""The .BTF.ext section: both byte orders, headers and records of other sizes, and what is malformed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder
from ebpf.btf.ext import BTFExt, parse_ext
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError
from ebpf.isa.instruction import CoreKind, CoreRelocation, SourceLine

names = ["clang", *(f"clang-{version}" for version in range(25, 11, -1))]
CLANG = next(filter(None, map(shutil.which, [os.environ.get("CLANG", ""), *names])), None)


def make(
    order: ByteOrder = "little", *, extra: int = 0, header: int = 32, core: bool = True
) -> tuple[bytearray, BTF]:
    """Records as clang writes them; `extra` words more in each."""
    mark = "<" if order == "little" else ">"
    b = BTFBuilder(byteorder=order)
    xdp, tc, file, line, access = map(b.add_string, ["xdp", "tc", "a.c", "return 0;", "0:1"])

    def part(*sections: tuple[int, list[tuple[int, ...]]]) -> bytes:
        width = len(sections[0][1][0])
        data = struct.pack(f"{mark}I", 4 * (width + extra))
        for name, records in sections:
            data += struct.pack(f"{mark}2I", name, len(records))
            for record in records:
                data += struct.pack(f"{mark}{width + extra}I", *record, *([99] * extra))
        return data

    functions = part((xdp, [(0, 3), (16, 4)]), (tc, [(0, 5)]))
    lines = part((xdp, [(0, file, line, 7 << 10 | 9), (8, file, 0, 8 << 10)]))
    relocations = part((xdp, [(8, 2, access, 0), (24, 2, access, 10)])) if core else b""
    parts = [functions, lines, relocations][: 3 if header >= 32 else 2]
    data = struct.pack(f"{mark}HBBI", 0xEB9F, 1, 0, header)
    at = 0
    for content in parts:
        data += struct.pack(f"{mark}2I", at, len(content))
        at += len(content)
    return bytearray(data.ljust(header, b"\0") + b"".join(parts)), b.build()


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("header", [32, 40])
def test_parse(order: ByteOrder, extra: int, header: int) -> None:
    ext = parse_ext(bytes(make(order, extra=extra, header=header)[0]), make(order)[1])
    assert ext.functions == {"xdp": [(0, 3), (16, 4)], "tc": [(0, 5)]}
    assert ext.lines == {
        "xdp": [(0, SourceLine("a.c", 7, 9, "return 0;")), (8, SourceLine("a.c", 8, 0, ""))],
    }
    assert ext.relocations == {
        "xdp": [
            (8, CoreRelocation(CoreKind.FIELD_BYTE_OFFSET, 2, "0:1")),
            (24, CoreRelocation(CoreKind(10), 2, "0:1")),
        ]
    }


def test_without_relocations() -> None:
    data, btf = make(header=24)
    assert parse_ext(bytes(data), btf).relocations == {}
    data, btf = make(core=False)
    assert parse_ext(bytes(data), btf).relocations == {}
    empty = struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, 0, 0, 0)
    assert parse_ext(empty, btf) == BTFExt({}, {}, {})


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0, "not .BTF.ext"),
        (2, 2, "version 2"),
        (4, 8, "size of its header as 8"),
        (4, 4000, "size of its header as 4000"),
        (12, 4000, "the function part"),
        (20, 1 << 31, "the line part"),
        (24, 4000, "the relocation part"),
        (12, 2, "no room for the size of records"),
        (12, 10, "the head of a section is cut off"),
        (32, 4, "records of 4 bytes; they have at least 8"),
        (32, 10, "records of 10 bytes"),
        (36, 1 << 20, "string offset 1048576"),
        (40, 0, "0 records of section 'xdp'"),
        (40, 1 << 31, "2147483648 records of section 'xdp'"),
        (60, 1, "section 'xdp' appears twice"),
    ],
)
def test_malformed(offset: int, value: int, message: str) -> None:
    data, btf = make()
    struct.pack_into("<H" if offset < 4 else "<I", data, offset, value)
    with pytest.raises(BTFError) as caught:
        parse_ext(bytes(data), btf)
    assert message in str(caught.value)


def test_unknown_relocation_and_other_byte_order() -> None:
    data, btf = make()
    data[-4:] = struct.pack("<I", 77)
    with pytest.raises(BTFError, match="CO-RE relocation of unknown kind 77"):
        parse_ext(bytes(data), btf)
    with pytest.raises(BTFError, match=r"big-endian, its \.BTF little-endian"):
        parse_ext(bytes(make("big")[0]), btf)
    with pytest.raises(BTFError, match="cut off: 5 bytes"):
        parse_ext(bytes(data[:5]), btf)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(8, 200), st.integers(0, 255)), max_size=4), st.integers(0, 240))
def test_damaged(changes: list[tuple[int, int]], length: int) -> None:
    data, btf = make()
    for place, value in changes:
        if place < len(data):
            data[place] = value
    with suppress(BTFError):
        parse_ext(bytes(data[:length]), btf)


@pytest.mark.skipif(CLANG is None, reason="needs clang, to compile an object")
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_what_clang_writes(tmp_path: Path, target: str) -> None:
    source = """struct s { int a, b; } __attribute__((preserve_access_index));
__attribute__((section("one"))) int first(struct s *p) { return p->b; }
__attribute__((section("one"))) int second(struct s *p) { return p->a + 1; }
__attribute__((section("two"))) int third(struct s *p) {
    return __builtin_preserve_field_info(p->b, 2);
}
"""
    (tmp_path / "x.c").write_text(source)
    assert CLANG is not None
    subprocess.run(
        [CLANG, "-target", target, "-O2", "-g", "-c", "x.c", "-o", "x.o"], cwd=tmp_path, check=True
    )
    data = (tmp_path / "x.o").read_bytes()
    order: ByteOrder = "little" if target == "bpfel" else "big"
    magic = (0xEB9F).to_bytes(2, order) + b"\1\0"
    btf_at = data.index(magic + (24).to_bytes(4, order))
    ext_at = data.index(magic + (32).to_bytes(4, order))
    btf = BTF.from_bytes(data[btf_at:])
    ext = parse_ext(data[ext_at:], btf)
    functions = {
        section: [(at, btf.type(id).name) for at, id in rows] for section, rows in ext.functions.items()
    }
    assert functions == {"one": [(0, "first"), (16, "second")], "two": [(0, "third")]}
    assert (5, source.splitlines()[4]) in [(line.line, line.text) for _, line in ext.lines["two"]]
    struct_id = btf.find("s").id
    assert [(at, *row) for at, row in ext.relocations["one"]] == [
        (0, CoreKind.FIELD_BYTE_OFFSET, struct_id, "0:1"),
        (16, CoreKind.FIELD_BYTE_OFFSET, struct_id, "0:0"),
    ]
    assert [row.kind for _, row in ext.relocations["two"]] == [CoreKind(2)]
