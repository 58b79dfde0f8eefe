"""How the keys and values of a map turn into Python and back.

BTF's codecs do most of it. Here is what BTF does not say: that the value of some types of map is a descriptor
when written and an id when read, and that the key of an LPM trie is an address prefix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ebpf.errors import ValueRangeError
from ebpf.uapi import MapType

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from ebpf.btf.types import Type

Buffer = bytes | bytearray | memoryview


class Codec(Protocol):
    """Bytes to Python and back; `size` in bytes."""

    @property
    def size(self) -> int:
        """Bytes of one value."""
        ...

    def decode(self, buffer: Buffer, offset: int = 0) -> Any:
        """The value at an offset."""
        ...

    def encode(self, value: Any) -> bytes:
        """Its bytes; ValueRangeError if it does not fit."""
        ...


class LpmKey(NamedTuple):
    """A key of an LPM trie without BTF: the prefix length in bits, and the data it is counted in."""

    prefixlen: int
    data: bytes


class RedirectTarget(NamedTuple):
    """A value of a devmap (interface index) or cpumap (queue size) that may name a program.

    Reading gives the program's id; 0 for none. Writing takes the program itself.
    """

    target: int
    program: Any = 0


#: Types whose values are descriptors when written; what a lookup gives instead.
FD_VALUES = {
    MapType.PROG_ARRAY: "id of a program",
    MapType.ARRAY_OF_MAPS: "id of a map",
    MapType.HASH_OF_MAPS: "id of a map",
    MapType.PERF_EVENT_ARRAY: None,
    MapType.CGROUP_ARRAY: None,
    MapType.XSKMAP: None,
    MapType.SOCKMAP: "socket cookie",
    MapType.SOCKHASH: "socket cookie",
    MapType.REUSEPORT_SOCKARRAY: "socket cookie",
}
_REDIRECTS = (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP)


def key_codec(map_type: MapType, size: int, type: Type | None) -> Codec:
    """The codec of a map's keys."""
    base = _typed(size, type)
    return PrefixCodec(size, base if type is not None else None) if map_type is MapType.LPM_TRIE else base


def value_codec(
    map_type: MapType, size: int, type: Type | None, opened: Callable[[int], Any] | None = None
) -> Codec:
    """The codec of a map's values; `opened` makes a map of an id, for maps in maps."""
    if map_type in FD_VALUES:
        return DescriptorCodec(size, opened if map_type.is_map_in_map else None)
    if map_type in _REDIRECTS and size == 8 and type is None:
        return RedirectCodec()
    return _typed(size, type)


def _typed(size: int, type: Type | None) -> Codec:
    from ebpf.btf import values

    if type is not None:
        codec: Codec = values.codec(type)
        if codec.size == size:
            return codec
    if size in (1, 2, 4, 8):
        return values.int_codec(size)
    return values.bytes_codec(size)


class DescriptorCodec:
    """Written as a descriptor, read as an id (or a socket's cookie, for 8 bytes)."""

    def __init__(self, size: int, opened: Callable[[int], Any] | None) -> None:
        self.size = size
        self._opened = opened

    def decode(self, buffer: Buffer, offset: int = 0) -> Any:
        """The id; a map where maps hold maps."""
        number = int.from_bytes(buffer[offset : offset + self.size], sys.byteorder)
        return self._opened(number) if self._opened else number

    def encode(self, value: Any) -> bytes:
        """The descriptor of a program, map, socket, or what else has a `fileno()`."""
        if isinstance(value, bytes) and len(value) == self.size:
            return value
        if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "fileno")):
            raise ValueRangeError(f"a descriptor, or an object that has one, is needed here, not {value!r}")
        return int(value if isinstance(value, int) else value.fileno()).to_bytes(self.size, sys.byteorder)


class RedirectCodec:
    """struct bpf_devmap_val and bpf_cpumap_val: a number, and a program's id or descriptor."""

    size = 8

    def decode(self, buffer: Buffer, offset: int = 0) -> RedirectTarget:
        """The target and the program's id."""
        raw = bytes(buffer[offset : offset + 8])
        return RedirectTarget(int.from_bytes(raw[:4], sys.byteorder), int.from_bytes(raw[4:], sys.byteorder))

    def encode(self, value: Any) -> bytes:
        """From a number, or a number and a program (its descriptor)."""
        if isinstance(value, bytes) and len(value) == 8:
            return value
        target, program = value if isinstance(value, tuple) and len(value) == 2 else (value, 0)
        descriptor = program.fileno() if hasattr(program, "fileno") else program
        try:
            return int(target).to_bytes(4, sys.byteorder) + int(descriptor or 0).to_bytes(4, sys.byteorder)
        except (OverflowError, TypeError, ValueError):
            raise ValueRangeError(
                f"a number of 32 bits, or a tuple of one and a program, is needed here, not {value!r}"
            ) from None


class PrefixCodec:
    """Keys of an LPM trie: u32 prefix length, then data in network order.

    Takes what BTF's codec takes, (prefix length, bytes), and for data of 4 or 16 bytes also "10.0.0.0/8" and the
    networks and addresses of `ipaddress`. Gives what BTF's codec gives, or LpmKey without BTF.
    """

    def __init__(self, size: int, base: Codec | None) -> None:
        self.size = size
        self._base = base

    def decode(self, buffer: Buffer, offset: int = 0) -> Any:
        """The struct by BTF, or LpmKey."""
        if self._base is not None:
            return self._base.decode(buffer, offset)
        raw = bytes(buffer[offset : offset + self.size])
        return LpmKey(int.from_bytes(raw[:4], sys.byteorder), raw[4:])

    def encode(self, value: Any) -> bytes:
        """The key of a prefix, an address (all its bits), or a struct."""
        data_size = self.size - 4
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], (bytes, bytearray)):
            prefixlen, data = value
            if len(data) != data_size or not 0 <= prefixlen <= 8 * data_size:
                raise ValueRangeError(
                    f"a key of this LPM trie is up to {8 * data_size} bits of {data_size} bytes, not {value!r}"
                )
            return int(prefixlen).to_bytes(4, sys.byteorder) + bytes(data)
        network = self._network(value, data_size)
        if network is not None:
            return network.prefixlen.to_bytes(4, sys.byteorder) + network.network_address.packed
        if isinstance(value, bytes) and len(value) == self.size:
            return value
        if self._base is not None:
            return self._base.encode(value)
        raise ValueRangeError(f"no key of an LPM trie: {value!r}", hint="give (prefixlen, bytes)")

    def _network(self, value: Any, data_size: int) -> IPv4Network | IPv6Network | None:
        if not isinstance(value, str) and not hasattr(value, "max_prefixlen"):
            return None
        import ipaddress

        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError as error:
            raise ValueRangeError(f"no address prefix: {error}") from None
        if network.max_prefixlen != 8 * data_size:
            raise ValueRangeError(
                f"{value} has addresses of {network.max_prefixlen} bits; this LPM trie holds {8 * data_size}"
            )
        return network


def network(key: bytes) -> IPv4Network | IPv6Network:
    """The address prefix that the bytes of an LPM trie's key stand for: 8 bytes for IPv4, 20 for IPv6."""
    import ipaddress

    if len(key) not in (8, 20):
        raise ValueRangeError(f"{len(key)} bytes are no u32 prefix length and address of 4 or 16 bytes")
    prefixlen, data = int.from_bytes(key[:4], sys.byteorder), key[4:]
    if len(data) == 4:
        return ipaddress.IPv4Network((data, prefixlen), strict=False)
    return ipaddress.IPv6Network((data, prefixlen), strict=False)
