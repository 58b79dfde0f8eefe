"""What kind of object a descriptor is of: BPF_OBJ_GET_INFO_BY_FD answers for any, in a layout of its own."""

from __future__ import annotations

import os

from ebpf.errors import Error
from ebpf.kernel.fd import FD

_KINDS = {"map": "anon_inode:bpf-map", "program": "anon_inode:bpf-prog"}


def expect(fd: FD, kind: str) -> None:
    """Error, and the descriptor closed, if it is not of a "map" or "program" as it should be."""
    try:
        found = os.readlink(f"/proc/self/fd/{fd.fileno()}")
    except FileNotFoundError:  # no /proc: nothing to tell it by
        return
    if found != _KINDS[kind]:
        what = fd.what
        fd.close()
        raise Error(f"{what} is no {kind}, but {found.removeprefix('anon_inode:')}")
