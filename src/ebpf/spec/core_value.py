"""The number that a CO-RE relocation puts into an instruction, by kind."""

from __future__ import annotations

from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.layout import resolve, size_of
from ebpf.errors import BTFError
from ebpf.isa.instruction import CoreKind
from ebpf.spec.core_access import Access

_EXISTENCE = frozenset(
    {CoreKind.FIELD_EXISTS, CoreKind.TYPE_EXISTS, CoreKind.TYPE_MATCHES, CoreKind.ENUMVAL_EXISTS}
)


class Value(NamedTuple):
    """A number, and what else patching needs to know of the field behind it."""

    number: int
    size: int = 0  #: bytes of a field whose offset this is; 0 for bit-fields and all else
    type: t.Type | None = None  #: of a field whose offset this is
    is_checked: bool = True  #: whether the instruction has to hold the number of the object's own types


def value_of(kind: CoreKind, access: Access | None) -> Value | None:
    """The value for what `access` refers to; where that is missing, what stands for it, or None.

    Raises BTFError for an aspect that the field does not have.
    """
    if kind in _EXISTENCE:
        return Value(0 if access is None else 1)
    if access is None:
        return Value(0) if kind in (CoreKind.TYPE_SIZE, CoreKind.TYPE_ID_TARGET) else None
    match kind:
        case CoreKind.TYPE_SIZE:
            return Value(size_of(access.root))
        case CoreKind.TYPE_ID_TARGET:
            return Value(access.root.id, is_checked=False)
        case CoreKind.ENUMVAL_VALUE:
            step = access.steps[0]
            enum = t.expect(step.type, t.Enum)
            return Value(enum.members[step.index].value)
        case _:
            return _field_value(kind, access)


def _field_value(kind: CoreKind, access: Access) -> Value:
    step = access.steps[-1]
    if step.name is None:  # an element, or the object itself
        size = size_of(step.type)
        if kind is CoreKind.FIELD_BYTE_OFFSET:
            return Value(access.bit_offset // 8, size, step.type)
        if kind is CoreKind.FIELD_BYTE_SIZE:
            return Value(size)
        raise BTFError("it cannot be asked of an array element")
    assert isinstance(step.type, t.Composite)
    member = step.type.members[step.index]
    type = resolve(member.type)
    is_signed = isinstance(type, t.Int | t.Enum) and type.signed
    if kind is CoreKind.FIELD_SIGNED:
        return Value(int(is_signed))
    bits = member.bit_size or size_of(type) * 8
    if kind is CoreKind.FIELD_RSHIFT_U64:
        return Value(64 - bits)
    if member.bit_size:
        # Which bytes to load for a bit-field is a choice that the compiler may make otherwise.
        offset, size = _bit_field_unit(access.bit_offset, bits, type)
        is_checked = False
    else:
        offset, size, is_checked = access.bit_offset // 8, bits // 8, True
    if kind is CoreKind.FIELD_BYTE_SIZE:
        return Value(size, is_checked=is_checked)
    if kind is CoreKind.FIELD_LSHIFT_U64:
        before = access.bit_offset - offset * 8
        if type.btf.byteorder == "little":
            return Value(64 - (before + bits), is_checked=is_checked)
        return Value((8 - size) * 8 + before, is_checked=is_checked)
    assert kind is CoreKind.FIELD_BYTE_OFFSET
    return Value(offset, size, type) if is_checked else Value(offset, is_checked=False)


def _bit_field_unit(bit_offset: int, bits: int, type: t.Type) -> tuple[int, int]:
    """Offset and size in bytes of the smallest aligned integer that holds the whole bit-field."""
    size = size_of(type)
    while True:
        offset = bit_offset // 8 // size * size
        if bit_offset + bits <= (offset + size) * 8:
            return offset, size
        if size >= 8:
            raise BTFError("the bit-field does not fit a 64-bit load")
        size *= 2
