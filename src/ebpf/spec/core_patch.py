"""Patching one instruction with the value of its CO-RE relocation."""

from __future__ import annotations

from ebpf.btf import types as t
from ebpf.errors import Error
from ebpf.isa.instruction import Instruction
from ebpf.spec.core_value import Value

#: libbpf's number for it, 0xbad2310 ("bad relo"): the verifier's "invalid func unknown#195896080" says so.
POISON = 195896080

_LD_IMM64 = 0x18
_CALL = 0x85
_CLASS, _SOURCE_REGISTER, _SIZE = 0x07, 0x08, 0x18
_LDX, _ST, _STX, _ALU, _ALU64 = 1, 2, 3, 4, 7
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_SIZE_CODES = {size: code for code, size in _SIZES.items()}
_MAX_OFFSET = 0x7FFF


class PatchError(Error):
    """A value that the instruction cannot take."""


def patch(instruction: Instruction, local: Value, target: Value | None) -> list[Instruction]:
    """The instruction with the target's value; two invalid ones in place of a poisoned 64-bit load."""
    if target is None:
        return _poison(instruction)
    match instruction.opcode & _CLASS:
        case cls if cls in (_ALU, _ALU64) and not instruction.opcode & _SOURCE_REGISTER:
            return [_patch_immediate(instruction, local, target)]
        case cls if cls in (_LDX, _ST, _STX):
            return _patch_access(instruction, local, target)
    if instruction.opcode == _LD_IMM64 and not instruction.src and not instruction.offset:
        _check(local, instruction.imm, 64)
        return [instruction._replace(imm=target.number & 0xFFFFFFFFFFFFFFFF)]
    raise PatchError(f"an instruction with opcode {instruction.opcode:#04x} cannot be relocated")


def _poison(instruction: Instruction) -> list[Instruction]:
    poisoned = instruction._replace(opcode=_CALL, dst=0, src=0, offset=0, imm=POISON, reference=None)
    return [poisoned, poisoned._replace(symbol=None)] if instruction.is_wide else [poisoned]


def _check(local: Value, found: int, bits: int) -> None:
    if local.is_checked and (found - local.number) & ((1 << bits) - 1):
        raise PatchError(f"the instruction holds {found}, where the object's types say {local.number}")


def _patch_immediate(instruction: Instruction, local: Value, target: Value) -> Instruction:
    _check(local, instruction.imm, 32)
    if not -(1 << 31) <= target.number < 1 << 32:
        raise PatchError(f"its value {target.number} does not fit the 32 bits of the instruction")
    return instruction._replace(imm=((target.number & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000)


def _patch_access(instruction: Instruction, local: Value, target: Value) -> list[Instruction]:
    _check(local, instruction.offset, 64)
    if target.number > _MAX_OFFSET:
        raise PatchError(f"its offset {target.number} does not fit the 16 bits of the instruction")
    opcode = instruction.opcode
    if local.size != target.size:
        if not _may_resize(local.type, target.type):
            return _poison(instruction)
        size = _SIZES[opcode & _SIZE]
        if size != local.size:
            raise PatchError(f"the instruction accesses {size} bytes of a field of {local.size}")
        if target.size not in _SIZE_CODES:
            raise PatchError(f"the field has {target.size} bytes here, which no instruction accesses")
        opcode = opcode & ~_SIZE | _SIZE_CODES[target.size]
    return [instruction._replace(opcode=opcode, offset=target.number)]


def _may_resize(local: t.Type | None, target: t.Type | None) -> bool:
    """Whether another size gives the same value: it is zero-extended, which is right for what is unsigned."""
    match local, target:
        case t.Pointer(), t.Pointer():
            return True
        case t.Int(), t.Int():
            return not local.signed and not target.signed
        case _:
            return False
