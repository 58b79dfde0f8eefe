"""The functions of an object: where they are, and their instructions with all that is known about them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ebpf.errors import InstructionError, ObjectError
from ebpf.isa.encoding import decode
from ebpf.isa.instruction import Instruction, SourceLine
from ebpf.spec.elf import Relocation, RelocationType, Section, Symbol, SymbolType, Visibility
from ebpf.spec.source import ObjectSource

TEXT = ".text"
SLOT = 8
CALL = 0x85
PSEUDO_CALL = 1

# Aliases repeat the instructions that they name; a file may not multiply itself by them.
_MAX_REPEATS = 8


@dataclass(slots=True)
class Function:
    """A function of the object; `start` and `end` in bytes from the start of its section."""

    name: str  #: unique in the object, which the symbol of a static function need not be
    symbol: Symbol
    section: Section
    start: int
    end: int
    type_id: int = 0
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def is_program(self) -> bool:
        """Whether it is loaded on its own, and not only called: as libbpf, by section and linkage."""
        return self.section.name != TEXT and self.symbol.is_global

    @property
    def is_global(self) -> bool:
        """Whether the verifier checks it on its own; hidden functions count as static, as in libbpf."""
        return self.symbol.is_global and self.symbol.visibility in (Visibility.DEFAULT, Visibility.PROTECTED)


class Place(NamedTuple):
    """An instruction that is being resolved."""

    source: ObjectSource
    function: Function
    offset: int  #: bytes from the start of the section
    line: SourceLine | None

    def error(self, what: str, *, hint: str | None = None) -> ObjectError:
        """An error that names function, instruction and source line."""
        number = (self.offset - self.function.start) // SLOT
        line = f" ({self.line.file}:{self.line.line})" if self.line else ""
        return self.source.error(
            f"function {self.function.name!r}, instruction {number}{line}: {what}", hint=hint
        )


#: Makes what a call or a relocated instruction refers to its reference.
Resolve = Callable[[Instruction, Relocation | None, Place], Instruction]


def find_functions(source: ObjectSource) -> list[Function]:
    """The functions of all code sections, in the order of the file."""
    functions: list[Function] = []
    sections: set[str] = set()
    for section in source.elf.sections:
        if not section.is_code:
            continue
        if section.name in sections:
            raise source.error(f"two sections of code are named {section.name!r}")
        sections.add(section.name)
        if section.size % SLOT:
            raise source.error(f"section {section.name!r} holds {section.size} bytes, no multiple of {SLOT}")
        functions += _functions_of(source, section)
    _make_unique(source, functions)
    return functions


def _make_unique(source: ObjectSource, functions: list[Function]) -> None:
    """Globals keep their names; static functions of several linked files may share one, and get a number."""
    names: set[str] = set()
    for function in functions:
        if function.symbol.is_global:
            if function.name in names:
                raise source.error(f"two global functions are named {function.name!r}")
            names.add(function.name)
    counts: dict[str, int] = {}
    for function in functions:
        if function.symbol.is_global:
            continue
        name = function.name
        while function.name in names:
            counts[name] = counts.get(name, 1) + 1
            function.name = f"{name}.{counts[name]}"
        names.add(function.name)


def _functions_of(source: ObjectSource, section: Section) -> list[Function]:
    symbols = [symbol for symbol in source.symbols_of(section) if symbol.type == SymbolType.FUNC]
    if not symbols:  # assembly that has no .type directives
        symbols = [
            symbol
            for symbol in source.symbols_of(section)
            if symbol.type == SymbolType.NOTYPE and symbol.is_global
        ]
    if not symbols:
        raise source.error(
            f"section {section.name!r} holds instructions, but no symbol names a function in it",
            hint="assembly needs `.globl name` and `.type name,@function`; was the object stripped?",
        )
    type_ids = {}
    if source.ext is not None:
        type_ids = {info.offset: info.type_id for info in source.ext.functions.get(section.name, ())}
    starts = sorted({symbol.value for symbol in symbols})
    functions = []
    budget = section.size * _MAX_REPEATS
    for symbol in symbols:
        start = symbol.value
        following = bisect_left(starts, start + 1)
        limit = starts[following] if following < len(starts) else section.size
        end = start + symbol.size if symbol.size else limit
        if start % SLOT or end % SLOT or not start < end <= section.size:
            raise source.error(
                f"function {symbol.name!r} is at {start:#x} to {end:#x} "
                f"of section {section.name!r}, which has {section.size:#x} bytes"
            )
        if end > limit:
            raise source.error(f"function {symbol.name!r} overlaps the one at {limit:#x} of {section.name!r}")
        budget -= end - start
        if budget < 0:
            raise source.error(f"section {section.name!r} has too many names for the same functions")
        functions.append(Function(symbol.name, symbol, section, start, end, type_ids.get(start, 0)))
    return functions


def read_instructions(source: ObjectSource, functions: list[Function], resolve: Resolve) -> None:
    """Decode the functions, with source lines, CO-RE relocations, and ELF relocations through `resolve`.

    Records for places outside all functions are left out: linkers leave them behind when one weak function
    replaces another.
    """
    by_section: dict[int, list[Function]] = {}
    for function in functions:
        by_section.setdefault(function.section.number, []).append(function)
    for members in by_section.values():
        _read_section(source, members, resolve)


def _read_section(source: ObjectSource, functions: list[Function], resolve: Resolve) -> None:
    section = functions[0].section
    code = bytes(source.elf.data(section))
    relocations: dict[int, Relocation] = {}
    for entry in source.elf.relocations(section):
        if entry.type == RelocationType.NONE:
            continue
        if entry.offset in relocations:
            raise source.error(f"two relocations at {entry.offset:#x} of section {section.name!r}")
        relocations[entry.offset] = entry
    ext = source.ext
    lines = {info.offset: info.line for info in ext.lines.get(section.name, ())} if ext else {}
    core = dict(ext.relocations.get(section.name, ())) if ext else {}
    places = sorted({*relocations, *core})

    for function in functions:
        try:
            decoded = decode(
                code[function.start : function.end], byteorder=source.elf.byteorder, strict=False
            )
        except InstructionError as error:
            raise source.error(
                f"function {function.name!r} of section {section.name!r}: {error.message}"
            ) from None
        line = None
        symbol: str | None = function.name
        offset = function.start
        used = 0
        instructions = []
        for instruction in decoded:
            line = lines.get(offset, line)
            relocation = relocations.get(offset)
            relocated = core.get(offset)
            used += (relocation is not None) + (relocated is not None and relocation is None)
            if relocation is not None or (instruction.opcode == CALL and instruction.src == PSEUDO_CALL):
                instruction = resolve(instruction, relocation, Place(source, function, offset, line))
            opcode, dst, src, jump, imm, _, reference, _, _ = instruction
            instructions.append(Instruction(opcode, dst, src, jump, imm, symbol, reference, line, relocated))
            symbol = None
            offset += 16 if opcode == 0x18 else 8
        expected = bisect_left(places, function.end) - bisect_left(places, function.start)
        if used != expected:
            raise source.error(
                f"function {function.name!r} of section {section.name!r}: "
                f"{expected - used} of its relocations are not at the start of an instruction"
            )
        function.instructions = instructions
