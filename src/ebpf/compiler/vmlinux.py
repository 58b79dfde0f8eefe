"""vmlinux.h: the running kernel's types as a header, made once for each kernel."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from ebpf.compiler import storage
from ebpf.errors import CompileError, Error
from ebpf.kernel.btf import ENVIRONMENT, FOLDER

_KEPT = 5  #: kernels whose header stays in the cache
_NOTES = Path("/sys/kernel/notes")  #: holds the build id


def identity() -> str:
    """A name for the kernel's types that changes with them; empty where there are none."""
    return _identity(os.environ.get(ENVIRONMENT, ""))


@cache
def _identity(chosen: str) -> str:
    source = Path(chosen) if chosen else FOLDER / "vmlinux"
    try:
        status = source.stat()
    except OSError:
        return ""
    if chosen:
        parts = [str(source.resolve()), str(status.st_mtime_ns)]
    else:
        system = os.uname()
        parts = [system.release, system.version, system.machine, _build_id()]
    return hashlib.sha256("\0".join([*parts, str(status.st_size)]).encode()).hexdigest()[:32]


def _build_id() -> str:
    notes = storage.read(_NOTES)
    return notes.hex() if notes else ""


def include_directory(fallback: Path) -> Path:
    """The folder of a vmlinux.h for this kernel; made if need be, in `fallback` where there is no cache.

    Raises CompileError where the kernel does not tell its types.
    """
    cache = storage.directory()
    if cache is not None:
        folder = cache / "vmlinux" / identity()
        if (folder / "vmlinux.h").exists():
            return folder
    text = _generate().encode()
    if cache is not None and storage.write(folder / "vmlinux.h", text):
        _forget_others(folder.parent)
        return folder
    storage.write(fallback / "vmlinux.h", text)
    return fallback


def is_generated(path: Path) -> bool:
    """Whether this is the header of the running kernel in the cache."""
    cache = storage.directory()
    return cache is not None and path == cache / "vmlinux" / identity() / "vmlinux.h"


def _generate() -> str:
    from ebpf.btf.c import to_c
    from ebpf.kernel import btf

    try:
        return to_c(btf.vmlinux())
    except Error as error:
        raise CompileError(
            f"the program includes vmlinux.h, which cannot be made here: {error.message}",
            hint="put a vmlinux.h beside the program: `ebpf btf dump --format c` writes it on a machine "
            "with a kernel that has types",
        ) from error


def _forget_others(folder: Path) -> None:
    headers = sorted(folder.glob("*/vmlinux.h"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for header in headers[_KEPT:]:
        header.unlink(missing_ok=True)
        header.parent.rmdir()
