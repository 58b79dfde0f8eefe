"""The file systems that BPF needs: bpffs for pins, tracefs for tracepoints and the trace."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from ebpf.errors import Error, KernelError, UnsupportedError
from ebpf.kernel import system

BPFFS = Path("/sys/fs/bpf")
TRACEFS = Path("/sys/kernel/tracing")
_MNT_DETACH = 2
_MODE = "mode=0700"  # as systemd and bpftool mount it: pins are root's
_MOUNT_HINT = "pin below /sys/fs/bpf, or mount one: mount -t bpf bpf DIRECTORY"


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    device: int  #: st_dev of what is on it
    root: str  #: what of the file system is mounted: "/" for all of it
    path: Path
    filesystem: str
    read_only: bool


def read_mounts() -> list[Mount]:
    """The mounts that this thread sees, in the order they were made."""
    try:
        text = Path("/proc/thread-self/mountinfo").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return []
    return parse_mounts(text)


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of a mountinfo file (proc_pid_mountinfo(5))."""
    found = []
    for line in text.splitlines():
        # id parent major:minor root mount-point options [optional fields] - type source super-options
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        major, minor = fields[2].split(":")
        options = fields[5].split(",") + tail[2].split(",")
        found.append(
            Mount(
                os.makedev(int(major), int(minor)),
                _unescape(fields[3]),
                Path(_unescape(fields[4])),
                tail[0],
                "ro" in options,
            )
        )
    return found


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash come as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def filesystem_of(path: str | os.PathLike[str]) -> str:
    """The type of the file system that a path is on, such as "bpf"; "" if that cannot be told."""
    device = os.stat(path).st_dev
    return next((mount.filesystem for mount in read_mounts() if mount.device == device), "")


# --- bpffs ----------------------------------------------------------------------------------------------


def bpffs_mounts() -> list[Path]:
    """Where a bpffs is mounted and visible, each file system once, in the order they were mounted."""
    found: dict[int, Path] = {}
    for mount in read_mounts():
        if mount.filesystem == "bpf" and mount.device not in found:
            try:
                visible = os.stat(mount.path).st_dev == mount.device  # not hidden below another mount
            except OSError:
                continue
            if visible:
                found[mount.device] = mount.path
    return list(found.values())


def bpffs() -> Path:
    """/sys/fs/bpf as a bpffs: mounted, and logged as a warning, if nothing is there yet.

    Raises KernelError if it cannot be mounted, and Error in a mount namespace of this process's own, where
    pins would vanish with it.
    """
    if not BPFFS.is_dir():
        raise UnsupportedError(
            f"{BPFFS} does not exist: the kernel has no BPF, or /sys is not mounted", errno=errno.ENOENT
        )
    if filesystem_of(BPFFS) == "bpf":
        return BPFFS
    if _has_own_mounts():
        raise Error(
            f"{BPFFS} is not mounted here, and what is pinned in a mount namespace of its own goes with it",
            hint="`ip netns exec` makes one; `nsenter --net=/run/netns/NAME` enters the network alone",
        )
    mount_bpffs(BPFFS)
    import logging

    logging.getLogger("ebpf").warning("mounted a bpffs at %s, where there was none", BPFFS)
    return BPFFS


def mount_bpffs(path: str | os.PathLike[str]) -> None:
    """Mount a bpffs on an empty directory, which is made if need be. Never over what somebody keeps there."""
    path = Path(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise Error(f"{path} is not empty: a BPF file system mounted there would hide what is in it")
    try:
        system.current().mount("bpf", str(path), "bpf", 0, _MODE)
    except OSError as error:
        raise _mount_failure("BPF file system", path, error) from None


def unmount(path: str | os.PathLike[str]) -> None:
    """Take away what is mounted on a directory; one that is no mount, or is gone, is no error."""
    try:
        system.current().umount(os.fspath(path), _MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def pin_path(path: str | os.PathLike[str]) -> Path:
    """Where to pin what shall be pinned at `path`: below a bpffs, its folder made, "." turned into "_".

    A relative path is below `bpffs()`. bpffs refuses names with a dot; libbpf replaces them in the same way.
    Error if the path is not on a bpffs.
    """
    path = Path(path)
    path = path if path.is_absolute() else bpffs() / path
    if ".." in path.parts:
        raise Error(f"{path} cannot name a pin: it contains '..'")
    if path.is_relative_to(BPFFS):
        bpffs()
    existing = path.parent
    while not _exists(existing):
        existing = existing.parent
    if filesystem_of(existing) != "bpf":
        raise Error(f"{path} is not on a BPF file system, so nothing can be pinned there", hint=_MOUNT_HINT)
    inside = [part.replace(".", "_") for part in path.relative_to(existing).parts]
    clean = existing.joinpath(*inside)
    clean.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return clean


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return False  # bpffs's answer to a name with a dot


def _has_own_mounts() -> bool:
    """Whether this process has a mount namespace other than the system's, as far as that can be told."""
    for system_pid in (
        1,
        2,
    ):  # the first process; the second, a kernel thread, where the first is out of reach
        try:
            theirs = os.readlink(f"/proc/{system_pid}/ns/mnt")
        except OSError:
            continue
        return os.readlink("/proc/thread-self/ns/mnt") != theirs
    return False


# --- tracefs --------------------------------------------------------------------------------------------


def tracefs() -> Path:
    """Where tracefs is; mounted at /sys/kernel/tracing if it is not mounted. KernelError if that fails."""
    mounts = [mount for mount in read_mounts() if mount.filesystem == "tracefs"]
    for mount in sorted(mounts, key=lambda one: (one.read_only, one.path != TRACEFS)):
        if (mount.path / "trace").exists():
            return mount.path
    if not TRACEFS.is_dir():
        raise UnsupportedError(
            f"{TRACEFS} does not exist: the kernel was built without tracing, or /sys is not mounted",
            errno=errno.ENOENT,
        )
    try:
        system.current().mount("tracefs", str(TRACEFS), "tracefs")
    except OSError as error:
        raise _mount_failure("tracefs", TRACEFS, error) from None
    return TRACEFS


def _mount_failure(what: str, path: Path, error: OSError) -> KernelError:
    if error.errno in (errno.EPERM, errno.EACCES):
        from ebpf.kernel.privileges import SYS_ADMIN, explain

        return explain(f"mount a {what} on {path}", (SYS_ADMIN,), error.errno)
    return KernelError(f"cannot mount a {what} on {path}: {error.strerror}", errno=error.errno or 0)
