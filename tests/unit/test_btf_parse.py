"""Parsing, building and looking up BTF: every kind, both byte orders, split BTF, and what is malformed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.btf.c import to_c
from ebpf.btf.index import TypeIndex
from ebpf.btf.layout import align_of, fields, is_flexible, resolve, size_of
from ebpf.btf.types import Kind, Linkage
from ebpf.btf.values import codec
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError, Error

ORDERS: tuple[ByteOrder, ...] = ("little", "big")


def every_kind(byteorder: ByteOrder = "little", base: BTF | None = None) -> BTFBuilder:
    """One type of each kind at least; the ids are asserted in the first test."""
    b = BTFBuilder(byteorder=byteorder, base=base)
    first = b.next_id - 1
    integer = b.add_int("int", 4, signed=True)  # 1
    b.add_pointer(integer)  # 2
    b.add_array(integer, 5, integer)  # 3
    b.add_struct("flow", 16, [MemberSpec("a", integer, 0, 3), MemberSpec("next", first + 2, 64)])  # 4
    b.add_union("either", 4, [MemberSpec("number", integer, 0), MemberSpec("color", first + 6, 0)])  # 5
    b.add_enum("color", {"RED": -1, "GREEN": 2})  # 6
    b.add_forward("opaque", is_union=True)  # 7
    b.add_typedef("flow_t", first + 4)  # 8
    b.add_qualifier("volatile", integer)  # 9
    b.add_qualifier("const", first + 9)  # 10
    b.add_qualifier("restrict", first + 2)  # 11
    b.add_function("run", first + 13, linkage=Linkage.EXTERN)  # 12
    b.add_function_proto(integer, [("flow", first + 2), ("n", integer)], variadic=True)  # 13
    b.add_variable("counter", first + 10, linkage=Linkage.STATIC)  # 14
    b.add_section(".bss", 8, [(first + 14, 4, 4)])  # 15
    b.add_float("double", 8)  # 16
    b.add_decl_tag("hot", first + 12, component=1)  # 17
    b.add_type_tag("rcu", integer)  # 18
    b.add_enum("mask", {"ALL": 0xFFFF_FFFF_FFFF_FFFF, "LOW": 1}, size=8)  # 19
    b.add_decl_tag("packed", first + 4, is_attribute=True)  # 20
    b.add_enum("big", {"LEAST": -(1 << 63), "MOST": (1 << 63) - 1}, size=8)  # 21
    return b


@pytest.mark.parametrize("order", ORDERS)
def test_every_kind(order: ByteOrder) -> None:
    btf = BTF.from_bytes(every_kind(order).to_bytes())
    assert btf.byteorder == order
    assert len(btf) == 21
    assert {type.kind for type in btf} | {Kind.VOID, Kind.ENUM64} == set(Kind)
    assert [btf.kind(id) for id in (1, 6, 19)] == [Kind.INT, Kind.ENUM, Kind.ENUM64]

    assert repr(btf.type(1)) == (
        "Int(id=1, name='int', size=4, bits=32, bit_offset=0, signed=True, is_bool=False, is_char=False)"
    )
    pointer, array = t.expect(btf.type(2), t.Pointer), t.expect(btf.type(3), t.Array)
    assert pointer.target is btf.type(1) is array.element is array.index
    assert array.length == 5
    flow = btf.find("flow", t.Struct)
    assert [(m.name, m.type.id, m.bit_offset, m.bit_size) for m in flow.members] == [
        ("a", 1, 0, 3),
        ("next", 2, 64, 0),
    ]
    assert flow.member("next").offset == 8
    either = btf.find("either", t.Union)
    assert [(m.name, m.bit_size) for m in either.members] == [("number", 0), ("color", 0)]
    color = btf.find("color", t.Enum)
    assert (color.signed, color.is_wide, color.members) == (True, False, (("RED", -1), ("GREEN", 2)))
    assert btf.find("opaque", t.Forward).is_union
    assert btf.find("flow_t", t.Typedef).target is flow
    run = btf.find("run", t.Function)
    assert run.linkage is Linkage.EXTERN
    assert run.proto.is_variadic and run.proto.return_type.name == "int"
    assert [(p.name, p.type.id) for p in run.proto.parameters] == [("flow", 2), ("n", 1)]
    assert btf.find("counter", t.Variable).linkage is Linkage.STATIC
    section = btf.find(".bss", t.DataSection)
    assert [(e.type.name, e.offset, e.size) for e in section.entries] == [("counter", 4, 4)]
    assert btf.find("double", t.Float).size == 8
    tag = btf.find("hot", t.DeclTag)
    assert (tag.target, tag.component, tag.is_attribute) == (run, 1, False)
    assert btf.decl_tags == {12: [tag], 4: [btf.type(20)]}
    assert btf.find("packed", t.DeclTag).is_attribute
    assert btf.find("packed", t.DeclTag).component == -1
    mask = btf.find("mask", t.Enum)
    assert (mask.size, mask.signed, mask.is_wide, mask.members[0].value) == (8, False, True, (1 << 64) - 1)
    assert [value for _, value in btf.find("big", t.Enum).members] == [-(1 << 63), (1 << 63) - 1]


def test_names() -> None:
    btf = every_kind().build()
    assert [str(type) for type in btf] == [
        "int",
        "int *",
        "int[5]",
        "struct flow",
        "union either",
        "enum color",
        "union opaque",
        "flow_t",
        "volatile int",
        "const volatile int",
        "int * restrict",
        "int run(int *flow, int n, ...)",
        "int (int *flow, int n, ...)",
        "const volatile int counter",
        ".bss",
        "double",
        "hot",
        "int",
        "enum mask",
        "packed",
        "enum big",
    ]
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)
    callback = b.add_pointer(b.add_function_proto(0, [("", b.add_pointer(0))]))
    handlers = b.add_array(callback, 4, integer)
    to_array = b.add_pointer(b.add_array(integer, 3, integer))
    constant = b.add_qualifier("const", b.add_pointer(b.add_qualifier("const", integer)))
    built = b.build()
    assert str(built.type(handlers)) == "void (*[4])(void *)"
    assert str(built.type(to_array)) == "int (*)[3]"
    assert str(built.type(constant)) == "const int * const"
    assert str(built.type(0)) == "void"


@pytest.mark.parametrize("order", ORDERS)
def test_bytes_come_back(order: ByteOrder) -> None:
    data = every_kind(order).to_bytes()
    assert BTF.from_bytes(data).to_bytes() == data
    assert BTFBuilder.from_btf(BTF.from_bytes(data)).to_bytes() == data


def test_copy_gives_equal_types_under_new_ids() -> None:
    source = every_kind().build()
    builder = BTFBuilder(byteorder="big")
    builder.add_int("filler", 1)
    ids = builder.copy([source.find("run"), source.find("hot"), source.find("flow_t")])
    made = builder.build()
    assert str(made.type(ids[12])) == "int run(int *flow, int n, ...)"
    assert made.find("hot", t.DeclTag).target_id == ids[12]
    assert [m.bit_size for m in made.find("flow", t.Struct).members] == [3, 0]
    again = builder.copy([source.find("either")], ids)
    assert again is ids and len(builder.build()) == len(made) + 2  # either and color; int is shared


def test_recursive_struct_copies() -> None:
    b = BTFBuilder()
    b.add_struct("node", 8, [MemberSpec("next", 2, 0)])
    b.add_pointer(1)
    other = BTFBuilder()
    ids = other.copy([b.build().type(1)])
    node = other.build().find("node", t.Struct)
    assert t.expect(node.members[0].type, t.Pointer).target is node
    assert ids == {0: 0, 1: 1, 2: 2}


def test_patched_section() -> None:
    builder = every_kind()
    second = builder.add_variable("first", 1)
    section = builder.add_section(".data", 0, [(14, 0, 4), (second, 0, 4)])
    builder.patch_section(section, 12, {14: (8, 4), second: (0, 4)})
    builder.set_linkage(14, Linkage.GLOBAL)
    builder.set_linkage(12, Linkage.STATIC)
    btf = builder.build()
    made = btf.find(".data", t.DataSection)
    assert made.size == 12
    assert [(e.type.name, e.offset) for e in made.entries] == [("first", 0), ("counter", 8)]
    assert btf.find("counter", t.Variable).linkage is Linkage.GLOBAL
    assert btf.find("run", t.Function).linkage is Linkage.STATIC
    with pytest.raises(BTFError, match="no data section"):
        builder.patch_section(1, 4)
    with pytest.raises(BTFError, match="no linkage"):
        builder.set_linkage(1, Linkage.STATIC)


def test_builder_refuses_what_btf_cannot_say() -> None:
    b = BTFBuilder()
    with pytest.raises(BTFError, match="NUL"):
        b.add_string("a\0b")
    with pytest.raises(BTFError, match="does not fit 64 bits"):
        b.add_enum("e", {"A": 1 << 64})
    with pytest.raises(BTFError, match="more than the 65535"):
        b.add_struct("s", 4, [MemberSpec(f"m{i}", 0, 0) for i in range(65536)])
    with pytest.raises(BTFError, match="cannot be said"):
        b.add_struct("s", 4, [MemberSpec("m", 0, 1 << 24, 1)])
    b.add_pointer(77)
    with pytest.raises(BTFError, match="refers to type 77"):
        b.build()


@pytest.mark.parametrize("order", ORDERS)
def test_split(order: ByteOrder) -> None:
    base = every_kind(order).build()
    builder = BTFBuilder(base=base)
    assert builder.add_string("flow") == base.string_offset("flow")
    assert builder.next_id == 22
    pointer = builder.add_pointer(base.find("flow").id)
    builder.add_struct("module_only", 8, [MemberSpec("flow", pointer, 0)])
    builder.add_int("int", 8)
    data = builder.to_bytes()
    module = BTF.from_bytes(data, base=base)
    assert (module.first_id, len(module)) == (22, 3)
    assert [type.id for type in module] == [22, 23, 24]
    own = module.find("module_only", t.Struct)
    assert t.expect(own.members[0].type, t.Pointer).target is base.find("flow")
    assert [type.id for type in module.find_all("int")] == [1, 24]
    assert module.get("module_only", t.Union) is None
    assert module.string(module.string_offset("module_only")) == "module_only"
    assert module.type(0) is base.type(0)
    assert BTFBuilder.from_btf(module).to_bytes() == data
    assert "struct module_only" in to_c(module) and "struct flow {" in to_c(module)
    with pytest.raises(BTFError, match="-endian, its base"):
        BTF.from_bytes(data, base=every_kind("big" if order == "little" else "little").build())


def many(count: int) -> BTF:
    b = BTFBuilder()
    integer = b.add_int("int", 4)
    for number in range(count):
        b.add_struct(f"name_{number}", 4, [MemberSpec("name", integer, 0)])
    b.add_struct("name_7___old", 4)
    b.add_struct("name_7___older", 4)
    b.add_struct("name_7", 8)
    b.add_typedef("name_7", integer)
    return b.build()


@pytest.mark.parametrize("indexed", [False, True])
def test_lookup(indexed: bool, tmp_path: Path) -> None:
    btf = many(200)
    if indexed:
        btf.name_index.save(tmp_path / "index", b"this one")
        loaded = TypeIndex.load(tmp_path / "index", b"this one")
        assert loaded is not None
        btf = BTF.from_bytes(btf.to_bytes(), index=loaded)
        assert [entry.name for entry in tmp_path.iterdir()] == ["index"]
    assert btf.find("name_7").id == 9
    assert [type.id for type in btf.find_all("name_7")] == [9, 204, 205]
    assert [type.id for type in btf.find_all("name_7", t.Typedef)] == [205]
    assert [type.id for type in btf.find_flavors("name_7", t.Struct)] == [9, 202, 203, 204]
    for number in range(200):  # goes over to the index on the way
        assert btf.find(f"name_{number}").id == number + 2
    assert btf.get("name_") is None
    assert btf.get("") is None
    assert btf.get("name_7\0") is None
    assert btf.get("name_7", t.Union) is None
    with pytest.raises(BTFError, match=r"no struct named 'nam_8'\n  hint: did you mean 'name_8'"):
        btf.find("nam_8", t.Struct)
    with pytest.raises(BTFError, match="no union named 'name_7'\n  hint: it has a struct of that name"):
        btf.find("name_7", t.Union)


def test_index_is_of_one_btf(tmp_path: Path) -> None:
    index = many(3).name_index
    path = tmp_path / "index"
    index.save(path, b"a")
    assert TypeIndex.load(path, b"b") is None
    assert TypeIndex.load(tmp_path / "absent", b"a") is None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert TypeIndex.load(path, b"a") is None
    path.write_bytes(data[:20])
    assert TypeIndex.load(path, b"a") is None
    with pytest.raises(BTFError, match="another BTF"):
        BTF.from_bytes(many(1).to_bytes(), index=many(50).name_index)


def test_names_that_share_their_end() -> None:
    b = BTFBuilder()
    b.add_int("xint", 4)
    data = bytearray(b.to_bytes())
    struct.pack_into("<I", data, 24, 2)  # the name starts inside "xint"
    btf = BTF.from_bytes(data)
    assert btf.find("int").name == "int"
    assert btf.name_index and btf.find("int").id == 1
    assert btf.get("xint") is None
    assert btf.string_offset("int") == 2


def test_strings() -> None:
    btf = every_kind().build()
    assert btf.string(btf.string_offset("flow_t")) == "flow_t"
    assert (btf.string(0), btf.string_offset("")) == ("", 0)
    with pytest.raises(BTFError, match="no string 'flow_'"):
        btf.string_offset("flow_")
    with pytest.raises(BTFError, match="behind the end"):
        btf.string(1 << 30)


def test_immutable() -> None:
    type = every_kind().build().find("int")
    with pytest.raises(AttributeError):
        type.name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del type.name


HEADER_LENGTH = 24


def corrupt(change: Callable[[bytearray], object]) -> bytes:
    data = bytearray(every_kind().to_bytes())
    change(data)
    return bytes(data)


def put(offset: int, value: int, code: str = "I") -> Callable[[bytearray], object]:
    return lambda data: struct.pack_into(f"<{code}", data, offset, value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not BTF: it starts with nothing"),
        (b"\x7fELF", "starts with 7f 45"),
        (b"\x9f\xeb\x01", "cut off: 3 bytes"),
        (corrupt(put(2, 2, "B")), "version 2"),
        (corrupt(put(3, 1, "B")), "flags 0x1"),
        (corrupt(put(4, 8)), "its own size as 8"),
        (corrupt(put(4, 1 << 31)), "its own size"),
        (corrupt(put(12, 1 << 30)), "type section at offset 0"),
        (corrupt(put(20, 1 << 30)), "string section"),
        (corrupt(put(12, 30)), "no multiple of 4"),
        (corrupt(put(20, 0)), "no string section"),
        (corrupt(put(20, 3)), "does not end with a NUL"),
        (
            corrupt(lambda data: data.__setitem__(HEADER_LENGTH + 428, 120)),
            "does not start with the empty string",
        ),
        (corrupt(put(12, 8)), "BTF type 1 at offset 0 is cut off"),
        (corrupt(put(12, 4)), "BTF type 1 at offset 0 is cut off"),
        (corrupt(put(HEADER_LENGTH + 4, 0x1F00_0000)), "BTF type 1 at offset 0: kind 31"),
        (corrupt(put(HEADER_LENGTH + 4, 0)), "BTF type 1 at offset 0: kind 0"),
        (corrupt(put(HEADER_LENGTH + 20, 0x0210_0000)), "BTF type 2 at offset 16: info 0x02100000"),
        (corrupt(put(HEADER_LENGTH + 4, 0x0400_FFFF)), "BTF type 1 at offset 0 is cut off"),
    ],
)
def test_malformed_blob(data: bytes, message: str) -> None:
    with pytest.raises(BTFError) as caught:
        BTF.from_bytes(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 1 << 20, "BTF type 1 at offset 0: string offset 1048576"),
        (8, 3, "BTF type 1 at offset 0: size is 3"),
        (12, 33, "33 bits at bit 0"),
        (12, 0, "0 bits"),
    ],
)
def test_malformed_type(offset: int, value: int, message: str) -> None:
    btf = BTF.from_bytes(corrupt(put(HEADER_LENGTH + offset, value)))
    with pytest.raises(BTFError) as caught:
        btf.type(1)
    assert message in str(caught.value)


def test_dangling_reference() -> None:
    btf = BTF.from_bytes(corrupt(put(HEADER_LENGTH + 16 + 8, 999)))
    with pytest.raises(BTFError, match="no type 999: its ids end at 21"):
        _ = t.expect(btf.type(2), t.Pointer).target
    with pytest.raises(BTFError, match="no type -1"):
        btf.type(-1)


def test_newer_headers_and_kinds() -> None:
    """Layout sections (Linux 7.1) let a reader pass over kinds that it does not know."""
    b = BTFBuilder()
    b.add_int("int", 4)
    plain = b.to_bytes()
    types, strings = plain[24:40], plain[40:]
    unknown = struct.pack("<III2I", 0, 20 << 24 | 2, 0, 7, 8)
    layout = bytes(20 * 4) + bytes([0, 4, 0, 0])
    body = unknown + types + strings + layout
    head = struct.pack("<HBBI", 0xEB9F, 1, 0, 32)
    places = (0, len(unknown + types), len(unknown + types), len(strings))
    data = head + struct.pack("<6I", *places, len(body) - len(layout), len(layout)) + body
    btf = BTF.from_bytes(data)
    assert btf.type(2).name == "int"
    with pytest.raises(BTFError, match="BTF type 1 at offset 0: kind 20 is not known"):
        btf.type(1)
    with pytest.raises(BTFError, match="kind 20 is not known"):
        btf.kind(1)
    assert list(btf.of_kind(t.Int)) == [btf.type(2)]
    with pytest.raises(BTFError, match="kind 20"):
        BTF.from_bytes(data[:24] + bytes(8) + data[32:])
    longer = plain[:4] + struct.pack("<I", 40) + plain[8:24] + bytes(16) + plain[24:]
    assert len(BTF.from_bytes(longer)) == 1
    with pytest.raises(BTFError, match="fields that are not known"):
        BTF.from_bytes(longer[:36] + b"\1" + longer[37:])


def loops() -> list[BTF]:
    made = []
    b = BTFBuilder()
    b.add_typedef("a", 2)
    b.add_typedef("b", 1)
    made.append(b.build())
    b = BTFBuilder()
    b.add_qualifier("const", 1)
    made.append(b.build())
    b = BTFBuilder()
    b.add_array(1, 2, 1)
    made.append(b.build())
    b = BTFBuilder()
    b.add_struct("s", 4, [MemberSpec("s", 1, 0)])
    made.append(b.build())
    b = BTFBuilder()
    b.add_struct("", 4, [MemberSpec("", 1, 0)])
    made.append(b.build())
    b = BTFBuilder()
    b.add_function_proto(1, [("", 1)])
    made.append(b.build())
    b = BTFBuilder()
    b.add_pointer(1)
    made.append(b.build())
    b = BTFBuilder()  # unions of twice the same union: 2 ** 40 members
    integer = b.add_int("int", 4)
    for _ in range(40):
        integer = b.add_union("", 4, [MemberSpec("a", integer, 0), MemberSpec("b", integer, 0)])
    b.add_typedef("deep", integer)
    made.append(b.build())
    b = BTFBuilder()  # the same of anonymous members
    integer = b.add_int("int", 4)
    for _ in range(22):
        integer = b.add_union("", 4, [MemberSpec("", integer, 0), MemberSpec("", integer, 0)])
    b.add_typedef("deep", integer)
    made.append(b.build())
    b = BTFBuilder()  # functions of functions
    proto = b.add_function_proto(0)
    for _ in range(60):
        pointer = b.add_pointer(proto)
        proto = b.add_function_proto(pointer, [("", pointer), ("", pointer)])
    b.add_typedef("deep", b.add_pointer(proto))
    made.append(b.build())
    b = BTFBuilder()  # arrays of 2 ** 32 - 1 elements of nothing, and of nearly nothing
    nothing = b.add_struct("nothing", 0)
    integer = b.add_int("int", 4)
    array = b.add_array(nothing, 0xFFFFFFFF, integer)
    big = b.add_array(integer, 0xFFFFFFFF, integer)
    b.add_struct("holder", 8, [MemberSpec("array", array, 0), MemberSpec("big", big, 0)])
    b.add_struct("padded", 0xFFFFFFFF, [MemberSpec("last", integer, 0xFFFFFFE0)])
    made.append(b.build())
    b = BTFBuilder()  # a long chain
    inner = b.add_int("int", 4)
    for number in range(5000):
        inner = b.add_typedef(f"t{number}", inner)
    made.append(b.build())
    return made


def use(btf: BTF) -> None:
    """Everything that can be asked of a BTF; only BTFError, or another Error of ours, may come of it."""
    attempts: list[Callable[[], object]] = [
        lambda: to_c(btf),
        lambda: btf.name_index,
        lambda: btf.decl_tags,
        lambda: btf.find("absent"),
        lambda: BTFBuilder.from_btf(btf).build(),
    ]
    for id in range(btf.end_id):
        for ask in (str, repr, size_of, align_of, resolve, is_flexible, try_codec):
            attempts.append(lambda id=id, ask=ask: ask(btf.type(id)))  # type: ignore[misc]
        attempts.append(lambda id=id: list(fields(t.expect(btf.type(id), t.Composite))))  # type: ignore[misc]
    for attempt in attempts:
        with suppress(Error):
            attempt()


def try_codec(type: t.Type) -> None:
    made = codec(type)
    if made.size < 1 << 16:
        value = made.decode(bytes(made.size))
        assert made.encode(value) == bytes(made.size)
        repr(value)


@pytest.mark.parametrize("number", range(len(loops())))
def test_types_without_end(number: int) -> None:
    use(loops()[number])


@settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(ORDERS),
    st.lists(
        st.tuples(
            st.integers(0, 110),
            st.one_of(st.integers(0, 30), st.sampled_from([0x04000002, 0x8400FFFF, 0xFFFFFFFF, 1 << 31])),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_words(order: ByteOrder, changes: list[tuple[int, int]]) -> None:
    data = bytearray(every_kind(order).to_bytes())
    for place, value in changes:
        offset = HEADER_LENGTH + place * 4
        if offset + 4 <= len(data):
            data[offset : offset + 4] = value.to_bytes(4, order)
    try:
        btf = BTF.from_bytes(data)
    except BTFError:
        return
    use(btf)


@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=200))
def test_random_types(body: bytes) -> None:
    body = body[: len(body) // 4 * 4]
    head = struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, len(body), len(body), 5)
    try:
        btf = BTF.from_bytes(head + body + b"\0int\0")
    except BTFError:
        return
    use(btf)
