"""`ebpf disasm`: the instructions of an object file or of C source."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import human, output, terminal
from ebpf.cli.command import json_option
from ebpf.cli.prog import complete_programs
from ebpf.cli.sources import compiler_options, open_spec

if TYPE_CHECKING:
    from ebpf.isa.listing import Line
    from ebpf.spec.model import ProgramSpec, Spec


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, readable=False))
@click.option("--program", "wanted", metavar="NAME", help="Only this program, with the functions it calls.")
@click.option("--raw", "--opcodes", is_flag=True, help="Show the bytes of each instruction.")
@click.option("--no-source", is_flag=True, help="Leave out the lines of source.")
@compiler_options
@json_option
def disasm(
    file: str,
    wanted: str | None,
    raw: bool,
    no_source: bool,
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the instructions of FILE, an object or C source, with the source lines they come from.

    Needs no privileges.

    \b
    Examples:
      ebpf disasm firewall.o
      ebpf disasm firewall.bpf.c --program firewall --no-source
      ebpf disasm firewall.o --raw
    """
    from ebpf.isa.listing import listing
    from ebpf.spec.link import link_program

    spec = open_spec(file, includes, defines)
    programs = [spec.programs[wanted]] if wanted is not None else list(spec.programs.values())
    listings = [
        (program, listing(link_program(spec, program).instructions, program.name, byteorder=spec.byteorder))
        for program in programs
    ]
    if as_json:
        output.print_json([_facts(program, lines) for program, lines in listings])
        return
    if not listings:
        terminal.note(f"{file} has no programs{_contents(spec)}")
    paint = terminal.painter(sys.stdout)
    for number, (program, lines) in enumerate(listings):
        if number:
            print()
        for line in _render(_header(program, lines), lines, paint, raw=raw, source=not no_source):
            print(line)


@click.command("disasm")
@click.argument("program", shell_complete=complete_programs)
@click.option("--raw", "--opcodes", is_flag=True, help="Show the bytes of each instruction.")
@click.option("--no-source", is_flag=True, help="Leave out the lines of source.")
@json_option
def disasm_program(program: str, raw: bool, no_source: bool, as_json: bool) -> None:
    """Show the instructions of PROGRAM as the kernel runs them, after the verifier rewrote them ("xlated").

    PROGRAM is an id, a name, a tag, or the path of a pin.

    \b
    Examples:
      ebpf prog disasm firewall
      ebpf prog disasm 42 --raw --no-source
    """
    from ebpf.cli import objects
    from ebpf.isa.listing import listing
    from ebpf.programs.program import Program

    with objects.open_program(program) as fd, Program.from_fd(fd) as live:
        lines = listing(live.instructions, live.name)
        header = f"; {live.name}: {live.type}, id {live.id}, {_count(lines)}"
        facts = {"id": live.id, "name": live.name, "type": str(live.type), "lines": _lines_json(lines)}
    if as_json:
        output.print_json(facts)
        return
    for line in _render(header, lines, terminal.painter(sys.stdout), raw=raw, source=not no_source):
        print(line)


def _contents(spec: Spec) -> str:
    return f"; it has: {', '.join(spec.maps)}" if spec.maps else ""


def _header(program: ProgramSpec, lines: list[Line]) -> str:
    type = str(program.type) if program.type is not None else "unknown type"
    return f"; {program.name}: {type}, section {program.section}, {_count(lines)}"


def _count(lines: list[Line]) -> str:
    from ebpf.isa.listing import LineKind

    return human.count(sum(line.kind is LineKind.INSTRUCTION for line in lines), "instruction")


def _facts(program: ProgramSpec, lines: list[Line]) -> dict[str, Any]:
    return {
        "name": program.name,
        "section": program.section,
        "type": str(program.type) if program.type is not None else None,
        "lines": _lines_json(lines),
    }


def _lines_json(lines: list[Line]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        facts: dict[str, Any] = {"kind": line.kind.value, "pc": line.pc, "text": line.text}
        if line.raw:
            facts["raw"] = line.raw.hex()
        if line.source is not None:
            facts["source"] = {"file": line.source.file, "line": line.source.line, "text": line.source.text}
        found.append(facts)
    return found


def _render(
    header: str, lines: Iterable[Line], paint: Callable[[str, str], str], *, raw: bool, source: bool
) -> Iterable[str]:
    from ebpf.isa.listing import LineKind

    yield paint(header, "dim")
    styles = {LineKind.FUNCTION: "bold", LineKind.LABEL: "yellow"}
    file = ""
    for line in lines:
        if line.kind is LineKind.SOURCE:
            if not source or line.source is None:
                continue
            if line.source.file != file:  # once, and not on every line
                file = line.source.file
                yield paint(f"; {file}", "dim")
            yield paint(f"; {line.source.line}: {line.source.text.strip()}", "green")
            continue
        if line.kind is not LineKind.INSTRUCTION:
            yield paint(line.text, styles[line.kind])
            continue
        code = f"{line.raw[:8].hex(' ')}  " if raw else ""
        yield f"{paint(f'{line.pc:4}:', 'dim')} {paint(code, 'dim')}{_coloured(line.text, paint)}"
        if raw and len(line.raw) > 8:
            yield f"      {paint(line.raw[8:].hex(' '), 'dim')}"


_TOKEN = re.compile(
    r"(?P<call>(?<=call )\S+)|(?P<label>(?<=goto )\S+)|(?P<map>map\[[^]]*\])"
    r"|\b(?P<register>[rw]\d+)\b|\b(?P<word>if|goto|exit|call|lock|atomic\w*)\b"
)
_TOKEN_STYLES = {
    "register": "cyan",
    "call": "magenta",
    "map": "yellow",
    "word": "blue bold",
    "label": "yellow",
}


def _coloured(text: str, paint: Callable[[str, str], str]) -> str:
    return _TOKEN.sub(lambda match: paint(match[0], _TOKEN_STYLES[match.lastgroup or "word"]), text)
