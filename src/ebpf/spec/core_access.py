"""What a CO-RE relocation asks for, found in the types of the object and again in those of the kernel.

An accessor "0:1:2" is a path: element 0 of what the pointer points to, member 1 of it, element or member 2 of
that. Between kernels the numbers change and the names do not, so the path is followed by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ebpf.btf import types as t
from ebpf.btf.layout import resolve, size_of
from ebpf.errors import BTFError
from ebpf.isa.instruction import CoreKind, CoreRelocation
from ebpf.spec.core_compat import Matcher, essential_name, fields_compatible, types_compatible

FIELD_KINDS = frozenset(
    {
        CoreKind.FIELD_BYTE_OFFSET,
        CoreKind.FIELD_BYTE_SIZE,
        CoreKind.FIELD_EXISTS,
        CoreKind.FIELD_SIGNED,
        CoreKind.FIELD_LSHIFT_U64,
        CoreKind.FIELD_RSHIFT_U64,
    }
)
ENUM_KINDS = frozenset({CoreKind.ENUMVAL_EXISTS, CoreKind.ENUMVAL_VALUE})

_MAX_STEPS = 64  # BPF_CORE_SPEC_MAX_LEN
_NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(slots=True, frozen=True)
class Step:
    """One turn of a path: member `index` of the struct `type`, or element `index` of elements of `type`."""

    type: t.Type
    index: int
    name: str | None = None  #: None for an element of an array


@dataclass(slots=True, frozen=True)
class Access:
    """What a relocation refers to in one BTF."""

    root: t.Type
    steps: tuple[Step, ...] = field(default=())  #: of a field; or the one enumerator
    bit_offset: int = 0  #: of a field, from where the pointer points to

    def __str__(self) -> str:
        """In words, without flavours: "field 'se.load[2]' of struct task_struct"."""
        root = str(self.root)
        root = root.removesuffix(self.root.name) + essential_name(self.root.name)
        if not self.steps:
            return root
        first, *others = self.steps
        if isinstance(first.type, t.Enum):
            return f"{essential_name(first.name or '')!r} of {root}"
        path = f"[{first.index}]" if first.index or not others else ""
        for step in others:
            path += f"[{step.index}]" if step.name is None else f".{step.name}"
        return f"field {path.removeprefix('.')!r} of {root}"


def parse_access(local: t.Type, relocation: CoreRelocation) -> Access:
    """What the relocation means in the object's own types. BTFError if it makes no sense there."""
    kind, access = relocation.kind, relocation.access
    if kind not in FIELD_KINDS and kind not in ENUM_KINDS:
        if access != "0":
            raise BTFError(f"accessor {access!r} of a {kind.name} relocation")
        return Access(local)
    parts = access.split(":")
    if len(parts) > _MAX_STEPS or not all(_NUMBER.fullmatch(part) for part in parts):
        raise BTFError(f"accessor {access[:40]!r}")
    numbers = [int(part) for part in parts]
    root = resolve(local)
    if kind in ENUM_KINDS:
        if not isinstance(root, t.Enum) or len(numbers) > 1 or numbers[0] >= len(root.members):
            raise BTFError(f"accessor {access!r} into {local}")
        return Access(local, (Step(root, numbers[0], root.members[numbers[0]].name),))
    return _parse_field(local, numbers)


def _parse_field(local: t.Type, numbers: list[int]) -> Access:
    current = resolve(local)
    steps = [Step(current, numbers[0])]
    bit_offset = numbers[0] and numbers[0] * size_of(current) * 8
    for number in numbers[1:]:
        match current:
            case t.Composite():
                if number >= len(current.members):
                    raise BTFError(f"member {number} of {current}, which has {len(current.members)}")
                member = current.members[number]
                bit_offset += member.bit_offset
                if member.name:
                    steps.append(Step(current, number, member.name))
                current = resolve(member.type)
            case t.Array():
                if number >= current.length and not _ends_struct(steps[-1], current):
                    raise BTFError(f"element {number} of {current}")
                current = resolve(current.element)
                steps.append(Step(current, number))
                bit_offset += number * size_of(current) * 8
            case _:
                raise BTFError(f"a field of {current}, which has none")
    return Access(local, tuple(steps), bit_offset)


def _ends_struct(step: Step, array: t.Array) -> bool:
    """Whether the array that the last step led to is a flexible one, at the end of its struct."""
    return (
        step.name is not None
        and array.length == 0
        and isinstance(step.type, t.Composite)
        and step.index == len(step.type.members) - 1
    )


def match_access(local: Access, target: t.Type, kind: CoreKind, matcher: Matcher) -> Access | None:
    """The same access in a type of the kernel; None if the type does not have it."""
    if kind in FIELD_KINDS:
        return _match_field(local, target)
    if kind in ENUM_KINDS:
        enum = resolve(target)
        wanted = essential_name(local.steps[0].name or "")
        for index, member in enumerate(enum.members) if isinstance(enum, t.Enum) else ():
            if essential_name(member.name) == wanted:
                return Access(target, (Step(enum, index, member.name),))
        return None
    if kind is CoreKind.TYPE_MATCHES:
        return Access(target) if matcher.types_match(local.root, target) else None
    return Access(target) if types_compatible(local.root, target) else None


def _match_field(local: Access, target: t.Type) -> Access | None:
    found = Access(target)
    current = target
    for number, step in enumerate(local.steps):
        current = resolve(current)
        if step.name is not None:
            assert isinstance(step.type, t.Composite)
            wanted = step.type.members[step.index]
            located = _find_member(current, wanted, found, set(), 0)
            if located is None:
                return None
            found, current = located
            continue
        if number:
            if not isinstance(current, t.Array):
                return None
            if step.index >= current.length and not _ends_struct(found.steps[-1], current):
                return None
            current = resolve(current.element)
        found = Access(
            found.root,
            (*found.steps, Step(current, step.index)),
            found.bit_offset + (step.index and step.index * size_of(current) * 8),
        )
    return found


def _find_member(
    type: t.Type, wanted: t.Member, so_far: Access, without: set[int], depth: int
) -> tuple[Access, t.Type] | None:
    """A member by name, in the struct or in anonymous ones inside it; `without` are structs that lack it."""
    if not isinstance(type, t.Composite) or type.id in without:
        return None
    if depth > _MAX_STEPS:
        raise BTFError(f"{type} contains types without end")
    without.add(type.id)
    for index, member in enumerate(type.members):
        bit_offset = so_far.bit_offset + member.bit_offset
        if not member.name:
            inner = resolve(member.type)
            found = _find_member(inner, wanted, replace(so_far, bit_offset=bit_offset), without, depth + 1)
            if found is not None:
                return found
        elif member.name == wanted.name:
            if not fields_compatible(wanted.type, member.type):
                return None
            step = Step(type, index, member.name)
            return Access(so_far.root, (*so_far.steps, step), bit_offset), member.type
    return None
