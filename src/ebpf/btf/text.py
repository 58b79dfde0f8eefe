"""Values from text, as people type them: `10`, `0x1f`, `saddr=10.0.0.1,dport=be:80`, `{a=[1,2],name="x y"}`.

What is allowed depends on the type:

    integers, pointers   10, -1, 0x1f, 0b11, 'a' (one byte), be:80 (stored in network byte order)
    4 unsigned bytes     also 10.0.0.1, stored in network byte order
    booleans             true, false, 1, 0
    enums                a name, or a number
    char arrays          text, or "text" where it holds a comma, a bracket or spaces at its ends
    other arrays         [1, 2, 3]; 02:00:00:00:00:01 (6 bytes), fe80::1 (16 bytes), 10.0.0.1 (4 bytes)
    structs, unions      {name=value, name=value}, or the values in order; in_addr and in6_addr as addresses
    all                  hex:0a 00 00 01, as many bytes as the value has

The outermost brackets can be left out. A number given for a `__be32` is the number that it means, the way
such fields are shown; `be:` is for fields that hold network order and whose type does not say so.
"""

from __future__ import annotations

import re
from typing import Any

from ebpf.btf import types as t
from ebpf.btf.composites import ArrayCodec, StructCodec
from ebpf.btf.layout import resolve
from ebpf.btf.scalars import BoolCodec, Codec, EnumCodec, FloatCodec, IntCodec, TextCodec
from ebpf.btf.values import codec
from ebpf.errors import ValueRangeError

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_MAC = re.compile(r"[0-9a-fA-F]{1,2}([:-])(?:[0-9a-fA-F]{1,2}\1){4}[0-9a-fA-F]{1,2}")
_QUAD = re.compile(r"\d+\.\d+\.\d+\.\d+")
_OPEN = {"{": "}", "[": "]"}
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def parse(type: t.Type, text: str) -> Any:
    """The value that the text says, as decoding would give it. ValueRangeError says what is wrong."""
    return parse_with(codec(type), text)


def parse_with(how: Codec, text: str) -> Any:
    """As `parse`, for a codec: also one of no type, of integers or bytes."""
    encoded = how.encode(_parse(how, text.strip(), ""))
    return how.decode_whole(encoded)


def _parse(how: Codec, text: str, where: str) -> Any:
    if text.startswith("hex:"):
        return _hex(how, text, where)
    match how:
        case StructCodec():
            return _struct(how, text, where)
        case ArrayCodec():
            return _array(how, text, where)
        case TextCodec():
            return _unquoted(how, text, where)
        case EnumCodec():
            return _enum(text)
        case BoolCodec():
            if text.lower() not in _BOOLEANS:
                raise _expected(how, "true or false", text, where)
            return _BOOLEANS[text.lower()]
        case FloatCodec():
            try:
                return float(text)
            except ValueError:
                raise _expected(how, "a number", text, where) from None
        case IntCodec():
            return _int(how, text, where)
        case _:
            raise _expected(how, f"hex: and {how.size} bytes", text, where)


def _expected(how: Codec, what: str, text: str, where: str) -> ValueRangeError:
    return how.wrong(text, f"is not {what}, which {how.name} takes", where)


def _hex(how: Codec, text: str, where: str) -> bytes:
    try:
        return bytes.fromhex(text[4:].replace(":", " "))
    except ValueError:
        raise _expected(how, "hex: and bytes of two hexadecimal digits each", text, where) from None


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _enum(text: str) -> int | str:
    number = _number(text)
    return text if number is None else number  # encoding knows the names


def _int(how: IntCodec, text: str, where: str) -> int | bytes:
    if text.startswith("be:"):
        number = _number(text[3:])
        if number is None or not 0 <= number < 1 << how.size * 8:
            raise _expected(how, f"be: and a number of {how.size} bytes", text, where)
        return number.to_bytes(how.size, "big")
    number = _number(text)
    if number is not None:
        return number
    if how.size == 4 and not how.signed and _QUAD.fullmatch(text):
        return _ipv4(how, text, where)
    if how.size == 1 and len(text) == 3 and text[0] == text[2] == "'" and text.isascii():
        return ord(text[1])
    address = " or an IPv4 address" if how.size == 4 and not how.signed else ""
    raise _expected(how, f"a number{address}", text, where)


def _ipv4(how: Codec, text: str, where: str) -> bytes:
    from ipaddress import IPv4Address

    try:
        return IPv4Address(text).packed
    except ValueError as error:
        raise _expected(how, f"an IPv4 address ({error})", text, where) from None


def _address(how: Codec, text: str, where: str) -> bytes | None:
    """The bytes of a MAC, IPv4 or IPv6 address, if the text is one that fills the value."""
    if how.size == 6 and _MAC.fullmatch(text):
        return bytes(int(part, 16) for part in re.split("[:-]", text))
    if how.size == 4 and _QUAD.fullmatch(text):
        return _ipv4(how, text, where)
    if how.size == 16 and text.count(":") >= 2:
        from ipaddress import IPv6Address

        try:
            return IPv6Address(text).packed
        except ValueError as error:
            raise _expected(how, f"an IPv6 address ({error})", text, where) from None
    return None


def _array(how: ArrayCodec, text: str, where: str) -> bytes | list[Any]:
    address = _address(how, text, where) if isinstance(how.element, IntCodec) else None
    if address is not None:
        return address
    where = where or how.name
    return [
        _parse(how.element, item, f"{where}[{index}]")
        for index, item in enumerate(_split(how, _inside(text, "["), where))
    ]


def _struct(how: StructCodec, text: str, where: str) -> bytes | dict[str, Any] | list[Any]:
    type = resolve(how.type) if how.type is not None else None
    if isinstance(type, t.Composite) and type.name in ("in_addr", "in6_addr"):
        address = _address(how, text, where)
        if address is not None:
            return address
    where = where or how.name
    items = _split(how, _inside(text, "{"), where)
    pairs = [re.match(r"(\w+)\s*=\s*(.*)", item, re.DOTALL) for item in items]
    codecs = {field.name: field.codec for field in how.fields}
    if not any(pairs) and items:
        if len(items) != len(codecs):
            raise _expected(
                how, f"{len(codecs)} values or name=value pairs ({', '.join(codecs)})", text, where
            )
        return [
            _parse(field.codec, item, f"{where}.{field.name}")
            for field, item in zip(how.fields, items, strict=True)
        ]
    values: dict[str, Any] = {}
    for item, pair in zip(items, pairs, strict=True):
        if pair is None:
            raise _expected(how, "name=value", item, where)
        name, value = pair.groups()
        if name in values:
            raise how.wrong(text, f"gives {name} twice", where)
        # Encoding knows what to say about a name that is none.
        values[name] = _parse(codecs[name], value, f"{where}.{name}") if name in codecs else value
    return values


def _inside(text: str, opening: str) -> str:
    """The text without the brackets around all of it, if it has them."""
    if text.startswith(opening) and text.endswith(_OPEN[opening]):
        depth, quote = 0, False
        for place, char in enumerate(text):
            quote ^= char == '"' and text[place - 1] != "\\"
            if not quote:
                depth += (char in _OPEN) - (char in _OPEN.values())
                if not depth and place < len(text) - 1:
                    return text
        return text[1:-1].strip()
    return text


def _split(how: Codec, text: str, where: str) -> list[str]:
    """The items between commas that are not inside brackets or quotes."""
    items, closing, start, place = [], [], 0, 0
    while place < len(text):
        char = text[place]
        if char == '"':
            quoted = _QUOTED.match(text, place)
            if quoted is None:
                raise how.wrong(text, "has a quote that is not closed", where)
            place = quoted.end()
            continue
        if char in _OPEN:
            closing.append(_OPEN[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char in _OPEN.values():
            raise how.wrong(text, f"has a {char!r} too many", where)
        elif char == "," and not closing:
            items.append(text[start:place].strip())
            start = place + 1
        place += 1
    if closing:
        raise how.wrong(text, f"lacks a {closing[-1]!r}", where)
    last = text[start:].strip()
    return [*items, last] if last or items else []


def _unquoted(how: Codec, text: str, where: str) -> str:
    if not text.startswith('"'):
        return text
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        raise how.wrong(text, "has something behind the closing quote, or no such quote", where)
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), quoted[1], flags=re.DOTALL)
