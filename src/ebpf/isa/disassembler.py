"""Instructions as text, one line each, in the syntax of LLVM (see `ebpf.isa.operations`).

`ebpf.isa.assembler.assemble` reads every line that is written here. What is no valid instruction is shown as
it stands, as `.insn opcode, dst, src, offset, imm`, so that nothing is hidden or lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from ebpf.errors import InstructionError
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.isa.opcodes import KERNEL_REGISTER
from ebpf.isa.operations import SYMBOLIC, Operation, find


def format_instruction(instruction: Instruction, *, pc: int | None = None, target: str | None = None) -> str:
    """The text of one instruction: "r1 = *(u32 *)(r2 + 4)", "if r1 s> 5 goto +3", "r1 = flows ll".

    `pc` is its slot; given, the slot that a jump or local call goes to follows as a comment. `target`
    replaces the distance of a jump or local call, for example by a label. Raises InstructionError for a
    reference that this instruction cannot have.
    """
    if instruction.reference is not None:
        return _symbolic(instruction, instruction.reference)
    opcode, dst, src, offset, imm, *_ = instruction
    operation = find(opcode, dst, src, offset, imm, last_register=KERNEL_REGISTER)
    if operation is None:
        return f".insn {opcode:#04x}, {dst}, {src}, {offset}, {imm}"
    if target is not None:
        return operation.show(dst, src, offset, imm, jump=target, long=target, local=target)
    text = operation.show(dst, src, offset, imm)
    if pc is None or (distance := _distance(operation, instruction)) is None:
        return text
    return f"{text}  # {pc + 1 + distance}"


def disassemble(instructions: Iterable[Instruction]) -> str:
    """The text of a program, with the symbols of its instructions as labels.

    Assembled again it gives the same instructions, without their source lines and CO-RE relocations; with
    `strict=False` where they are not valid.
    """
    lines: list[str] = []
    for instruction in instructions:
        if instruction.symbol is not None:
            lines.append(f"{instruction.symbol}:")
        lines.append(f"    {format_instruction(instruction)}")
    return "\n".join(lines) + "\n" if lines else ""


def jump_distance(instruction: Instruction) -> int | None:
    """How far a jump or a call of a subprogram goes, in slots from the next instruction; None for others."""
    opcode, dst, src, offset, imm, *_ = instruction
    operation = find(opcode, dst, src, offset, imm, last_register=KERNEL_REGISTER)
    return _distance(operation, instruction) if operation is not None else None


def _distance(operation: Operation, instruction: Instruction) -> int | None:
    if not operation.jump:
        return None
    return instruction.offset if operation.jump == "offset" else instruction.imm


def _symbolic(instruction: Instruction, reference: Reference) -> str:
    """The text of an instruction with a symbolic operand."""
    if reference.kind is ReferenceKind.LABEL:
        plain = instruction._replace(reference=None)
        if jump_distance(plain) is None:
            raise InstructionError(f"{format_instruction(plain)!r} is no jump, and cannot go to a label")
        return format_instruction(plain, target=reference.name)
    operation = SYMBOLIC[reference.kind]
    what = f"a reference to {reference.kind.value} {reference.name!r}"
    if instruction.opcode != operation.opcode:
        text = format_instruction(instruction._replace(reference=None))
        raise InstructionError(f"{text!r} cannot have {what}")
    if reference.offset and "ADDEND" not in operation.template:
        raise InstructionError(f"{what} cannot have an offset, which is {reference.offset}")
    _, dst, src, offset, imm, *_ = instruction
    return operation.show(dst, src, offset, imm, name=reference.name, addend=reference.offset)
