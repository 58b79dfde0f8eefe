"""How types are laid out: size, alignment, and what stands behind typedefs and qualifiers.

BTF can be malformed, so every walk is bounded: a chain of references or a nest of types that is longer than
any compiler makes is an error, as it is for the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpf.btf import types as t
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError

#: Longer chains of references than this are loops (the kernel stops at 32).
MAX_DEPTH = 64
_MAX_FIELDS = 1 << 16
#: Sizes are 32 bits wide in BTF.
_MAX_SIZE = 0xFFFFFFFF
#: BPF is a 64-bit machine, as are the kernels that run it with BTF.
POINTER_SIZE = 8

_DECLARED_ORDERS: dict[str, ByteOrder] = {
    "__be16": "big",
    "__be32": "big",
    "__be64": "big",
    "__le16": "little",
    "__le32": "little",
    "__le64": "little",
}


def resolve(type: t.Type) -> t.Type:
    """What stands behind typedefs, qualifiers and type tags. BTFError if they go in a circle."""
    current = type
    for _ in range(MAX_DEPTH):
        if not isinstance(current, t.MODIFIERS):
            return current
        current = current.target
    raise BTFError(f"BTF type {type.id} ({type.name or type.kind.name}) refers to types without end")


def declared_order(type: t.Type) -> ByteOrder | None:
    """The byte order that a typedef of linux/types.h declares, such as `__be32`; None for all others."""
    for _ in range(MAX_DEPTH):
        if not isinstance(type, t.MODIFIERS):
            break
        if isinstance(type, t.Typedef) and type.name in _DECLARED_ORDERS:
            return _DECLARED_ORDERS[type.name]
        type = type.target
    return None


def size_of(type: t.Type) -> int:
    """Bytes that a value takes. BTFError for what has no size: void, functions, structs declared only."""
    count = 1
    current = type
    for _ in range(MAX_DEPTH):
        current = resolve(current)
        match current:
            case t.Array():
                count *= current.length
                current = current.element
                continue
            case t.Variable():
                current = current.target
                continue
            case t.Int() | t.Float() | t.Composite() | t.Enum() | t.DataSection():
                size = current.size * count
            case t.Pointer():
                size = POINTER_SIZE * count
            case _:
                raise BTFError(f"BTF type {type.id}: {_incomplete(current)}")
        if size > _MAX_SIZE:
            raise BTFError(f"BTF type {type.id} would take {size} bytes")
        return size
    raise BTFError(f"BTF type {type.id} ({type.name or type.kind.name}) contains arrays without end")


def _incomplete(type: t.Type) -> str:
    name = f" {type.name}" if type.name else ""
    match type:
        case t.Void():
            return "void has no size"
        case t.Forward():
            return f"{'union' if type.is_union else 'struct'}{name} is declared but not defined here"
        case _:
            return f"{type.kind.name}{name} has no size"


def align_of(type: t.Type) -> int:
    """Bytes that a value is aligned to; a struct is aligned as its members and its size allow.

    A struct that no alignment of its members explains is packed: its alignment is 1. BTFError as `size_of`.
    """
    return _align(type, 0)


def _align(type: t.Type, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise BTFError(f"BTF type {type.id} ({type.name or type.kind.name}) contains types without end")
    type = resolve(type)
    match type:
        case t.Int() | t.Enum():
            return min(type.size, 16)
        case t.Float():
            return 16 if type.size > 8 else type.size
        case t.Pointer():
            return POINTER_SIZE
        case t.Array():
            return _align(type.element, depth + 1)
        case t.Variable():
            return _align(type.target, depth + 1)
        case t.Composite():
            known = type.btf.cache.get(("align", type.id))
            if known is None:
                known = type.btf.cache["align", type.id] = _composite_align(type, depth)
            assert isinstance(known, int)
            return known
        case _:
            raise BTFError(f"BTF type {type.id}: {_incomplete(type)}")


def _composite_align(type: t.Composite, depth: int) -> int:
    largest = 1
    for member in type.members:
        align = _align(member.type, depth + 1)
        if bit_field(member) is None and member.bit_offset % (align * 8):
            return 1
        largest = max(largest, align)
    return largest if type.size % largest == 0 else 1


def bit_field(member: t.Member) -> tuple[int, int] | None:
    """Bit offset and width of a bit-field member, None for any other; understands both encodings."""
    if member.bit_size:
        return member.bit_offset, member.bit_size
    type = resolve(member.type)
    if isinstance(type, t.Int) and (type.bits != type.size * 8 or type.bit_offset or member.bit_offset % 8):
        return member.bit_offset + type.bit_offset, type.bits
    return None


def is_flexible(type: t.Type) -> bool:
    """Whether values may go on behind their size: an array of no length, or a struct that ends in one."""
    for _ in range(MAX_DEPTH):
        type = resolve(type)
        if isinstance(type, t.Array):
            return type.length == 0
        if not isinstance(type, t.Struct) or not type.members or type.members[-1].bit_size:
            return False
        type = type.members[-1].type
    return False


def fields(type: t.Composite) -> Iterator[tuple[str, t.Member, int]]:
    """The members that C code names: (name, member, bit offset), those of anonymous members in their place.

    A member without a name that has no members itself (Rust has such) is called by its index: "_1". BTFError
    for anonymous members without end.
    """
    # Anonymous members are kept waiting here, with what of them comes after the one being looked at.
    waiting = [(enumerate(type.members), 0)]
    passed = 0
    while waiting:
        members, base = waiting[-1]
        index, member = next(members, (0, None))
        if member is None:
            waiting.pop()
            continue
        passed += 1
        if passed > _MAX_FIELDS or len(waiting) > MAX_DEPTH:
            raise BTFError(f"BTF type {type.id} ({type}) contains anonymous members without end")
        offset = base + member.bit_offset
        if member.name:
            yield member.name, member, offset
        elif bit_field(member) is None:
            inner = resolve(member.type)
            if isinstance(inner, t.Composite):
                waiting.append((enumerate(inner.members), offset))
            else:
                yield f"_{index}", member, offset
