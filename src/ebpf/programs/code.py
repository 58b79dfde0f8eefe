"""The code of a loaded program, with what the kernel knows about it."""

from __future__ import annotations

from ebpf.btf.btf import BTF
from ebpf.errors import BTFError, PrivilegeError
from ebpf.isa.encoding import decode_dump
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind, SourceLine
from ebpf.kernel import bpf
from ebpf.kernel.bpf import Kind, ProgramDump
from ebpf.kernel.fd import FD

_LD_IMM64 = 0x18
_MAP_REFERENCES = {1: ReferenceKind.MAP, 2: ReferenceKind.MAP_VALUE}


def full_name(fd: int, short: str) -> str:
    """The name of a program's function, of which the kernel keeps 15 bytes; `short` if there is no BTF."""
    try:
        dump = bpf.program_dump(fd)
        btf = _types(fd)
        if btf is not None and dump.function_info:
            return btf.type(dump.function_info[0][1]).name
    except (OSError, BTFError):
        pass  # another process's types, which may be withheld
    return short


def xlated(fd: int, name: str) -> list[Instruction]:
    """The program after the verifier's rewriting, with its functions, source lines and maps by name."""
    dump = bpf.program_dump(fd)
    if not dump.xlated:
        raise PrivilegeError(
            f"the kernel withholds the instructions of program {name!r}",
            errno=1,
            hint="it takes CAP_BPF, and sysctl net.core.bpf_jit_harden below 2 or CAP_PERFMON",
        )
    btf = _types(fd)
    functions = {0: name}
    lines: dict[int, SourceLine] = {}
    if btf is not None:
        functions |= {slot: btf.type(type_id).name for slot, type_id in dump.function_info}
        lines = _lines(dump, btf)
    names: dict[int, str] = {}
    found = []
    slot, line = 0, None
    for instruction in decode_dump(dump.xlated):
        line = lines.get(slot, line)
        reference = _reference(instruction, names)
        found.append(instruction._replace(symbol=functions.get(slot), source=line, reference=reference))
        slot += instruction.slots
    return found


def _types(fd: int) -> BTF | None:
    btf_id = bpf.program_info(fd).btf_id
    if not btf_id:
        return None
    with FD(bpf.fd_by_id(Kind.BTF, btf_id), f"BTF {btf_id}") as btf:
        return BTF.from_bytes(bpf.btf_data(btf.fileno()))


def _lines(dump: ProgramDump, btf: BTF) -> dict[int, SourceLine]:
    return {
        slot: SourceLine(btf.string(file), position >> 10, position & 0x3FF, btf.string(text))
        for slot, file, text, position in dump.line_info
    }


def _reference(instruction: Instruction, names: dict[int, str]) -> Reference | None:
    """The map that an instruction loads: the kernel shows its id where the descriptor was."""
    kind = _MAP_REFERENCES.get(instruction.src)
    if instruction.opcode != _LD_IMM64 or kind is None:
        return None
    id = instruction.imm & 0xFFFFFFFF
    if id not in names:
        try:
            with FD(bpf.fd_by_id(Kind.MAP, id), f"map {id}") as fd:
                names[id] = bpf.map_info(fd.fileno()).name or str(id)
        except OSError:
            names[id] = str(id)
    offset = instruction.imm >> 32 & 0xFFFFFFFF if kind is ReferenceKind.MAP_VALUE else 0
    return Reference(kind, names[id], offset)
