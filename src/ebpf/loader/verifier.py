"""From the verifier's log to an error that a person can act on.

`explain` is pure: it reads a log and the program's own metadata. The log's structure is not relied on: the
reason is the line that the table of causes knows, or else the last one that is neither state nor statistics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ebpf.errors import VerifierError
from ebpf.isa.instruction import Instruction, SourceLine
from ebpf.loader.causes import CAUSES, Cause, Scene
from ebpf.uapi import ProgramType

# "12: (85) call bpf_map_lookup_elem#1", as print_bpf_insn() writes it.
_INSTRUCTION = re.compile(r"^\s*(\d+): \(([0-9a-f]{2})\) ")
# "; return v ? 1 : 2; @ file.c:7", the annotation before the instructions of a line ("@" from 6.9 on).
_ANNOTATION = re.compile(r"^; (?P<text>.*?)(?: @ (?P<file>[^@]+):(?P<line>\d+))?$")
# Lines that never are the reason: instructions, states, what was processed.
_NOISE = re.compile(
    r"^(\s*$|\s*\d+: |; |from \d+ to \d+|processed \d+ insns|verification time |stack depth |insns processed"
    r"|func#\d+ @|Live regs before|mark_precise:|last_idx |regs=|parent (didn't|already)|propagating "
    r"|Validating \w+\(\) func|caller:|callee:|returning from callee|to caller at|cur state:|old state:"
    r"|frame\d*[ :]|\(\d+\) (frame|live)|SCC |Func#\d+ .*is safe|R\d+=|max_states|to \d+: )"
)
#: The reason is among so many last lines, once states are left out.
_REASON_LINES = 50
_AT = re.compile(r"(?:at insn|from insn|unreachable insn|insn_off|insn #?)\s?(\d+)")
_PROCESSED = re.compile(r"processed (\d+) insns")


class Explanation(NamedTuple):
    """What a log says, in short."""

    reason: str  #: the verifier's own line
    cause: str | None  #: the name of the cause in the table; None if it is not there
    hint: str | None
    slot: int | None  #: slot of the refused instruction in the program as loaded
    source: SourceLine | None


def processed(log: str) -> int | None:
    """How many instructions the verifier had looked at when it gave up; None if the log does not say."""
    found = None
    for match in _PROCESSED.finditer(log, max(0, len(log) - 1024)):
        found = int(match[1])
    return found


def has_reason(log: str) -> bool:
    """Whether the log says anything but states and statistics: the verifier, and nobody else, refused."""
    return any(not _NOISE.match(line) for line in log.splitlines())


def explain(
    log: str,
    instructions: Sequence[Instruction],
    *,
    short_log: str = "",
    program_type: ProgramType | None = None,
    license: str = "",
    missing: Callable[[Instruction], str | None] | None = None,
) -> Explanation:
    """The reason of a refusal, where it is, and what to do.

    `short_log` is the log at level 4: reasons and statistics without states (Linux 5.2). `instructions` are
    the program as loaded, subprograms included; `missing` says what CO-RE poisoned one for.
    """
    reason, cause, match = _reason(short_log or log)
    code = tuple(instructions)
    index = _index(reason, log, cause, code)
    instruction = _at_slot(code, index)
    source = instruction.source if instruction is not None else None
    if source is None and index is not None:
        source = _annotated(log, reason)
    if cause is not None and cause.name == "stack" and "combined" in reason:
        index, source = None, None  # it is of no single line
    hint = None
    if cause is not None and match is not None:
        scene = Scene(match, program_type, license, instruction, code)
        hint = cause.hint(scene) if callable(cause.hint) else cause.hint
        if cause.name == "core" and instruction is not None:
            lacking = missing(instruction) if missing is not None else None
            hint = f"{lacking}; {hint}" if lacking else hint
    return Explanation(reason, cause.name if cause else None, hint, index, source)


def refusal(
    log: str,
    instructions: Sequence[Instruction],
    *,
    program: str,
    errno: int,
    short_log: str = "",
    log_truncated: bool = False,
    program_type: ProgramType | None = None,
    license: str = "",
    missing: Callable[[Instruction], str | None] | None = None,
) -> VerifierError:
    """The error for a program that the verifier refused with this log."""
    found = explain(
        log,
        instructions,
        short_log=short_log,
        program_type=program_type,
        license=license,
        missing=missing,
    )
    kind = f" ({program_type.label})" if program_type else ""
    message = f"the verifier refused program {program!r}{kind}: {found.reason}"
    place = None
    if found.source is not None:
        place = f"{found.source.file}:{found.source.line}: {found.source.text.strip()}"
        message += "\n" + excerpt(found.source)
    return VerifierError(
        message,
        errno=errno,
        program=program,
        reason=found.reason,
        source=place,
        log=log or short_log,
        log_truncated=log_truncated,
        hint=found.hint,
    )


def excerpt(source: SourceLine) -> str:
    """A source line with its place above and a caret below."""
    place = f"{source.file}:{source.line}" + (f":{source.column}" if source.column else "")
    text = source.text.rstrip()
    lines = [f"  {place}", f"    {text}" if text else ""]
    if text and 0 < source.column <= len(text):
        before = "".join("\t" if char == "\t" else " " for char in text[: source.column - 1])
        lines.append(f"    {before}^")
    return "\n".join(line for line in lines if line)


def _reason(log: str) -> tuple[str, Cause | None, re.Match[str] | None]:
    lines = [line.strip() for line in log.splitlines() if not _NOISE.match(line)]
    lines = lines[-_REASON_LINES:]
    for cause in CAUSES:
        for line in lines:
            match = cause.pattern.search(line)
            if match:
                return line, cause, match
    return (lines[-1] if lines else "the kernel gives no reason"), None, None


def _index(reason: str, log: str, cause: Cause | None, instructions: tuple[Instruction, ...]) -> int | None:
    """The slot of the refused instruction: named by the reason, or the last one before it in the log."""
    named = _AT.search(reason)
    if named:
        return int(named[1])
    last = None
    for line in _before(log, reason):
        match = _INSTRUCTION.match(line)
        if match:
            last = int(match[1])
    if last is None and cause is not None and cause.name == "loop":
        return _back_edge(instructions)
    return last


def _before(log: str, reason: str) -> Iterator[str]:
    """The lines of the log up to the last one that is the reason."""
    end = log.rfind(reason)
    return iter((log[:end] if end >= 0 else log).splitlines())


def _back_edge(instructions: tuple[Instruction, ...]) -> int | None:
    """The head of the only loop of the program; None if it has several, for then none is sure."""
    heads = set()
    slot = 0
    for instruction in instructions:
        if instruction.opcode & 0x07 in (5, 6) and instruction.opcode not in (0x85, 0x8D, 0x95):
            jump = instruction.imm if instruction.opcode == 0x06 else instruction.offset
            if jump < 0:
                heads.add(slot)
        slot += instruction.slots
    return heads.pop() if len(heads) == 1 else None


def _at_slot(instructions: tuple[Instruction, ...], index: int | None) -> Instruction | None:
    """The instruction at a slot, with the source line of the nearest earlier one of its function."""
    if index is None:
        return None
    slot = 0
    source: SourceLine | None = None
    for instruction in instructions:
        if instruction.symbol is not None:
            source = None
        source = instruction.source or source
        if slot <= index < slot + instruction.slots:
            return instruction if instruction.source else instruction._replace(source=source)
        slot += instruction.slots
    return None


def _annotated(log: str, reason: str) -> SourceLine | None:
    """The last source annotation before the reason."""
    found = None
    for line in _before(log, reason):
        match = _ANNOTATION.match(line)
        if match and match["file"]:
            found = SourceLine(match["file"].strip(), int(match["line"]), 0, match["text"])
    return found
