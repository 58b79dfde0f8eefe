"""What `ebpf run` and `ebpf xdp` share: options, the choice of the program, warnings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ebpf.cli import terminal
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.links.xdp import NetlinkXdp, XdpLink
    from ebpf.spec.model import Spec

F = TypeVar("F", bound=Callable[..., Any])

MODES = ["auto", "native", "generic", "offload"]


def complete_interfaces(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of interfaces for the shell."""
    return sorted(name for name in os.listdir("/sys/class/net") if name.startswith(incomplete))


def attach_options(function: F) -> F:
    """--iface, --mode, --replace and --netns."""
    for option in (
        click.option("--netns", metavar="NAME", help="The interfaces are in this network namespace."),
        click.option("--replace", is_flag=True, help="Take the place of the program that is there."),
        click.option(
            "--mode",
            type=click.Choice(MODES),
            default="auto",
            show_default=True,
            help="Where it runs; auto is native, or generic where the driver cannot.",
        ),
        click.option(
            "-i",
            "--iface",
            "interfaces",
            multiple=True,
            metavar="IFACE",
            shell_complete=complete_interfaces,
            help="The interface. Repeatable.",
        ),
    ):
        function = option(function)
    return function


def require_interfaces(interfaces: tuple[str, ...], netns: str | None, program: str) -> None:
    """A usage error that names the interfaces there are, if none was given."""
    from ebpf.kernel import namespaces, netlink

    if interfaces:
        return
    there = ", ".join(link.name for link in namespaces.run_in(netns, netlink.links))
    raise click.UsageError(
        f"{program} is an XDP program: say where to attach it with --iface; there is: {there}"
    )


def pick_program(spec: Spec, wanted: str | None, file: str) -> str:
    """The one XDP program to attach; an error that names the candidates if that is not clear."""
    from ebpf.uapi import AttachType, ProgramType

    names = [
        program.name
        for program in spec.programs.values()
        if program.type is ProgramType.XDP and program.attach_type in (None, AttachType.XDP)
    ]
    if wanted is not None:
        if wanted not in names:
            found = spec.programs[wanted]
            kind = found.attach_type if found.type is ProgramType.XDP else found.type
            raise Error(f"program {wanted!r} is of type {kind}, which does not attach to an interface as XDP")
        return wanted
    if not names:
        there = ", ".join(f"{each.name} ({each.type})" for each in spec.programs.values()) or "none at all"
        raise Error(f"{file} has no XDP program; its programs: {there}")
    if len(names) > 1:
        raise Error(
            f"{file} has {len(names)} XDP programs: {', '.join(names)}", hint="say which one: --program NAME"
        )
    return names[0]


def warn_of_fallback(link: XdpLink | NetlinkXdp) -> None:
    """Say that it is slower than one might think."""
    if link.fallback is not None:
        terminal.warn(f"{link.interface}: generic mode, which is slower: {link.fallback}")
