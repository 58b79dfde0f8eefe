"""Annotated listings: a function's instructions with labels, names and the source lines they come from.

`listing` gives structured lines, for whoever wants to colour or filter them; `render` makes text of them:

    int count(struct xdp_md *ctx):
    ; count.bpf.c:12: __u32 key = ctx->rx_queue_index;
       0: r1 = *(u32 *)(r1 + 16)
       …
       4: r1 = map[flows] ll
       6: call bpf_map_lookup_elem#1
       7: if r0 == 0 goto L1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from ebpf.isa.disassembler import format_instruction, jump_distance
from ebpf.isa.encoding import ByteOrder, encode
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind, SourceLine
from ebpf.isa.opcodes import CALL, LD_IMM64, Call, Pseudo


class LineKind(Enum):
    """What a line of a listing is."""

    FUNCTION = "function"  #: the name of the function that starts here
    SOURCE = "source"  #: the line of source that the instructions after it come from
    LABEL = "label"  #: a place that jumps go to
    INSTRUCTION = "instruction"


class Line(NamedTuple):
    """One line of a listing; `text` is without indentation, number and bytes."""

    kind: LineKind
    pc: int  #: slot of the instruction, or of the one after this line
    text: str
    raw: bytes = b""  #: the instruction's 8 or 16 bytes
    source: SourceLine | None = None  #: of the instruction or of this line of source
    instruction: Instruction | None = None
    target: int | None = None  #: slot that a jump or local call goes to


@dataclass(frozen=True, slots=True)
class Names:
    """Names for numbers in instructions that carry no references, such as what the kernel dumps."""

    maps: Mapping[int, str] = field(
        default_factory=dict
    )  #: by id, or by descriptor if that is what loads have
    helpers: Mapping[int, str] = field(default_factory=dict)
    """By imm, where it is not the number of the table: in dumps it is a relative kernel address."""
    kfuncs: Mapping[int, str] = field(default_factory=dict)  #: by imm: the BTF id, or what a dump has
    functions: Mapping[int, str] = field(default_factory=dict)  #: subprograms by slot


def listing(
    instructions: Sequence[Instruction],
    name: str = "",
    *,
    names: Names | None = None,
    byteorder: ByteOrder = "little",
) -> list[Line]:
    """The lines of one function, or of a program with all its subprograms; `name` is that of the first.

    Symbols of instructions name subprograms where they are called, and places that are jumped to; others are
    L1, L2, … in order. What is no valid instruction is shown as `.insn`. Raises InstructionError for a
    field that does not fit its bits, or a reference that an instruction cannot have.
    """
    names = names or Names()
    starts = dict(
        zip(accumulate((item.slots for item in instructions), initial=0), instructions, strict=False)
    )
    places = _places(starts, names)
    lines: list[Line] = [Line(LineKind.FUNCTION, 0, f"{name}:")] if name else []
    shown: tuple[str, int] | None = None
    for pc, instruction in starts.items():
        source, target, place = instruction.source, _target(pc, instruction), places.get(pc)
        if place is not None and place.name != (name if pc == 0 else None):
            lines.append(Line(place.kind, pc, f"{place.name}:"))
        if source is not None and (source.file, source.line) != shown:
            shown = source.file, source.line
            text = f"; {source.file}:{source.line}: {source.text.strip()}"
            lines.append(Line(LineKind.SOURCE, pc, text, source=source))
        goal = places.get(target) if target is not None else None
        text = _text(instruction, goal.name if goal else None, names)
        raw = encode([instruction._replace(reference=None)], byteorder=byteorder, strict=False)
        lines.append(Line(LineKind.INSTRUCTION, pc, text, raw, source, instruction, target))
    return lines


def render(lines: Iterable[Line], *, raw: bool = False, source: bool = True) -> str:
    """The lines as plain text: with the bytes in hexadecimal if `raw`, without source if not `source`."""
    shown = (line for line in lines if source or line.kind is not LineKind.SOURCE)
    return "".join(f"{_rendered(line, raw)}\n" for line in shown)


def _rendered(line: Line, raw: bool) -> str:
    if line.kind is not LineKind.INSTRUCTION:
        return line.text
    code = f"{line.raw[:8].hex(' ')}  " if raw else ""
    text = f"{line.pc:4}: {code}{line.text}"
    if raw and len(line.raw) > 8:
        text += f"\n      {line.raw[8:].hex(' ')}"
    return text


class _Place(NamedTuple):
    """A named slot."""

    kind: LineKind
    name: str


def _target(pc: int, instruction: Instruction) -> int | None:
    """The slot that an instruction jumps to, calls or takes the address of."""
    if instruction.reference is not None:
        return None
    if instruction.opcode == LD_IMM64 and instruction.src == Pseudo.FUNC:
        return pc + 1 + ((instruction.imm & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
    distance = jump_distance(instruction)
    return None if distance is None else pc + 1 + distance


def _places(starts: Mapping[int, Instruction], names: Names) -> dict[int, _Place]:
    """Every slot that has a name or needs one, in order."""
    jumped: set[int] = set()
    called = set(names.functions)
    for pc, instruction in starts.items():
        target = _target(pc, instruction)
        if target is not None:
            (called if instruction.opcode in (CALL, LD_IMM64) else jumped).add(target)
    places: dict[int, _Place] = {}
    number = 0
    for pc, instruction in starts.items():
        name = names.functions.get(pc) or instruction.symbol
        if name is None and pc not in jumped and pc not in called:
            continue
        if name is None:
            number += 1
            name = f"L{number}"
        kind = LineKind.LABEL if pc in jumped and pc not in called else LineKind.FUNCTION
        places[pc] = _Place(kind, name)
    return places


def _text(instruction: Instruction, place: str | None, names: Names) -> str:
    """The text of an instruction, with names for people instead of the assembler's syntax."""
    opcode, dst, src, offset, imm, _, reference, *_ = instruction
    if opcode == LD_IMM64:
        target = _loaded_map(src, imm, reference, names)
        if target is not None:
            return f"r{dst} = {target}"
        if place is not None:
            return f"r{dst} = func({place}) ll"
    if opcode == CALL and reference is not None and reference.kind is ReferenceKind.CALL:
        return f"call {reference.name}"
    if opcode == CALL and reference is None and not offset:
        called = _called(src, imm, names)
        if called is not None:
            return f"call {called}#{imm}"
    return format_instruction(instruction, target=place)


def _loaded_map(src: int, imm: int, reference: Reference | None, names: Names) -> str | None:
    """The map that a 64-bit immediate load refers to, in bpftool's style: map[flows], map[.bss][0]+16."""
    if reference is not None:
        if reference.kind is ReferenceKind.MAP:
            return f"map[{reference.name}]"
        return (
            f"map[{reference.name}][0]+{reference.offset}"
            if reference.kind is ReferenceKind.MAP_VALUE
            else None
        )
    if src not in (Pseudo.MAP_FD, Pseudo.MAP_VALUE):
        return None
    number = imm & 0xFFFFFFFF
    name = names.maps.get(number, f"id:{number}")
    return f"map[{name}]" if src == Pseudo.MAP_FD else f"map[{name}][0]+{imm >> 32 & 0xFFFFFFFF}"


def _called(src: int, imm: int, names: Names) -> str | None:
    """The name of the helper or kernel function that a call calls."""
    if src == Call.KFUNC:
        return names.kfuncs.get(imm)
    if src != Call.HELPER:
        return None
    from ebpf.isa.helpers import by_id  # a large table, which programs without helpers do not need

    helper = by_id(imm)
    return names.helpers.get(imm) or (f"bpf_{helper.name}" if helper is not None else None)
