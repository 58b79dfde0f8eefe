"""`ebpf compile`: C to an object file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ebpf.cli import human, output, terminal
from ebpf.cli.command import json_option
from ebpf.cli.sources import compiler_options, require_file, show_diagnostics
from ebpf.errors import Error


@click.command()
@click.argument("source", type=click.Path(dir_okay=False, readable=False))
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, readable=False, allow_dash=True),
    help="The object file; - is stdout.  [default: SOURCE with .o, in the current directory]",
)
@click.option(
    "--cpu",
    type=click.Choice(["v1", "v2", "v3", "v4"]),
    help="The instruction set.  [default: the newest that this kernel knows]",
)
@click.option("--byteorder", type=click.Choice(["little", "big"]), help="[default: this machine's]")
@compiler_options
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- CLANG-OPTION...]")
@json_option
def compile_command(
    source: str,
    target: str | None,
    cpu: str | None,
    byteorder: Any,
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    flags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile C into a BPF object file, with BTF and source lines.

    Takes any clang from 14 on, or the one in the ziglang wheel. The headers bpf/*.h come with this package,
    vmlinux.h is made from the running kernel. Needs no privileges.

    \b
    Examples:
      ebpf compile firewall.bpf.c -o firewall.o
      ebpf compile firewall.bpf.c -D DEBUG -D LIMIT=64 -I include --cpu v3
      ebpf compile firewall.bpf.c -- -Wextra -O1
    """
    from ebpf.compiler.compile import compile_object

    require_file(source)
    with terminal.progress(f"compiling {source}"):
        compiled = compile_object(
            source, include=includes, define=defines, cpu=cpu, byteorder=byteorder, flags=flags
        )
    target = target or f"{Path(source).stem}.o"
    if target == "-":
        if as_json:
            raise click.UsageError("-o - writes the object to stdout, which leaves no place for --json")
        sys.stdout.buffer.write(compiled.data)
    else:
        try:
            Path(target).write_bytes(compiled.data)
        except OSError as error:
            raise Error(f"cannot write {target}: {error.strerror}") from None
    if not as_json:
        show_diagnostics(compiled.diagnostics)
    _tell(source, target, compiled.data, compiled.diagnostics, as_json=as_json)


def _tell(source: str, target: str, data: bytes, diagnostics: tuple[Any, ...], *, as_json: bool) -> None:
    from ebpf.spec.reader import read_object

    spec = read_object(data, name=Path(source).stem)
    if as_json:
        output.print_json(
            {
                "output": target,
                "size_bytes": len(data),
                "license": spec.license,
                "programs": [
                    {
                        "name": program.name,
                        "section": program.section,
                        "type": str(program.type) if program.type is not None else None,
                    }
                    for program in spec.programs.values()
                ],
                "maps": [
                    {"name": each.name, "type": str(each.type), "max_entries": each.max_entries}
                    for each in spec.maps.values()
                ],
                "diagnostics": [diagnostic._asdict() for diagnostic in diagnostics],
            }
        )
        return
    where = "stdout" if target == "-" else target
    contents = f"{human.count(len(spec.programs), 'program')}, {human.count(len(spec.maps), 'map')}"
    terminal.note(f"wrote {where}: {human.size(len(data))}, {contents}")
