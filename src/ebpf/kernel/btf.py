"""The running kernel's own types: vmlinux and its modules (/sys/kernel/btf, 5.4 and 5.11)."""

from __future__ import annotations

import errno
import os
from functools import cache
from pathlib import Path

from ebpf.btf.btf import BTF
from ebpf.errors import UnsupportedError

FOLDER = Path("/sys/kernel/btf")
#: Names a file to be taken for the kernel's BTF: for a kernel without its own, such as those of BTFHub.
ENVIRONMENT = "EBPF_VMLINUX_BTF"


@cache
def vmlinux() -> BTF:
    """The kernel's types, or those of the file that $EBPF_VMLINUX_BTF names; kept for the process's life.

    UnsupportedError if the kernel has none.
    """
    path = os.environ.get(ENVIRONMENT) or FOLDER / "vmlinux"
    return BTF.from_bytes(_read(Path(path)))


def modules() -> list[str]:
    """The loaded modules that have types."""
    if not FOLDER.is_dir():
        return []
    return sorted(entry for entry in os.listdir(FOLDER) if entry != "vmlinux")


@cache
def module(name: str) -> BTF:
    """A module's types, which continue vmlinux's; UnsupportedError if it is not loaded or has none."""
    return BTF.from_bytes(_read(FOLDER / name), base=vmlinux())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnsupportedError(
            f"there are no types at {path}: the kernel was built without CONFIG_DEBUG_INFO_BTF (5.4), "
            "or the module is not loaded",
            errno=errno.ENOENT,
            hint=f"a file with this kernel's BTF can be named in ${ENVIRONMENT}",
        ) from None
