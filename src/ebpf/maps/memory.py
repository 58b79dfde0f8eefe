"""The one value of a map of global variables, read and written in place."""

from __future__ import annotations

import mmap

from ebpf.maps.map import Map
from ebpf.uapi import MapFlags

_ONLY_KEY = bytes(4)


class MapMemory:
    """The value of a one-entry array: mapped into this process where the map allows it (5.5), else copied."""

    def __init__(self, map: Map) -> None:
        self._map = map
        self._mapped: mmap.mmap | None = None
        if map.flags & MapFlags.MMAPABLE and not map.flags & MapFlags.RDONLY_PROG:
            size = -(-map.value_size // mmap.PAGESIZE) * mmap.PAGESIZE
            self._mapped = mmap.mmap(map.fileno(), size)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, as they are now."""
        self._map.fileno()  # an Error once the map is closed, mapped or not
        source = self._mapped if self._mapped is not None else self._map.read_raw(_ONLY_KEY)
        return source[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at an offset. Without a mapping the whole value is written back."""
        self._map.fileno()
        if self._mapped is not None:
            self._mapped[offset : offset + len(data)] = data
            return
        value = bytearray(self._map.read_raw(_ONLY_KEY))
        value[offset : offset + len(data)] = data
        self._map.write_raw(_ONLY_KEY, bytes(value))

    def close(self) -> None:
        """Unmap it."""
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
