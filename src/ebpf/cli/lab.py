"""`ebpf lab`: network namespaces joined by veth pairs."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ebpf.cli import output, terminal
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Column

if TYPE_CHECKING:
    from ebpf.lab.lab import Lab

DEFAULT_NAME = "lab"

COMMANDS = {
    "up": Lazy("lab:up", "Make a lab."),
    "status": Lazy("lab:status", "List the labs, their hosts and addresses."),
    "exec": Lazy("lab:execute", "Run a command in a host."),
    "down": Lazy("lab:down", "Take a lab away."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def lab() -> None:
    """Network namespaces joined by veth pairs, to try programs on.

    \b
    Examples:
      ebpf lab up                             # client -- server
      ebpf lab up client router server        # a row of three
      ebpf lab exec client -- ping -c 1 10.200.1.2
      ebpf lab down
    """


def _complete_labs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from ebpf.lab.lab import names

    return [name for name in names() if name.startswith(incomplete)]


_name_option = click.option(
    "--name",
    default=DEFAULT_NAME,
    show_default=True,
    shell_complete=_complete_labs,
    help="Which lab, where there are several.",
)


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@_name_option
@json_option
def up(hosts: tuple[str, ...], name: str, as_json: bool) -> None:
    """Make a lab of HOSTs in a row; by default client and server.

    It stays until `ebpf lab down`. Neighbours are joined by a veth pair: link number i has the addresses
    10.200.i.1 and 10.200.i.2, and fd00:200:i::1 and ::2. Every host can reach all others.

    \b
    Examples:
      ebpf lab up
      ebpf lab up client router server --name routed
    """
    from ebpf.lab.lab import Lab

    made = Lab(*hosts, name=name)
    made.up()
    _show([made], as_json)


@click.command()
@_name_option
@json_option
def down(name: str, as_json: bool) -> None:
    """Take a lab away: its interfaces, namespaces and BPF file system.

    \b
    Example:
      ebpf lab down
    """
    from ebpf.lab.lab import Lab

    Lab.open(name).down()
    if as_json:
        output.print_json({"name": name})
    else:
        terminal.note(f"lab {name} is down")


@click.command()
@json_option
def status(as_json: bool) -> None:
    """List the labs, their hosts, namespaces, interfaces and addresses.

    \b
    Example:
      ebpf lab status
    """
    from ebpf.lab.lab import Lab, names

    try:
        labs = [Lab.open(name) for name in names()]
    except PermissionError as error:
        from ebpf.kernel.privileges import SYS_ADMIN, explain

        raise explain("look into the labs", (SYS_ADMIN,), error.errno or 1) from None
    if not labs and not as_json:
        terminal.note("no lab is up; make one: ebpf lab up")
        return
    _show(labs, as_json)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_name_option
def execute(host: str, command: tuple[str, ...], name: str) -> None:
    """Run COMMAND in HOST, with the exit code of the command.

    Only the network namespace changes: files, processes and the BPF file system stay those of the caller.

    \b
    Examples:
      ebpf lab exec client -- ping -c 1 10.200.1.2
      ebpf lab exec server -- ebpf run firewall.bpf.c --iface eth0
    """
    from ebpf.errors import Error
    from ebpf.lab.lab import Lab

    if command[0] != "--" and command[0].startswith("-"):
        raise click.UsageError(f"{command[0]} stands behind the host: options come before it")
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("which command? `ebpf lab exec HOST -- COMMAND…`")
    place = Lab.open(name)[host]
    sys.stdout.flush()
    with place.entered():
        try:
            os.execvp(
                command[0], command
            )  # the process becomes the command: signals and exit code are its own
        except OSError as error:
            raise Error(f"cannot run {command[0]!r} in {host}: {error.strerror}") from None


def _show(labs: list[Lab], as_json: bool) -> None:
    if as_json:
        output.print_json(
            [
                {
                    "name": lab.name,
                    "bpffs": str(lab.bpffs),
                    "hosts": [
                        {
                            "name": host.name,
                            "netns": host.namespace,
                            "interfaces": [asdict(interface) for interface in host.interfaces],
                        }
                        for host in lab
                    ],
                }
                for lab in labs
            ]
        )
        return
    columns = [
        Column("lab", "cyan"),
        Column("host", "bold"),
        Column("namespace"),
        Column("interface"),
        Column("address", "green"),
        Column("address6", "green"),
    ]
    rows = [
        (lab.name, host.name, host.namespace, interface.name, interface.address, interface.address6)
        for lab in labs
        for host in lab
        for interface in host.interfaces
    ]
    output.print_table(columns, rows)
