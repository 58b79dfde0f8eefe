"""Loading and attaching a precompiled object, as a whole process, against bpftool on the same object."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from bench.measure import Case, measure
from ebpf.compiler.compile import compile_object
from ebpf.lab import Lab

RUNS = 31
SOURCE = Path(__file__).parent.parent / "examples/demo/firewall.bpf.c"
EBPF = str(Path(sys.executable).with_name("ebpf"))

ATTACH = """
import sys, ebpf
with ebpf.open(sys.argv[1]).load() as obj, obj.programs["firewall"].attach(sys.argv[2]):
    pass
"""


def suite() -> Iterator[tuple[str, str, list[Case]]]:
    """Load and pin; load, attach and detach."""
    bpftool = which("bpftool")
    if os.geteuid() != 0 or bpftool is None:
        print("load: skipped, needs root and bpftool")
        return
    with tempfile.TemporaryDirectory() as folder, Lab() as lab, lab["server"].entered():
        object_file = Path(folder) / "firewall.o"
        object_file.write_bytes(compile_object(SOURCE).data)
        pins = lab.bpffs / "bench"
        path = [str(object_file), str(pins)]

        def unpin() -> None:
            shutil.rmtree(pins)

        loading = [
            Case("bpftool prog loadall", [bpftool, "prog", "loadall", *path], unpin),
            Case("ebpf load", [EBPF, "load", *path], unpin),
            Case("python -c pass", [sys.executable, "-c", "pass"]),
        ]
        measure(loading, RUNS)
        yield "Load and pin an object", f"{RUNS} runs each, in turn; the ratio is to bpftool", loading

        attach = (
            f"{bpftool} prog loadall {object_file} {pins}"
            f" && {bpftool} net attach xdp pinned {pins}/firewall dev eth0"
            f" && {bpftool} net detach xdp dev eth0"
        )
        attaching = [
            Case("bpftool: loadall, net attach, net detach", ["sh", "-c", attach], unpin),
            Case("Python: load, attach, detach", [sys.executable, "-c", ATTACH, str(object_file), "eth0"]),
        ]
        measure(attaching, RUNS)
        yield "Load, attach and detach", f"{RUNS} runs each, in turn; the ratio is to bpftool", attaching
