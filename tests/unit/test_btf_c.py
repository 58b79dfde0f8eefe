"""BTF as C: what is written, and that compilers lay it out as BTF says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.btf.c import to_c
from ebpf.btf.cnames import Names, all_of, identifier
from ebpf.btf.layout import bit_field, fields
from ebpf.errors import BTFError


def find_clang() -> str | None:
    names = ["clang", *(f"clang-{version}" for version in range(25, 11, -1))]
    return next(filter(None, map(shutil.which, [os.environ.get("CLANG", ""), *names])), None)


CLANG = find_clang()
GCC = shutil.which("gcc")
needs_clang = pytest.mark.skipif(CLANG is None, reason="needs clang, to compile the C")


def body(btf: BTF, root: str | None = None) -> str:
    """The definitions, without the frame around them."""
    text = to_c(btf, root=root)
    return text.split("#endif\n", 1)[1].split("#ifndef BPF_NO", 1)[0].strip()


def layout_asserts(btf: BTF) -> str:
    """C that does not compile if a struct or an offset in it differs from the BTF."""
    names, lines = Names(btf), []
    for type in all_of(btf, t.Struct, t.Union, t.Enum):
        if not type.name:
            continue
        assert isinstance(type, t.Composite | t.Enum)
        keyword = {t.Struct: "struct", t.Union: "union", t.Enum: "enum"}[type.__class__]
        name = f"{keyword} {names.of(type)}"
        lines.append(f'_Static_assert(sizeof({name}) == {type.size}, "{name}");')
        if isinstance(type, t.Composite):
            lines += [
                f"_Static_assert(__builtin_offsetof({name}, {identifier(member_name)}) == {bit // 8}, "
                f'"{name}.{member_name}");'
                for member_name, member, bit in fields(type)
                if bit_field(member) is None
            ]
    return "\n".join(lines) + "\n"


def compile_c(folder: Path, header: str, source: str, *command: str) -> Path:
    (folder / "vmlinux.h").write_text(header)
    (folder / "x.c").write_text(f'#include "vmlinux.h"\n{source}')
    output = folder / "x.o"
    done = subprocess.run(
        [*command, "-c", "x.c", "-o", str(output)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr[:2000]}\n{header[:4000]}"
    return output


def recompiled(folder: Path, header: str, source: str) -> BTF:
    """The BTF that clang makes of the C."""
    assert CLANG is not None
    data = compile_c(folder, header, source, CLANG, "-target", "bpf", "-g", "-O2", "-Werror").read_bytes()
    return BTF.from_bytes(data[data.index(b"\x9f\xeb\x01\x00\x18\x00\x00\x00") :])


def test_frame() -> None:
    text = to_c(BTFBuilder().build())
    assert text.startswith("#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n")
    assert "#ifndef BPF_NO_PRESERVE_ACCESS_INDEX\n#pragma clang attribute push" in text
    assert text.rstrip().endswith("#pragma clang attribute pop\n#endif\n\n#endif")


def test_order_and_forward_declarations() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)  # 1
    b.add_struct("list", 16, [MemberSpec("next", 3, 0), MemberSpec("other", 5, 64)])  # 2
    b.add_pointer(2)  # 3
    b.add_struct("outer", 20, [MemberSpec("inner", 6, 0), MemberSpec("n", integer, 128)])  # 4
    b.add_pointer(4)  # 5
    b.add_typedef("list_t", 2)  # 6
    assert body(b.build()) == (
        "struct outer;\n\n"
        "struct list {\n\tstruct list *next;\n\tstruct outer *other;\n};\n\n"
        "typedef struct list list_t;\n\n"
        "struct outer {\n\tlist_t inner;\n\tint n;\n} __attribute__((packed));"
    )


def test_declarators() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)
    array = b.add_array(integer, 3, integer)
    pointer = b.add_pointer(integer)
    proto = b.add_function_proto(pointer, [("a", integer), ("", pointer)], variadic=True)
    callback = b.add_pointer(proto)
    b.add_typedef("to_array", b.add_pointer(array))
    b.add_typedef("handlers", b.add_array(callback, 4, integer))
    b.add_typedef("grid", b.add_array(array, 2, integer))
    b.add_typedef("fixed", b.add_qualifier("const", b.add_pointer(b.add_qualifier("volatile", integer))))
    b.add_typedef("quick", b.add_qualifier("restrict", pointer))
    b.add_typedef("user", b.add_pointer(b.add_type_tag("user", integer)))
    b.add_typedef("proto", proto)
    b.add_typedef("maker", b.add_pointer(b.add_function_proto(callback)))
    b.add_typedef(
        "consts", b.add_qualifier("const", b.add_array(b.add_qualifier("const", integer), 2, integer))
    )
    assert body(b.build()).split("\n\n") == [
        "typedef int (*to_array)[3];",
        "typedef int *(*handlers[4])(int a, int *, ...);",
        "typedef int grid[2][3];",
        "typedef volatile int *const fixed;",
        "typedef int *restrict quick;",
        'typedef int __attribute__((btf_type_tag("user"))) *user;',
        "typedef int *proto(int a, int *, ...);",
        "typedef int *(*(*maker)(void))(int a, int *, ...);",
        "typedef const int consts[2];",
    ]


def test_enums() -> None:
    b = BTFBuilder()
    b.add_enum("small", {"A": 1, "B": -2})
    b.add_enum("byte", {"C": 255}, size=1)
    b.add_enum("huge", {"D": 1 << 40, "E": (1 << 64) - 1}, size=8)
    b.add_enum("least", {"F": -(1 << 63)}, size=8)
    b.add_enum("", {"A": 5, "G": 6})
    b.add_enum("empty", {})
    assert body(b.build()).split("\n\n") == [
        "enum small {\n\tA = 1,\n\tB = -2,\n};",
        "enum byte {\n\tC = 255,\n} __attribute__((mode(byte)));",
        "enum huge {\n\tD = 1099511627776ULL,\n\tE = 18446744073709551615ULL,\n};",
        "enum least {\n\tF = -9223372036854775807LL - 1,\n};",
        "enum empty {\n\t___empty_empty = 0,\n};",
        "enum {\n\tA___2 = 5,\n\tG = 6,\n};",
    ]


def test_names_that_collide() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4)
    b.add_struct("one", 4, [MemberSpec("a", integer, 0)])
    b.add_struct("one", 4, [MemberSpec("b", integer, 0)])
    b.add_union("one", 4, [MemberSpec("c", integer, 0)])
    b.add_typedef("one", 2)
    b.add_typedef("one", 3)
    b.add_forward("one")
    b.add_forward("never")
    b.add_struct("rust::Vec<u8>", 4, [MemberSpec("for", b.add_int("u32", 4), 0)])
    text = body(b.build())
    for line in (
        "struct one {\n\tint a;\n};",
        "struct one___2 {\n\tint b;\n};",
        "union one___3 {\n\tint c;\n};",
        "typedef struct one one;",
        "typedef struct one___2 one___2;",
        "struct never;",
        "typedef unsigned int u32;",
        "struct rust__Vec_u8_ {\n\tu32 _for;\n};",
    ):
        assert line in text
    assert "struct one;" not in text


def test_padding_and_packing() -> None:
    b = BTFBuilder()
    byte, integer, wide = b.add_int("char", 1), b.add_int("int", 4), b.add_int("long long", 8)
    b.add_struct("gap", 16, [MemberSpec("a", byte, 0), MemberSpec("b", byte, 32)])
    b.add_struct("packed", 5, [MemberSpec("a", byte, 0), MemberSpec("b", integer, 8)])
    b.add_struct("bits", 8, [MemberSpec("a", integer, 0, 3), MemberSpec("b", integer, 13, 5)])
    b.add_struct("aligned", 64, [MemberSpec("a", wide, 0)])
    b.add_struct("natural", 16, [MemberSpec("a", byte, 0), MemberSpec("b", wide, 64)])
    b.add_union("large", 64, [MemberSpec("a", integer, 0)])
    b.add_struct("huge", 1 << 20, [MemberSpec("a", integer, 0)])
    texts = body(b.build()).split("\n\n")
    words = "\tlong: 64;\n" * 7
    assert texts == [
        "struct gap {\n\tchar a;\n\tchar: 8;\n\tshort: 16;\n\tchar b;\n"
        "\tchar: 8;\n\tshort: 16;\n\tlong: 64;\n};",
        "struct packed {\n\tchar a;\n\tint b;\n} __attribute__((packed));",
        "struct bits {\n\tint a: 3;\n\tchar: 5;\n\tchar: 5;\n\tint b: 5;\n"
        "\tchar: 6;\n\tchar: 8;\n\tint: 32;\n};",
        f"struct aligned {{\n\tlong long a;\n{words}}};",
        "struct natural {\n\tchar a;\n\tlong long b;\n};",
        "union large {\n\tint a;\n\tunsigned char ___size[64];\n};",
        "struct huge {\n\tint a;\n\tunsigned char ___padding_4[1048568];\n\tint: 32;\n};",
    ]


def test_kfuncs() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)
    task = b.add_struct("task", 4, [MemberSpec("pid", integer, 0)])
    proto = b.add_function_proto(integer, [("task", b.add_pointer(task))])
    kfunc, quick = b.add_function("get_task", proto), b.add_function("quick", proto)
    b.add_function("plain", proto)
    for function in (kfunc, quick):
        b.add_decl_tag("bpf_kfunc", function)
    b.add_decl_tag("bpf_fastcall", quick)
    text = to_c(b.build()).split("BPF_NO_KFUNC_PROTOTYPES")[1]
    assert "extern int get_task(struct task *task) __weak __ksym;\n" in text
    assert "extern int quick(struct task *task) __bpf_fastcall __weak __ksym;\n" in text
    assert "plain" not in text


def test_root() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)
    b.add_struct("wanted", 16, [MemberSpec("other", 5, 0), MemberSpec("value", 4, 64)])  # 2
    b.add_struct("unwanted", 4, [MemberSpec("a", integer, 0)])  # 3
    b.add_typedef("value_t", integer)  # 4
    b.add_pointer(3)  # 5
    for root in ("wanted", "struct wanted"):
        assert body(b.build(), root) == (
            "struct unwanted;\n\ntypedef int value_t;\n\n"
            "struct wanted {\n\tstruct unwanted *other;\n\tvalue_t value;\n};"
        )
    with pytest.raises(BTFError, match="no struct or union or enum or typedef named 'absent'"):
        to_c(b.build(), root="absent")


def test_members_that_overlap_are_no_struct() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4)
    b.add_struct("s", 8, [MemberSpec("a", integer, 0), MemberSpec("b", integer, 16)])
    with pytest.raises(BTFError, match="members that overlap"):
        to_c(b.build())


def draw_member(
    draw: Any, b: BTFBuilder, known: list[tuple[int, int, int]], bits: bool
) -> tuple[int, int, int, int]:
    """(id, size, align, bit-field width) of a type: a number, or an array, or one that was made before."""
    id, size, align = draw(st.sampled_from(known))
    if bits and size <= 8 and id <= 5 and draw(st.booleans()):
        return id, size, align, draw(st.integers(1, size * 8))
    if draw(st.integers(0, 4)) == 0:
        length = draw(st.integers(1, 3))
        return b.add_array(id, length, 3), size * length, align, 0
    return id, size, align, 0


@st.composite
def layouts(draw: Any) -> BTF:
    """Structs as compilers make them: natural or packed, with what __aligned__ leaves behind."""
    b = BTFBuilder()
    known = [
        (b.add_int(name, size, signed=signed), size, size)
        for name, size, signed in (
            ("char", 1, True),
            ("short", 2, True),
            ("unsigned int", 4, False),
            ("long long", 8, True),
            ("unsigned __int128", 16, False),
        )
    ]
    known.append((b.add_pointer(0), 8, 8))
    for number in range(draw(st.integers(1, 5))):
        packed, is_union = draw(st.booleans()), draw(st.integers(0, 3)) == 0
        members, at, end, struct_align = [], 0, 0, 1
        for place in range(draw(st.integers(1, 6))):
            id, size, align, width = draw_member(draw, b, known, bits=True)
            if packed:
                align = 1
            struct_align = max(struct_align, align)
            start = 0 if is_union else at
            if width:
                start += draw(st.sampled_from([0, 0, 3, 17])) * (not is_union)
                if not packed and start % (size * 8) + width > size * 8:
                    start = -(-start // (size * 8)) * size * 8
            else:
                start = -(-start // (align * 8)) * align * 8
                start += draw(st.sampled_from([0, 0, 0, 64, 192])) * align * (not is_union)
            members.append(MemberSpec(f"m{place}", id, start, width))
            at = start + (width or size * 8)
            end = max(end, at)
        total = -(-end // (struct_align * 8)) * struct_align + draw(st.sampled_from([0, 0, 64]))
        add = b.add_union if is_union else b.add_struct
        known.append((add(f"s{number}", total, members), total, struct_align))
    return b.build()


@needs_clang
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(layouts())
def test_compilers_agree(tmp_path_factory: pytest.TempPathFactory, btf: BTF) -> None:
    folder = tmp_path_factory.mktemp("c")
    header = to_c(btf)
    structs = [type for type in btf.of_kind(t.Struct, t.Union) if type.name]
    # Bit-fields have no offset that C could be asked for; what clang says of them in BTF is compared.
    uses = "\n".join(
        f"{'union' if isinstance(type, t.Union) else 'struct'} {type.name} v{type.id};" for type in structs
    )
    made = recompiled(folder, header, layout_asserts(btf) + uses)
    for type in structs:
        again = made.find(type.name, t.Struct, t.Union)
        assert again.size == type.size
        assert [
            (m.name, m.bit_offset, m.bit_size) for m in again.members if not m.name.startswith("___")
        ] == [(m.name, m.bit_offset, m.bit_size) for m in type.members], header
    if GCC:
        compile_c(folder, header, layout_asserts(btf), GCC, "-w")


SOURCE = """
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long long u64;
enum color { RED = 1, GREEN = -2 };
enum wide { MANY = 1ULL << 40 };
struct node;
typedef int (*visit_t)(struct node *, void *, ...);
struct node {
    struct node *next; enum color color; enum wide wide; u8 mac[6]; int low : 3; u64 high : 40;
    union { u32 v4; u8 v6[16]; struct { u32 a, b; }; };
    visit_t visit; const char *volatile name; int (*table[3])(const struct node *const, u32 (*)[4]);
    struct { char c; int i; } __attribute__((packed)) tight; u32 tail __attribute__((aligned(64)));
    u32 more[];
};
struct node *all; visit_t other;
"""


@needs_clang
def test_c_of_c_is_the_same(tmp_path: Path) -> None:
    first = recompiled(tmp_path, "", SOURCE)
    second = recompiled(tmp_path, to_c(first), "struct node *all; visit_t other;")

    def describe(btf: BTF) -> list[str]:
        node = btf.find("node", t.Struct)
        return [f"{name}: {member.type} {bit} {member.bit_size}" for name, member, bit in fields(node)]

    assert describe(first) == describe(second)
    assert first.find("node", t.Struct).size == second.find("node", t.Struct).size
    for name in ("color", "wide"):
        assert first.find(name, t.Enum).members == second.find(name, t.Enum).members


@needs_clang
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_decode_what_clang_lays_out(tmp_path: Path, target: str) -> None:
    """Bit-fields most of all: clang's own idea of where they are, in both byte orders."""
    from ebpf.btf.values import codec

    source = """
    struct s { unsigned a : 3; int b : 7; long long c : 40; _Bool d : 1; char name[4]; unsigned short e;
               unsigned char f : 4, g : 4; __int128 h; };
    struct s value __attribute__((section(".data.v"))) =
        { 5, -3, -123456789, 1, "ab", 0xbeef, 9, 6, -5 };
    """
    assert CLANG is not None
    data = compile_c(tmp_path, "", source, CLANG, "-target", target, "-g", "-O2").read_bytes()
    magic = b"\x9f\xeb\x01\x00\x18\x00\x00\x00" if target == "bpfel" else b"\xeb\x9f\x01\x00\x00\x00\x00\x18"
    btf = BTF.from_bytes(data[data.index(magic) :])
    type = btf.find("s", t.Struct)
    fields_given = {
        "a": 5,
        "b": -3,
        "c": -123456789,
        "d": True,
        "name": "ab",
        "e": 0xBEEF,
        "f": 9,
        "g": 6,
        "h": -5,
    }
    encoded = codec(type).encode(fields_given)
    at = data.index(encoded)  # the section's content
    assert codec(type).decode(data, at) == fields_given
