"""Packing union bpf_attr (linux/bpf.h), and the call that carries it.

A layout lists the fields of one member of the union in order, so that each offset follows from the fields
before it. Fields left out are zero: that is why a kernel that does not know the newer ones accepts the call.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from ebpf.kernel import memlock, system
from ebpf.uapi import Command

_SIZES = {"I": 4, "i": 4, "Q": 8, "B": 1}


class Layout:
    """The fields of a kernel structure: "name:code" with the codes of struct, "16s" for char[16].

    Natural alignment, as the kernel's 64-bit ABI has it; the padding is explicit zero bytes.
    """

    def __init__(self, fields: str) -> None:
        names, codes, offset = [], ["="], 0
        self.offsets: dict[str, int] = {}
        for entry in fields.split():
            name, code = entry.split(":")
            size = int(code[:-1]) if code.endswith("s") else _SIZES[code]
            padding = -offset % (1 if code.endswith("s") else size)
            codes.append(f"{padding}x{code}")
            offset += padding
            names.append(name)
            self.offsets[name] = offset
            offset += size
        codes.append(f"{-offset % 8}x")
        self.names = tuple(names)
        self._struct = struct.Struct("".join(codes))
        self._zero = {n: b"" if c.endswith("s") else 0 for n, c in zip(names, codes[1:], strict=False)}
        self.size = self._struct.size

    def pack(self, **values: int | bytes) -> bytearray:
        """The structure with these fields set and the others zero."""
        return bytearray(self._struct.pack(*(self._zero | values).values()))

    def unpack(self, data: bytes | bytearray) -> dict[str, int | bytes]:
        """The fields by name; what `data` is too short for reads as zero."""
        padded = bytes(data[: self.size]).ljust(self.size, b"\0")
        return dict(zip(self.names, self._struct.unpack(padded), strict=True))

    def integer(self, data: bytes | bytearray, name: str) -> int:
        """One unsigned 32-bit field, such as an answer that the kernel wrote into an attr."""
        return int.from_bytes(data[self.offsets[name] : self.offsets[name] + 4], sys.byteorder)


def call(command: Command, attr: bytearray) -> int:
    """bpf(2); OSError with the kernel's errno.

    Where EPERM may be RLIMIT_MEMLOCK's answer (before 5.11), the limit is raised and the call made again.
    """
    try:
        return system.current().bpf(command, attr)
    except PermissionError as error:
        if error.errno != errno.EPERM or command not in _COUNTED or not memlock.raise_limit():
            raise
    return system.current().bpf(command, attr)


_COUNTED = frozenset({Command.MAP_CREATE, Command.PROG_LOAD, Command.BTF_LOAD})


def writable(data: system.Buffer) -> bytearray:
    """A buffer that has an address for as long as the caller holds it: a copy, never empty."""
    return bytearray(data) if len(data) else bytearray(1)


def c_string(text: str) -> bytearray:
    """NUL-terminated, for a field that is a pointer to char."""
    return bytearray(os.fsencode(text) + b"\0")


def object_name(name: str) -> bytes:
    """A name for the kernel, which keeps 15 bytes of it and a NUL; longer ones are cut, as libbpf does."""
    return name.encode()[:15]
