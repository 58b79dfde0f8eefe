"""What starting costs: the import, and the commands people type most."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from bench.measure import Case, measure

RUNS = 31
EBPF = str(Path(sys.executable).with_name("ebpf"))
PYTHON = [sys.executable]


def suite() -> Iterator[tuple[str, str, list[Case]]]:
    """Import and version against bare Python; `prog list` against bpftool where there is root."""
    imports = [
        Case("python -c pass", [*PYTHON, "-c", "pass"]),
        Case("python -c 'import ebpf'", [*PYTHON, "-c", "import ebpf"]),
        Case("python -c 'import ebpf; ebpf.open'", [*PYTHON, "-c", "import ebpf; ebpf.open"]),
        Case("ebpf --version", [EBPF, "--version"]),
        Case("ebpf --help", [EBPF, "--help"]),
    ]
    measure(imports, RUNS)
    yield "Start-up", f"{RUNS} runs each, in turn; the ratio is to bare Python", imports
    if os.geteuid() != 0:
        return
    listing = [
        Case("python -c pass", [*PYTHON, "-c", "pass"]),
        Case("ebpf prog list", [EBPF, "prog", "list"]),
        Case("ebpf prog list --json", [EBPF, "prog", "list", "--json"]),
    ]
    bpftool = which("bpftool")
    if bpftool:
        listing.append(Case("bpftool prog list", [bpftool, "prog", "list"]))
    measure(listing, RUNS)
    yield "Listing programs", f"{RUNS} runs each, in turn; the ratio is to bare Python", listing
