"""Programs, maps and links as the command line names them: by id, name, tag or pinned path."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf, mounts, owners
from ebpf.kernel.bpf import Kind, LinkInfo, MapInfo, ProgramInfo
from ebpf.kernel.fd import FD
from ebpf.uapi import NAME_LENGTH, LinkType, MapType, ProgramType

Info = TypeVar("Info", ProgramInfo, MapInfo, LinkInfo)

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
        raise _explained(error, f"list the {kind.label}s in the kernel") from None


def _explained(error: OSError, what: str) -> Error:
    """The error for what could not be done: "list programs"."""
    if error.errno in (errno.EPERM, errno.EACCES):
        from ebpf.kernel.privileges import SYS_ADMIN, explain

        return explain(what, (SYS_ADMIN,), error.errno)
    return KernelError(f"cannot {what}: {error.strerror}", errno=error.errno or 0)


# --- naming ---------------------------------------------------------------------------------------------


def program_name(info: ProgramInfo) -> str:
    """Its whole name: from BTF where the kernel's own, of 15 bytes, may be cut."""
    if len(info.name) < NAME_LENGTH or not info.btf_id:
        return info.name
    from ebpf.programs.code import full_name

    try:
        with FD(bpf.fd_by_id(Kind.PROGRAM, info.id), f"program {info.id}") as fd:
            return full_name(fd.fileno(), info.name)
    except OSError:  # gone since
        return info.name


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
    with _open(text, Kind.PROGRAM, lambda: _matching_programs(text)) as fd:
        yield fd


@contextmanager
def open_map(text: str) -> Iterator[FD]:
    """The map that `text` names: id, name, or the path of a pin."""
    with _open(text, Kind.MAP, lambda: _matching(text, maps())) as fd:
        yield fd


def _matching_programs(text: str) -> tuple[list[int], list[str]]:
    everything = programs()
    by_tag = [info.id for info in everything if info.tag == text]
    return (by_tag, []) if by_tag else _matching(text, everything)


def _matching(text: str, everything: Sequence[ProgramInfo | MapInfo]) -> tuple[list[int], list[str]]:
    found = [info.id for info in everything if info.name == text or _cut(info.name, text)]
    return found, sorted({info.name for info in everything if info.name})


def _cut(name: str, text: str) -> bool:
    return len(name) == NAME_LENGTH and len(text) > NAME_LENGTH and text.startswith(name)


def _open(text: str, kind: Kind, matching: Callable[[], tuple[list[int], list[str]]]) -> FD:
    if "/" in text:
        return _open_pin(text, kind)
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
        raise _explained(error, f"open {kind.label} {id}") from None


def _open_pin(path: str, kind: Kind) -> FD:
    try:
        fd = FD(bpf.obj_get(path), f"{kind.label} {path}")
    except FileNotFoundError:
        raise KernelError(f"nothing is pinned as {path}", errno=errno.ENOENT) from None
    except OSError as error:
        if (
            error.errno in (errno.EACCES, errno.EPERM)
            and Path(path).exists()
            and mounts.filesystem_of(path) != "bpf"
        ):
            raise Error(f"{path} is not a pinned object: it is not in a BPF file system") from None
        raise _explained(error, f"open {path}") from None
    try:
        actual, _ = owners.identify(path)
        if actual is not kind:
            raise Error(f"{path} is a pinned {actual.label}, not a {kind.label}")
    except BaseException:
        fd.close()
        raise
    return fd
