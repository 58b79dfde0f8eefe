"""Names as the kernel takes them: at most 15 bytes of letters, digits, "_" and "."."""

from __future__ import annotations

from ebpf.spec.model import MapSpec
from ebpf.uapi import NAME_LENGTH

_TAKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def kernel_name(name: str) -> str:
    """A name cut to size, with "_" for what the kernel does not take."""
    return "".join([char if char in _TAKEN else "_" for char in name[:NAME_LENGTH]])


def map_name(spec: MapSpec, object_name: str) -> str:
    """The kernel's name of a map. A data map's is the object's and the section's, as libbpf composes it."""
    if not spec.is_data:
        return kernel_name(spec.name)
    section = spec.section
    if "." in section[1:]:  # .data.config: no room for the object's name
        return kernel_name(section)
    room = NAME_LENGTH - max(7, len(section))
    return kernel_name(object_name.partition(".")[0][: max(room, 0)] + section)
