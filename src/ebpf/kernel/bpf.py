"""bpf(2), one thin function per command.

Descriptors are ints, which the caller owns; `ebpf.kernel.fd.FD` wraps them. Every failure is an OSError with
the kernel's errno, for callers to translate into `ebpf.errors`. Numbers are as in `ebpf.uapi`.
The structures are those of include/uapi/linux/bpf.h; the offsets follow from the layouts.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from ebpf.kernel.attr import Layout, c_string, call, object_name, writable
from ebpf.kernel.bpf_maps import (
    Batch,
    BatchError,
    map_create,
    map_delete,
    map_delete_batch,
    map_freeze,
    map_lookup,
    map_lookup_and_delete,
    map_lookup_batch,
    map_next_key,
    map_update,
    map_update_batch,
)
from ebpf.kernel.info import (
    BTFInfo,
    LinkInfo,
    MapInfo,
    ProgramDump,
    ProgramInfo,
    btf_data,
    btf_info,
    fd_details,
    link_info,
    map_info,
    program_dump,
    program_info,
)
from ebpf.kernel.system import Buffer, address_of
from ebpf.uapi import Command

__all__ = [
    "BTFInfo",
    "Batch",
    "BatchError",
    "Kind",
    "LinkInfo",
    "MapInfo",
    "ProgramDump",
    "ProgramInfo",
    "TestRun",
    "btf_data",
    "btf_info",
    "btf_load",
    "enable_stats",
    "fd_by_id",
    "fd_details",
    "ids",
    "iter_create",
    "link_create",
    "link_detach",
    "link_info",
    "link_update",
    "map_create",
    "map_delete",
    "map_delete_batch",
    "map_freeze",
    "map_info",
    "map_lookup",
    "map_lookup_and_delete",
    "map_lookup_batch",
    "map_next_key",
    "map_update",
    "map_update_batch",
    "next_id",
    "obj_get",
    "obj_pin",
    "prog_attach",
    "prog_bind_map",
    "prog_detach",
    "prog_load",
    "prog_query",
    "prog_stream_read",
    "prog_test_run",
    "program_dump",
    "program_info",
    "raw_tracepoint_open",
]

# --- programs -------------------------------------------------------------------------------------------

# attach_prog_fd is a union with attach_btf_obj_fd.
_PROG_LOAD = Layout(
    "prog_type:I insn_cnt:I insns:Q license:Q log_level:I log_size:I log_buf:Q kern_version:I prog_flags:I"
    " prog_name:16s prog_ifindex:I expected_attach_type:I prog_btf_fd:I func_info_rec_size:I func_info:Q"
    " func_info_cnt:I line_info_rec_size:I line_info:Q line_info_cnt:I attach_btf_id:I attach_prog_fd:I"
    " core_relo_cnt:I fd_array:Q core_relos:Q core_relo_rec_size:I log_true_size:I prog_token_fd:i"
    " fd_array_cnt:I"
)
FUNC_INFO_SIZE = 8  # struct bpf_func_info: insn_off, type_id
LINE_INFO_SIZE = 16  # struct bpf_line_info: insn_off, file_name_off, line_off, line_col


def prog_load(
    type: int,
    instructions: Buffer,
    license: str,
    *,
    name: str = "",
    attach_type: int = 0,
    flags: int = 0,
    kernel_version: int = 0,
    ifindex: int = 0,
    btf_fd: int = 0,
    func_info: Buffer = b"",
    line_info: Buffer = b"",
    attach_btf_id: int = 0,
    attach_prog_fd: int = 0,
    attach_btf_obj_fd: int = 0,
    fd_array: Sequence[int] = (),
    log_level: int = 0,
    log: bytearray | None = None,
) -> int:
    """BPF_PROG_LOAD; gives a descriptor. `name` is cut to 15 bytes.

    The verifier's log is written to `log`, NUL-terminated, if `log_level` is not 0. If it is too small, the
    kernel fails with ENOSPC, whatever the verdict; `log` then holds the end (from 6.4 on) or the start.
    """
    code, license_text = writable(instructions), c_string(license)
    functions, lines = writable(func_info), writable(line_info)
    descriptors = bytearray(struct.pack(f"={len(fd_array)}i", *fd_array)) or None
    attr = _PROG_LOAD.pack(
        prog_type=type,
        insn_cnt=len(instructions) // 8,
        insns=address_of(code),
        license=address_of(license_text),
        log_level=log_level,
        log_size=len(log) if log else 0,
        log_buf=address_of(log) if log else 0,
        kern_version=kernel_version,
        prog_flags=flags,
        prog_name=object_name(name),
        prog_ifindex=ifindex,
        expected_attach_type=attach_type,
        prog_btf_fd=btf_fd,
        func_info_rec_size=FUNC_INFO_SIZE if func_info else 0,
        func_info=address_of(functions) if func_info else 0,
        func_info_cnt=len(func_info) // FUNC_INFO_SIZE,
        line_info_rec_size=LINE_INFO_SIZE if line_info else 0,
        line_info=address_of(lines) if line_info else 0,
        line_info_cnt=len(line_info) // LINE_INFO_SIZE,
        attach_btf_id=attach_btf_id,
        attach_prog_fd=attach_prog_fd or attach_btf_obj_fd,
        fd_array=address_of(descriptors) if descriptors else 0,
    )
    return call(Command.PROG_LOAD, attr)


class TestRun(NamedTuple):
    """What BPF_PROG_TEST_RUN gave."""

    retval: int
    duration: int  #: nanoseconds per repetition, averaged by the kernel
    data: bytes | None  #: the packet afterwards; None if no room was asked for
    ctx: bytes | None  #: the context afterwards; None if no room was asked for


_TEST_RUN = Layout(
    "prog_fd:I retval:I data_size_in:I data_size_out:I data_in:Q data_out:Q repeat:I duration:I"
    " ctx_size_in:I ctx_size_out:I ctx_in:Q ctx_out:Q flags:I cpu:I batch_size:I"
)


def prog_test_run(
    fd: int,
    data: Buffer | None,
    *,
    data_size_out: int = 0,
    ctx: Buffer | None = None,
    ctx_size_out: int = 0,
    repeat: int = 1,
    flags: int = 0,
    cpu: int = 0,
    batch_size: int = 0,
) -> TestRun:
    """BPF_PROG_TEST_RUN (4.12; contexts 4.18 to 5.2 by type).

    Sizes in bytes; ENOSPC if an output does not fit. EINTR means that a signal arrived between repetitions:
    it is not run again by itself, because the program may have changed its maps already.
    """
    data_in = writable(data) if data is not None else None
    ctx_in = writable(ctx) if ctx is not None else None
    data_out = bytearray(data_size_out) or None
    ctx_out = bytearray(ctx_size_out) or None
    attr = _TEST_RUN.pack(
        prog_fd=fd,
        data_size_in=len(data) if data is not None else 0,
        data_size_out=data_size_out,
        data_in=address_of(data_in) if data_in else 0,
        data_out=address_of(data_out) if data_out else 0,
        repeat=repeat,
        ctx_size_in=len(ctx) if ctx is not None else 0,
        ctx_size_out=ctx_size_out,
        ctx_in=address_of(ctx_in) if ctx_in else 0,
        ctx_out=address_of(ctx_out) if ctx_out else 0,
        flags=flags,
        cpu=cpu,
        batch_size=batch_size,
    )
    call(Command.PROG_TEST_RUN, attr)
    return TestRun(
        retval=_TEST_RUN.integer(attr, "retval"),
        duration=_TEST_RUN.integer(attr, "duration"),
        data=bytes(data_out[: _TEST_RUN.integer(attr, "data_size_out")]) if data_out else None,
        ctx=bytes(ctx_out[: _TEST_RUN.integer(attr, "ctx_size_out")]) if ctx_out else None,
    )


_PROG_BIND_MAP = Layout("prog_fd:I map_fd:I flags:I")


def prog_bind_map(prog_fd: int, map_fd: int) -> None:
    """Let the program hold a map that its code does not mention (5.10)."""
    call(Command.PROG_BIND_MAP, _PROG_BIND_MAP.pack(prog_fd=prog_fd, map_fd=map_fd))


_STREAM_READ = Layout("stream_buf:Q stream_buf_len:I stream_id:I prog_fd:I")


def prog_stream_read(fd: int, stream: int, size: int) -> bytes:
    """Up to `size` bytes of the program's output stream 1 (stdout) or 2 (stderr), or b"" (6.17)."""
    buffer = bytearray(max(size, 1))
    attr = _STREAM_READ.pack(stream_buf=address_of(buffer), stream_buf_len=size, stream_id=stream, prog_fd=fd)
    return bytes(buffer[: call(Command.PROG_STREAM_READ_BY_FD, attr)])


# --- BTF ------------------------------------------------------------------------------------------------

_BTF_LOAD = Layout("btf:Q btf_log_buf:Q btf_size:I btf_log_size:I btf_log_level:I btf_log_true_size:I")


def btf_load(data: Buffer, *, log_level: int = 0, log: bytearray | None = None) -> int:
    """BPF_BTF_LOAD (4.18); gives a descriptor."""
    held = writable(data)
    attr = _BTF_LOAD.pack(
        btf=address_of(held),
        btf_log_buf=address_of(log) if log else 0,
        btf_size=len(data),
        btf_log_size=len(log) if log else 0,
        btf_log_level=log_level,
    )
    return call(Command.BTF_LOAD, attr)


# --- attachments ----------------------------------------------------------------------------------------

# What follows at offset 16 is a union by attach type: target_btf_id, iter_info, perf_event, kprobe_multi, …
_LINK_CREATE = struct.Struct("=IIII")
_TARGET_BTF_ID = struct.Struct("=I")


def link_create(
    prog_fd: int,
    target: int,
    attach_type: int,
    *,
    flags: int = 0,
    target_btf_id: int = 0,
    extra: Buffer = b"",
) -> int:
    """BPF_LINK_CREATE (5.7; XDP 5.9); gives a descriptor. `target` is a descriptor or an interface index.

    `extra` is the union at the end of link_create, packed; it excludes `target_btf_id`. What it points to
    (`system.address_of`), the caller keeps alive.
    """
    tail = extra or _TARGET_BTF_ID.pack(target_btf_id)
    attr = bytearray(_LINK_CREATE.pack(prog_fd, target, attach_type, flags) + bytes(tail))
    return call(Command.LINK_CREATE, attr + bytes(-len(attr) % 8))


_LINK_UPDATE = Layout("link_fd:I new_prog_fd:I flags:I old_prog_fd:I")
_REPLACE = 1 << 2  # BPF_F_REPLACE


def link_update(link_fd: int, prog_fd: int, *, old_prog_fd: int | None = None) -> None:
    """Put another program behind a link, atomically (5.7); EPERM if `old_prog_fd` is given and not there."""
    attr = _LINK_UPDATE.pack(
        link_fd=link_fd,
        new_prog_fd=prog_fd,
        flags=0 if old_prog_fd is None else _REPLACE,
        old_prog_fd=old_prog_fd or 0,
    )
    call(Command.LINK_UPDATE, attr)


_LINK_DETACH = Layout("link_fd:I")


def link_detach(fd: int) -> None:
    """Take the program off, whoever else holds the link (5.9); the link stays, defunct."""
    call(Command.LINK_DETACH, _LINK_DETACH.pack(link_fd=fd))


# target_fd is a union with target_ifindex.
_PROG_ATTACH = Layout(
    "target_fd:I attach_bpf_fd:I attach_type:I attach_flags:I replace_bpf_fd:I relative_fd:I"
    " expected_revision:Q"
)


def prog_attach(prog_fd: int, target: int, attach_type: int, *, flags: int = 0, replace_fd: int = 0) -> None:
    """BPF_PROG_ATTACH (4.10): attach to a cgroup, sockmap, network namespace or (tcx, 6.6) interface."""
    attr = _PROG_ATTACH.pack(
        target_fd=target,
        attach_bpf_fd=prog_fd,
        attach_type=attach_type,
        attach_flags=flags,
        replace_bpf_fd=replace_fd,
    )
    call(Command.PROG_ATTACH, attr)


def prog_detach(prog_fd: int, target: int, attach_type: int, *, flags: int = 0) -> None:
    """BPF_PROG_DETACH; `prog_fd` 0 where the target holds one program only."""
    attr = _PROG_ATTACH.pack(
        target_fd=target, attach_bpf_fd=prog_fd, attach_type=attach_type, attach_flags=flags
    )
    call(Command.PROG_DETACH, attr)


# target_fd is a union with target_ifindex.
_PROG_QUERY = Layout(
    "target_fd:I attach_type:I query_flags:I attach_flags:I prog_ids:Q prog_cnt:I prog_attach_flags:Q"
    " link_ids:Q link_attach_flags:Q revision:Q"
)


def prog_query(target: int, attach_type: int, *, flags: int = 0) -> tuple[int, ...]:
    """The ids of the programs attached to a target (4.15), as they run. flags=1: the effective ones."""
    room = 64
    while True:
        found = bytearray(4 * room)
        attr = _PROG_QUERY.pack(
            target_fd=target,
            attach_type=attach_type,
            query_flags=flags,
            prog_ids=address_of(found),
            prog_cnt=room,
        )
        try:
            call(Command.PROG_QUERY, attr)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        count = _PROG_QUERY.integer(attr, "prog_cnt")
        if count <= room:
            return struct.unpack_from(f"={count}I", found)
        room = count


_RAW_TRACEPOINT = Layout("name:Q prog_fd:I cookie:Q")


def raw_tracepoint_open(name: str | None, prog_fd: int, *, cookie: int = 0) -> int:
    """BPF_RAW_TRACEPOINT_OPEN (4.17); gives a descriptor that is a link. No name for fentry, LSM, …"""
    text = c_string(name) if name is not None else None
    attr = _RAW_TRACEPOINT.pack(name=address_of(text) if text else 0, prog_fd=prog_fd, cookie=cookie)
    return call(Command.RAW_TRACEPOINT_OPEN, attr)


_ITER_CREATE = Layout("link_fd:I flags:I")


def iter_create(link_fd: int) -> int:
    """A descriptor to read one run of an iterator from (5.8)."""
    return call(Command.ITER_CREATE, _ITER_CREATE.pack(link_fd=link_fd))


_ENABLE_STATS = Layout("type:I")


def enable_stats() -> int:
    """Have the kernel count runs and run time of all programs while the descriptor is open (5.8)."""
    return call(Command.ENABLE_STATS, _ENABLE_STATS.pack(type=0))  # BPF_STATS_RUN_TIME


# --- pins and ids ---------------------------------------------------------------------------------------

_OBJ = Layout("pathname:Q bpf_fd:I file_flags:I path_fd:i")


def obj_pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Pin an object under a path in a bpffs; EEXIST if it is taken, EPERM outside a bpffs."""
    text = c_string(os.fspath(path))
    call(Command.OBJ_PIN, _OBJ.pack(pathname=address_of(text), bpf_fd=fd))


def obj_get(path: str | os.PathLike[str], *, flags: int = 0) -> int:
    """Open a pinned object; gives a descriptor. `flags` may be MapFlags.RDONLY or WRONLY, for a map."""
    text = c_string(os.fspath(path))
    return call(Command.OBJ_GET, _OBJ.pack(pathname=address_of(text), file_flags=flags))


class Kind(Enum):
    """The kinds of object that have ids: the commands that list and open them."""

    PROGRAM = (Command.PROG_GET_NEXT_ID, Command.PROG_GET_FD_BY_ID)
    MAP = (Command.MAP_GET_NEXT_ID, Command.MAP_GET_FD_BY_ID)
    LINK = (Command.LINK_GET_NEXT_ID, Command.LINK_GET_FD_BY_ID)
    BTF = (Command.BTF_GET_NEXT_ID, Command.BTF_GET_FD_BY_ID)

    @property
    def label(self) -> str:
        """The name in messages: "program", "map", "link", "BTF"."""
        return "BTF" if self is Kind.BTF else self.name.lower()


# start_id is a union with prog_id, map_id, btf_id and link_id.
_ID = Layout("start_id:I next_id:I open_flags:I")


def next_id(kind: Kind, id: int) -> int | None:
    """The lowest id above `id`; None after the last. EPERM without CAP_SYS_ADMIN."""
    attr = _ID.pack(start_id=id)
    try:
        call(kind.value[0], attr)
    except FileNotFoundError:
        return None
    return _ID.integer(attr, "next_id")


def ids(kind: Kind) -> Iterator[int]:
    """All ids of that kind, rising. An object may be gone by the time its id is used: expect ENOENT."""
    id = next_id(kind, 0)
    while id is not None:
        yield id
        id = next_id(kind, id)


def fd_by_id(kind: Kind, id: int, *, flags: int = 0) -> int:
    """Open an object by its id; ENOENT if it is gone. `flags` may be MapFlags.RDONLY or WRONLY, for a map."""
    return call(kind.value[1], _ID.pack(start_id=id, open_flags=flags))
