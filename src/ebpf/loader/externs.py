"""What instructions refer to, as the numbers that the kernel takes: maps, kernel functions and symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ebpf.errors import RelocationError
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.loader.poison import MISSING_KFUNC
from ebpf.maps.map import Map
from ebpf.spec.model import ExternSpec, Spec

if TYPE_CHECKING:
    from ebpf.loader.kernel_types import KernelTypes
    from ebpf.spec.core import Relocator

# Pseudo source registers, include/uapi/linux/bpf.h.
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE, _PSEUDO_BTF_ID, _PSEUDO_KFUNC_CALL = 1, 2, 3, 2


class Resolver:
    """References to maps and kernel symbols as the numbers that the kernel takes."""

    def __init__(self, spec: Spec, maps: Mapping[str, Map], types: KernelTypes) -> None:
        self._spec = spec
        self._maps = maps
        self._types = types
        self._relocator: Relocator | None = None
        self.fd_array: list[int] = [0]  #: descriptors of modules' BTF; the first place stands for vmlinux

    def resolve(self, instructions: Sequence[Instruction], program: str) -> list[Instruction]:
        """The instructions with every reference resolved, and every CO-RE relocation applied."""
        if any(instruction.relocation is not None for instruction in instructions):
            instructions = self._relocate(instructions, program)
        resolved = []
        for instruction in instructions:
            reference = instruction.reference
            if reference is not None and reference.kind not in _RESOLVED:
                instruction = self._resolve(instruction, reference, program)
            resolved.append(instruction)
        return resolved

    def _relocate(self, instructions: Sequence[Instruction], program: str) -> list[Instruction]:
        if self._relocator is None:
            from ebpf.spec.core import Relocator

            if self._spec.btf is None:
                raise RelocationError(
                    f"program {program!r} has CO-RE relocations, and {self._spec.name!r} no types for them"
                )
            self._relocator = Relocator(self._spec.btf, self._types.core_target, self._types.core_modules())
        return self._relocator.relocate(instructions, program=program)

    def missing(self, instruction: Instruction) -> str | None:
        """What this kernel lacks that made CO-RE poison the instruction; None if it did not."""
        return self._relocator.explain(instruction) if self._relocator is not None else None

    def _resolve(self, instruction: Instruction, reference: Reference, program: str) -> Instruction:
        kind, name = reference.kind, reference.name
        if kind is ReferenceKind.MAP:
            return instruction._replace(src=_PSEUDO_MAP_FD, imm=self._map(name, program).fileno())
        if kind is ReferenceKind.MAP_VALUE:
            fd = self._map(name, program).fileno()
            return instruction._replace(src=_PSEUDO_MAP_VALUE, imm=fd | (reference.offset & 0xFFFFFFFF) << 32)
        if kind is ReferenceKind.KCONFIG:
            fd = self._map(".kconfig", program).fileno()
            offset = self._spec.externs[name].offset + reference.offset
            return instruction._replace(src=_PSEUDO_MAP_VALUE, imm=fd | (offset & 0xFFFFFFFF) << 32)
        if kind is ReferenceKind.KFUNC:
            return self._kfunc(instruction, self._spec.externs[name], program)
        if kind is ReferenceKind.KSYM:
            return self._ksym(instruction, self._spec.externs[name], program)
        raise RelocationError(f"program {program!r}: nothing resolves {kind.value} {name!r}")

    def _map(self, name: str, program: str) -> Map:
        found = self._maps.get(name)
        if found is None:
            raise RelocationError(f"program {program!r} uses map {name!r}, which the object does not have")
        return found

    def _kfunc(self, instruction: Instruction, extern: ExternSpec, program: str) -> Instruction:
        from ebpf.btf.types import Function

        found = self._types.find(extern.name, Function)
        if found is None:
            if extern.is_weak:
                return instruction._replace(src=0, offset=0, imm=MISSING_KFUNC)
            raise RelocationError(
                f"program {program!r} calls kernel function {extern.name!r}, which this kernel does not have",
                hint="declare it __weak and guard the call with bpf_ksym_exists() to do without",
            )
        return instruction._replace(src=_PSEUDO_KFUNC_CALL, offset=self._module(found.btf_fd), imm=found.id)

    def _module(self, btf_fd: int) -> int:
        """The place of a module's BTF in fd_array."""
        if not btf_fd:
            return 0
        if btf_fd not in self.fd_array:
            self.fd_array.append(btf_fd)
        return self.fd_array.index(btf_fd)

    def _ksym(self, instruction: Instruction, extern: ExternSpec, program: str) -> Instruction:
        if extern.type is not None:
            from ebpf.btf.types import Function, Variable

            found = self._types.find(extern.name, Function if extern.is_function else Variable)
            if found is not None:
                return instruction._replace(src=_PSEUDO_BTF_ID, imm=found.id | found.btf_fd << 32)
        else:
            from ebpf.loader.kernel_types import symbol_address

            address = symbol_address(extern.name)
            if address is not None:
                return instruction._replace(src=0, imm=address)
        if extern.is_weak:
            return instruction._replace(src=0, imm=0)
        how = "among its types" if extern.type is not None else "in /proc/kallsyms"
        raise RelocationError(
            f"program {program!r} uses kernel symbol {extern.name!r}, which this kernel does not have {how}",
            hint="declare it __weak to have address 0 then",
        )


_RESOLVED = frozenset({ReferenceKind.CALL, ReferenceKind.FUNCTION})
