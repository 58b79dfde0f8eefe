"""The commands of bpf(2) that make maps and move entries; see `ebpf.kernel.bpf`, which offers them."""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from ebpf.kernel.attr import Layout, call, object_name, writable
from ebpf.kernel.system import Buffer, address_of
from ebpf.uapi import Command, MapFlags

_MAP_CREATE = Layout(
    "map_type:I key_size:I value_size:I max_entries:I map_flags:I inner_map_fd:I numa_node:I map_name:16s"
    " map_ifindex:I btf_fd:I btf_key_type_id:I btf_value_type_id:I btf_vmlinux_value_type_id:I map_extra:Q"
    " value_type_btf_obj_fd:i map_token_fd:i"
)


def map_create(
    type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    name: str = "",
    inner_map_fd: int = 0,
    numa_node: int | None = None,
    btf_fd: int = 0,
    key_type_id: int = 0,
    value_type_id: int = 0,
    vmlinux_value_type_id: int = 0,
    extra: int = 0,
    ifindex: int = 0,
) -> int:
    """BPF_MAP_CREATE; sizes in bytes. Gives a descriptor. `name` is cut to 15 bytes."""
    attr = _MAP_CREATE.pack(
        map_type=type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags if numa_node is None else flags | MapFlags.NUMA_NODE,
        inner_map_fd=inner_map_fd,
        numa_node=numa_node or 0,
        map_name=object_name(name),
        map_ifindex=ifindex,
        btf_fd=btf_fd,
        btf_key_type_id=key_type_id,
        btf_value_type_id=value_type_id,
        btf_vmlinux_value_type_id=vmlinux_value_type_id,
        map_extra=extra,
    )
    return call(Command.MAP_CREATE, attr)


# map_fd, key, value or next_key, flags. A bare struct and not a Layout: these calls are made once per entry.
_ELEMENT = struct.Struct("=I4xQQQ")


def _element(command: Command, fd: int, key: Buffer, value: bytearray | None, flags: int) -> None:
    held = writable(key) if len(key) else None  # a queue has no keys: the pointer must be NULL
    attr = bytearray(
        _ELEMENT.pack(fd, address_of(held) if held else 0, address_of(value) if value else 0, flags)
    )
    call(command, attr)


def map_lookup(fd: int, key: Buffer, value_size: int, *, flags: int = 0) -> bytes:
    """The value under `key`; ENOENT if there is none.

    `value_size` is what the kernel writes: for a per-CPU map, the value's size rounded up to 8, times the
    number of possible CPUs. The kernel trusts it: one that is too small overwrites this process's memory.
    """
    value = bytearray(value_size)
    _element(Command.MAP_LOOKUP_ELEM, fd, key, value, flags)
    return bytes(value)


def map_lookup_and_delete(fd: int, key: Buffer, value_size: int, *, flags: int = 0) -> bytes:
    """Take a value out: pop or dequeue with key b"" (4.20), or a hash entry (5.14)."""
    value = bytearray(value_size)
    _element(Command.MAP_LOOKUP_AND_DELETE_ELEM, fd, key, value, flags)
    return bytes(value)


def map_update(fd: int, key: Buffer, value: Buffer, flags: int = 0) -> None:
    """Set an entry; `flags` are UpdateFlags: EEXIST with NOEXIST, ENOENT with EXIST, E2BIG if full."""
    _element(Command.MAP_UPDATE_ELEM, fd, key, writable(value), flags)


def map_delete(fd: int, key: Buffer) -> None:
    """Delete an entry; ENOENT if there is none."""
    _element(Command.MAP_DELETE_ELEM, fd, key, None, 0)


def map_next_key(fd: int, key: Buffer | None, key_size: int) -> bytes:
    """The key after `key`, or the first for None; ENOENT at the end. A `key` that is gone gives the first."""
    following = bytearray(key_size)
    _element(Command.MAP_GET_NEXT_KEY, fd, key or b"", following, 0)
    return bytes(following)


_MAP_FREEZE = Layout("map_fd:I")


def map_freeze(fd: int) -> None:
    """Make the map read-only for user space (5.2); EBUSY while it is mapped writable."""
    call(Command.MAP_FREEZE, _MAP_FREEZE.pack(map_fd=fd))


class BatchError(OSError):
    """A batch that stopped early; `done` entries were dealt with before."""

    done: int = 0


_BATCH = Layout("in_batch:Q out_batch:Q keys:Q values:Q count:I map_fd:I elem_flags:Q flags:Q")


def _batch(command: Command, attr: bytearray) -> int:
    try:
        call(command, attr)
    except OSError as error:
        failure = BatchError(error.errno, error.strerror)
        failure.done = _BATCH.integer(attr, "count")
        raise failure from None
    return _BATCH.integer(attr, "count")


class Batch(NamedTuple):
    """What one step of a batch lookup gave."""

    entries: int  #: how many were written to the buffers
    position: bytes | None  #: for the next step; None after the last


def map_lookup_batch(
    fd: int,
    keys: bytearray | memoryview,
    values: bytearray | memoryview,
    count: int,
    *,
    position: bytes | None = None,
    position_size: int = 4,
    flags: int = 0,
    delete: bool = False,
) -> Batch:
    """Up to `count` entries into the caller's buffers (5.6); `delete` takes them out of the map.

    `position` continues after an earlier step. `position_size` is 4, or the key's size if that is more: some
    map types (LPM trie) keep a whole key there. Entries that others add or delete between steps may or may
    not be seen. BatchError ENOSPC: `count` is smaller than one bucket of the hash; use more.
    """
    given = writable(position) if position is not None else None
    out = bytearray(max(position_size, 4))
    attr = _BATCH.pack(
        in_batch=address_of(given) if given else 0,
        out_batch=address_of(out),
        keys=address_of(keys),
        values=address_of(values),
        count=count,
        map_fd=fd,
        elem_flags=flags,
    )
    command = Command.MAP_LOOKUP_AND_DELETE_BATCH if delete else Command.MAP_LOOKUP_BATCH
    try:
        done = _batch(command, attr)
    except BatchError as error:
        if error.errno == errno.ENOENT:  # the end of the map, with `done` last entries
            return Batch(error.done, None)
        raise
    return Batch(done, bytes(out))


def map_update_batch(fd: int, keys: Buffer, values: Buffer, count: int, *, flags: int = 0) -> int:
    """Set `count` entries (5.6); gives their number. BatchError says how many were set before the failure."""
    held_keys, held_values = writable(keys), writable(values)
    attr = _BATCH.pack(
        keys=address_of(held_keys),
        values=address_of(held_values),
        count=count,
        map_fd=fd,
        elem_flags=flags,
    )
    return _batch(Command.MAP_UPDATE_BATCH, attr)


def map_delete_batch(fd: int, keys: Buffer, count: int, *, flags: int = 0) -> int:
    """Delete `count` entries (5.6). BatchError ENOENT: how many were deleted before one that is not there."""
    held = writable(keys)
    attr = _BATCH.pack(keys=address_of(held), count=count, map_fd=fd, elem_flags=flags)
    return _batch(Command.MAP_DELETE_BATCH, attr)
