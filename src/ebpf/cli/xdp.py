"""`ebpf xdp`: attach and detach XDP programs; who holds which interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ebpf.cli import human, output, terminal
from ebpf.cli.command import Lazy, LazyGroup, json_option
from ebpf.cli.output import Column
from ebpf.cli.sources import compiler_options
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.links.xdp import NetlinkXdp, XdpAttachment, XdpLink
    from ebpf.spec.model import Spec

F = TypeVar("F", bound=Callable[..., Any])

MODES = ["auto", "native", "generic", "offload"]
PINS = "ebpf/xdp"  #: below a bpffs: the links that `xdp attach` leaves behind

COMMANDS = {
    "attach": Lazy("xdp:attach", "Attach a program; it stays until it is detached."),
    "detach": Lazy("xdp:detach", "Take a program off, whoever attached it."),
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


# --- options shared with `ebpf run` -----------------------------------------------------------------------


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


_bpffs_option = click.option(
    "--bpffs",
    metavar="DIR",
    envvar="EBPF_BPFFS",
    default="/sys/fs/bpf",
    show_default=True,
    help="The BPF file system that keeps the link; also $EBPF_BPFFS.",
)
_netns_option = click.option("--netns", metavar="NAME", help="The interface is in this network namespace.")


def require_interfaces(interfaces: tuple[str, ...], netns: str | None, program: str) -> None:
    """A usage error that names the interfaces there are, if none was given."""
    from ebpf.kernel import namespaces, netlink

    if interfaces:
        return
    there = ", ".join(link.name for link in namespaces.run_in(netns, netlink.links))
    raise click.UsageError(
        f"{program} is an XDP program: say where to attach it with --iface; there is: {there}"
    )


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
    with loading(), spec.load() as live:
        yield live.programs[name].fileno(), name


def _is_file(text: str) -> bool:
    from ebpf.kernel import mounts

    if Path(text).is_file():
        return mounts.filesystem_of(text) != "bpf"
    return text.endswith((".o", ".c"))  # a file that is not there, rather than a program


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


def warn_of_fallback(link: XdpLink | NetlinkXdp) -> None:
    """Say that it is slower than one might think."""
    if link.fallback is not None:
        terminal.warn(f"{link.interface}: generic mode, which is slower: {link.fallback}")


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


# --- status ---------------------------------------------------------------------------------------------


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
