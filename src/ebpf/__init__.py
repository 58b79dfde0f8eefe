"""eBPF and XDP from Python: write, compile, load, attach, inspect and debug.

Names are imported when they are first used, so that `import ebpf` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ebpf' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
