"""What C must say beyond the members so that a compiler lays a struct out as BTF does.

BTF records where members are, and neither alignment nor packing; those are worked out here by laying the
members out as the System V ABI does (BPF, x86-64, arm64 and riscv64 agree), and comparing.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.layout import POINTER_SIZE, bit_field, resolve, size_of
from ebpf.errors import BTFError


class Plan(NamedTuple):
    """How to write a struct or union."""

    packed: bool
    align: int  #: bytes, of the struct as it will be written
    gaps: tuple[int, ...]  #: bits of explicit padding before each member
    tail: int  #: bits of explicit padding at the end; of a union, its size if no member has it


def plan(type: t.Composite) -> Plan:
    """The plan for a struct or union. BTFError if its members overlap, or do not fit it."""
    key = ("c layout", type.id)
    known = type.btf.cache.get(key)
    if known is None:
        # A type that contains itself meets this instead of its plan.
        type.btf.cache[key] = BTFError(f"BTF type {type.id} ({type}) contains itself")
        try:
            known = _plan_union(type) if isinstance(type, t.Union) else _plan_struct(type)
        except BTFError as error:
            known = error
        type.btf.cache[key] = known
    if isinstance(known, BTFError):
        raise known
    assert isinstance(known, Plan)
    return known


def align_in_c(type: t.Type) -> int:
    """Bytes that a compiler aligns the type to, once written as planned."""
    type = resolve(type)
    while isinstance(type, t.Array):
        type = resolve(type.element)
    match type:
        case t.Int() | t.Enum():
            return type.size
        case t.Float():
            return 16 if type.size > 8 else type.size
        case t.Pointer():
            return POINTER_SIZE
        case t.Composite():
            return plan(type).align
        case _:
            size_of(type)  # raises: says why it has none
            raise BTFError(f"BTF type {type.id} ({type.kind.name}) cannot be a member")


def _plan_struct(type: t.Struct | t.Composite) -> Plan:
    places = [_place(type, member) for member in type.members]
    return _lay_out(type, places, packed=False) or _packed(type, places)


class _Place(NamedTuple):
    bit: int
    bits: int
    unit: int  #: bits of the storage unit of a bit-field; 0 for other members
    align: int  #: bits


def _place(type: t.Composite, member: t.Member) -> _Place:
    field = bit_field(member)
    align = align_in_c(member.type) * 8
    if field is not None:
        if not isinstance(resolve(member.type), t.Int | t.Enum):
            raise BTFError(f"BTF type {type.id} ({type}): bit-field {member.name} is no integer")
        return _Place(field[0], field[1], size_of(member.type) * 8, align)
    return _Place(member.bit_offset, size_of(member.type) * 8, 0, align)


def _packed(type: t.Composite, places: list[_Place]) -> Plan:
    found = _lay_out(type, places, packed=True)
    if found is None:
        raise BTFError(f"BTF type {type.id} ({type}) has members that overlap or do not fit it")
    return found


def _lay_out(type: t.Composite, places: list[_Place], *, packed: bool) -> Plan | None:
    """The plan, or None if members cannot be where they are without packing, or at all."""
    at, align, gaps = 0, 8, []
    for bit, bits, unit, member_align in places:
        if bit < at:
            return None
        step = 8 if packed else member_align
        if not unit:
            if bit % step:
                return None
            natural = -(-at // step) * step
        elif packed:
            natural = at
        else:
            if bit % unit + bits > unit:
                return None
            natural = at if at % unit + bits <= unit else -(-at // unit) * unit
        gaps.append(0 if natural == bit else bit - at)
        at = bit + bits
        if not packed:
            align = max(align, member_align)
    end = type.size * 8
    if at > end or end % align:
        return None
    return Plan(packed, align // 8, tuple(gaps), 0 if -(-at // align) * align == end else end - at)


def _plan_union(type: t.Union) -> Plan:
    places = [_place(type, member) for member in type.members]
    if any(place.bit for place in places):
        raise BTFError(f"BTF type {type.id} ({type}) has members that are not at its start")
    largest = max((-(-place.bits // 8) for place in places), default=0)
    align = max((place.align // 8 for place in places), default=1)
    packed = type.size % align != 0
    if packed:
        align = 1
    if largest > type.size:
        raise BTFError(f"BTF type {type.id} ({type}) has members that do not fit it")
    natural = -(-largest // align) * align
    return Plan(packed, align, (0,) * len(places), 0 if natural == type.size else type.size * 8)
