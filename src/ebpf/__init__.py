"""eBPF and XDP from Python: write, compile, load, attach, inspect and debug.

Names are imported when they are first used, so that `import ebpf` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpf._lazy import lazy
from ebpf._version import __version__

if TYPE_CHECKING:
    from ebpf.compiler.compile import CompileWarning as CompileWarning
    from ebpf.compiler.compile import compile as compile
    from ebpf.errors import AssemblyError as AssemblyError
    from ebpf.errors import AttachError as AttachError
    from ebpf.errors import BTFError as BTFError
    from ebpf.errors import CompileError as CompileError
    from ebpf.errors import Error as Error
    from ebpf.errors import InstructionError as InstructionError
    from ebpf.errors import KernelError as KernelError
    from ebpf.errors import ObjectError as ObjectError
    from ebpf.errors import PrivilegeError as PrivilegeError
    from ebpf.errors import RelocationError as RelocationError
    from ebpf.errors import SpecError as SpecError
    from ebpf.errors import UnknownNameError as UnknownNameError
    from ebpf.errors import UnsupportedError as UnsupportedError
    from ebpf.errors import ValueRangeError as ValueRangeError
    from ebpf.errors import VerifierError as VerifierError
    from ebpf.events.trace import trace as trace
    from ebpf.links.xdp import XdpMode as XdpMode
    from ebpf.loader.object import Object as Object
    from ebpf.maps.map import Map as Map
    from ebpf.programs.program import Program as Program
    from ebpf.spec.model import MapSpec as MapSpec
    from ebpf.spec.model import ProgramSpec as ProgramSpec
    from ebpf.spec.model import Spec as Spec
    from ebpf.spec.reader import open as open
    from ebpf.uapi import AttachType as AttachType
    from ebpf.uapi import MapType as MapType
    from ebpf.uapi import ProgramType as ProgramType
    from ebpf.uapi import XdpAction as XdpAction

_HOMES = {
    "ebpf.compiler.compile": ("CompileWarning", "compile"),
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
