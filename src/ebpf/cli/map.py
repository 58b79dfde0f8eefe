"""`ebpf map`: the maps in the kernel, their entries typed from BTF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import human, output, terminal
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Cell, Column
from ebpf.kernel import owners
from ebpf.kernel.bpf import Kind, MapInfo, ProgramInfo

if TYPE_CHECKING:
    from ebpf.maps.map import Map

Pins = dict[tuple[Kind, int], list[str]]

COMMANDS = {
    "list": Lazy("map:list_maps", "List the maps in the kernel."),
    "show": Lazy("map:show", "Show one map and the C types of its keys and values."),
    "dump": Lazy("map:dump", "Show all entries."),
    "get": Lazy("map_entries:get", "Show the value under a key."),
    "set": Lazy("map_entries:set_entry", "Set an entry."),
    "delete": Lazy("map_entries:delete", "Delete an entry."),
}


@click.group("map", cls=LazyGroup, lazy=COMMANDS)
def map_group() -> None:
    """The maps in the kernel, whoever created them; keys and values by name and type.

    A MAP is an id, a name, or the path of a pin.

    \b
    Examples:
      ebpf map list
      ebpf map dump counters
      ebpf map get counters protocol=UDP action=XDP_DROP
      ebpf map set blocked saddr=10.0.0.1 -- packets=0
      ebpf map delete blocked saddr=10.0.0.1
    """


def complete_maps(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of maps for the shell."""
    from ebpf.cli import objects

    return sorted({info.name for info in objects.maps() if info.name.startswith(incomplete)})


@contextmanager
def live_map(text: str) -> Iterator[Map]:
    """The map that `text` names: an id, a name, or the path of a pin."""
    from ebpf.cli import objects
    from ebpf.maps.map import Map

    with objects.open_map(text) as fd, Map.from_fd(fd) as live:
        yield live


@click.command()
@json_option
def list_maps(as_json: bool) -> None:
    """List the maps in the kernel.

    \b
    Examples:
      ebpf map list
      ebpf map list --json | jq '.[] | select(.type == "percpu_hash")'
    """
    from ebpf.cli import objects

    infos = objects.maps()
    pins = owners.find_pins()
    programs = objects.programs()
    if as_json:
        output.print_json([_facts(info, programs, pins) for info in infos])
        return
    columns = [
        Column("id", "cyan", right=True),
        Column("type"),
        Column("name", "bold"),
        Column("key", right=True),
        Column("value", right=True),
        Column("entries", right=True),
        Column("memory", right=True),
        Column("programs", below=True, optional=True),
        Column("pinned", "dim", below=True, optional=True),
    ]
    rows = [
        (
            str(info.id),
            objects.map_type(info),
            info.name or "-",
            human.size(info.key_size),
            human.size(info.value_size),
            str(info.max_entries),
            human.size(info.memlock),
            " ".join(str(each.id) for each in programs if info.id in each.map_ids) or "-",
            " ".join(pins.get((Kind.MAP, info.id), ())) or "-",
        )
        for info in infos
    ]
    output.print_table(columns, rows, empty="no maps in the kernel")


@click.command()
@click.argument("map_name", metavar="MAP", shell_complete=complete_maps)
@json_option
def show(map_name: str, as_json: bool) -> None:
    """Show one MAP and the C types of its keys and values.

    \b
    Examples:
      ebpf map show counters
      ebpf map show 17 --json
    """
    from ebpf.cli import objects
    from ebpf.cli.typed import declaration
    from ebpf.uapi import MapFlags

    with live_map(map_name) as live:
        info = live.info
        key, value = declaration(live.key_type), declaration(live.value_type)
    pins = owners.find_pins()
    programs = [each for each in objects.programs() if info.id in each.map_ids]
    processes = owners.owners_of(Kind.MAP, info.id)
    if as_json:
        output.print_json(
            _facts(info, programs, pins)
            | {"key_type": key, "value_type": value, "held_by": [each._asdict() for each in processes]}
        )
        return
    users = ", ".join(f"{objects.program_name(each)} ({each.id})" for each in programs)
    output.print_fields(
        [
            ("map", Cell(info.name or "-", "bold")),
            ("id", str(info.id)),
            ("type", objects.map_type(info)),
            ("entries", f"at most {info.max_entries}"),
            ("flags", ", ".join(flag.name or "" for flag in MapFlags(info.flags)).lower()),
            ("frozen", "yes: read-only for user space" if info.frozen else ""),
            ("memory", human.size(info.memlock)),
            ("programs", users),
            ("pinned", " ".join(pins.get((Kind.MAP, info.id), ()))),
            ("held by", ", ".join(map(str, processes))),
            (
                "key",
                f"{human.size(info.key_size)}{'' if key else ', no type known'}" if info.key_size else "none",
            ),
            ("value", f"{human.size(info.value_size)}{'' if value else ', no type known'}"),
        ]
    )
    for name, text in (("key", key), ("value", value)):
        if text:
            print(f"\n{name}: {text}")


@click.command()
@click.argument("map_name", metavar="MAP", shell_complete=complete_maps)
@click.option("--per-cpu", is_flag=True, help="One row per CPU instead of their sum.")
@json_option
def dump(map_name: str, per_cpu: bool, as_json: bool) -> None:
    """Show all entries of MAP: a column for each field. Values of per-CPU maps are summed.

    \b
    Examples:
      ebpf map dump counters
      ebpf map dump counters --per-cpu
      ebpf map dump /sys/fs/bpf/flows --json | jq '.[].value.packets'
    """
    from ebpf.cli import entries
    from ebpf.cli.typed import forms_of

    with live_map(map_name) as live:
        found = entries.read(live)
        name, forms = live.name, forms_of(live)
    if as_json:
        output.print_json([entries.entry_json(entry) for entry in found])
        return
    columns, rows = entries.columns_and_rows(found, forms, each_cpu=per_cpu)
    output.print_table(columns, rows, empty=f"map {name} is empty")
    if any(entry.value is None and entry.per_cpu for entry in found) and not per_cpu:
        terminal.note("its values cannot be added up over the CPUs, so that each CPU's is shown")


def _facts(info: MapInfo, programs: list[ProgramInfo], pins: Pins) -> dict[str, Any]:
    from ebpf.cli import objects
    from ebpf.uapi import MapFlags

    return {
        "id": info.id,
        "type": objects.map_type(info),
        "name": info.name,
        "key_bytes": info.key_size,
        "value_bytes": info.value_size,
        "max_entries": info.max_entries,
        "flags": [(flag.name or str(int(flag))).lower() for flag in MapFlags(info.flags)],
        "frozen": info.frozen,
        "memory_bytes": info.memlock,
        "btf_id": info.btf_id or None,
        "ifindex": info.ifindex or None,
        "program_ids": [each.id for each in programs if info.id in each.map_ids],
        "pinned": pins.get((Kind.MAP, info.id), []),
    }
