"""What a program turns out to need only when it is compiled: vmlinux.h, UAPI headers, the maps of old, …"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ebpf.compiler import architecture, vmlinux
from ebpf.compiler.toolchain import zig_directory
from ebpf.errors import Diagnostic

_VMLINUX = re.compile(r"'vmlinux\.h' file not found")
_UAPI = re.compile(r"'(linux|asm|asm-generic)/[^']+' file not found")
_KFUNC = re.compile(
    r"conflicting types for '|static declaration of '.* follows non-static|different kind of symbol"
)
_LEGACY_MAP = re.compile(r"incomplete (definition of )?type 'struct bpf_map_def'")


class Remedies:
    """Further arguments for the compiler, found one by one from its errors; each is tried once."""

    def __init__(self, workspace: Path) -> None:
        self.arguments: list[str] = []
        self._workspace = workspace

    def find(self, diagnostics: Sequence[Diagnostic]) -> bool:
        """Whether there is something left to try against these errors; it is added to the arguments."""
        messages = [entry.message for entry in diagnostics if entry.severity == "error"]
        for pattern, remedy in (
            (_VMLINUX, self._vmlinux),
            (_UAPI, self._uapi),
            (_LEGACY_MAP, lambda: ["-D__EBPF_LEGACY_MAPS"]),
            # The program declares kernel functions itself, perhaps as an older kernel had them.
            (_KFUNC, lambda: ["-DBPF_NO_KFUNC_PROTOTYPES"]),
        ):
            if any(map(pattern.search, messages)):
                new = [argument for argument in remedy() if argument not in self.arguments]
                if new:
                    self.arguments += new
                    return True
        return False

    def _vmlinux(self) -> list[str]:
        return [f"-isystem{vmlinux.include_directory(self._workspace)}"]

    def _uapi(self) -> list[str]:
        """The headers in the ziglang wheel, for a system that has none of its own."""
        zig, machine = zig_directory(), architecture.current()
        if zig is None or machine is None:
            return []
        headers = zig / "lib" / "libc" / "include"
        return [f"-idirafter{headers / name}" for name in (machine.zig, "any-linux-any")]
