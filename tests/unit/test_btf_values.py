"""Codecs: decoding against a model that cuts bits out of one big number, encoding, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.btf.layout import size_of
from ebpf.btf.structvalue import EnumValue, StructValue
from ebpf.btf.text import parse
from ebpf.btf.values import bytes_codec, codec, int_codec, plain, variable_codec
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError, ValueRangeError

ORDERS: tuple[ByteOrder, ...] = ("little", "big")


@dataclass
class Leaf:
    """A number at some bits of a type."""

    path: tuple[str | int, ...]
    bit: int
    width: int
    signed: bool


@dataclass
class Made:
    """A type that a strategy made: its id, size in bytes, alignment, and where its numbers are."""

    id: int
    size: int
    align: int
    leaves: list[Leaf] = field(default_factory=list)
    is_int: bool = False
    signed: bool = False


INTS = [(size, signed) for size in (1, 2, 4, 8, 16) for signed in (False, True)]


def draw_type(draw: Any, b: BTFBuilder, ints: dict[tuple[int, bool], int], depth: int) -> Made:
    kinds = ["int", "int", "pointer", "enum", "typedef"] + ["struct", "union", "array"] * (depth > 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "int":
        size, signed = draw(st.sampled_from(INTS))
        return Made(ints[size, signed], size, size, [Leaf((), 0, size * 8, signed)], True, signed)
    if kind == "pointer":
        return Made(b.add_pointer(0), 8, 8, [Leaf((), 0, 64, False)])
    if kind == "enum":
        size, signed = draw(st.sampled_from([(1, False), (4, True), (8, True), (8, False)]))
        id = b.add_enum(f"e{b.next_id}", {f"E{b.next_id}": 1}, size=size, signed=signed)
        return Made(id, size, size, [Leaf((), 0, size * 8, signed)], True, signed)
    if kind == "typedef":
        inner = draw_type(draw, b, ints, depth)
        return Made(
            b.add_typedef(f"t{b.next_id}", b.add_qualifier("const", inner.id)),
            inner.size,
            inner.align,
            inner.leaves,
            inner.is_int,
            inner.signed,
        )
    if kind == "array":
        inner = draw_type(draw, b, ints, depth - 1)
        length = draw(st.integers(1, 3))
        leaves = [
            Leaf((index, *leaf.path), index * inner.size * 8 + leaf.bit, leaf.width, leaf.signed)
            for index in range(length)
            for leaf in inner.leaves
        ]
        return Made(b.add_array(inner.id, length, ints[4, False]), inner.size * length, inner.align, leaves)
    return draw_composite(draw, b, ints, depth, is_union=kind == "union")


def draw_composite(
    draw: Any, b: BTFBuilder, ints: dict[tuple[int, bool], int], depth: int, *, is_union: bool
) -> Made:
    packed = draw(st.booleans())
    members, leaves = [], []
    at = end = 0
    align = 1
    for number in range(draw(st.integers(1, 5))):
        name = f"m{number}"
        inner = draw_type(draw, b, ints, depth - 1)
        start = 0 if is_union else at
        width = draw(st.integers(1, inner.size * 8)) if inner.is_int and draw(st.booleans()) else 0
        if width:
            if not is_union:
                start += draw(st.integers(0, 9))
            if not packed and start % (inner.size * 8) + width > inner.size * 8:
                start = -(-start // (inner.size * 8)) * inner.size * 8
            signed = inner.signed
            leaves.append(Leaf((name,), start, width, signed))
        else:
            step = 8 if packed else inner.align * 8
            start = -(-start // step) * step
            leaves += [
                Leaf((name, *leaf.path), start + leaf.bit, leaf.width, leaf.signed) for leaf in inner.leaves
            ]
        members.append(MemberSpec(name, inner.id, start, width))
        at = start + (width or inner.size * 8)
        end = max(end, at)
        if not packed:
            align = max(align, inner.align)
    size = -(-end // (align * 8)) * align
    add = b.add_union if is_union else b.add_struct
    return Made(add(f"s{b.next_id}", size, members), size, align, leaves)


@st.composite
def types(draw: Any) -> tuple[BTF, Made]:
    b = BTFBuilder(byteorder=draw(st.sampled_from(ORDERS)))
    ints = {
        (size, signed): b.add_int(f"{'s' if signed else 'u'}{size * 8}", size, signed=signed)
        for size, signed in INTS
    }
    made = draw_composite(draw, b, ints, 2, is_union=draw(st.booleans()))
    return b.build(), made


def expected(data: bytes, leaf: Leaf, order: ByteOrder) -> int:
    number = int.from_bytes(data, order)
    shift = leaf.bit if order == "little" else len(data) * 8 - leaf.bit - leaf.width
    value = number >> shift & ((1 << leaf.width) - 1)
    return value - (1 << leaf.width) if leaf.signed and value >> leaf.width - 1 else value


def look_up(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@settings(max_examples=200, deadline=None)
@given(types(), st.data())
def test_round_trip(made: tuple[BTF, Made], data: st.DataObject) -> None:
    btf, what = made
    type = btf.type(what.id)
    how = codec(type)
    assert how.size == what.size == size_of(type)
    raw = data.draw(st.binary(min_size=what.size, max_size=what.size))
    value = how.decode(b"\xaa" * 3 + raw + b"\xbb", 3)
    for leaf in what.leaves:
        assert look_up(value, leaf.path) == expected(raw, leaf, btf.byteorder), leaf
    assert how.encode(value) == raw
    assert how.decode(memoryview(raw)) == value
    # Without the bytes that a decoded value remembers: only the bits of fields come back.
    bare = strip(value)
    mask = bytearray(what.size)
    for leaf in what.leaves:
        shift = leaf.bit if btf.byteorder == "little" else what.size * 8 - leaf.bit - leaf.width
        bits = ((1 << leaf.width) - 1 << shift).to_bytes(what.size, btf.byteorder)
        mask = bytearray(a | b for a, b in zip(mask, bits, strict=True))
    assert how.mask() == mask
    assert how.encode(bare) == bytes(a & b for a, b in zip(raw, mask, strict=True))
    with pytest.raises(ValueRangeError):
        how.decode(raw[:-1])


def strip(value: Any) -> Any:
    if isinstance(value, StructValue):
        return {name: strip(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [strip(item) for item in value]
    return value


@settings(max_examples=60, deadline=None)
@given(types(), st.data())
def test_text_round_trip(made: tuple[BTF, Made], data: st.DataObject) -> None:
    btf, what = made
    how = codec(btf.type(what.id))
    raw = data.draw(st.binary(min_size=what.size, max_size=what.size))
    value = how.decode(raw)
    assert parse(btf.type(what.id), as_text(value)) == value
    assert how.encode(parse(btf.type(what.id), f"hex:{raw.hex(' ')}")) == raw


def as_text(value: Any) -> str:
    if isinstance(value, StructValue):
        return "{" + ", ".join(f"{name}={as_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ",".join(as_text(item) for item in value) + "]"
    return str(value)


@pytest.fixture(scope="module")
def btf() -> BTF:
    b = BTFBuilder()
    u8, u16, u32 = (b.add_int(f"u{bits}", bits // 8) for bits in (8, 16, 32))
    char = b.add_int("char", 1, signed=True)
    boolean = b.add_int("bool", 1, is_bool=True)
    s64 = b.add_int("s64", 8, signed=True)
    be16, be32 = b.add_typedef("__be16", u16), b.add_typedef("__be32", u32)
    action = b.add_enum("action", {"DROP": 1, "PASS": 2})
    b.add_struct(
        "flow_key",
        16,
        [
            MemberSpec("saddr", be32, 0),
            MemberSpec("daddr", be32, 32),
            MemberSpec("sport", be16, 64),
            MemberSpec("dport", be16, 80),
            MemberSpec("proto", u8, 96),
        ],
    )
    name = b.add_array(char, 8, u32)
    v6 = b.add_array(u8, 16, u32)
    address = b.add_union("", 16, [MemberSpec("v4", be32, 0), MemberSpec("v6", v6, 0)])
    b.add_struct(
        "event",
        48,
        [
            MemberSpec("action", action, 0),
            MemberSpec("name", name, 32),
            MemberSpec("ok", boolean, 96),
            MemberSpec("", address, 128),
            MemberSpec("delta", s64, 256),
            MemberSpec("low", u32, 320, 3),
            MemberSpec("high", u32, 323, 29),
            MemberSpec("keys", b.add_array(u16, 2, u32), 352),
        ],
    )
    b.add_struct("packet", 4, [MemberSpec("length", u32, 0), MemberSpec("data", b.add_array(u8, 0, u32), 32)])
    b.add_struct("note", 4, [MemberSpec("length", u32, 0), MemberSpec("text", b.add_array(char, 0, u32), 32)])
    b.add_struct("in6_addr", 16, [MemberSpec("in6_u", b.add_union("", 16, [MemberSpec("b", v6, 0)]), 0)])
    b.add_struct("odd", 8, [MemberSpec("keys", u32, 0), MemberSpec("__class__", u32, 32)])
    b.add_typedef("mac", b.add_array(u8, 6, u32))
    b.add_typedef("ip6", v6)
    b.add_float("double", 8)
    counter = b.add_variable("counter", b.add_qualifier("const", u32))
    b.add_section(".bss", 8, [(counter, 4, 4)])
    b.add_forward("opaque")
    return b.build()


def test_struct_value(btf: BTF) -> None:
    how = codec(btf.find("flow_key"))
    value = how.decode(how.encode({"saddr": 1, "dport": 80}))
    assert repr(value) == "flow_key(saddr=1, daddr=0, sport=0, dport=80, proto=0)"
    assert (value.saddr, value["dport"], value.get("nothing", 7)) == (1, 80, 7)
    assert value == {"saddr": 1, "daddr": 0, "sport": 0, "dport": 80, "proto": 0}
    assert value != {"saddr": 1}
    assert value != 5
    assert hash(value) == hash(how.decode(how.encode(value)))
    assert list(value) == ["saddr", "daddr", "sport", "dport", "proto"]
    assert dict(value) == value._asdict() == value.to_dict()
    assert "sport" in value and "port" not in value
    match value:
        case StructValue(dport=80, saddr=source):
            assert source == 1
        case _:
            pytest.fail("no match")
    match value:
        case {"proto": 0, **rest}:
            assert len(rest) == 4
        case _:
            pytest.fail("no match")
    with pytest.raises(AttributeError, match="did you mean 'sport'"):
        _ = value.spotr
    with pytest.raises(AttributeError, match="immutable"):
        value.saddr = 2
    with pytest.raises(KeyError):
        value["spotr"]
    assert copy.deepcopy(value) is value
    assert pickle.loads(pickle.dumps(value)) == value
    assert how.encode((1, 0, 0, 80, 0)) == how.encode([1, 0, 0, 80, 0]) == how.encode({**value})


def test_fields_named_like_methods(btf: BTF) -> None:
    value = codec(btf.find("odd")).decode(struct.pack("<II", 1, 2))
    assert value.keys == 1
    assert value["__class__"] == 2
    assert isinstance(value, StructValue)
    assert value.to_dict() == {"keys": 1, "__class__": 2}


def test_event(btf: BTF) -> None:
    how = codec(btf.find("event"))
    given = {"action": "PASS", "name": "curl", "v4": 5, "delta": -2, "low": 7, "high": 1, "ok": True}
    value = how.decode(how.encode(given))
    assert value.action == 2 and value.action.name == "PASS" and repr(value.action) == "PASS"
    assert (value.name, value.ok, value.delta, value.low, value.high) == ("curl", True, -2, 7, 1)
    assert value.v6 == (0, 0, 0, 5, *[0] * 12)
    assert how.encode(given)[40:44] == struct.pack("<I", 7 | 1 << 3)
    assert json.loads(json.dumps(plain(value)))["action"] == "PASS"
    unknown = how.decode(b"\x63" + bytes(47)).action
    assert (repr(unknown), unknown + 1, unknown.name, plain(unknown)) == ("99", 100, None, 99)
    assert isinstance(unknown, EnumValue)
    assert f"{value.action} {value.action:>6} {value.action:#x}" == "PASS   PASS 0x2"
    assert pickle.loads(pickle.dumps(value.action)).name == "PASS"


def test_declared_byte_order(btf: BTF) -> None:
    how = codec(btf.find("flow_key"))
    data = how.encode({"saddr": 0x0A000001, "dport": 443})
    assert data[:4] == bytes([10, 0, 0, 1])
    assert data[10:12] == (443).to_bytes(2, "big")
    assert (how.decode(data).saddr, how.decode(data).dport) == (0x0A000001, 443)


def test_text_fields(btf: BTF) -> None:
    how = codec(btf.find("event"))

    def name(data: bytes) -> Any:
        return how.decode(bytes(4) + data.ljust(8, b"\0") + bytes(36)).name

    assert name(b"abcdefgh") == "abcdefgh"
    assert name(b"\xff\xfe") == b"\xff\xfe" + bytes(6)
    assert name("grün".encode()) == "grün"
    rubbish = how.decode(bytes(4) + b"ab\0cd\0\0\0" + bytes(36))
    assert rubbish.name == "ab"
    assert how.encode(rubbish._asdict())[4:12] == b"ab\0cd\0\0\0"  # a key must come back as it was
    assert how.encode({"name": b"ab"})[4:12] == b"ab".ljust(8, b"\0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dprot": 1}, "flow_key has no field 'dprot'"),
        ({"dport": 1 << 16}, "struct flow_key.dport: 65536 does not fit __be16 (0 to 65535)"),
        ({"dport": -1}, "struct flow_key.dport: -1 does not fit __be16 (0 to 65535)"),
        ({"dport": 1.5}, "struct flow_key.dport: 1.5 is no integer, as __be16 needs"),
        ({"dport": "80"}, "struct flow_key.dport: '80' is no integer"),
        ((1, 2), "has 2 values; struct flow_key has 5 fields"),
        ("text", "'text' is no value of struct flow_key: give a dict of its fields"),
        (None, "None is no value"),
        (b"abc", "is 3 bytes long; struct flow_key takes 16"),
    ],
)
def test_refused(btf: BTF, value: object, message: str) -> None:
    with pytest.raises(ValueRangeError) as caught:
        codec(btf.find("flow_key")).encode(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"action": "PAS"}, "is no name of enum action\n  hint: did you mean 'PASS'?"),
        ({"action": -1}, "enum action (0 to 4294967295)"),
        ({"name": "too long a name"}, "takes 15 bytes; char[8] holds 8"),
        ({"name": 5}, "is neither str nor bytes"),
        ({"ok": 2}, "is neither True nor False"),
        ({"low": 8}, "struct event.low: 8 does not fit u32 of 3 bits (0 to 7)"),
        ({"v4": 1, "v6": [2] * 16}, "struct event.v6 differs from another member of the union"),
        ({"keys": [1]}, "struct event.keys: [1] has 1 elements; u16[2] takes 2"),
        ({"keys": [1, 1 << 16]}, "struct event.keys[1]: 65536 does not fit u16"),
        ({"keys": 5}, "is no sequence"),
        ({"v6": b"123"}, "is 3 bytes long; u8[16] takes 16"),
    ],
)
def test_refused_fields(btf: BTF, value: object, message: str) -> None:
    with pytest.raises(ValueRangeError) as caught:
        codec(btf.find("event")).encode(value)
    assert message in str(caught.value)


def test_union_members_that_agree(btf: BTF) -> None:
    how = codec(btf.find("event"))
    assert how.encode({"v4": 5, "v6": [0, 0, 0, 5, *[0] * 12]}) == how.encode({"v4": 5})
    assert how.encode({"v6": bytes(range(16))})[16:32] == bytes(range(16))


def test_flexible_arrays(btf: BTF) -> None:
    packet, note = codec(btf.find("packet")), codec(btf.find("note"))
    assert packet.is_flexible and packet.size == 4
    data = packet.encode({"length": 3, "data": [1, 2, 3]})
    assert data == b"\3\0\0\0\1\2\3"
    assert packet.decode(data).data == ()
    assert packet.decode_whole(data) == {"length": 3, "data": (1, 2, 3)}
    assert packet.encode({"length": 3, "data": b"\1\2\3"}) == data
    assert note.decode_whole(b"\2\0\0\0hi\0\0").text == "hi"
    b = BTFBuilder()
    ids = b.copy([btf.find("packet")])
    b.add_struct("two", 12, [MemberSpec("a", ids[btf.find("packet").id], 0), MemberSpec("n", 1, 64)])
    two = b.build().find("two")
    with pytest.raises(ValueRangeError, match="not at the end"):
        codec(two).encode({"a": {"data": [1]}})


def test_codecs_without_types() -> None:
    assert int_codec(4).encode(1) == b"\1\0\0\0"
    assert int_codec(4, byteorder="big").encode(1) == b"\0\0\0\1"
    assert int_codec(2, True).decode(b"\xff\xff") == -1
    assert bytes_codec(3).decode(b"xabc", 1) == b"abc"
    with pytest.raises(ValueRangeError, match="u32: 4294967296 does not fit u32"):
        int_codec(4).encode(1 << 32)
    with pytest.raises(ValueRangeError, match="is 2 bytes long; 3 bytes takes 3"):
        bytes_codec(3).encode(b"ab")
    with pytest.raises(ValueRangeError, match="is not bytes"):
        bytes_codec(3).encode("abc")


def test_variables(btf: BTF) -> None:
    assert variable_codec(None, 8).decode(b"\xff" * 8) == (1 << 64) - 1
    assert variable_codec(None, 3).decode(b"abc") == b"abc"
    assert variable_codec(btf.find("counter"), 4).decode(b"\1\0\0\0") == 1
    assert variable_codec(btf.find("opaque"), 5).decode(b"abcde") == b"abcde"
    # A flexible array that is initialised: the symbol is larger than the type.
    assert variable_codec(btf.find("packet"), 7).decode(b"\3\0\0\0\1\2\3") == b"\3\0\0\0\1\2\3"
    section = codec(btf.find(".bss"))
    assert section.decode(bytes(4) + b"\5\0\0\0") == {"counter": 5}


def test_types_without_values(btf: BTF) -> None:
    with pytest.raises(BTFError, match="struct opaque is declared but not defined"):
        codec(btf.find("opaque"))
    with pytest.raises(BTFError, match="void has no size"):
        codec(btf.type(0))
    b = BTFBuilder()
    integer = b.add_int("int", 4)
    b.add_struct("outside", 4, [MemberSpec("a", integer, 16)])
    b.add_struct("twice", 8, [MemberSpec("a", integer, 0), MemberSpec("a", integer, 32)])
    b.add_struct("bits", 4, [MemberSpec("a", b.add_struct("inner", 4), 0, 3)])
    built = b.build()
    for name, message in (("outside", "ends behind"), ("twice", "two members"), ("bits", "no bit-field")):
        with pytest.raises(BTFError, match=message):
            codec(built.find(name))


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        ("u32", "10", 10),
        ("u32", " 0x1f ", 31),
        ("u32", "10.0.0.1", 0x0100000A),
        ("u32", "be:1", 0x01000000),
        ("u8", "'a'", 97),
        ("s64", "-3", -3),
        ("bool", "true", True),
        ("double", "1.5", 1.5),
        ("action", "PASS", 2),
        ("action", "7", 7),
        ("mac", "02:00:00:00:00:01", (2, 0, 0, 0, 0, 1)),
        ("mac", "[1, 2, 3, 4, 5, 6]", (1, 2, 3, 4, 5, 6)),
        ("mac", "hex:010203040506", (1, 2, 3, 4, 5, 6)),
        ("ip6", "fe80::1", (0xFE, 0x80, *[0] * 13, 1)),
        ("in6_addr", "::1", {"in6_u": {"b": (*[0] * 15, 1)}}),
        (
            "flow_key",
            "saddr=10.0.0.1,dport=80",
            {"saddr": 0x0A000001, "daddr": 0, "sport": 0, "dport": 80, "proto": 0},
        ),
        (
            "flow_key",
            "{1, 2, 3, be:80, 6}",
            {"saddr": 1, "daddr": 2, "sport": 3, "dport": 80, "proto": 6},
        ),
        ("packet", "length=2, data=[7, 8]", {"length": 2, "data": (7, 8)}),
    ],
)
def test_parse(btf: BTF, type: str, text: str, value: object) -> None:
    assert parse(btf.find(type), text) == value


def test_parse_text_fields(btf: BTF) -> None:
    event = btf.find("event")
    assert parse(event, 'name="a, b", action=DROP').name == "a, b"
    assert parse(event, r'name="q\"\\n"').name == 'q"\\n'
    assert parse(event, "name=curl , keys=[1,2]").name == "curl"
    assert parse(event, "name=curl, v6=::2").v6 == (*[0] * 15, 2)


@pytest.mark.parametrize(
    ("type", "text", "message"),
    [
        ("u32", "ten", "u32: 'ten' is not a number or an IPv4 address, which u32 takes"),
        ("u32", "10.0.0.256", "is not an IPv4 address"),
        ("u32", "4294967296", "does not fit u32 (0 to 4294967295)"),
        ("u8", "be:256", "is not be: and a number of 1 bytes"),
        ("bool", "yes", "is not true or false"),
        ("double", "x", "is not a number"),
        ("action", "PSS", "did you mean 'PASS'?"),
        ("mac", "1,2", "has 2 elements; mac takes 6"),
        ("mac", "hex:0g", "is not hex:"),
        ("mac", "hex:01", "is 1 bytes long; mac takes 6"),
        ("ip6", "fe80:::1", "is not an IPv6 address"),
        ("flow_key", "spotr=1", "did you mean 'sport'?"),
        ("flow_key", "1,2", "is not 5 values or name=value pairs (saddr, daddr, sport, dport, proto)"),
        ("flow_key", "sport=1,2", "'2' is not name=value"),
        ("flow_key", "sport=1,sport=2", "gives sport twice"),
        ("flow_key", "sport=x", "struct flow_key.sport: 'x' is not a number"),
        ("flow_key", "{sport=1", "lacks a '}'"),
        ("flow_key", "sport=1}", "has a '}' too many"),
        ("event", 'name="a', "has a quote that is not closed"),
        ("event", 'name="a"b', "behind the closing quote"),
    ],
)
def test_parse_refused(btf: BTF, type: str, text: str, message: str) -> None:
    with pytest.raises(ValueRangeError) as caught:
        parse(btf.find(type), text)
    assert message in str(caught.value)


@given(st.text(alphabet="{}[]=,\"'\\ax0:.-", max_size=25))
def test_parse_never_breaks(text: str) -> None:
    b = BTFBuilder()
    integer, char = b.add_int("int", 4), b.add_int("char", 1)
    inner = b.add_struct("inner", 8, [MemberSpec("a", integer, 0), MemberSpec("x", integer, 32)])
    b.add_struct("s", 12, [MemberSpec("a", inner, 0), MemberSpec("x", b.add_array(char, 4, integer), 64)])
    with suppress(ValueRangeError):
        parse(b.build().find("s"), text)
