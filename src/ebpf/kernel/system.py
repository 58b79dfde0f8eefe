"""The choke point for the system calls that Python has no function for.

Everything else in this package reaches bpf(2), perf_event_open(2), setns(2), unshare(2), mount(2) and
umount2(2) through `current()`, so that a unit test can stand in for the kernel:

    with system.use(fake):
        ...

Importing this module does nothing; the C library is opened by the first call. On systems other than Linux
the import works too, and a call raises `UnsupportedError`.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ebpf.errors import UnsupportedError
from ebpf.uapi import Command

if TYPE_CHECKING:
    import ctypes

Buffer = bytes | bytearray | memoryview

CLONE_NEWNET = 0x40000000  # linux/sched.h

#: What libbpf allows for: EAGAIN means that a signal arrived while the verifier was at work.
PROG_LOAD_ATTEMPTS = 5


class System(Protocol):
    """What the package asks of the kernel. Every method raises OSError with the kernel's errno."""

    def bpf(self, command: int, attr: bytearray) -> int:
        """bpf(2). `attr` is union bpf_attr, in which the kernel may write its answers."""

    def perf_event_open(self, attr: bytearray, pid: int, cpu: int, group_fd: int, flags: int) -> int:
        """perf_event_open(2); gives a descriptor."""

    def mount(self, source: str, target: str, filesystem: str, flags: int = 0, data: str = "") -> None:
        """mount(2)."""

    def umount(self, target: str, flags: int = 0) -> None:
        """umount2(2)."""

    def setns(self, fd: int, kind: int) -> None:
        """setns(2): moves the calling thread alone, for a network namespace."""

    def unshare(self, flags: int) -> None:
        """unshare(2)."""


class Numbers(NamedTuple):
    """The system call numbers of an architecture; the C library wraps neither call."""

    bpf: int
    perf_event_open: int


_GENERIC = Numbers(280, 241)  # asm-generic/unistd.h

#: By platform.machine() of the kernel and the bits of a pointer in this process.
_NUMBERS: dict[tuple[str, int], Numbers] = {
    ("x86_64", 64): Numbers(321, 298),
    ("x86_64", 32): Numbers(357, 336),  # an i386 process on a 64-bit kernel
    ("i386", 32): Numbers(357, 336),
    ("i486", 32): Numbers(357, 336),
    ("i586", 32): Numbers(357, 336),
    ("i686", 32): Numbers(357, 336),
    ("aarch64", 64): _GENERIC,
    ("aarch64_be", 64): _GENERIC,
    ("aarch64", 32): Numbers(386, 364),
    ("armv6l", 32): Numbers(386, 364),
    ("armv7l", 32): Numbers(386, 364),
    ("armv8l", 32): Numbers(386, 364),
    ("riscv64", 64): _GENERIC,
    ("riscv32", 32): _GENERIC,
    ("loongarch64", 64): _GENERIC,
    ("s390x", 64): Numbers(351, 331),
    ("ppc64le", 64): Numbers(361, 319),
    ("ppc64", 64): Numbers(361, 319),
    ("ppc", 32): Numbers(361, 319),
    ("sparc64", 64): Numbers(349, 327),
    ("mips64", 64): Numbers(5315, 5292),
    ("mips", 32): Numbers(4355, 4333),
}


def call_numbers(machine: str, pointer_bits: int) -> Numbers:
    """The numbers for a process on `machine`; UnsupportedError for an architecture not in the table."""
    try:
        return _NUMBERS[machine, pointer_bits]
    except KeyError:
        raise UnsupportedError(
            f"the number of bpf(2) on {machine} ({pointer_bits}-bit process) is not known to this package",
            errno=errno.ENOSYS,
        ) from None


class LinuxSystem:
    """The running kernel, through the C library."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise UnsupportedError(
                f"loading and attaching BPF programs needs Linux; this is {sys.platform}", errno=errno.ENOSYS
            )
        import ctypes

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._numbers = call_numbers(os.uname().machine, struct.calcsize("P") * 8)
        long, int_, char_p = ctypes.c_long, ctypes.c_int, ctypes.c_char_p
        # Two prototypes of the one variadic function: each call site has its own.
        prototype = ctypes.CFUNCTYPE(long, long, int_, ctypes.c_void_p, ctypes.c_uint, use_errno=True)
        self._bpf = prototype(("syscall", self._libc))
        prototype = ctypes.CFUNCTYPE(
            long, long, ctypes.c_void_p, int_, int_, int_, ctypes.c_ulong, use_errno=True
        )
        self._perf_event_open = prototype(("syscall", self._libc))
        self._libc.mount.argtypes = (char_p, char_p, char_p, ctypes.c_ulong, char_p)
        self._libc.umount2.argtypes = (char_p, int_)
        self._libc.setns.argtypes = (int_, int_)
        self._libc.unshare.argtypes = (int_,)

    def _checked(self, result: int, path: str | None = None) -> int:
        if result < 0:
            code = self._ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return result

    def bpf(self, command: int, attr: bytearray) -> int:
        """Repeats a PROG_LOAD that a signal interrupted; Python runs the signal's handler in between."""
        attempts = PROG_LOAD_ATTEMPTS if command == Command.PROG_LOAD else 1
        while True:
            attempts -= 1
            result: int = self._bpf(self._numbers.bpf, command, address_of(attr), len(attr))
            if result >= 0:
                return result
            if self._ctypes.get_errno() != errno.EAGAIN or attempts <= 0:
                return self._checked(result)

    def perf_event_open(self, attr: bytearray, pid: int, cpu: int, group_fd: int, flags: int) -> int:
        """See perf_event_open(2)."""
        number = self._numbers.perf_event_open
        return self._checked(self._perf_event_open(number, address_of(attr), pid, cpu, group_fd, flags))

    def mount(self, source: str, target: str, filesystem: str, flags: int = 0, data: str = "") -> None:
        """See mount(2)."""
        encoded = (os.fsencode(source), os.fsencode(target), filesystem.encode())
        self._checked(self._libc.mount(*encoded, flags, data.encode()), target)

    def umount(self, target: str, flags: int = 0) -> None:
        """See umount2(2)."""
        self._checked(self._libc.umount2(os.fsencode(target), flags), target)

    def setns(self, fd: int, kind: int) -> None:
        """See setns(2)."""
        self._checked(self._libc.setns(fd, kind))

    def unshare(self, flags: int) -> None:
        """See unshare(2)."""
        self._checked(self._libc.unshare(flags))


_current: System | None = None


def current() -> System:
    """The kernel, or what a test has put in its place."""
    global _current
    if _current is None:
        _current = LinuxSystem()
    return _current


@contextmanager
def use(system: System) -> Iterator[System]:
    """Put `system` in the kernel's place within the block, for all threads."""
    global _current
    before, _current = _current, system
    try:
        yield system
    finally:
        _current = before


_char: type[ctypes.c_char] | None = None


def address_of(buffer: bytearray | memoryview) -> int:
    """The address of a writable buffer of at least one byte, to be put in an attr.

    The caller keeps the buffer alive, and unresized, until the call is over.
    """
    global _char
    import ctypes

    if _char is None:
        _char = ctypes.c_char
    return ctypes.addressof(_char.from_buffer(buffer))


def read_memory(address: int, size: int) -> bytes:
    """The bytes at an address that came out of `address_of`: what a fake kernel reads its arguments with."""
    import ctypes

    return ctypes.string_at(address, size)


def write_memory(address: int, data: bytes) -> None:
    """Write where an address from `address_of` points: how a fake kernel gives its answers."""
    import ctypes

    ctypes.memmove(address, data, len(data))
