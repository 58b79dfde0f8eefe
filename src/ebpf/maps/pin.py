"""Pins: names in a bpffs that keep an object alive (BPF_OBJ_PIN, 4.4)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf

#: Where pinned objects live unless the caller says otherwise.
BPFFS = "/sys/fs/bpf"


def pin_name(name: str) -> str:
    """A name as a bpffs takes it: it refuses dots, so that they become "_", as libbpf does."""
    return name.replace(".", "_").replace("/", "_")


def pin(fd: int, path: str | os.PathLike[str], what: str) -> None:
    """Pin an object; the folder must be in a bpffs. Errors name what is in the way."""
    path = Path(path)
    if "." in path.name:
        raise Error(
            f"cannot pin {what} as {path}: a bpffs takes no names with dots",
            hint=f"use {str(path.with_name(pin_name(path.name)))!r}",
        )
    try:
        bpf.obj_pin(fd, path)
    except OSError as error:
        raise _explained(error, path, what) from None


def _explained(error: OSError, path: Path, what: str) -> Error:
    code = error.errno or 0
    start = f"cannot pin {what} as {path}"
    if code == errno.EEXIST:
        return KernelError(f"{start}: something is pinned there", errno=code, hint=f"unpin it first: rm {path}")
    if code == errno.ENOENT:
        return KernelError(f"{start}: the folder {path.parent} does not exist", errno=code)
    if code == errno.EPERM and path.parent.is_dir() and not in_bpffs(path.parent):
        return KernelError(
            f"{start}: {path.parent} is not in a bpffs",
            errno=code,
            hint="pin below /sys/fs/bpf, or mount one: mount -t bpf bpf DIR",
        )
    from ebpf.maps.failures import kernel_error

    return kernel_error(error, start)


def in_bpffs(path: str | os.PathLike[str]) -> bool:
    """Whether a path lies in a mounted bpffs, by /proc/self/mountinfo."""
    resolved = os.path.realpath(path)
    best, kind = "", ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            mount = fields.split()[4].replace("\\040", " ")
            inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, rest.split()[0]
    return kind == "bpf"


def unpin(path: str | os.PathLike[str], what: str) -> None:
    """Remove a pin; the object lives on while it is used elsewhere."""
    try:
        Path(path).unlink()
    except OSError as error:
        from ebpf.maps.failures import kernel_error

        raise kernel_error(error, f"cannot unpin {what} from {path}") from None


def open_pinned(path: str | os.PathLike[str], what: str) -> int:
    """The descriptor of a pinned object, which the caller owns."""
    try:
        return bpf.obj_get(path)
    except OSError as error:
        from ebpf.maps.failures import kernel_error

        if error.errno == errno.ENOENT:
            raise KernelError(f"no {what} is pinned as {os.fspath(path)}", errno=errno.ENOENT) from None
        raise kernel_error(error, f"cannot open {what} {os.fspath(path)}") from None
