"""Values of `__kconfig` externs: the kernel's configuration and what libbpf says of it (LINUX_*)."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ebpf.btf import types as t
from ebpf.btf.layout import resolve
from ebpf.errors import RelocationError
from ebpf.kernel import bpf
from ebpf.kernel.memlock import kernel_version
from ebpf.spec.model import ExternSpec
from ebpf.uapi import ProgramType

_TRISTATE = {"n": 0, "y": 1, "m": 2}  # enum libbpf_tristate
_GET_ATTACH_COOKIE = 174


def fill(externs: Iterable[ExternSpec], size: int) -> bytes:
    """The content of the .kconfig map. RelocationError for what this kernel does not answer, if not weak."""
    data = bytearray(size)
    config: dict[str, str] | None = None
    for extern in externs:
        if extern.section != ".kconfig":
            continue
        if extern.name.startswith("CONFIG_"):
            if config is None:
                config = read_config()
            text = config.get(extern.name)
            encoded = _encode(extern, text) if text is not None else None
        else:
            known = _KNOWN.get(extern.name)
            encoded = _integer(extern, known()) if known is not None else None
        if encoded is not None:
            data[extern.offset : extern.offset + extern.size] = encoded
        elif not extern.is_weak:
            raise RelocationError(
                f"__kconfig {extern.name!r} has no value on this kernel",
                hint="declare it __weak to have 0 then, or "
                f"{'set it in the configuration' if extern.name.startswith('CONFIG_') else 'check its name'}",
            )
    return bytes(data)


def read_config() -> dict[str, str]:
    """The kernel's configuration: /boot/config-RELEASE, or else /proc/config.gz."""
    text = ""
    with suppress(OSError):
        text = Path(f"/boot/config-{os.uname().release}").read_text()
    if not text:
        with suppress(OSError):
            text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def _encode(extern: ExternSpec, text: str) -> bytes:
    type = resolve(extern.type) if extern.type is not None else None
    if text in ("y", "n", "m"):
        match type:
            case t.Int(is_bool=True):
                if text == "m":
                    raise RelocationError(f"{extern.name} is a module ('m'), which a bool cannot say")
                return int(text == "y").to_bytes(extern.size, sys.byteorder)
            case t.Enum():
                return _TRISTATE[text].to_bytes(extern.size, sys.byteorder)
            case t.Int(size=1):
                return text.encode()
    if text.startswith('"'):
        if not isinstance(type, t.Array):
            raise RelocationError(f"{extern.name} is {text}, which {extern.type} cannot hold")
        return text.strip('"').encode()[: extern.size - 1].ljust(extern.size, b"\0")
    try:
        return _integer(extern, int(text, 0))
    except ValueError:
        raise RelocationError(f"{extern.name} is {text!r}, which {extern.type} cannot hold") from None


def _integer(extern: ExternSpec, number: int) -> bytes:
    type = resolve(extern.type) if extern.type is not None else None
    if not isinstance(type, t.Int):
        raise RelocationError(f"{extern.name} is the number {number}, which {extern.type} cannot hold")
    try:
        return number.to_bytes(extern.size, sys.byteorder, signed=type.signed)
    except OverflowError:
        raise RelocationError(f"{extern.name} is {number}, too much for {extern.type}") from None


def version_code() -> int:
    """LINUX_VERSION_CODE of the running kernel, as KERNEL_VERSION() makes it."""
    major, minor, patch = kernel_version()
    return major << 16 | minor << 8 | min(patch, 255)


def _has_bpf_cookie() -> int:
    """Whether bpf_get_attach_cookie() is there (5.15), by loading a program that calls it."""
    call = bytes((0x85, 0, 0, 0)) + _GET_ATTACH_COOKIE.to_bytes(4, sys.byteorder)
    try:
        fd = bpf.prog_load(ProgramType.TRACEPOINT, call + bytes((0x95, 0, 0, 0, 0, 0, 0, 0)), "GPL")
    except OSError:
        return 0
    os.close(fd)
    return 1


def _has_syscall_wrapper() -> int:
    """Whether system calls have wrappers such as __x64_sys_bpf (4.17), by the kernel's symbols."""
    prefix = {"x86_64": "__x64", "aarch64": "__arm64", "s390x": "__s390x", "riscv64": "__riscv"}
    name = f"{prefix.get(os.uname().machine, '__se')}_sys_bpf"
    with suppress(OSError):
        return int(f" {name}\n".encode() in Path("/proc/kallsyms").read_bytes())
    return 0


_KNOWN: dict[str, Callable[[], int]] = {
    "LINUX_KERNEL_VERSION": version_code,
    "LINUX_HAS_BPF_COOKIE": _has_bpf_cookie,
    "LINUX_HAS_SYSCALL_WRAPPER": _has_syscall_wrapper,
}
