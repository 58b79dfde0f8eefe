"""Network namespaces: make, enter and find them.

Entering moves the calling thread alone, and nothing but its network: the mounts stay, so that a bpffs remains
visible, which `ip netns exec` hides by mounting /sys anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from ebpf.errors import Error
from ebpf.kernel import system
from ebpf.kernel.mounts import read_mounts

#: Where `ip netns` keeps the names.
FOLDER = Path("/run/netns")
_OWN = "/proc/thread-self/ns/net"

_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace and a path that opens it."""

    device: int
    inode: int
    path: str
    name: str  #: its name under /run/netns; "" for one without
    pid: int  #: the lowest process id in it; 0 if none was seen
    command: str  #: the command of that process
    is_current: bool  #: whether the calling thread was in it

    @property
    def label(self) -> str:
        """How to call it: its name, else one of its processes, else the path it is mounted on."""
        if self.name:
            return self.name
        return f"pid {self.pid} ({self.command})" if self.pid else self.path


#: A name under /run/netns, a path, an open descriptor, or one of `find()`.
NamespaceRef = str | os.PathLike[str] | int | Namespace


def create(name: str) -> None:
    """Make a namespace with a name, as `ip netns add` does; FileExistsError if the name is taken."""
    import threading

    path = _named(name)
    _prepare_folder()
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    failures: list[BaseException] = []

    def make() -> None:
        try:
            kernel = system.current()
            kernel.unshare(system.CLONE_NEWNET)
            kernel.mount(_OWN, str(path), "none", _MS_BIND)
        except BaseException as error:
            failures.append(error)

    # The namespace is born in a thread that then ends, so that no other thread ever leaves its own.
    thread = threading.Thread(target=make, name="ebpf-netns")
    thread.start()
    thread.join()
    if failures:
        path.unlink()
        raise failures[0]


def delete(name: str) -> None:
    """Remove a name; the namespace itself goes with its last process, socket or descriptor."""
    path = _named(name)
    try:
        system.current().umount(str(path), _MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a leftover file that nothing is mounted on
            raise
    path.unlink()


def exists(name: str) -> bool:
    """Whether there is a namespace with that name."""
    return _named(name).exists()


@contextmanager
def opened(namespace: NamespaceRef) -> Iterator[int]:
    """A descriptor of a namespace, for the length of a block; `Error` if there is no such name."""
    if isinstance(namespace, int):
        yield namespace
        return
    fd = _open(namespace)
    try:
        yield fd
    finally:
        os.close(fd)


def open_current() -> int:
    """A descriptor of the calling thread's own namespace, which the caller closes."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def entered(namespace: NamespaceRef | None) -> Iterator[None]:
    """Run a block with the calling thread in a namespace; None leaves it where it is.

    Other threads stay where they are, so do not await in the block; threads and processes that are started in
    the block start in the namespace. Needs CAP_SYS_ADMIN.
    """
    if namespace is None:
        yield
        return
    own = open_current()
    try:
        with opened(namespace) as fd:
            system.current().setns(fd, system.CLONE_NEWNET)
        try:
            yield
        finally:
            system.current().setns(own, system.CLONE_NEWNET)
    finally:
        os.close(own)


def run_in(namespace: NamespaceRef | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a namespace."""
    with entered(namespace):
        return function(*args, **kwargs)


def find() -> list[Namespace]:
    """The network namespaces that can be reached, the current one first, then those with names.

    Those are: names under /run/netns, other mounts of namespaces, and the namespaces of processes. One that
    is held only by a descriptor, a socket or a thread that left its process's namespace is not found.
    Processes that this one may not look into (ptrace access) are left out.
    """
    found: dict[tuple[int, int], Namespace] = {}
    current = _identity(_OWN)

    def add(path: str, *, name: str = "", pid: int = 0) -> None:
        with suppress(OSError):  # gone by now, or not for us to see
            key = _identity(path)
            known = found.get(key)
            if known is None:
                command = _command(pid) if pid else ""
                found[key] = Namespace(*key, path, name, pid, command, key == current)
            elif pid and not known.pid:
                found[key] = Namespace(*key, known.path, known.name, pid, _command(pid), known.is_current)

    for path in sorted(FOLDER.iterdir()) if FOLDER.is_dir() else ():
        # A leftover file that nothing is mounted on is on the file system of the folder.
        with suppress(OSError):
            if path.stat().st_dev == current[0]:
                add(str(path), name=path.name)
    for mount in read_mounts():
        if mount.filesystem == "nsfs" and mount.root.startswith("net:"):
            add(str(mount.path))
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        add(f"/proc/{pid}/ns/net", pid=pid)
    return sorted(found.values(), key=lambda one: (not one.is_current, not one.name, one.name, one.pid))


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")


def _named(name: str) -> Path:
    if not name or "/" in name or name in (".", ".."):
        raise Error(f"{name!r} cannot name a network namespace")
    return FOLDER / name


def _open(namespace: str | os.PathLike[str] | Namespace) -> int:
    if isinstance(namespace, Namespace):
        path: str | Path = namespace.path
    elif isinstance(namespace, str) and "/" not in namespace:
        path = _named(namespace)
    else:
        path = os.fspath(namespace)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        known = sorted(entry.name for entry in FOLDER.iterdir()) if FOLDER.is_dir() else []
        raise Error(
            f"there is no network namespace {os.fspath(path)}",
            hint=f"there is: {', '.join(known)}" if known else "`ip netns add NAME` makes one",
        ) from None
    if isinstance(namespace, Namespace) and (os.fstat(fd).st_ino != namespace.inode):
        os.close(fd)
        raise Error(f"network namespace {namespace.label} is gone")
    return fd


def _prepare_folder() -> None:
    """/run/netns as a shared mount, so that names reach other mount namespaces, as `ip netns` has it."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    kernel = system.current()
    try:
        kernel.mount("", str(FOLDER), "none", _MS_SHARED | _MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: it is no mount yet
            raise
        kernel.mount(str(FOLDER), str(FOLDER), "none", _MS_BIND | _MS_REC)
        kernel.mount("", str(FOLDER), "none", _MS_SHARED | _MS_REC)
