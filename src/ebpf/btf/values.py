"""Codecs: bytes to Python values and back, by BTF type.

Integers are int (of a declared byte order, such as `__be32`, the number that they mean), `bool` is bool,
enums are ints with names, `char[N]` is str up to its NUL (bytes where that is no UTF-8), other arrays are
tuples, structs and unions are `StructValue`, pointers are their addresses. Of a union all members are
decoded, and one is encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ebpf.btf import types as t
from ebpf.btf.composites import ArrayCodec, Field, StructCodec
from ebpf.btf.layout import MAX_DEPTH, POINTER_SIZE, bit_field, declared_order, fields, resolve, size_of
from ebpf.btf.scalars import (
    BoolCodec,
    Buffer,
    BytesCodec,
    Codec,
    EnumCodec,
    FloatCodec,
    IntCodec,
    TextCodec,
    WireIntCodec,
)
from ebpf.btf.structvalue import EnumValue, StructValue, plain
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError

__all__ = [
    "Buffer",
    "Codec",
    "EnumValue",
    "StructValue",
    "bytes_codec",
    "codec",
    "int_codec",
    "plain",
    "variable_codec",
]

_INT_SIZES = (1, 2, 4, 8)


def codec(type: t.Type) -> Codec:
    """The codec of a type, made once. BTFError if it has no size, or its members do not fit it."""
    return _codec(type, 0)


@lru_cache(64)
def int_codec(size: int, signed: bool = False, byteorder: ByteOrder = "little") -> Codec:
    """A codec of integers of `size` bytes, where no type is known."""
    return IntCodec(None, size, signed, byteorder)


@lru_cache(64)
def bytes_codec(size: int) -> Codec:
    """A codec of `size` bytes as they are, where no type is known."""
    return BytesCodec(size)


def untyped_codec(size: int, byteorder: ByteOrder = "little") -> Codec:
    """The codec where no type is known: unsigned integers of 1, 2, 4 and 8 bytes, else bytes."""
    return int_codec(size, byteorder=byteorder) if size in _INT_SIZES else bytes_codec(size)


def variable_codec(type: t.Type | None, size: int) -> Codec:
    """The codec of a global variable that takes `size` bytes.

    `type` is its Variable or the type of that. Without one, or where it says another size than the object's
    symbol does (a flexible array that is initialised), the codec is that of its bytes.
    """
    if type is None:
        return untyped_codec(size)
    try:
        typed = codec(type)
    except BTFError:
        typed = None  # declared only: the object still says how many bytes there are
    return typed if typed is not None and typed.size == size else untyped_codec(size, type.btf.byteorder)


def _codec(type: t.Type, depth: int) -> Codec:
    key = ("codec", type.id)
    made = type.btf.cache.get(key)
    if made is None:
        if depth > MAX_DEPTH:
            raise BTFError(f"BTF type {type.id} ({type.name or type.kind.name}) contains types without end")
        made = type.btf.cache[key] = _make(type, depth)
    assert isinstance(made, Codec)
    return made


def _make(named: t.Type, depth: int) -> Codec:
    type, order = resolve(named), named.btf.byteorder
    match type:
        case t.Int(is_bool=True):
            return BoolCodec(named, type.size, order)
        case t.Int() if declared := declared_order(named):
            return WireIntCodec(named, type.size, declared)
        case t.Int():
            return IntCodec(named, type.size, type.signed, order, bits=type.bits, bit_offset=type.bit_offset)
        case t.Pointer():
            return IntCodec(named, POINTER_SIZE, False, order)
        case t.Enum():
            return EnumCodec(type, order)
        case t.Float():
            return FloatCodec(type, order)
        case t.Array():
            size_of(type)
            if _is_char(resolve(type.element)):
                return TextCodec(named, type.length)
            return ArrayCodec(named, _codec(type.element, depth + 1), type.length, order)
        case t.Composite():
            return StructCodec(type, type.size, list(_fields(type, depth + 1)), order)
        case t.DataSection():
            return StructCodec(type, type.size, list(_section_fields(type, depth + 1)), order)
        case t.Variable():
            return _codec(type.target, depth + 1)
        case _:
            size_of(type)  # raises: says why it has none
            raise BTFError(f"BTF type {type.id} ({type.kind.name}) has no values")


def _is_char(type: t.Type) -> bool:
    return isinstance(type, t.Int) and type.size == 1 and not type.is_bool and type.name == "char"


def _fields(type: t.Composite, depth: int) -> Iterator[Field]:
    """The fields of a struct or union, those of anonymous members included."""
    seen = set()
    for name, member, offset in fields(type):
        if name in seen:
            raise BTFError(f"BTF type {type.id} ({type}) has two members named {name}")
        seen.add(name)
        how, bits = _codec(member.type, depth), bit_field(member)
        if bits:
            first, width = offset - member.bit_offset + bits[0], bits[1]
            if not isinstance(how, IntCodec | EnumCodec | BoolCodec) or width > how.size * 8:
                raise BTFError(
                    f"BTF type {type.id} ({type}): {name}, {width} bits of {how.name}, is no bit-field"
                )
            field = Field(name, how, first // 8, (first, width))
            end = first + width
        elif offset % 8:
            raise BTFError(f"BTF type {type.id} ({type}): member {name} starts inside a byte")
        else:
            field = Field(name, how, offset // 8)
            end = offset + how.size * 8
        if end > type.size * 8:
            raise BTFError(f"BTF type {type.id} ({type}): member {name} ends behind its {type.size} bytes")
        yield field


def _section_fields(section: t.DataSection, depth: int) -> Iterator[Field]:
    for entry in section.entries:
        variable = t.expect(entry.type, t.Variable)
        field = Field(variable.name, _codec(variable.target, depth), entry.offset)
        if entry.offset + max(entry.size, field.codec.size) > section.size:
            raise BTFError(
                f"BTF section {section.name}: {variable.name} ends behind its {section.size} bytes"
            )
        yield field
