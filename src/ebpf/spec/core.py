"""CO-RE: fitting compiled accesses to the types of the kernel that a program is loaded into.

The rules are libbpf's (relo_core.c): which types of the kernel are candidates, which of their fields count as
the same, what each kind of relocation computes, and what becomes of an instruction whose field is missing:
it is made invalid, because a program may guard it with bpf_core_field_exists() and never reach it.
Documentation/bpf/llvm_reloc.rst, section "CO-RE Relocations"; all kinds but TYPE_MATCHES are as old as
clang 12, that one and 64-bit enums need clang 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.errors import BTFError, RelocationError
from ebpf.isa.instruction import CoreKind, CoreRelocation, Instruction
from ebpf.spec.core_access import Access, match_access, parse_access
from ebpf.spec.core_compat import Matcher, essential_name
from ebpf.spec.core_patch import POISON, PatchError, patch
from ebpf.spec.core_value import Value, value_of


def relocate(
    instructions: Sequence[Instruction],
    *,
    local: BTF,
    target: BTF,
    modules: Iterable[BTF] = (),
    program: str = "",
) -> list[Instruction]:
    """The instructions with all CO-RE relocations applied; see `Relocator`, which does several programs."""
    return Relocator(local, target, modules).relocate(instructions, program=program)


def is_poisoned(instruction: Instruction) -> bool:
    """Whether a relocation made it invalid because what it accesses is not in the kernel."""
    return instruction.opcode == 0x85 and instruction.imm == POISON and instruction.relocation is not None


class _Result(NamedTuple):
    """What a relocation came to; `target` is None where the kernel does not have what it refers to."""

    local: Value
    target: Value | None
    access: Access  #: in the object's own types


class Relocator:
    """Applies the CO-RE relocations of one object, and remembers what it found between its programs.

    `local` is the object's BTF, `target` the kernel's. `modules` are searched in turn for types that the
    kernel itself does not have, and not touched before: a generator that loads them is welcome.
    """

    def __init__(self, local: BTF, target: BTF, modules: Iterable[BTF] = ()) -> None:
        self._local = local
        self._target = target
        self._modules = modules
        self._module_list: list[BTF] | None = None
        self._candidates: dict[int, list[t.Type]] = {}
        self._results: dict[CoreRelocation, _Result] = {}
        self._matcher = Matcher()

    def relocate(self, instructions: Sequence[Instruction], *, program: str = "") -> list[Instruction]:
        """The same instructions, those with a relocation patched; they keep it as metadata.

        What the kernel does not have poisons the instruction; the verifier refuses it if it is reachable,
        and `explain` then says why. Raises RelocationError for what cannot be decided: ambiguous or malformed
        relocations, and values that do not fit the instruction.
        """
        patched: list[Instruction] = []
        slot = 0
        for instruction in instructions:
            slots = instruction.slots
            if instruction.relocation is None:
                patched.append(instruction)
            else:
                try:
                    result = self._resolve(instruction.relocation)
                    patched += patch(instruction, result.local, result.target)
                except (BTFError, PatchError) as error:
                    raise self._error(instruction, program, slot, error.message) from None
            slot += slots
        return patched

    def explain(self, instruction: Instruction) -> str | None:
        """Why this instruction was poisoned, in words; None if it was not."""
        if not is_poisoned(instruction) or instruction.relocation is None:
            return None
        result = self._resolve(instruction.relocation)
        if result.target is None:
            return f"{result.access} is not in this kernel"
        return (
            f"{result.access} has {result.target.size} bytes in this kernel, not {result.local.size}: "
            "reading it as it is declared would give a wrong value"
        )

    def _error(self, instruction: Instruction, program: str, slot: int, what: str) -> RelocationError:
        relocation = instruction.relocation
        assert relocation is not None
        where = f"instruction {slot}"
        if program:
            where = f"program {program!r}, {where}"
        if instruction.source:
            where += f" ({instruction.source.file}:{instruction.source.line})"
        return RelocationError(
            f"{where}: CO-RE relocation {relocation.kind.name} of {self._name(relocation)}: {what}"
        )

    def _name(self, relocation: CoreRelocation) -> str:
        try:
            return str(parse_access(self._local.type(relocation.type_id), relocation))
        except BTFError:
            return f"BTF type {relocation.type_id} + {relocation.access!r}"

    def _resolve(self, relocation: CoreRelocation) -> _Result:
        known = self._results.get(relocation)
        if known is None:
            known = self._results[relocation] = self._compute(relocation)
        return known

    def _compute(self, relocation: CoreRelocation) -> _Result:
        kind = relocation.kind
        type = self._local.type(relocation.type_id)
        access = parse_access(type, relocation)
        if kind is CoreKind.TYPE_ID_LOCAL:
            # The number in the instruction may be stale: linking renumbers types.
            own_id = Value(type.id, is_checked=False)
            return _Result(own_id, own_id, access)
        if not type.name:
            raise BTFError("it refers to a type without a name, which cannot be found elsewhere")
        local = value_of(kind, access)
        assert local is not None
        candidates = self._find_candidates(type)
        found: list[tuple[t.Type, Access, Value]] = []
        for candidate in candidates:
            match = match_access(access, candidate, kind, self._matcher)
            if match is None:
                continue
            value = value_of(kind, match)
            assert value is not None
            if found:
                self._agree(found[0][1], found[0][2], match, value)
            found.append((candidate, match, value))
        if not found:
            return _Result(local, value_of(kind, None), access)
        # As libbpf: later relocations of the type only look where this one succeeded.
        self._candidates[type.id] = [candidate for candidate, _, _ in found]
        return _Result(local, found[0][2], access)

    @staticmethod
    def _agree(first: Access, first_value: Value, other: Access, value: Value) -> None:
        if (first.bit_offset, first_value.number) != (other.bit_offset, value.number):
            raise BTFError(
                f"it is ambiguous: {first} (BTF type {first.root.id}) gives {first_value.number} at bit "
                f"{first.bit_offset}, {other} (BTF type {other.root.id}) {value.number} at bit "
                f"{other.bit_offset}"
            )

    def _find_candidates(self, local: t.Type) -> list[t.Type]:
        """The kernel's types of the same kind and, but for flavours, name."""
        known = self._candidates.get(local.id)
        if known is None:
            known = _types_like(self._target, local)
            if not known:
                if self._module_list is None:
                    self._module_list = list(self._modules)
                known = [
                    type
                    for module in self._module_list
                    for type in _types_like(module, local)
                    if type.id >= module.first_id
                ]
            self._candidates[local.id] = known
        return known


def _types_like(btf: BTF, local: t.Type) -> list[t.Type]:
    name = essential_name(local.name)
    return [type for type in btf.find_flavors(name, local.__class__) if essential_name(type.name) == name]
