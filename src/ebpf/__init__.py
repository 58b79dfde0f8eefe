"""eBPF and XDP from Python: write, compile, load, attach, inspect and debug.

Names are imported when they are first used, so that `import ebpf` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpf._lazy import lazy
from ebpf._version import __version__

if TYPE_CHECKING:
    from ebpf.compiler.compile import compile
    from ebpf.errors import (
        AssemblyError,
        AttachError,
        BTFError,
        CompileError,
        Error,
        InstructionError,
        KernelError,
        ObjectError,
        PrivilegeError,
        RelocationError,
        SpecError,
        UnknownNameError,
        UnsupportedError,
        ValueRangeError,
        VerifierError,
    )
    from ebpf.events.trace import trace
    from ebpf.links.xdp import XdpMode
    from ebpf.loader.object import Object
    from ebpf.maps.map import Map
    from ebpf.programs.program import Program
    from ebpf.spec.model import MapSpec, ProgramSpec, Spec
    from ebpf.spec.reader import open
    from ebpf.uapi import AttachType, MapType, ProgramType, XdpAction

_HOMES = {
    "ebpf.compiler.compile": ("compile",),
    "ebpf.errors": (
        "AssemblyError",
        "AttachError",
        "BTFError",
        "CompileError",
        "Error",
        "InstructionError",
        "KernelError",
        "ObjectError",
        "PrivilegeError",
        "RelocationError",
        "SpecError",
        "UnknownNameError",
        "UnsupportedError",
        "ValueRangeError",
        "VerifierError",
    ),
    "ebpf.events.trace": ("trace",),
    "ebpf.links.xdp": ("XdpMode",),
    "ebpf.loader.object": ("Object",),
    "ebpf.maps.map": ("Map",),
    "ebpf.programs.program": ("Program",),
    "ebpf.spec.model": ("MapSpec", "ProgramSpec", "Spec"),
    "ebpf.spec.reader": ("open",),
    "ebpf.uapi": ("AttachType", "MapType", "ProgramType", "XdpAction"),
}
__all__ = ["__version__", *(name for names in _HOMES.values() for name in names)]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
