"""Parts of values that people read better than the number they are: addresses, network byte order, prefixes.

What is shown here is what `ebpf.btf.text.parse` reads back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any

from ebpf.btf import types as t
from ebpf.btf.layout import resolve, size_of
from ebpf.btf.values import codec
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.maps.map import Map

#: How a part is shown, by its path: "key" or "value" for the whole.
Formats = dict[str, Callable[[Any], str]]

_ADDRESSES = ("in_addr", "in6_addr")
_MAC = 6  #: bytes


def formats(type: t.Type | None, name: str) -> Formats:
    """The parts of a type that have a form of their own; paths are those of `entries.flatten`."""
    return dict(_formats(type, name)) if type is not None else {}


def key_formats(live: Map) -> Formats:
    """The same for the keys of a map: those of an LPM trie are prefixes, if they have the size of an address."""
    from ebpf.uapi import MapType

    if live.type is MapType.LPM_TRIE and live.key_size in (8, 20):
        return {"key": lambda key: _prefix(live, key)}
    return formats(live.key_type, "key")


def forms_of(live: Map) -> tuple[Formats, Formats]:
    """How parts of a map's keys, and of its values, are shown."""
    return key_formats(live), formats(live.value_type, "value")


def _formats(type: t.Type, path: str) -> Iterator[tuple[str, Callable[[Any], str]]]:
    form = _form(type)
    if form is not None:
        yield path, form
        return
    inner = resolve(type)
    if isinstance(inner, t.Composite):
        for member in inner.members:
            if member.name:
                prefix = "" if path in ("key", "value") else f"{path}."
                yield from _formats(member.type, f"{prefix}{member.name}")
            elif isinstance(resolve(member.type), t.Composite):
                yield from _formats(member.type, path)  # its fields are the struct's own


def _form(type: t.Type) -> Callable[[Any], str] | None:
    while isinstance(type, t.Reference) and not isinstance(type, t.Pointer):
        if isinstance(type, t.Typedef) and type.name in _BIG_ENDIAN:
            return _BIG_ENDIAN[type.name]
        type = type.target
    if isinstance(type, t.Composite) and type.name in _ADDRESSES:
        whole = codec(type)
        return lambda value: str(ip_address(whole.encode(value)))
    if isinstance(type, t.Array) and type.length == _MAC:
        element = resolve(type.element)
        if (
            isinstance(element, t.Int)
            and size_of(element) == 1
            and not element.signed
            and element.name != "char"
        ):
            return lambda value: ":".join(f"{byte:02x}" for byte in value)
    return None


def _stored(value: int, size: int) -> bytes:
    return int(value).to_bytes(size, sys.byteorder)


#: Integers in network byte order: four bytes are nearly always an address.
_BIG_ENDIAN: dict[str, Callable[[Any], str]] = {
    "__be16": lambda value: f"be:{int.from_bytes(_stored(value, 2), 'big')}",
    "__be32": lambda value: str(IPv4Address(_stored(value, 4))),
    "__be64": lambda value: f"be:{int.from_bytes(_stored(value, 8), 'big')}",
}


def _prefix(live: Map, key: Any) -> str:
    from ebpf.maps.codecs import key_codec, network

    try:
        return str(network(key_codec(live.type, live.key_size, live.key_type).encode(key)))
    except (Error, ValueError):  # the bits behind the prefix, or a length, that no address has
        return str(key)
