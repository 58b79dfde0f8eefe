"""Parts of values that people read better than the number they are: addresses and address prefixes.

What is shown here is what `ebpf.btf.text.parse` reads back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any

from ebpf.btf import types as t
from ebpf.btf.layout import bit_field, resolve
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
    """The same for the keys of a map: those of an LPM trie that have the size for it are address prefixes."""
    from ebpf.uapi import MapType

    if live.type is MapType.LPM_TRIE and live.key_size in (8, 20):
        return {"key": lambda key: _prefix(live, key)}
    return formats(live.key_type, "key")


def forms_of(live: Map) -> tuple[Formats, Formats]:
    """How parts of a map's keys, and of its values, are shown."""
    return key_formats(live), formats(live.value_type, "value")


def declaration(type: t.Type | None) -> str | None:
    """The C declaration of a type: a struct or union with its members, else its name."""
    if type is None:
        return None
    inner = resolve(type)
    return "\n".join(_members(inner)) + ";" if isinstance(inner, t.Composite) else str(type)


def _members(type: t.Composite) -> list[str]:
    keyword = "union" if isinstance(type, t.Union) else "struct"
    lines = [f"{keyword} {type.name} {{" if type.name else f"{keyword} {{"]
    for member in type.members:
        dimensions, base = "", member.type
        while isinstance(base, t.Array):
            dimensions, base = f"{dimensions}[{base.length}]", base.element
        bits = bit_field(member)
        behind = f" {member.name}{dimensions}" if member.name else ""
        behind += f":{bits[1]};" if bits else ";"
        if isinstance(base, t.Composite) and not base.name:
            first, *rest = _members(base)
            lines += [f"    {line}" for line in (first, *rest[:-1], f"{rest[-1]}{behind}")]
        else:
            lines.append(f"    {base}{behind}".replace("* ", "*"))
    return [*lines, "}"]


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
        if isinstance(type, t.Typedef) and type.name == "__be32":  # nearly always an address
            return lambda value: str(IPv4Address(int(value)))
        type = type.target
    if isinstance(type, t.Composite) and type.name in _ADDRESSES:
        whole = codec(type)
        return lambda value: str(ip_address(whole.encode(value)))
    if isinstance(type, t.Array) and type.length == _MAC:
        element = resolve(type.element)
        is_byte = isinstance(element, t.Int) and element.size == 1 and not element.signed
        if is_byte and element.name != "char":
            return lambda value: ":".join(f"{byte:02x}" for byte in value)
    return None


def _prefix(live: Map, key: Any) -> str:
    from ebpf.maps.codecs import key_codec, network

    try:
        return str(network(key_codec(live.type, live.key_size, live.key_type).encode(key)))
    except (Error, ValueError):  # the bits behind the prefix, or a length, that no address has
        return str(key)
