"""Static linking: a program and all functions that it can reach, as one sequence of instructions."""

from __future__ import annotations

from typing import NamedTuple

from ebpf.errors import RelocationError
from ebpf.isa.instruction import Instruction, ReferenceKind
from ebpf.spec.model import FunctionSpec, ProgramSpec, Spec

_LOCAL = (ReferenceKind.CALL, ReferenceKind.FUNCTION)


class LinkedFunction(NamedTuple):
    """Where a function starts in a linked program."""

    offset: int  #: slots from the start of the program
    name: str
    type_id: int  #: of its BTF function; 0 without BTF


class LinkedProgram(NamedTuple):
    """A program as the kernel takes it: its own function first, then the others in the order of first use.

    References to maps and kernel symbols are still names; references to functions are offsets, and keep
    their names.
    """

    instructions: list[Instruction]
    functions: list[LinkedFunction]


def link_program(spec: Spec, program: ProgramSpec) -> LinkedProgram:
    """Append the functions that `program` calls or passes as callbacks, each once, and resolve the calls.

    Raises RelocationError for a function that the spec does not have.
    """
    order = _reachable(spec, program)
    offsets: dict[str, int] = {}
    functions = []
    end = 0
    for name, function in order.items():
        offsets[name] = end
        functions.append(LinkedFunction(end, name, function.type_id))
        end += sum(instruction.slots for instruction in function.instructions)
    linked: list[Instruction] = []
    slot = 0
    for function in order.values():
        for instruction in function.instructions:
            reference = instruction.reference
            if reference is not None and reference.kind in _LOCAL:
                # Both kinds count from the next slot; the upper half of an address stays 0.
                distance = offsets[reference.name] - slot - 1
                if instruction.is_wide:
                    distance &= 0xFFFFFFFF
                instruction = instruction._replace(imm=distance)
            linked.append(instruction)
            slot += instruction.slots
    return LinkedProgram(linked, functions)


def _reachable(spec: Spec, program: ProgramSpec) -> dict[str, ProgramSpec | FunctionSpec]:
    """The functions in depth-first order of first use, as libbpf lays them out; without recursion."""
    order: dict[str, ProgramSpec | FunctionSpec] = {program.name: program}
    pending = [iter(program.instructions)]
    while pending:
        for instruction in pending[-1]:
            reference = instruction.reference
            if reference is None or reference.kind not in _LOCAL or reference.name in order:
                continue
            name = reference.name
            function = spec.functions.get(name) or spec.programs.get(name)
            if function is None:
                raise RelocationError(
                    f"program {program.name!r} calls {name!r}, which is no function of {spec.name!r}"
                )
            order[name] = function
            pending.append(iter(function.instructions))
            break
        else:
            pending.pop()
    return order
