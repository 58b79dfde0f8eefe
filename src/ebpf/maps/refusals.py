"""Why the kernel refused to create a map, or to read or write an entry."""

from __future__ import annotations

import errno
from typing import Any

from ebpf.errors import Error, KernelError, UnsupportedError
from ebpf.kernel import bpf
from ebpf.maps.failures import errno_text, kernel_error
from ebpf.spec.model import MapSpec
from ebpf.uapi import MapFlags, MapType

_INDEXED = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
_UNSUPPORTED = (errno.EOPNOTSUPP, 524)


def entry_error(error: OSError, spec: MapSpec, fd: int, done: str, key: Any) -> KeyError | KernelError:
    """The error for an entry that could not be `done`: "read", "written", "deleted"."""
    code = error.errno or 0
    name = f"map {spec.name!r}"
    place = f"{name}: entry {key!r}" if key is not None else name
    outside = spec.type in _INDEXED and isinstance(key, int) and key >= spec.max_entries
    if code in (errno.ENOENT, errno.E2BIG) and outside:
        if done == "read":
            return KeyError(key)
        return KernelError(f"{name} has the indices 0 to {spec.max_entries - 1}, not {key}", errno=code)
    if code == errno.ENOENT and key is not None:
        return KeyError(key)
    if code == errno.EEXIST:
        return KernelError(f"{place} is there already", errno=code)
    if code in (errno.E2BIG, errno.ENOSPC):
        return KernelError(f"{name} is full (max_entries {spec.max_entries})", errno=code)
    if code == errno.EPERM and _no_access(spec, fd, done):
        return KernelError(f"{place} cannot be {done}: {_no_access(spec, fd, done)}", errno=code)
    if code in _UNSUPPORTED:
        return UnsupportedError(
            f"{place} cannot be {done}: this kernel cannot for {spec.type.label}", errno=code
        )
    if code == errno.EBADF and spec.type.is_map_in_map:
        return KernelError(f"{place} cannot be {done}: the value is no descriptor of a map", errno=code)
    if code == errno.EINVAL and spec.type.is_map_in_map and done == "written":
        return KernelError(
            f"{place} cannot be written: the map given differs from the template of {spec.name!r} "
            "in type, sizes, flags or entries",
            errno=code,
        )
    if code == errno.EINVAL and spec.type is MapType.PROG_ARRAY and done == "written":
        return KernelError(
            f"{place} cannot be written: the program differs in type from those that use the array, "
            "or is one that cannot be tail-called",
            errno=code,
        )
    if code in (errno.EPERM, errno.EACCES):
        return kernel_error(error, f"have {place} {done}")
    return KernelError(f"{place} cannot be {done}: {errno_text(code)}", errno=code)


def _no_access(spec: MapSpec, fd: int, done: str) -> str | None:
    """Why user space may not do this with the map, as far as the map itself is the reason."""
    writing = done != "read"
    if spec.flags & (MapFlags.RDONLY if writing else MapFlags.WRONLY):
        return f"the map was created {'read' if writing else 'write'}-only for user space"
    if writing and bpf.map_info(fd).frozen:
        return "the map is frozen"
    return None


def creation_error(error: OSError, spec: MapSpec) -> Error:
    """The error for a map that could not be created; for EINVAL, says what is wrong where it can be known."""
    code = error.errno or 0
    start = f"cannot create map {spec.name!r} ({spec.type.label})"
    if code == errno.EINVAL:
        wrong = _wrong(spec)
        if wrong:
            return KernelError(f"{start}: {wrong}", errno=code)
        return KernelError(
            f"{start}: {errno_text(code)} (key {spec.key_size}, value {spec.value_size} bytes, "
            f"max_entries {spec.max_entries}, flags {MapFlags(spec.flags)!r})",
            errno=code,
            hint=f"Linux {spec.type.since} or newer knows this type of map; its sizes and flags must fit it",
        )
    if code in (errno.ENOMEM, errno.E2BIG):
        entry = spec.key_size + spec.value_size
        return KernelError(
            f"{start}: {spec.max_entries} entries of {entry} bytes are more than the kernel can give",
            errno=code,
        )
    return kernel_error(error, start.removeprefix("cannot "))


_KEYLESS = (MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER, MapType.RINGBUF, MapType.USER_RINGBUF)
_VALUELESS = (MapType.RINGBUF, MapType.USER_RINGBUF)


def _wrong(spec: MapSpec) -> str | None:
    """What the kernel's checks of map creation refuse, where the definition shows it."""
    if spec.type in _KEYLESS and spec.key_size:
        return "this type has no keys: key_size must be 0"
    if spec.type in _VALUELESS:
        if spec.value_size:
            return "this type has no values: value_size must be 0"
        if spec.max_entries % 4096 or spec.max_entries & (spec.max_entries - 1) or not spec.max_entries:
            return (
                f"max_entries is its size in bytes, a power of two and of whole pages, not {spec.max_entries}"
            )
        return None
    if spec.type in _INDEXED and spec.key_size != 4:
        return f"the key of this type is a 4-byte index, not {spec.key_size} bytes"
    if spec.type is MapType.LPM_TRIE:
        if not spec.flags & MapFlags.NO_PREALLOC:
            return "an LPM trie needs __uint(map_flags, BPF_F_NO_PREALLOC)"
        if spec.key_size < 5:
            return f"its key is a u32 prefix length and data, not {spec.key_size} bytes"
    if not spec.max_entries and spec.type not in _ENTRYLESS:
        return "max_entries is 0"
    if not spec.value_size and spec.type not in _ENTRYLESS:
        return "value_size is 0"
    if not spec.key_size and spec.type not in _KEYLESS:
        return "key_size is 0"
    return None


_ENTRYLESS = frozenset(
    {
        MapType.CGROUP_STORAGE,
        MapType.PERCPU_CGROUP_STORAGE,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
        MapType.STRUCT_OPS,
        MapType.ARENA,
    }
)
