"""Instructions as bytes: RFC 9669 section 3, in either byte order.

Strict means: what a program may contain. An opcode that is not in the table, a register beyond r10 or a
reserved field that is not zero is an InstructionError that names the slot. Without it every field is kept as
it is, which is for what the kernel dumps: the verifier's rewrites use r11, and fields that are
zero in programs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import Literal

from ebpf.errors import InstructionError
from ebpf.isa.instruction import Instruction, ReferenceKind
from ebpf.isa.opcodes import CALL, LAST_REGISTER, LD_IMM64, Call
from ebpf.isa.operations import BY_OPCODE, Operation, find

ByteOrder = Literal["little", "big"]

SLOT = 8  #: bytes

_LAYOUTS: dict[ByteOrder, struct.Struct] = {"little": struct.Struct("<BBhi"), "big": struct.Struct(">BBhi")}
_U32 = 0xFFFFFFFF


def decode(
    data: bytes | bytearray | memoryview, *, byteorder: ByteOrder = "little", strict: bool = True
) -> list[Instruction]:
    """The instructions in `data`; a 64-bit immediate load is one, and its imm is unsigned.

    Raises InstructionError for a length that is no multiple of 8, for a 64-bit immediate load that lacks its
    second slot or whose second slot holds more than the immediate, and if strict for invalid instructions.
    """
    if len(data) % SLOT:
        raise InstructionError(
            f"{len(data)} bytes are no whole number of instructions: each slot takes {SLOT} bytes"
        )
    instructions: list[Instruction] = []
    append = instructions.append
    slots = _LAYOUTS[byteorder].iter_unpack(data)
    little = byteorder == "little"
    wide = 0  # how many there were: each takes two slots
    for opcode, registers, offset, imm in slots:
        if little:
            dst, src = registers & 15, registers >> 4
        else:
            dst, src = registers >> 4, registers & 15
        if opcode == LD_IMM64:
            imm = imm & _U32 | _second_slot(next(slots, None), len(instructions) + wide) << 32
        instruction = Instruction(opcode, dst, src, offset, imm)
        if strict and find(opcode, dst, src, offset, imm) is None:
            raise InstructionError(f"slot {len(instructions) + wide}: {problem(instruction)}")
        if opcode == LD_IMM64:
            wide += 1
        append(instruction)
    return instructions


def encode(
    instructions: Iterable[Instruction], *, byteorder: ByteOrder = "little", strict: bool = True
) -> bytes:
    """The bytes of `instructions`, with the fields as they stand: references are the loader's to resolve.

    Raises InstructionError for a field out of range, for a jump to a label that has not been laid out, and if
    strict for an invalid instruction.
    """
    pack = _LAYOUTS[byteorder].pack
    little = byteorder == "little"
    parts: list[bytes] = []
    for instruction in instructions:
        opcode, dst, src, offset, imm, _, reference, _, _ = instruction
        if reference is not None and reference.kind is ReferenceKind.LABEL:
            raise InstructionError(f"slot {len(parts)}: the jump to label {reference.name!r} has no offset")
        if opcode == LD_IMM64 and -(1 << 63) <= imm < 1 << 64:
            imm, high = _signed(imm), _signed(imm >> 32)
        wrong = _range_problem(opcode, dst, src, offset, imm)
        if wrong is None and strict and find(opcode, dst, src, offset, imm) is None:
            wrong = problem(instruction)
        if wrong is not None:
            raise InstructionError(f"slot {len(parts)}: {wrong}")
        parts.append(pack(opcode, dst | src << 4 if little else dst << 4 | src, offset, imm))
        if opcode == LD_IMM64:
            parts.append(pack(0, 0, 0, high))
    return b"".join(parts)


def decode_dump(data: bytes) -> list[Instruction]:
    """The translated instructions of a loaded program, as BPF_OBJ_GET_INFO_BY_FD gives them on this machine.

    In a call of a subprogram the kernel leaves the distance in the offset field, and a number of its own in
    imm; here it is in imm, where programs have it. Raises InstructionError as `decode` without strict.
    """
    return [
        instruction._replace(imm=instruction.offset, offset=0)
        if instruction.opcode == CALL and instruction.src == Call.LOCAL and instruction.offset
        else instruction
        for instruction in decode(data, byteorder=sys.byteorder, strict=False)
    ]


def validate(instruction: Instruction) -> None:
    """Raise InstructionError if no program may contain this instruction: what and why is in the message."""
    wrong = problem(instruction)
    if wrong is not None:
        raise InstructionError(wrong)


def problem(instruction: Instruction) -> str | None:
    """Why no program may contain this instruction; None if it is valid."""
    opcode, dst, src, offset, imm, *_ = instruction
    if not 0 <= opcode <= 0xFF or not BY_OPCODE[opcode]:
        return f"opcode {opcode:#04x} is no BPF instruction"
    if (wrong := _range_problem(opcode, dst, src, offset, imm)) is not None:
        return wrong
    if find(opcode, dst, src, offset, imm) is not None:
        return None
    for name, register in (("dst", dst), ("src", src)):
        if register > LAST_REGISTER:
            return f"{name} is register {register}: programs have r0 to r{LAST_REGISTER}"
    nearest = min(BY_OPCODE[opcode], key=lambda operation: len(_disagreements(operation, instruction)))
    return f"opcode {opcode:#04x} ({nearest.template}): " + ", ".join(_disagreements(nearest, instruction))


def _disagreements(operation: Operation, instruction: Instruction) -> list[str]:
    """The fields that are not what the operation needs, in words."""
    fields = zip(("dst", "src", "offset", "imm"), operation[2:6], instruction[1:5], strict=True)
    return [
        f"{name} is {actual:#x} and must be {fixed:#x}"
        for name, fixed, actual in fields
        if fixed is not None and fixed != actual
    ]


def _range_problem(opcode: int, dst: int, src: int, offset: int, imm: int) -> str | None:
    """Which field does not fit its bits, in words."""
    low, high = (-(1 << 63), (1 << 64) - 1) if opcode == LD_IMM64 else (-(1 << 31), (1 << 31) - 1)
    for name, value, least, most in (
        ("opcode", opcode, 0, 0xFF),
        ("dst", dst, 0, 15),
        ("src", src, 0, 15),
        ("offset", offset, -(1 << 15), (1 << 15) - 1),
        ("imm", imm, low, high),
    ):
        if not least <= value <= most:
            return f"{name} is {value} and must be {least} to {most}"
    return None


def _second_slot(slot: tuple[int, int, int, int] | None, number: int) -> int:
    """The high half of a 64-bit immediate, unsigned."""
    if slot is None:
        raise InstructionError(f"slot {number}: the 64-bit immediate load is cut off after its first slot")
    opcode, registers, offset, imm = slot
    if opcode or registers or offset:
        raise InstructionError(
            f"slot {number + 1}: the second slot of a 64-bit immediate load must hold nothing but imm, "
            f"not opcode {opcode:#04x}, registers {registers:#04x}, offset {offset}"
        )
    return imm & _U32


def _signed(value: int) -> int:
    """The low 32 bits as a signed number."""
    return (value & _U32 ^ 0x80000000) - 0x80000000
