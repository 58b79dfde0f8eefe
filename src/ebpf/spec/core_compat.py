"""When a type of an object and a type of the kernel count as the same, by the rules of CO-RE.

Three relations of growing strictness, as in libbpf's relo_core.c: fields that a relocated access may read,
types that BPF_CORE_TYPE_EXISTS takes for each other, and types that BPF_CORE_TYPE_MATCHES does.
"""

from __future__ import annotations

from ebpf.btf import types as t
from ebpf.btf.layout import resolve
from ebpf.errors import BTFError

_MAX_DEPTH = 32


def essential_name(name: str) -> str:
    """The name without its CO-RE flavour: "task_struct" of "task_struct___old"."""
    cut = name.rfind("___")
    while cut > 0:
        # A separator is three underscores with none before or behind it.
        if name[cut - 1] != "_" and name[cut + 3 : cut + 4] not in ("", "_"):
            return name[:cut]
        cut = name.rfind("___", 0, cut + 2)
    return name


def same_kind(local: t.Type, target: t.Type) -> bool:
    """Whether both are of one kind; a 32-bit enum and a 64-bit one are."""
    return type(local) is type(target)


def same_name(local: t.Type | t.Member, target: t.Type | t.Member) -> bool:
    """Whether the names are the same but for flavours."""
    return essential_name(local.name) == essential_name(target.name)


def _plain_ints(local: t.Int, target: t.Int) -> bool:
    return local.bit_offset == 0 == target.bit_offset


def fields_compatible(local: t.Type, target: t.Type) -> bool:
    """Whether an access to a field of type `local` may be relocated to one of type `target`."""
    for _ in range(_MAX_DEPTH):
        local, target = resolve(local), resolve(target)
        if isinstance(local, t.Composite) and isinstance(target, t.Composite):
            return True
        if not same_kind(local, target):
            return False
        match local, target:
            case (t.Pointer(), _) | (t.Float(), _):
                return True
            case (t.Forward(), _) | (t.Enum(), _):
                return not local.name or not target.name or same_name(local, target)
            case t.Int(), t.Int():
                return _plain_ints(local, target)
            case t.Array(), t.Array():
                local, target = local.element, target.element
            case _:
                return False
    raise BTFError(f"BTF type {local.id} contains arrays without end")


def types_compatible(local: t.Type, target: t.Type, depth: int = _MAX_DEPTH) -> bool:
    """Whether `target` is what a program means by `local`, members aside (BPF_CORE_TYPE_EXISTS)."""
    if not same_kind(local, target):
        return False
    for _ in range(_MAX_DEPTH):
        local, target = resolve(local), resolve(target)
        if not same_kind(local, target):
            return False
        match local, target:
            case t.Int(), t.Int():
                return _plain_ints(local, target)
            case t.Pointer(), t.Pointer():
                local, target = local.target, target.target
            case t.Array(), t.Array():
                local, target = local.element, target.element
            case t.FunctionProto(), t.FunctionProto():
                if len(local.parameters) != len(target.parameters):
                    return False
                if depth <= 0:
                    break
                for mine, theirs in zip(local.parameters, target.parameters, strict=True):
                    if not types_compatible(resolve(mine.type), resolve(theirs.type), depth - 1):
                        return False
                local, target = local.return_type, target.return_type
            case ((t.Void() | t.Composite() | t.Enum() | t.Forward()), _):
                return True
            case _:
                return False
    raise BTFError(f"BTF type {local.id} refers to types without end")


class Matcher:
    """Whether types match (BPF_CORE_TYPE_MATCHES), remembering the pairs that it has compared."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, bool], bool] = {}

    def types_match(self, local: t.Type, target: t.Type, *, behind: bool = False, depth: int = 32) -> bool:
        """Whether `target` has all that `local` has, with the same types.

        `behind` says that a pointer leads here: structs then need no more than the same name.
        """
        if depth <= 0:
            raise BTFError(f"BTF type {local.id} refers to types without end")
        local, target = resolve(local), resolve(target)
        key = (local.id, id(target.btf), target.id, behind)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._match(local, target, behind, depth - 1)
        return known

    def _match(self, local: t.Type, target: t.Type, behind: bool, depth: int) -> bool:
        if not same_name(local, target):
            return False
        if behind and isinstance(local, t.Composite | t.Forward):
            return _is_union(local) == _is_union(target) is not None
        if not same_kind(local, target):
            return False
        match local, target:
            case t.Void(), _:
                return True
            case t.Forward(), t.Forward():
                return local.is_union == target.is_union
            case t.Enum(), t.Enum():
                names = {essential_name(member.name) for member in target.members}
                return local.size == target.size and all(
                    essential_name(member.name) in names for member in local.members
                )
            case t.Composite(), t.Composite():
                return all(
                    any(
                        same_name(mine, theirs)
                        and self.types_match(mine.type, theirs.type, behind=behind, depth=depth)
                        for theirs in target.members
                    )
                    for mine in local.members
                )
            case t.Int(), t.Int():
                return local.size == target.size and local.signed == target.signed
            case t.Pointer(), t.Pointer():
                return self.types_match(local.target, target.target, behind=True, depth=depth)
            case t.Array(), t.Array():
                return local.length == target.length and self.types_match(
                    local.element, target.element, behind=behind, depth=depth
                )
            case t.FunctionProto(), t.FunctionProto():
                return (
                    len(local.parameters) == len(target.parameters)
                    and all(
                        self.types_match(mine.type, theirs.type, behind=behind, depth=depth)
                        for mine, theirs in zip(local.parameters, target.parameters, strict=True)
                    )
                    and self.types_match(local.return_type, target.return_type, behind=behind, depth=depth)
                )
            case _:
                return False


def _is_union(type: t.Type) -> bool | None:
    """Of structs and unions, defined or only declared; None for all else."""
    match type:
        case t.Forward():
            return type.is_union
        case t.Composite():
            return isinstance(type, t.Union)
        case _:
            return None
