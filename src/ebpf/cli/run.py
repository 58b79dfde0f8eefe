"""`ebpf run`: from a file to a program that is attached and watched, and off again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import click

from ebpf.cli import output, places, terminal
from ebpf.cli.attaching import attach_options, pick_program, require_interfaces, warn_of_fallback
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
from ebpf.cli.stopping import Stopping
from ebpf.errors import Error, KernelError

if TYPE_CHECKING:
    from ebpf.cli.views import View
    from ebpf.events.trace import Trace
    from ebpf.links.xdp import NetlinkXdp, XdpLink
    from ebpf.loader.object import Object
    from ebpf.spec.model import Spec


class _Limits(NamedTuple):
    """When watching ends by itself; seconds, and a number of samples."""

    interval: float
    samples: int | None
    duration: float | None


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, readable=False))
@attach_options
@click.option("--program", "wanted", metavar="NAME", help="The program to attach, if FILE has several.")
@type_option
@setting_option
@compiler_options
@click.option(
    "--interval",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the maps are read.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after reading the maps N times.")
@click.option("--duration", type=click.FloatRange(0), metavar="SECONDS", help="End after that time.")
@click.option("--trace/--no-trace", "with_trace", default=True, help="Show what programs print (bpf_printk).")
@json_option
def run(
    file: str,
    interfaces: tuple[str, ...],
    mode: str,
    replace: bool,
    netns: str | None,
    wanted: str | None,
    type_name: str | None,
    settings: tuple[str, ...],
    includes: tuple[str, ...],
    defines: tuple[str, ...],
    interval: float,
    count: int | None,
    duration: float | None,
    with_trace: bool,
    as_json: bool,
) -> None:
    """Run FILE, an object or C source: load it, attach it, and show its maps and trace until Ctrl-C.

    Then everything is detached and unloaded. On a terminal the maps are tables that are redrawn; in a pipe
    each change is a line, with --json an object. XDP programs are attached; those of other types only loaded.

    \b
    Examples:
      ebpf run firewall.bpf.c --iface eth0
      ebpf run firewall.bpf.c --iface eth0 --set blocked_port=8080 --mode generic
      ebpf run firewall.o --iface eth0 --duration 10 --json
    """
    with _terminated_as_interrupted():
        spec = open_spec(file, includes, defines)
        apply_type(spec, type_name)
        apply_settings(spec, settings)
        name = _attachable(spec, wanted, file)
        require_interfaces(interfaces, netns, name)
        if not as_json:
            for other in spec.programs.values():
                if other.autoload and other.name != name:
                    terminal.note(f"{other.name} ({other.type}): loaded, and not attached")
        with loading(), spec.load(programs=_to_load(spec, name), pin_path=places.chosen()) as live:
            for text in live.notes:
                terminal.warn(text)
            with Stopping() as stopping, ExitStack() as stack:
                trace = _open_trace(stack) if with_trace else None
                links: list[XdpLink | NetlinkXdp] = []
                for interface in interfaces:
                    link = live.programs[name].attach(interface, mode=mode, replace=replace, netns=netns)
                    stack.enter_context(link)
                    links.append(link)
                    warn_of_fallback(link)
                _tell(live, name, links, as_json=as_json)
                _watch(
                    live, _title(name, links), trace, stopping, _Limits(interval, count, duration), as_json
                )
            _tell_detached(name, links, as_json=as_json)


def _attachable(spec: Spec, wanted: str | None, file: str) -> str:
    """The program to attach."""
    from ebpf.uapi import ProgramType

    if wanted is None and not any(each.type is ProgramType.XDP for each in spec.programs.values()):
        there = ", ".join(f"{each.name} ({each.type or 'type unknown'})" for each in spec.programs.values())
        hint = "`ebpf load` pins them, for the tool that attaches their type"
        if any(each.type is None for each in spec.programs.values()):
            hint = "say what a program of unknown type is: --type xdp"
        raise Error(
            f"{file} has no XDP program, which is what this version attaches; it has: {there or 'none'}",
            hint=hint if there else None,
        )
    return pick_program(spec, wanted, file)


def _to_load(spec: Spec, name: str) -> list[str]:
    return [each.name for each in spec.programs.values() if each.autoload or each.name == name]


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends compiling and loading as Ctrl-C does: with everything cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_trace(stack: ExitStack) -> Trace | None:
    """The trace, if it can be had: a program runs as well without."""
    from ebpf.events.trace import trace

    try:
        return stack.enter_context(trace())
    except KernelError as error:
        terminal.warn(f"no trace is shown: {error.message}")
        return None


def _title(name: str, links: list[XdpLink | NetlinkXdp]) -> str:
    return f"{name} on {', '.join(f'{link.interface} ({link.mode})' for link in links)}"


def _tell(live: Object, name: str, links: list[XdpLink | NetlinkXdp], *, as_json: bool) -> None:
    if not as_json:
        for link in links:
            held = f"link {link.id}" if link.id is not None else "netlink"
            program = f"{name} (id {live.programs[name].id})"
            terminal.note(f"attached {program} to {link.interface} in {link.mode} mode, {held}")
        return
    output.print_json_line(
        {
            "event": "loaded",
            "programs": [
                {"id": each.id, "name": key, "type": str(each.type)} for key, each in live.programs.items()
            ],
            "maps": [{"id": each.id, "name": key, "type": str(each.type)} for key, each in live.maps.items()],
        }
    )
    for link in links:
        output.print_json_line(
            {
                "event": "attached",
                "program": name,
                "interface": link.interface,
                "mode": str(link.mode),
                "link_id": link.id,
                "fallback": link.fallback,
            }
        )


def _tell_detached(name: str, links: list[XdpLink | NetlinkXdp], *, as_json: bool) -> None:
    for link in links:
        if as_json:
            output.print_json_line({"event": "detached", "program": name, "interface": link.interface})
        else:
            terminal.note(f"detached {name} from {link.interface}")


def _watch(
    live: Object, title: str, trace: Trace | None, stopping: Stopping, limits: _Limits, as_json: bool
) -> None:
    """Show what happens until it shall end."""
    from ebpf.cli import views
    from ebpf.cli.watch import Watcher

    watcher = Watcher(live)
    view = views.choose(as_json=as_json)
    started = time.monotonic()
    end = None if limits.duration is None else started + limits.duration
    view.start(title)
    try:
        number = 0
        while True:
            number += 1
            # The last sample is taken at the end, so that nothing that was counted goes unseen.
            view.show(watcher.sample(), trace.read() if trace is not None else [])
            over = stopping.requested or (end is not None and time.monotonic() >= end)
            if over or number == limits.samples:
                return
            due = started + number * limits.interval
            _wait(view, trace, stopping, due if end is None else min(due, end))
    finally:
        view.stop()


def _wait(view: View, trace: Trace | None, stopping: Stopping, until: float) -> None:
    """Until then, or until a signal; trace lines are shown as they come, where the view streams."""
    while not stopping.requested and (left := until - time.monotonic()) > 0:
        if trace is None or not view.streams:
            stopping.wait(left)
            return
        stopping.wait(left, trace)
        lines = trace.read()
        if lines:
            view.show([], lines)
