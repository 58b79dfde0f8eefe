"""Pins: names in a bpffs that keep an object alive (BPF_OBJ_PIN, 4.4)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ebpf.errors import KernelError
from ebpf.kernel import bpf, mounts
from ebpf.maps.failures import kernel_error


def pin(fd: int, path: str | os.PathLike[str], what: str) -> str:
    """Pin an object; gives the path, absolute and without dots. Errors name what is in the way."""
    place = mounts.pin_path(path)
    try:
        bpf.obj_pin(fd, place)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise KernelError(
                f"cannot pin {what}: something is pinned as {place} already",
                errno=errno.EEXIST,
                hint=f"unpin it first: rm {place}",
            ) from None
        raise kernel_error(error, f"pin {what} as {place}") from None
    return os.fspath(place)


def unpin(path: str | os.PathLike[str], what: str) -> None:
    """Remove a pin; the object lives on while it is used elsewhere."""
    place = _place(path)
    try:
        place.unlink()
    except FileNotFoundError:
        raise KernelError(f"{what} is not pinned as {place}", errno=errno.ENOENT) from None
    except OSError as error:
        raise kernel_error(error, f"unpin {what} from {place}", ()) from None


def open_pinned(path: str | os.PathLike[str], what: str) -> tuple[int, str]:
    """The descriptor of a pinned object, which the caller owns, and the path it has."""
    place = _place(path)
    try:
        return bpf.obj_get(place), os.fspath(place)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise KernelError(f"no {what} is pinned as {place}", errno=errno.ENOENT) from None
        raise kernel_error(error, f"open {what} {place}") from None


def _place(path: str | os.PathLike[str]) -> Path:
    """The path that `pin` would have made of it, without making any folder."""
    path = Path(path)
    path = path if path.is_absolute() else mounts.BPFFS / path
    return path if os.path.exists(path) else path.with_name(path.name.replace(".", "_"))
