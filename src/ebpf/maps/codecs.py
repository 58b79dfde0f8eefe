"""How the keys and values of a map turn into Python and back.

BTF's codecs do most of it. Here is what BTF does not say: that the value of some types of map is a descriptor
when written and an id when read, and that the key of an LPM trie is an address prefix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ebpf.btf.values import Buffer, Codec, bytes_codec, codec, int_codec
from ebpf.errors import ValueRangeError
from ebpf.uapi import MapType

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from ebpf.btf.types import Type


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
    if type is not None:
        typed = codec(type)
        if typed.size == size:
            return typed
    if size in (1, 2, 4, 8):
        return int_codec(size, byteorder=sys.byteorder)
    return bytes_codec(size)


class DescriptorCodec(Codec):
    """Written as a descriptor, read as an id (or a socket's cookie, for 8 bytes)."""

    __slots__ = ("_opened",)

    def __init__(self, size: int, opened: Callable[[int], Any] | None) -> None:
        super().__init__(None, size)
        self._opened = opened
        self.decode = self._decode

    def _decode(self, buffer: Buffer, offset: int = 0, /) -> Any:
        number = int.from_bytes(buffer[offset : offset + self.size], sys.byteorder)
        return self._opened(number) if self._opened else number

    def encode(self, value: Any, *, where: str = "") -> bytes:
        """The descriptor of a program, map, socket, or what else has a `fileno()`."""
        if isinstance(value, bytes) and len(value) == self.size:
            return value
        if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "fileno")):
            raise self.wrong(value, "is no descriptor, and has none", where)
        return int(value if isinstance(value, int) else value.fileno()).to_bytes(self.size, sys.byteorder)


class RedirectCodec(Codec):
    """struct bpf_devmap_val and bpf_cpumap_val: a number, and a program's id or descriptor."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None, 8)
        self.decode = self._decode

    def _decode(self, buffer: Buffer, offset: int = 0, /) -> RedirectTarget:
        raw = bytes(buffer[offset : offset + 8])
        return RedirectTarget(int.from_bytes(raw[:4], sys.byteorder), int.from_bytes(raw[4:], sys.byteorder))

    def encode(self, value: Any, *, where: str = "") -> bytes:
        """From a number, or a number and a program (its descriptor)."""
        if isinstance(value, bytes) and len(value) == 8:
            return value
        target, program = value if isinstance(value, tuple) and len(value) == 2 else (value, 0)
        descriptor = program.fileno() if hasattr(program, "fileno") else program
        try:
            return int(target).to_bytes(4, sys.byteorder) + int(descriptor or 0).to_bytes(4, sys.byteorder)
        except (OverflowError, TypeError, ValueError):
            raise self.wrong(
                value, "is no number of 32 bits, nor a tuple of one and a program", where
            ) from None


class PrefixCodec(Codec):
    """Keys of an LPM trie: u32 prefix length, then data in network order.

    Takes what BTF's codec takes, (prefix length, bytes), and for data of 4 or 16 bytes also "10.0.0.0/8" and
    the networks and addresses of `ipaddress`. Gives what BTF's codec gives, or LpmKey without BTF.
    """

    __slots__ = ("_base",)

    def __init__(self, size: int, base: Codec | None) -> None:
        super().__init__(base.type if base is not None else None, size)
        self._base = base
        self.decode = base.decode if base is not None else self._decode

    def _decode(self, buffer: Buffer, offset: int = 0, /) -> LpmKey:
        raw = bytes(buffer[offset : offset + self.size])
        return LpmKey(int.from_bytes(raw[:4], sys.byteorder), raw[4:])

    def encode(self, value: Any, *, where: str = "") -> bytes:
        """The key of a prefix, an address (all its bits), or a struct."""
        data_size = self.size - 4
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], (bytes, bytearray)):
            prefixlen, data = value
            if len(data) != data_size or not 0 <= prefixlen <= 8 * data_size:
                raise self.wrong(
                    value, f"does not fit: a key is up to {8 * data_size} bits of {data_size} bytes", where
                )
            return int(prefixlen).to_bytes(4, sys.byteorder) + bytes(data)
        network = self._network(value, data_size, where)
        if network is not None:
            return network.prefixlen.to_bytes(4, sys.byteorder) + network.network_address.packed
        if isinstance(value, bytes) and len(value) == self.size:
            return value
        if self._base is not None:
            return self._base.encode(value, where=where)
        raise self.wrong(value, "is no key of an LPM trie", where, hint="give (prefixlen, bytes)")

    def _network(self, value: Any, data_size: int, where: str) -> IPv4Network | IPv6Network | None:
        if not isinstance(value, str) and not hasattr(value, "max_prefixlen"):
            return None
        import ipaddress

        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError as error:
            raise self.wrong(value, f"is no address prefix: {error}", where) from None
        if network.max_prefixlen != 8 * data_size:
            raise self.wrong(
                value, f"has addresses of {network.max_prefixlen} bits; the map holds {8 * data_size}", where
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
