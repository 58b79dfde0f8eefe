"""`ebpf prog`: the programs in the kernel."""

from __future__ import annotations

import os
from typing import Any

import click

from ebpf.cli import human, output
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Cell, Column
from ebpf.cli.sources import program_type
from ebpf.kernel import owners
from ebpf.kernel.bpf import Kind, LinkInfo, MapInfo, ProgramInfo

Pins = dict[tuple[Kind, int], list[str]]

COMMANDS = {
    "list": Lazy("prog:list_programs", "List the programs in the kernel."),
    "show": Lazy("prog:show", "Show one program."),
    "disasm": Lazy("disasm:disasm_program", "Show a program's instructions as the kernel runs them."),
    "run": Lazy("prog_run:run_program", "Run a program once on a packet, attached to nothing."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def prog() -> None:
    """The programs in the kernel, whoever loaded them.

    \b
    Examples:
      ebpf prog list
      ebpf prog list --type xdp --json
      ebpf prog show firewall
      ebpf prog run firewall --packet udp
    """


def complete_programs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of programs for the shell."""
    from ebpf.cli import objects

    return sorted({info.name for info in objects.programs() if info.name.startswith(incomplete)})


@click.command()
@click.option("--type", "wanted", metavar="TYPE", help="Only programs of this type, such as xdp.")
@json_option
def list_programs(wanted: str | None, as_json: bool) -> None:
    """List the programs in the kernel.

    \b
    Examples:
      ebpf prog list
      ebpf prog list --type xdp
      ebpf prog list --json | jq '.[] | {id, name, memory_bytes}'
    """
    from ebpf.cli import objects

    infos = objects.programs()
    if wanted is not None:
        type = program_type(wanted)
        infos = [info for info in infos if info.type == type]
    pins = owners.find_pins()
    links = objects.links()
    if as_json:
        output.print_json([_facts(info, links, pins) for info in infos])
        return
    columns = [
        Column("id", "cyan", right=True),
        Column("type"),
        Column("name", "bold"),
        Column("maps", below=True, optional=True),
        Column("links", below=True, optional=True),
        Column("memory", right=True),
        Column("loaded", "dim"),
        Column("pinned", "dim", below=True, optional=True),
    ]
    rows = [
        (
            str(info.id),
            objects.program_type(info),
            objects.program_name(info) or "-",
            " ".join(map(str, info.map_ids)) or "-",
            " ".join(str(link.id) for link in links if link.program_id == info.id) or "-",
            human.size(info.memlock),
            human.moment(human.since_boot(info.load_time)),
            " ".join(pins.get((Kind.PROGRAM, info.id), ())) or "-",
        )
        for info in infos
    ]
    kind = f"{wanted} programs" if wanted else "programs"
    output.print_table(columns, rows, empty=f"no {kind} in the kernel")


@click.command()
@click.argument("program", shell_complete=complete_programs)
@json_option
def show(program: str, as_json: bool) -> None:
    """Show one PROGRAM: an id, a name, a tag, or the path of a pin.

    \b
    Examples:
      ebpf prog show firewall
      ebpf prog show 42 --json
      ebpf prog show /sys/fs/bpf/firewall
    """
    from ebpf.cli import objects
    from ebpf.kernel import bpf

    with objects.open_program(program) as fd:
        info = bpf.program_info(fd.fileno())
    pins = owners.find_pins()
    links = [link for link in objects.links() if link.program_id == info.id]
    used = [other for other in objects.maps() if other.id in info.map_ids]
    processes = owners.owners_of(Kind.PROGRAM, info.id)
    if as_json:
        output.print_json(
            _facts(info, links, pins)
            | {
                "maps": [{"id": each.id, "name": each.name, "type": objects.map_type(each)} for each in used],
                "links": [{"id": each.id, "type": objects.link_type(each)} for each in links],
                "held_by": [process._asdict() for process in processes],
            }
        )
        return
    _print(info, used, links, pins, processes)


def _print(
    info: ProgramInfo,
    used: list[MapInfo],
    links: list[LinkInfo],
    pins: Pins,
    processes: list[owners.Owner],
) -> None:
    from ebpf.cli import objects

    runs = ""
    if info.run_cnt:
        each = human.duration(info.run_time_ns / info.run_cnt)
        runs = f"{info.run_cnt} in {human.duration(info.run_time_ns)}, {each} each"
    output.print_fields(
        [
            ("program", Cell(objects.program_name(info) or "-", "bold")),
            ("id", str(info.id)),
            ("type", objects.program_type(info)),
            ("tag", info.tag),
            ("loaded", human.timestamp(human.since_boot(info.load_time))),
            ("by", _user(info.uid)),
            ("license", "GPL-compatible" if info.gpl_compatible else "not GPL-compatible"),
            ("verifier", f"{info.verified_insns} instructions processed" if info.verified_insns else ""),
            (
                "size",
                f"{info.xlated_size // 8} instructions ({human.size(info.xlated_size)}), "
                + (f"{human.size(info.jited_size)} machine code" if info.jited_size else "interpreted"),
            ),
            ("memory", human.size(info.memlock)),
            ("runs", runs),
            ("maps", ", ".join(f"{each.name or '-'} ({each.id}, {objects.map_type(each)})" for each in used)),
            ("links", ", ".join(f"{each.id} ({objects.link_type(each)})" for each in links)),
            ("pinned", " ".join(pins.get((Kind.PROGRAM, info.id), ()))),
            ("held by", ", ".join(map(str, processes))),
        ]
    )


def _user(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _facts(info: ProgramInfo, links: list[LinkInfo], pins: Pins) -> dict[str, Any]:
    from ebpf.cli import objects

    return {
        "id": info.id,
        "type": objects.program_type(info),
        "name": objects.program_name(info),
        "tag": info.tag,
        "gpl_compatible": info.gpl_compatible,
        "loaded_at": human.iso(human.since_boot(info.load_time)),
        "load_time_ns": info.load_time,
        "uid": info.uid,
        "xlated_bytes": info.xlated_size,
        "jited_bytes": info.jited_size,
        "memory_bytes": info.memlock,
        "verified_instructions": info.verified_insns,
        "map_ids": list(info.map_ids),
        "link_ids": [link.id for link in links if link.program_id == info.id],
        "btf_id": info.btf_id or None,
        "ifindex": info.ifindex or None,
        "run_time_ns": info.run_time_ns,
        "run_count": info.run_cnt,
        "recursion_misses": info.recursion_misses,
        "pinned": [os.fspath(path) for path in pins.get((Kind.PROGRAM, info.id), ())],
    }
