"""Programs, maps and links as the command line names them: by id, name, tag or pinned path."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, TypeVar

from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf
from ebpf.kernel.bpf import Kind, LinkInfo, MapInfo, ProgramInfo
from ebpf.kernel.fd import FD
from ebpf.uapi import NAME_LENGTH, LinkType, MapType, ProgramType

Info = TypeVar("Info", ProgramInfo, MapInfo, LinkInfo)

#: What /proc/PID/fd calls the descriptors of each kind, and the field of fdinfo that holds the id.
_DESCRIPTORS = {
    "anon_inode:bpf-prog": (Kind.PROGRAM, "prog_id"),
    "anon_inode:bpf-map": (Kind.MAP, "map_id"),
    "anon_inode:bpf_link": (Kind.LINK, "link_id"),
}


class Place(NamedTuple):
    """One object in the kernel."""

    kind: Kind
    id: int


class Process(NamedTuple):
    """A process that has an object open."""

    pid: int
    task: str

    def __str__(self) -> str:
        return f"{self.task}[{self.pid}]"


# --- listing --------------------------------------------------------------------------------------------


def programs() -> list[ProgramInfo]:
    """All programs in the kernel."""
    return list(_infos(Kind.PROGRAM, bpf.program_info))


def maps() -> list[MapInfo]:
    """All maps in the kernel."""
    return list(_infos(Kind.MAP, bpf.map_info))


def links() -> list[LinkInfo]:
    """All links in the kernel (5.8)."""
    return list(_infos(Kind.LINK, bpf.link_info))


def _infos(kind: Kind, info: Callable[[int], Info]) -> Iterator[Info]:
    try:
        for id in bpf.ids(kind):
            try:
                fd = bpf.fd_by_id(kind, id)
            except FileNotFoundError:  # gone since
                continue
            try:
                yield info(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise _explained(error, f"cannot list the {kind.label}s in the kernel") from None


def _explained(error: OSError, what: str) -> Error:
    if error.errno in (errno.EPERM, errno.EACCES):
        from ebpf.kernel.privileges import explain

        return explain(what, error.errno)
    return KernelError(f"{what}: {error.strerror}", errno=error.errno or 0)


# --- naming ---------------------------------------------------------------------------------------------


def program_name(info: ProgramInfo) -> str:
    """Its whole name: from BTF where the kernel's own, of 15 bytes, may be cut."""
    if len(info.name) < NAME_LENGTH or not info.btf_id:
        return info.name
    from ebpf.btf.btf import BTF

    try:
        with FD(bpf.fd_by_id(Kind.PROGRAM, info.id), f"program {info.id}") as fd:
            functions = bpf.program_dump(fd.fileno()).function_info
        with FD(bpf.fd_by_id(Kind.BTF, info.btf_id), f"BTF {info.btf_id}") as fd:
            btf = BTF.from_bytes(bpf.btf_data(fd.fileno()))
    except OSError:
        return info.name
    name = btf.type(functions[0][1]).name if functions else ""
    return name if name.startswith(info.name) else info.name


def type_label(enum: type[IntEnum], number: int | None) -> str:
    """ "xdp", "percpu_hash"; "type 99" for what this version does not know."""
    if number is None:
        return ""
    try:
        return str(enum(number))
    except ValueError:
        return f"type {number}"


def program_type(info: ProgramInfo) -> str:
    """The program's type, as a word."""
    return type_label(ProgramType, info.type)


def map_type(info: MapInfo) -> str:
    """The map's type, as a word."""
    return type_label(MapType, info.type)


def link_type(info: LinkInfo) -> str:
    """The link's type, as a word."""
    return type_label(LinkType, info.type)


# --- finding --------------------------------------------------------------------------------------------


@contextmanager
def open_program(text: str) -> Iterator[FD]:
    """The program that `text` names: id, name, tag (16 hex digits), or the path of a pin."""
    with _open(text, Kind.PROGRAM, bpf.program_info, lambda: _matching_programs(text)) as fd:
        yield fd


@contextmanager
def open_map(text: str) -> Iterator[FD]:
    """The map that `text` names: id, name, or the path of a pin."""
    with _open(text, Kind.MAP, bpf.map_info, lambda: _matching(text, maps())) as fd:
        yield fd


def _matching_programs(text: str) -> tuple[list[int], list[str]]:
    everything = programs()
    by_tag = [info.id for info in everything if info.tag == text]
    return (by_tag, []) if by_tag else _matching(text, everything)


def _matching(text: str, everything: Iterable[ProgramInfo] | Iterable[MapInfo]) -> tuple[list[int], list[str]]:
    everything = list(everything)
    found = [info.id for info in everything if info.name == text or _cut(info.name, text)]
    return found, sorted({info.name for info in everything if info.name})


def _cut(name: str, text: str) -> bool:
    return len(name) == NAME_LENGTH and len(text) > NAME_LENGTH and text.startswith(name)


def _open(
    text: str,
    kind: Kind,
    info: Callable[[int], object],
    matching: Callable[[], tuple[list[int], list[str]]],
) -> FD:
    if "/" in text:
        return _open_pin(text, kind, info)
    if text.isdecimal():
        return _open_id(kind, int(text))
    found, names = matching()
    if not found:
        from difflib import get_close_matches

        close = get_close_matches(text, names, n=1)
        raise Error(
            f"no {kind.label} in the kernel is named {text!r}",
            hint=f"did you mean {close[0]!r}?" if close else f"see: ebpf {_COMMANDS[kind]} list",
        )
    if len(found) > 1:
        raise Error(
            f"{len(found)} {kind.label}s in the kernel are named {text!r}",
            hint=f"say which one by its id: {', '.join(map(str, found))}",
        )
    return _open_id(kind, found[0])


_COMMANDS = {Kind.PROGRAM: "prog", Kind.MAP: "map", Kind.LINK: "link"}


def _open_id(kind: Kind, id: int) -> FD:
    try:
        return FD(bpf.fd_by_id(kind, id), f"{kind.label} {id}")
    except FileNotFoundError:
        raise KernelError(
            f"no {kind.label} has the id {id}", errno=errno.ENOENT, hint=f"see: ebpf {_COMMANDS[kind]} list"
        ) from None
    except OSError as error:
        raise _explained(error, f"cannot open {kind.label} {id}") from None


def _open_pin(path: str, kind: Kind, info: Callable[[int], object]) -> FD:
    try:
        fd = FD(bpf.obj_get(path), f"{kind.label} {path}")
    except FileNotFoundError:
        raise KernelError(f"nothing is pinned as {path}", errno=errno.ENOENT) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) and Path(path).exists() and not _in_bpffs(path):
            raise Error(f"{path} is not a pinned object: it is not in a BPF file system") from None
        raise _explained(error, f"cannot open {path}") from None
    try:
        actual = kind_of(fd.fileno())
        if actual is not kind:
            raise Error(f"{path} is a pinned {actual.label if actual else 'object'}, not a {kind.label}")
        info(fd.fileno())
    except BaseException:
        fd.close()
        raise
    return fd


def _in_bpffs(path: str) -> bool:
    from ebpf.maps.pin import in_bpffs

    return in_bpffs(path)


def kind_of(fd: int) -> Kind | None:
    """What kind of object a descriptor is of."""
    entry = _DESCRIPTORS.get(os.readlink(f"/proc/self/fd/{fd}"))
    return entry[0] if entry else None


# --- who holds it ---------------------------------------------------------------------------------------


def pins() -> dict[Place, list[str]]:
    """The paths under which objects are pinned, in every BPF file system that is mounted here."""
    found: dict[Place, list[str]] = {}
    readers = {Kind.PROGRAM: bpf.program_info, Kind.MAP: bpf.map_info, Kind.LINK: bpf.link_info}
    for path in _pinned_paths():
        try:
            fd = bpf.obj_get(path)
        except OSError:  # gone since, or not ours to open
            continue
        try:
            kind = kind_of(fd)
            if kind in readers:
                found.setdefault(Place(kind, readers[kind](fd).id), []).append(path)
        finally:
            os.close(fd)
    return found


def _pinned_paths() -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for mount in bpffs_mounts():
        for folder, _, names in os.walk(mount):
            for name in names:
                path = f"{folder}/{name}"
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                # The same file system may be mounted more than once. The kernel's own iterators
                # (maps.debug, progs.debug) are the only names with a dot.
                if "." not in name and (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield path


def bpffs_mounts() -> list[str]:
    """Where BPF file systems are mounted."""
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split()
        if fields[2] == "bpf":
            found.append(fields[1].replace("\\040", " "))
    return found


def holders(kinds: Iterable[Kind]) -> dict[Place, list[Process]]:
    """The processes that have objects of these kinds open; of other users' processes only with privilege."""
    wanted = set(kinds)
    found: dict[Place, list[Process]] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                entry = _DESCRIPTORS.get(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
                if entry is None or entry[0] not in wanted:
                    continue
                id = _fdinfo_id(f"/proc/{pid}/fdinfo/{descriptor}", entry[1])
                process = Process(int(pid), Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:  # the process or the descriptor is gone
                continue
            if id is not None and process.pid != os.getpid():
                there = found.setdefault(Place(entry[0], id), [])
                if process not in there:
                    there.append(process)
    return found


def _fdinfo_id(path: str, field: str) -> int | None:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value)
    return None
