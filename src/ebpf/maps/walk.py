"""Going through a map while programs and others change it.

An entry that stays for the whole walk is given exactly once; one that comes or goes meanwhile, at most once.
Hash tables are read by batch (5.6), whole buckets at a time, under the bucket's lock. Elsewhere the walk is
from key to key: if the current key is gone the kernel starts over from the first, so that keys already given
are remembered and passed over.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from ebpf.errors import Error
from ebpf.kernel import bpf
from ebpf.uapi import MapType

#: Types whose kernel batch lookup neither repeats nor loses an entry.
BATCHED = frozenset(
    {
        MapType.HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
    }
)
_NO_BATCH = frozenset({errno.EINVAL, errno.EOPNOTSUPP, 524})  # 524: the kernel's own ENOTSUPP
_CHUNK_BYTES = 1 << 18
_CHUNK_ENTRIES = 1024
#: How often a walk may be thrown back to the first key before it gives up.
_RESTARTS = 1000


class Chunk(NamedTuple):
    """`entries` of them: keys one after another, and values one after another at the kernel's stride."""

    keys: bytes | bytearray
    values: bytes | bytearray
    entries: int


class Shape(NamedTuple):
    """What a walk needs to know of a map; sizes in bytes, `stride` the value's as the kernel copies it."""

    type: MapType
    name: str
    key_size: int
    stride: int
    max_entries: int


def chunks(fd: int, shape: Shape) -> Iterator[Chunk]:
    """All entries of a map."""
    if shape.type in BATCHED:
        try:
            first, position, room = _step(fd, shape, None, _room(shape))
        except bpf.BatchError as error:
            if error.errno not in _NO_BATCH:
                raise
        else:
            yield first
            while position is not None:
                chunk, position, room = _step(fd, shape, position, room)
                yield chunk
            return
    for key in keys(fd, shape):
        try:
            yield Chunk(key, bpf.map_lookup(fd, key, shape.stride), 1)
        except OSError as error:
            if error.errno != errno.ENOENT:  # an empty slot, or deleted since
                raise


def keys(fd: int, shape: Shape) -> Iterator[bytes]:
    """All keys, from key to key."""
    seen: set[bytes] = set()
    restarts = 0
    key: bytes | None = None
    passing = False
    while True:
        try:
            key = bpf.map_next_key(fd, key, shape.key_size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        if key not in seen:
            passing = False
            seen.add(key)
            yield key
        elif not passing:
            passing = True
            restarts += 1
            if restarts > _RESTARTS:
                raise Error(f"map {shape.name!r} changes faster than it can be walked")


def _room(shape: Shape) -> int:
    entry = max(1, shape.key_size + shape.stride)
    return max(1, min(_CHUNK_ENTRIES, _CHUNK_BYTES // entry, shape.max_entries))


def _step(fd: int, shape: Shape, position: bytes | None, room: int) -> tuple[Chunk, bytes | None, int]:
    while True:
        keys_buffer, values_buffer = bytearray(room * shape.key_size), bytearray(room * shape.stride)
        try:
            batch = bpf.map_lookup_batch(fd, keys_buffer, values_buffer, room, position=position)
        except bpf.BatchError as error:
            if error.errno != errno.ENOSPC or room > shape.max_entries:
                raise
            room *= 2  # one bucket holds more than that
            continue
        return Chunk(keys_buffer, values_buffer, batch.entries), batch.position, room
