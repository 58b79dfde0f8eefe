"""The table of commands."""

from __future__ import annotations

from typing import Any

import click

from ebpf._version import __version__
from ebpf.cli.command import SETTINGS, Lazy, LazyGroup

_WRITE, _KEEP, _LOOK, _TRY = "Write and run", "Keep in the kernel", "Look inside", "Try things out"

COMMANDS = {
    "run": Lazy("run:run", "Compile, load, attach, and watch maps and trace until Ctrl-C.", _WRITE),
    "compile": Lazy("compile:compile_command", "Compile C into a BPF object file.", _WRITE),
    "disasm": Lazy("disasm:disasm", "Show the instructions of an object file or C source.", _WRITE),
    "load": Lazy("load:load", "Load an object and pin its programs and maps.", _KEEP),
    "unload": Lazy("load:unload", "Remove what `load` pinned.", _KEEP),
    "xdp": Lazy("xdp:xdp", "Attach and detach XDP programs; who holds which interface.", _KEEP),
    "prog": Lazy("prog:prog", "List, show and test the programs in the kernel.", _LOOK),
    "map": Lazy("map:map_group", "List, read and write the maps in the kernel.", _LOOK),
    "link": Lazy("link:link", "List what is attached where.", _LOOK),
    "trace": Lazy("trace:trace", "Follow what programs print with bpf_printk.", _LOOK),
    "lab": Lazy("lab:lab", "Network namespaces joined by veth pairs, to try programs on.", _TRY),
    "completion": Lazy("completion:completion", "Print the completion script of a shell.", _TRY),
}


class Carried(Exception):
    """A closed pipe or an interrupt on its way past click, which would deal with it in its own way."""

    def __init__(self, exception: BrokenPipeError | KeyboardInterrupt) -> None:
        super().__init__()
        self.exception = exception


class Root(LazyGroup):
    """The command itself."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, KeyboardInterrupt) as exception:
            raise Carried(exception) from None


@click.group(
    cls=Root,
    lazy=COMMANDS,
    context_settings=SETTINGS,
    epilog="Each command has its own --help with examples. Docs: docs/cli.md",
)
@click.version_option(__version__, "-V", "--version", prog_name="ebpf", message="%(prog)s %(version)s")
def root() -> None:
    """Write, compile, load, attach, inspect and debug eBPF and XDP programs."""
