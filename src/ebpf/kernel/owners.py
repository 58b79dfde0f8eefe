"""Who holds a BPF object: the processes with a descriptor of it, and the paths it is pinned at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ebpf.kernel import bpf, mounts
from ebpf.kernel.bpf import Kind


class Owner(NamedTuple):
    """A process that holds an object open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} ({self.pid})"


#: What /proc/PID/fd shows for a descriptor, the object it is, and where its id stands in fdinfo.
_KINDS = {
    "anon_inode:bpf-prog": (Kind.PROGRAM, "prog_id:"),
    "anon_inode:bpf-map": (Kind.MAP, "map_id:"),
    "anon_inode:bpf_link": (Kind.LINK, "link_id:"),
    "anon_inode:bpf-link": (Kind.LINK, "link_id:"),  # opened by id or from a pin
    "anon_inode:btf": (Kind.BTF, "btf_id:"),
}


def find_owners() -> dict[tuple[Kind, int], list[Owner]]:
    """All holders, by kind and id of the object; one pass over /proc.

    Processes that this one may not look into (ptrace access) are left out.
    """
    found: dict[tuple[Kind, int], list[Owner]] = {}
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        with suppress(OSError):  # it ended, or is not for us to see
            for key in set(_held_by(pid)):
                found.setdefault(key, []).append(Owner(pid, _command(pid)))
    return found


def owners_of(kind: Kind, id: int) -> list[Owner]:
    """The processes that hold one object."""
    return find_owners().get((kind, id), [])


def _held_by(pid: int) -> Iterator[tuple[Kind, int]]:
    folder = f"/proc/{pid}/fd/"
    for fd in os.listdir(folder):
        try:
            target = os.readlink(folder + fd)
            if target not in _KINDS:
                continue
            kind, label = _KINDS[target]
            with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                for line in file:
                    if line.startswith(label):
                        yield kind, int(line[len(label) :])
                        break
        except OSError:  # closed meanwhile
            continue


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/comm", errors="replace") as file:
        return file.read().rstrip("\n")


def find_pins() -> dict[tuple[Kind, int], list[str]]:
    """All pins on the BPF file systems that are visible here, by kind and id of the object.

    Needs CAP_BPF; what cannot be opened is left out.
    """
    found: dict[tuple[Kind, int], list[str]] = {}
    for mount in mounts.bpffs_mounts():
        for folder, _, names in os.walk(mount):
            for name in names:
                if "." in name:  # the kernel's own iterators, maps.debug and progs.debug; pins have no dots
                    continue
                path = os.path.join(folder, name)
                with suppress(OSError):
                    found.setdefault(identify(path), []).append(path)
    return found


def identify(path: str | os.PathLike[str]) -> tuple[Kind, int]:
    """What kind of object is pinned at a path, and its id; OSError if it cannot be opened."""
    fd = bpf.obj_get(path)
    try:
        kind, label = _KINDS[os.readlink(f"/proc/self/fd/{fd}")]
        return kind, int(bpf.fd_details(fd)[label.rstrip(":")])
    finally:
        os.close(fd)
