"""What the running kernel can do, found by trying; each answer is kept for the life of the process.

An answer is None where it cannot be known, which mostly means that this process lacks the privilege to try.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from pathlib import Path

from ebpf.kernel import bpf
from ebpf.kernel.memlock import kernel_version
from ebpf.uapi import AttachType, MapType, ProgramType

__all__ = [
    "has_batch_operations",
    "has_btf",
    "has_map_type",
    "has_program_names",
    "has_program_type",
    "has_xdp_links",
    "isa_version",
    "kernel_version",
    "online_cpus",
    "parse_cpu_ranges",
    "possible_cpus",
]

# Instructions, RFC 9669: opcode, registers (src << 4 | dst), offset, immediate.
_INSTRUCTION = struct.Struct("=BBhi")
_MOV_R0_0 = _INSTRUCTION.pack(0xB7, 0, 0, 0)
_EXIT = _INSTRUCTION.pack(0x95, 0, 0, 0)

#: Something that only this version of the instruction set has, the newest first.
_ISA_PROBES = (
    (4, _INSTRUCTION.pack(0x06, 0, 0, 0)),  # gotol +0: a jump with a 32-bit offset (6.6)
    (3, _INSTRUCTION.pack(0x16, 0, 0, 0)),  # if w0 == 0 goto +0: a comparison of 32 bits (5.1)
    (2, _INSTRUCTION.pack(0xA5, 0, 0, 0)),  # if r0 < 0 goto +0 (4.14)
)


@cache
def isa_version() -> int | None:
    """The highest version of the instruction set, `clang -mcpu=vN`, that the kernel accepts."""
    for version, instruction in _ISA_PROBES:
        accepted = _loads(ProgramType.SOCKET_FILTER, _MOV_R0_0 + instruction + _EXIT)
        if accepted is None:
            return None
        if accepted:
            return version
    return 1


@cache
def has_program_type(type: ProgramType) -> bool | None:
    """Whether the kernel knows a program type. None for those that load only with a target to attach to."""
    if type in _NEEDS_TARGET:
        return None
    return _loads(type, _MOV_R0_0 + _EXIT, attach_type=_ATTACH_TYPES.get(type, 0))


_NEEDS_TARGET = frozenset({ProgramType.TRACING, ProgramType.EXT, ProgramType.LSM, ProgramType.STRUCT_OPS})
#: The types that refuse to load without an attach type.
_ATTACH_TYPES = {
    ProgramType.CGROUP_SOCK_ADDR: AttachType.CGROUP_INET4_CONNECT,
    ProgramType.CGROUP_SOCKOPT: AttachType.CGROUP_GETSOCKOPT,
    ProgramType.SK_LOOKUP: AttachType.SK_LOOKUP,
    ProgramType.NETFILTER: AttachType.NETFILTER,
}


def _loads(type: int, instructions: bytes, *, attach_type: int = 0) -> bool | None:
    """Whether the kernel takes a program; None if it is not for this process to try."""
    flags = 1 << 4 if type == ProgramType.SYSCALL else 0  # BPF_F_SLEEPABLE, which the type demands
    version = kernel_version()
    code = version[0] << 16 | version[1] << 8 | min(version[2], 255)  # what old kernels want of a kprobe
    try:
        fd = bpf.prog_load(
            type, instructions, "GPL", attach_type=attach_type, flags=flags, kernel_version=code
        )
    except OSError as error:
        return None if error.errno in (errno.EPERM, errno.ENOSYS) else False
    os.close(fd)
    return True


@cache
def has_map_type(type: MapType) -> bool | None:
    """Whether the kernel knows a map type: it refuses an unknown one before it looks at anything else."""
    key_size, value_size, entries, flags = _MAP_SHAPES.get(type, (4, 4, 1, 0))
    try:
        fd = bpf.map_create(type, key_size, value_size, entries, flags=flags)
    except OSError as error:
        if error.errno == errno.EPERM:
            return None
        # The kernel answers EINVAL to a type it does not know; the other answers come from the type itself.
        return error.errno not in (errno.EINVAL, errno.E2BIG) or (None if type in _NEEDS_MORE else False)
    os.close(fd)
    return True


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
#: Key size, value size, entries and flags that the type accepts, where it is choosy.
_MAP_SHAPES: dict[MapType, tuple[int, int, int, int]] = {
    MapType.STACK_TRACE: (4, 8, 1, 0),
    MapType.LPM_TRIE: (8, 4, 1, 1),
    MapType.CGROUP_STORAGE: (16, 4, 0, 0),
    MapType.PERCPU_CGROUP_STORAGE: (16, 4, 0, 0),
    MapType.QUEUE: (0, 4, 1, 0),
    MapType.STACK: (0, 4, 1, 0),
    MapType.BLOOM_FILTER: (0, 4, 1, 0),
    MapType.RINGBUF: (0, 0, _PAGE, 0),
    MapType.USER_RINGBUF: (0, 0, _PAGE, 0),
    MapType.ARENA: (0, 0, 1, 1 << 10),
}
#: Types that also want an inner map, BTF or a target, so that EINVAL tells nothing.
_NEEDS_MORE = frozenset(
    {
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.STRUCT_OPS,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
        MapType.INSN_ARRAY,
    }
)


@cache
def has_program_names() -> bool | None:
    """Whether programs and maps can have names (4.15)."""
    try:
        fd = bpf.map_create(MapType.ARRAY, 4, 4, 1, name="probe")
    except OSError as error:
        return None if error.errno in (errno.EPERM, errno.ENOSYS) else False
    os.close(fd)
    return True


@cache
def has_btf() -> bool:
    """Whether the kernel describes its own types, which CO-RE needs (CONFIG_DEBUG_INFO_BTF, 5.4)."""
    return Path("/sys/kernel/btf/vmlinux").exists()


@cache
def has_batch_operations() -> bool | None:
    """Whether maps can be read and written in batches (5.6)."""
    try:
        fd = bpf.map_create(MapType.ARRAY, 4, 4, 1)
    except OSError as error:
        return None if error.errno in (errno.EPERM, errno.ENOSYS) else False
    try:
        bpf.map_lookup_batch(fd, bytearray(4), bytearray(4), 1)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@cache
def has_xdp_links() -> bool | None:
    """Whether XDP is attached through a bpf_link (5.9): asked by BPF_LINK_DETACH, which came with it."""
    try:
        bpf.link_detach(0x7FFFFFFF)  # no descriptor: EBADF where the command is known, else EINVAL
    except OSError as error:
        return None if error.errno == errno.EPERM else error.errno == errno.EBADF
    return True


# --- CPUs -----------------------------------------------------------------------------------------------


@cache
def possible_cpus() -> int:
    """How many CPUs the kernel has room for: the number of values of an entry of a per-CPU map."""
    return len(parse_cpu_ranges(Path("/sys/devices/system/cpu/possible").read_text()))


def online_cpus() -> tuple[int, ...]:
    """The numbers of the CPUs that run now; not kept, as it can change."""
    return parse_cpu_ranges(Path("/sys/devices/system/cpu/online").read_text())


def parse_cpu_ranges(text: str) -> tuple[int, ...]:
    """The numbers in a list such as "0-3,8"."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)
