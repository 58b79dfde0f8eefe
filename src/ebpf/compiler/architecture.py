"""The machine's architecture, under the names that headers and folders give it."""

from __future__ import annotations

import os
from typing import NamedTuple


class Architecture(NamedTuple):
    """One architecture."""

    target: str  #: as in __TARGET_ARCH_…, which bpf_tracing.h looks at
    multiarch: str  #: Debian's folder of its headers, below /usr/include
    zig: str  #: the ziglang wheel's folder of its UAPI headers


_ARM = Architecture("arm", "arm-linux-gnueabihf", "arm-linux-any")
_X86 = Architecture("x86", "i386-linux-gnu", "x86-linux-any")

#: By the name that uname(2) gives.
_ARCHITECTURES = {
    "x86_64": Architecture("x86", "x86_64-linux-gnu", "x86-linux-any"),
    "i386": _X86,
    "i686": _X86,
    "aarch64": Architecture("arm64", "aarch64-linux-gnu", "aarch64-linux-any"),
    "arm64": Architecture("arm64", "aarch64-linux-gnu", "aarch64-linux-any"),
    "armv6l": _ARM,
    "armv7l": _ARM,
    "s390x": Architecture("s390", "s390x-linux-gnu", "s390x-linux-any"),
    "ppc64le": Architecture("powerpc", "powerpc64le-linux-gnu", "powerpc-linux-any"),
    "ppc64": Architecture("powerpc", "powerpc64-linux-gnu", "powerpc-linux-any"),
    "riscv64": Architecture("riscv", "riscv64-linux-gnu", "riscv-linux-any"),
    "loongarch64": Architecture("loongarch", "loongarch64-linux-gnu", "loongarch-linux-any"),
    "mips64": Architecture("mips", "mips64el-linux-gnuabi64", "mips-linux-any"),
    "sparc64": Architecture("sparc", "sparc64-linux-gnu", "sparc-linux-any"),
}


def current() -> Architecture | None:
    """This machine's; None if it is not a known one."""
    return _ARCHITECTURES.get(os.uname().machine)
