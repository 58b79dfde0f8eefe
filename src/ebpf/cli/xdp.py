"""`ebpf xdp`: attach and detach XDP programs; who holds which interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import human, output
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Column

if TYPE_CHECKING:
    from ebpf.links.xdp import XdpAttachment

COMMANDS = {
    "attach": Lazy("xdp_attach:attach", "Attach a program; it stays until it is detached."),
    "detach": Lazy("xdp_attach:detach", "Take a program off, whoever attached it."),
    "status": Lazy("xdp:status", "What is attached, in all network namespaces."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def xdp() -> None:
    """Attach and detach XDP programs; who holds which interface.

    \b
    Examples:
      ebpf xdp attach firewall.o --iface eth0
      ebpf xdp status
      ebpf xdp detach eth0
    """


@click.command()
@json_option
def status(as_json: bool) -> None:
    """What is attached to which interface, in all network namespaces, in which mode, and who holds it.

    \b
    Examples:
      ebpf xdp status
      ebpf xdp status --json | jq '.[] | {interface, mode, program}'
    """
    from ebpf.links.xdp import xdp_status

    found = xdp_status()
    if as_json:
        output.print_json([attachment_json(each) for each in found])
        return
    columns = [
        Column("namespace", "dim"),
        Column("interface", "bold"),
        Column("mode"),
        Column("program", "cyan"),
        Column("link", right=True, optional=True),
        Column("loaded", "dim"),
        Column("held by", below=True),
    ]
    rows: list[tuple[str, ...]] = [
        (
            "(this)" if each.namespace.is_current else each.namespace.label,
            each.interface,
            str(each.mode),
            f"{each.program_name} ({each.program_id})" if each.program_name else str(each.program_id),
            str(each.link_id) if each.link_id is not None else "-",
            _loaded(each.program_id, human.moment) or "-",
            ", ".join([*each.pins, *map(str, each.owners)]) or "-",
        )
        for each in found
    ]
    if all(each.namespace.is_current for each in found):
        columns, rows = columns[1:], [row[1:] for row in rows]
    output.print_table(columns, rows, empty="no XDP program is attached, in any network namespace")


def _loaded(program_id: int, text: Callable[[float], str]) -> str | None:
    from ebpf.kernel import bpf
    from ebpf.kernel.fd import FD

    try:
        with FD(bpf.fd_by_id(bpf.Kind.PROGRAM, program_id), f"program {program_id}") as fd:
            return text(human.since_boot(bpf.program_info(fd.fileno()).load_time))
    except OSError:
        return None


def attachment_json(each: XdpAttachment) -> dict[str, Any]:
    """One attachment, as `status` and `detach` print it."""
    return {
        "namespace": {
            "name": each.namespace.name or None,
            "inode": each.namespace.inode,
            "pid": each.namespace.pid or None,
            "is_current": each.namespace.is_current,
        },
        "interface": each.interface,
        "ifindex": each.ifindex,
        "mode": str(each.mode),
        "program": {
            "id": each.program_id,
            "name": each.program_name,
            "tag": each.tag,
            "loaded_at": _loaded(each.program_id, human.iso),
        },
        "link_id": each.link_id,
        "held_by": [owner._asdict() for owner in each.owners],
        "pinned": list(each.pins),
    }
