"""`ebpf xdp attach` and `detach`: attachments that outlive the command, and their end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpf.cli import output, places, terminal
from ebpf.cli.attaching import (
    MODES,
    attach_options,
    complete_interfaces,
    pick_program,
    require_interfaces,
    warn_of_fallback,
)
from ebpf.cli.command import json_option
from ebpf.cli.sources import compiler_options
from ebpf.cli.xdp import attachment_json
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.links.xdp import NetlinkXdp, XdpAttachment, XdpLink

PINS = "ebpf/xdp"  #: below a bpffs: the links that `xdp attach` leaves behind

_bpffs_option = click.option(
    "--bpffs",
    metavar="DIR",
    envvar=places.VARIABLE,
    default=places.DEFAULT,
    show_default=True,
    help="The BPF file system that keeps the link; also $EBPF_BPFFS.",
)
_netns_option = click.option("--netns", metavar="NAME", help="The interface is in this network namespace.")


# --- attach ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("program", metavar="FILE|PROGRAM")
@attach_options
@click.option("--program", "wanted", metavar="NAME", help="Which program of the file, if it has several.")
@_bpffs_option
@compiler_options
@json_option
def attach(
    program: str,
    interfaces: tuple[str, ...],
    mode: str,
    replace: bool,
    netns: str | None,
    wanted: str | None,
    bpffs: str,
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    as_json: bool,
) -> None:
    """Attach an XDP program, which stays attached when this command ends.

    The program is that of an object file or of C source, or one that is in the kernel: an id, a name, or the
    path of a pin. It stays because its link is pinned as DIR/ebpf/xdp/IFACE-NAMESPACE, until
    `ebpf xdp detach`.

    \b
    Examples:
      ebpf xdp attach firewall.o --iface eth0
      ebpf xdp attach firewall.bpf.c --iface eth0 --iface eth1 --mode generic
      ebpf xdp attach /sys/fs/bpf/firewall --iface eth0 --replace
    """
    require_interfaces(interfaces, netns, program)
    with _opened(program, wanted, includes, defines) as (fd, name):
        links = _attach_all(fd, interfaces, mode, replace, netns, bpffs)
    if as_json:
        output.print_json([facts for _, facts in links])
        return
    for line, _ in links:
        terminal.note(f"{name}: {line}")


@contextmanager
def _opened(
    text: str, wanted: str | None, includes: tuple[str, ...], defines: tuple[str, ...]
) -> Iterator[tuple[int, str]]:
    """The descriptor and name of the program that was named."""
    from ebpf.cli import objects
    from ebpf.cli.sources import loading, open_spec

    if not _is_file(text):
        if wanted is not None or includes or defines:
            raise click.UsageError("--program, -I and -D are for files; this names a program in the kernel")
        from ebpf.kernel import bpf

        with objects.open_program(text) as fd:
            info = bpf.program_info(fd.fileno())
            if objects.program_type(info) != "xdp":
                raise Error(f"program {text} is of type {objects.program_type(info)}, not xdp")
            yield fd.fileno(), objects.program_name(info) or f"program {info.id}"
        return
    spec = open_spec(text, includes, defines)
    name = pick_program(spec, wanted, text)
    with loading(), spec.load(pin_path=places.chosen()) as live:
        yield live.programs[name].fileno(), name


def _is_file(text: str) -> bool:
    from ebpf.kernel import mounts

    if Path(text).is_file():
        return mounts.filesystem_of(text) != "bpf"
    return text.endswith((".o", ".c"))  # a file that is not there, rather than a program


def _attach_all(
    fd: int, interfaces: Iterable[str], mode: str, replace: bool, netns: str | None, bpffs: str
) -> list[tuple[str, dict[str, Any]]]:
    """Attach to all interfaces and make it last, or leave nothing behind."""
    from ebpf.kernel import namespaces
    from ebpf.links.xdp import attach_xdp

    told: list[tuple[str, dict[str, Any]]] = []
    with ExitStack() as undo:
        links: list[XdpLink | NetlinkXdp] = []
        for interface in interfaces:
            link = attach_xdp(fd, interface, mode=mode, replace=replace, netns=netns)
            undo.enter_context(link)
            links.append(link)
            warn_of_fallback(link)
        for link in links:
            if not link.persists:
                _pin(link, Path(bpffs), namespaces.run_in(netns, _namespace_inode))
                undo.callback(link.unpin)
            told.append((_told(link), _link_facts(link)))
        undo.pop_all()
        for link in links:
            link.close()
    return told


def _namespace_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _pin(link: XdpLink | NetlinkXdp, bpffs: Path, namespace: int) -> None:
    """Pin a link where `detach` finds it; a link there that holds nothing any more makes room."""
    from ebpf.kernel import mounts
    from ebpf.kernel.bpf import Kind
    from ebpf.kernel.owners import identify

    _sweep(bpffs / PINS)
    place = mounts.pin_path(bpffs / PINS / f"{link.interface}-{namespace}")
    if place.exists():
        if identify(place) == (Kind.LINK, link.id):  # the program in a link of ours was replaced
            link.pinned = place
            return
        place = place.with_name(f"{place.name}-link{link.id}")  # of an interface that had this name before
    link.pin(place)


def _sweep(folder: Path) -> list[Path]:
    """Remove our pins of links that are detached, or whose interface is gone; gives their paths."""
    from ebpf.links.xdp import XdpLink

    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            link = XdpLink.open(path)
        except OSError:  # not a link, or gone meanwhile
            continue
        try:
            if link.ifindex == 0:
                path.unlink(missing_ok=True)
                removed.append(path)
        finally:
            link.close()
    return removed


def _told(link: XdpLink | NetlinkXdp) -> str:
    where = f"pinned as {link.pinned}" if link.pinned else "through netlink"
    return f"attached to {link.interface} in {link.mode} mode, {where}"


def _link_facts(link: XdpLink | NetlinkXdp) -> dict[str, Any]:
    return {
        "interface": link.interface,
        "ifindex": link.ifindex,
        "mode": str(link.mode),
        "fallback": link.fallback,
        "program_id": link.program_id,
        "link_id": link.id,
        "pinned": str(link.pinned) if link.pinned else None,
    }


# --- detach ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("interfaces", nargs=-1, metavar="[IFACE]...", shell_complete=complete_interfaces)
@click.option("--all", "everywhere", is_flag=True, help="Every interface, in this network namespace.")
@click.option("--mode", type=click.Choice(MODES[1:]), help="Only the program in this mode.")
@click.option("--id", "program_id", type=int, metavar="ID", help="Only the program with this id.")
@_netns_option
@_bpffs_option
@json_option
def detach(
    interfaces: tuple[str, ...],
    everywhere: bool,
    mode: str | None,
    program_id: int | None,
    netns: str | None,
    bpffs: str,
    as_json: bool,
) -> None:
    """Take off what is attached to IFACE, whoever attached it and in whichever mode, and see that it is off.

    \b
    Examples:
      ebpf xdp detach eth0
      ebpf xdp detach eth0 --mode generic
      ebpf xdp detach --all
    """
    from ebpf.kernel import namespaces, netlink
    from ebpf.links.xdp import detach_xdp

    if bool(interfaces) == everywhere:
        raise click.UsageError("name the interfaces, or give --all")
    if everywhere:
        interfaces = tuple(link.name for link in namespaces.run_in(netns, netlink.links) if link.xdp)
        if not interfaces and not as_json:
            terminal.note("no XDP program is attached to any interface of this network namespace")
    taken: list[XdpAttachment] = []
    try:
        for interface in interfaces:
            taken += detach_xdp(interface, mode=mode, program_id=program_id, netns=netns)
    finally:  # what is done is told, whatever came after
        removed = _sweep(Path(bpffs) / PINS)
        if as_json:
            output.print_json([attachment_json(each) for each in taken])
        for each in () if as_json else taken:
            terminal.note(f"{each.interface}: detached {each.program}, which was in {each.mode} mode")
            _tell_of_pins(each, removed)


def _tell_of_pins(each: XdpAttachment, removed: list[Path]) -> None:
    for pin in each.pins if each.link_id is not None else ():
        if Path(pin) in removed:
            terminal.note(f"{each.interface}: removed its pin {pin}")
        else:
            terminal.note(f"{each.interface}: its link, now without effect, stays pinned as {pin}")
