"""Type records to `Type` objects: one function per kind.

Each takes the BTF, the type id, the name, the words of the section, the position of the record in them and
its `info` word. The record is known to be complete; what is in it is not known to make sense.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from ebpf.btf import types as t
from ebpf.btf.types import Kind
from ebpf.btf.wire import KIND_FLAG, MAX_VLEN
from ebpf.errors import BTFError

if TYPE_CHECKING:
    from ebpf.btf.btf import BTF

_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1, 2, 4
_INT_MAX_BITS = 128
_INT_SIZES = (1, 2, 4, 8, 16)
_ENUM_SIZES = (1, 2, 4, 8)
_FLOAT_SIZES = (2, 4, 8, 12, 16)

Decoder = Callable[["BTF", int, str, "array[int]", int, int], t.Type]


def decode(btf: BTF, id: int, words: array[int], position: int) -> t.Type:
    """The type whose record starts at `position`."""
    info = words[position + 1]
    kind = info >> 24 & 0x1F
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise BTFError(f"kind {kind} is not known")
    return decoder(btf, id, btf.string(words[position]), words, position, info)


def _size(size: int, allowed: tuple[int, ...]) -> int:
    if size not in allowed:
        raise BTFError(f"size is {size} bytes, not one of {', '.join(map(str, allowed))}")
    return size


def _linkage(value: int) -> t.Linkage:
    if value > t.Linkage.EXTERN:
        raise BTFError(f"linkage {value} is not known")
    return t.Linkage(value)


def _int(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    size, data = _size(words[position + 2], _INT_SIZES), words[position + 3]
    encoding, offset, bits = data >> 24 & 0xF, data >> 16 & 0xFF, data & 0xFF
    if not 0 < bits <= _INT_MAX_BITS or offset + bits > size * 8:
        raise BTFError(f"{bits} bits at bit {offset} of an integer of {size} bytes")
    return t.Int(
        btf,
        id,
        name,
        size,
        bits,
        offset,
        bool(encoding & _INT_SIGNED),
        bool(encoding & _INT_BOOL),
        bool(encoding & _INT_CHAR),
    )


def _reference(
    make: type[t.Pointer] | type[t.Typedef] | type[t.Volatile] | type[t.Const] | type[t.Restrict],
) -> Decoder:
    def decoder(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
        return make(btf, id, name, words[position + 2])

    return decoder


def _array(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    element, index, length = words[position + 3 : position + 6]
    return t.Array(btf, id, name, element, index, length)


def _composite(make: type[t.Struct] | type[t.Union]) -> Decoder:
    def decoder(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
        body = words[position + 3 : position + 3 + 3 * (info & MAX_VLEN)].tolist()
        string = btf.string
        triples = zip(body[::3], body[1::3], body[2::3], strict=True)
        if info & KIND_FLAG:
            members = tuple(
                t.Member(btf, string(label), type_id, place & 0xFFFFFF, place >> 24)
                for label, type_id, place in triples
            )
        else:
            members = tuple(
                t.Member(btf, string(label), type_id, place, 0) for label, type_id, place in triples
            )
        return make(btf, id, name, words[position + 2], members)

    return decoder


def _enum(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    signed, string = bool(info & KIND_FLAG), btf.string
    body = words[position + 3 : position + 3 + 2 * (info & MAX_VLEN)].tolist()
    sign = 1 << 31 if signed else 0
    members = tuple(
        t.Enumerator(string(label), (value ^ sign) - sign)
        for label, value in zip(body[::2], body[1::2], strict=True)
    )
    return t.Enum(btf, id, name, _size(words[position + 2], _ENUM_SIZES), signed, False, members)


def _enum64(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    signed, string = bool(info & KIND_FLAG), btf.string
    body = words[position + 3 : position + 3 + 3 * (info & MAX_VLEN)].tolist()
    sign = 1 << 63 if signed else 0
    members = tuple(
        t.Enumerator(string(label), ((high << 32 | low) ^ sign) - sign)
        for label, low, high in zip(body[::3], body[1::3], body[2::3], strict=True)
    )
    return t.Enum(btf, id, name, _size(words[position + 2], _ENUM_SIZES), signed, True, members)


def _forward(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    return t.Forward(btf, id, name, bool(info & KIND_FLAG))


def _function(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    return t.Function(btf, id, name, words[position + 2], _linkage(info & MAX_VLEN))


def _function_proto(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    body = words[position + 3 : position + 3 + 2 * (info & MAX_VLEN)].tolist()
    # A last parameter without name and type stands for "...".
    is_variadic = len(body) > 0 and body[-2:] == [0, 0]
    if is_variadic:
        del body[-2:]
    parameters = tuple(
        t.Parameter(btf, btf.string(label), type_id)
        for label, type_id in zip(body[::2], body[1::2], strict=True)
    )
    return t.FunctionProto(btf, id, name, words[position + 2], parameters, is_variadic)


def _variable(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    return t.Variable(btf, id, name, words[position + 2], _linkage(words[position + 3]))


def _section(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    body = words[position + 3 : position + 3 + 3 * (info & MAX_VLEN)].tolist()
    entries = tuple(
        t.SectionEntry(btf, type_id, offset, size)
        for type_id, offset, size in zip(body[::3], body[1::3], body[2::3], strict=True)
    )
    return t.DataSection(btf, id, name, words[position + 2], entries)


def _float(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    return t.Float(btf, id, name, _size(words[position + 2], _FLOAT_SIZES))


def _type_tag(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    return t.TypeTag(btf, id, name, words[position + 2], bool(info & KIND_FLAG))


def _decl_tag(btf: BTF, id: int, name: str, words: array[int], position: int, info: int) -> t.Type:
    component = (words[position + 3] ^ 1 << 31) - (1 << 31)
    if component < -1:
        raise BTFError(f"component index is {component}")
    return t.DeclTag(btf, id, name, words[position + 2], component, bool(info & KIND_FLAG))


_DECODERS: dict[int, Decoder] = {
    Kind.INT: _int,
    Kind.PTR: _reference(t.Pointer),
    Kind.ARRAY: _array,
    Kind.STRUCT: _composite(t.Struct),
    Kind.UNION: _composite(t.Union),
    Kind.ENUM: _enum,
    Kind.FWD: _forward,
    Kind.TYPEDEF: _reference(t.Typedef),
    Kind.VOLATILE: _reference(t.Volatile),
    Kind.CONST: _reference(t.Const),
    Kind.RESTRICT: _reference(t.Restrict),
    Kind.FUNC: _function,
    Kind.FUNC_PROTO: _function_proto,
    Kind.VAR: _variable,
    Kind.DATASEC: _section,
    Kind.FLOAT: _float,
    Kind.DECL_TAG: _decl_tag,
    Kind.TYPE_TAG: _type_tag,
    Kind.ENUM64: _enum64,
}
