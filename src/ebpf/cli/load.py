"""`ebpf load` and `ebpf unload`: objects that stay in the kernel as pins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import human, output, places, terminal
from ebpf.cli.command import json_option
from ebpf.cli.sources import (
    apply_settings,
    apply_type,
    compiler_options,
    loading,
    open_spec,
    setting_option,
    type_option,
)
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.maps.map import Map
    from ebpf.programs.program import Program


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, readable=False))
@click.argument("path", type=click.Path(file_okay=False, readable=False))
@setting_option
@type_option
@compiler_options
@json_option
def load(
    file: str,
    path: str,
    settings: tuple[str, ...],
    type_name: str | None,
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    as_json: bool,
) -> None:
    """Load the programs and maps of FILE, an object or C source, and pin them in the folder PATH.

    They stay in the kernel, attached to nothing, until `ebpf unload PATH`. PATH is in a BPF file system; a
    name that is not is taken to be below /sys/fs/bpf or $EBPF_BPFFS. All of it is pinned, or nothing.

    \b
    Examples:
      ebpf load firewall.o firewall
      ebpf load firewall.bpf.c /sys/fs/bpf/firewall --set blocked_port=8080
    """
    spec = open_spec(file, includes, defines)
    apply_settings(spec, settings)
    apply_type(spec, type_name)
    with loading(), spec.load(pin_path=places.chosen()) as live:
        live.pin(places.pin_folder(path))
        programs, maps = list(live.programs.values()), list(live.maps.values())
        if as_json:
            output.print_json(
                {
                    "programs": [_facts(each) for each in programs],
                    "maps": [_facts(each) for each in maps],
                    "notes": list(live.notes),
                }
            )
            return
        for note in live.notes:
            terminal.warn(note)
        for each in programs:
            terminal.note(f"program {each.name} ({each.type}, id {each.id}) pinned as {each.pinned}")
        for map in maps:
            terminal.note(f"map {map.name} ({map.type}, id {map.id}) pinned as {map.pinned}")


def _facts(each: Program | Map) -> dict[str, Any]:
    return {"id": each.id, "name": each.name, "type": str(each.type), "pinned": each.pinned}


@click.command()
@click.argument("path", type=click.Path(readable=False))
@json_option
def unload(path: str, as_json: bool) -> None:
    """Remove the pin PATH, or all pins in the folder PATH.

    What nothing else holds is gone from the kernel then; what is still in use stays, and is named.

    \b
    Examples:
      ebpf unload firewall
      ebpf unload /sys/fs/bpf/firewall
    """
    from ebpf.kernel import mounts, owners
    from ebpf.kernel.bpf import Kind

    place = places.pin_folder(path)
    if not place.exists():
        raise Error(f"nothing is pinned as {place}")
    if mounts.filesystem_of(place) != "bpf":
        raise Error(f"{place} is not in a BPF file system: nothing was removed")
    if place in mounts.bpffs_mounts():
        raise Error(f"{place} is the whole BPF file system: name a folder in it")
    paths = sorted(Path(folder) / name for folder, _, names in os.walk(place) for name in names) or [place]
    removed: list[tuple[Path, Kind, int]] = []
    for pin in paths if place.is_dir() else [place]:
        if pin.is_dir():
            continue
        kind, id = owners.identify(pin)
        pin.unlink()
        removed.append((pin, kind, id))
    for folder, _, _ in os.walk(place, topdown=False):
        os.rmdir(folder)
    stay = [(kind, id) for _, kind, id in removed if _is_alive(kind, id)]
    if as_json:
        output.print_json(
            [
                {"pinned": str(pin), "kind": kind.label, "id": id, "in_kernel": (kind, id) in stay}
                for pin, kind, id in removed
            ]
        )
        return
    terminal.note(f"removed {human.count(len(removed), 'pin')} from {place}")
    for kind, id in stay:
        command = "prog" if kind is Kind.PROGRAM else kind.label
        terminal.note(f"{kind.label} {id} is still in use, and stays; see: ebpf {command} list")


def _is_alive(kind: Any, id: int) -> bool:
    """Whether something else holds it; the kernel takes a moment to free what nothing holds."""
    import time

    from ebpf.kernel import bpf

    for _ in range(20):
        try:
            os.close(bpf.fd_by_id(kind, id))
        except OSError:
            return False
        time.sleep(0.005)
    return True
