"""`ebpf link`: what is attached where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import output
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Column
from ebpf.kernel import owners
from ebpf.kernel.bpf import Kind, LinkInfo
from ebpf.uapi import AttachType, LinkType

if TYPE_CHECKING:
    from ebpf.links.xdp import XdpAttachment

COMMANDS = {"list": Lazy("link:list_links", "List the links in the kernel.")}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def link() -> None:
    """BPF links: what is attached where, and who holds it.

    XDP programs attached without a link are in `ebpf xdp status`.

    \b
    Example:
      ebpf link list
    """


@click.command()
@json_option
def list_links(as_json: bool) -> None:
    """List the links in the kernel.

    \b
    Example:
      ebpf link list --json
    """
    from ebpf.cli import objects

    found = objects.links()
    on_interfaces = _on_interfaces(found)
    names = {info.id: objects.program_name(info) for info in objects.programs()}
    pins = owners.find_pins()
    processes = owners.find_owners()
    if as_json:
        output.print_json(
            [
                {
                    "id": info.id,
                    "type": objects.link_type(info),
                    "attach_type": objects.type_label(AttachType, info.attach_type) or None,
                    "program": {"id": info.program_id, "name": names.get(info.program_id, "")},
                    "ifindex": info.ifindex or None,
                    "interface": on_interfaces[info.id].interface if info.id in on_interfaces else None,
                    "namespace": on_interfaces[info.id].namespace.label if info.id in on_interfaces else None,
                    "target": info.target or None,
                    "details": dict(info.details),
                    "pinned": pins.get((Kind.LINK, info.id), []),
                    "held_by": [process._asdict() for process in processes.get((Kind.LINK, info.id), [])],
                }
                for info in found
            ]
        )
        return
    columns = [
        Column("id", "cyan", right=True),
        Column("type"),
        Column("program", "bold"),
        Column("attached to", below=True),
        Column("held by", "dim", below=True),
    ]

    def row(info: LinkInfo) -> tuple[str, ...]:
        place = (Kind.LINK, info.id)
        held: list[Any] = [*pins.get(place, []), *processes.get(place, [])]
        return (
            str(info.id),
            objects.link_type(info),
            f"{names.get(info.program_id, '')} ({info.program_id})" if info.program_id else "-",
            _target(info, on_interfaces.get(info.id)),
            ", ".join(map(str, held)) or "-",
        )

    output.print_table(columns, [row(info) for info in found], empty="no links in the kernel")


def _on_interfaces(links: list[LinkInfo]) -> dict[int, XdpAttachment]:
    """The XDP links by id, with the interface in whichever network namespace."""
    if not any(info.type == LinkType.XDP for info in links):
        return {}
    from ebpf.links.xdp import xdp_status

    return {each.link_id: each for each in xdp_status() if each.link_id is not None}


def _target(info: LinkInfo, place: XdpAttachment | None) -> str:
    from ebpf.cli import objects

    if place is not None:
        where = "" if place.namespace.is_current else f" in {place.namespace.label}"
        return f"{place.interface}{where}, {place.mode}"
    parts = [
        info.target,
        f"ifindex {info.ifindex}" if info.ifindex else "",
        objects.type_label(AttachType, info.attach_type),
        *(f"{name} {value}" for name, value in info.details.items()),
    ]
    return ", ".join(part for part in parts if part) or "detached"
