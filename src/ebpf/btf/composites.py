"""Codecs of values that have parts: arrays, structs, unions and sections of variables.

A struct is decoded by a function that is generated for it, as namedtuple generates its methods: one
`struct.unpack` for all plain fields, bit-fields cut out of the bytes between, nested values by their own
codecs. No name out of the BTF gets into that code.
"""

# ruff: noqa: D102  (what overrides do is said in Codec)

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ebpf.btf import types as t
from ebpf.btf.layout import is_flexible
from ebpf.btf.scalars import (
    ORDER_MARK,
    BoolCodec,
    Buffer,
    Codec,
    EnumCodec,
    IntCodec,
    bits_of,
    too_short,
)
from ebpf.btf.structvalue import (
    StructValue,
    _set_raw,
    _set_values,
    make_struct,
    struct_class,
)
from ebpf.btf.wire import ByteOrder
from ebpf.errors import BTFError, ValueRangeError

#: A value of so many Python objects per byte is made of unions in unions without end.
_MAX_LEAVES_PER_BYTE = 64
_MIN_LEAVES_LIMIT = 1 << 16


def limit_leaves(codec: Codec) -> None:
    """BTFError if values would be made of more objects than any sensible type of their size has."""
    if codec.leaves > max(_MIN_LEAVES_LIMIT, codec.size * _MAX_LEAVES_PER_BYTE):
        raise BTFError(f"{codec.name} has {codec.leaves} fields in {codec.size} bytes, too many to decode")


class ArrayCodec(Codec):
    """Arrays as tuples. One of no length is flexible: it takes any number of elements."""

    __slots__ = ("element", "length", "order")

    def __init__(self, type: t.Type, element: Codec, length: int, order: ByteOrder) -> None:
        super().__init__(type, element.size * length)
        self.element = element
        self.length = length
        self.order = order
        self.is_exact = element.is_exact
        self.leaves = 1 + length * element.leaves
        limit_leaves(self)
        if element.format and element.format[-1] != "s" and element.convert is None:
            unpack = struct.Struct(f"{ORDER_MARK[order]}{length}{element.format}").unpack_from

            def decode_flat(buffer: Buffer, offset: int = 0, /) -> Any:
                try:
                    return unpack(buffer, offset)
                except struct.error:
                    raise too_short(self, buffer, offset) from None

            self.decode = decode_flat
        else:
            one, step, size = element.decode, element.size, self.size

            def decode(buffer: Buffer, offset: int = 0, /) -> Any:
                if len(buffer) - offset < size:
                    raise too_short(self, buffer, offset)
                return tuple([one(buffer, offset + index * step) for index in range(length)])

            self.decode = decode

    @property
    def is_flexible(self) -> bool:
        return self.length == 0

    def decode_whole(self, buffer: Buffer) -> Any:
        if not self.is_flexible or not self.element.size:
            return self.decode(buffer)
        step = self.element.size
        return tuple([self.element.decode(buffer, index * step) for index in range(len(buffer) // step)])

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value) if self.is_flexible else self.raw(value, where)
        if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
            raise self.wrong(value, "is no sequence of elements", where)
        if not self.is_flexible and len(value) != self.length:
            raise self.wrong(value, f"has {len(value)} elements; {self.name} takes {self.length}", where)
        where = where or self.name
        parts = []
        for index, item in enumerate(value):
            part = self.element.encode(item, where=f"{where}[{index}]")
            if len(part) != self.element.size:
                raise self.wrong(item, "has a flexible array, which an element cannot have", where)
            parts.append(part)
        return b"".join(parts)

    def mask(self) -> bytes:
        return self.element.mask() * self.length


class Field(NamedTuple):
    """A field of a struct, those of anonymous members among them."""

    name: str
    codec: Codec
    offset: int  #: bytes from the start of the struct
    bits: tuple[int, int] | None = None  #: bit offset from the start of the struct, and width

    def span(self) -> tuple[int, int]:
        """The bytes that it touches: from, to."""
        if self.bits is None:
            return self.offset, self.offset + self.codec.size
        return self.bits[0] // 8, (self.bits[0] + self.bits[1] + 7) // 8

    def shift(self, start: int, stop: int, order: ByteOrder) -> int:
        """How far a bit-field is from the low end of the number that the bytes start to stop make."""
        assert self.bits is not None
        bit, width = self.bits
        return bit - start * 8 if order == "little" else stop * 8 - bit - width


class StructCodec(Codec):
    """Structs, unions and data sections."""

    __slots__ = ("_cls", "_fields", "_is_flexible", "_overlaps", "_pack", "_places", "order")

    def __init__(self, type: t.Type, size: int, fields: Sequence[Field], order: ByteOrder) -> None:
        super().__init__(type, size)
        self.order = order
        self._fields = tuple(fields)
        self._places = {field.name: field for field in fields}
        if len(self._places) != len(fields):
            raise BTFError(f"{self.name} has two fields of the same name")
        self._cls = struct_class(type.name or type.kind.name.lower(), tuple(self._places))
        self.leaves = 1 + sum(field.codec.leaves for field in fields)
        limit_leaves(self)
        self._overlaps, is_dense = _coverage(fields, size)
        self.is_exact = is_dense and not self._overlaps and all(field.codec.is_exact for field in fields)
        self._is_flexible = is_flexible(type) and bool(fields) and fields[-1].codec.is_flexible
        self._pack = self._packer()
        self.decode = _generate_decode(self, self._fields, self._cls)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Its fields in the order of declaration, those of anonymous members in their place."""
        return self._fields

    @property
    def is_flexible(self) -> bool:
        return self._is_flexible

    def decode_whole(self, buffer: Buffer) -> Any:
        value = self.decode(buffer)
        if not self._is_flexible:
            return value
        last = self._fields[-1]
        tail = last.codec.decode_whole(memoryview(buffer)[last.offset :])
        return make_struct(self._cls, (*value._values[:-1], tail))

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.raw(value, where)
        if isinstance(value, StructValue):
            if value._fields == self._cls._fields:
                if value._raw is not None and value._raw[0] is self:
                    return value._raw[1]
                return self._encode(self._fields, value._values, where)
        elif isinstance(value, (tuple, list)):
            if len(value) != len(self._fields):
                raise self.wrong(
                    value, f"has {len(value)} values; {self.name} has {len(self._fields)} fields", where
                )
            return self._encode(self._fields, value, where)
        elif not isinstance(value, Mapping):
            raise self.wrong(value, f"is no value of {self.name}: give a dict of its fields", where)
        given = (
            dict(zip(value._fields, value._values, strict=True)) if isinstance(value, StructValue) else value
        )
        for name in given:
            if name not in self._places:
                from difflib import get_close_matches

                near = get_close_matches(str(name), self._places, n=1)
                raise ValueRangeError(
                    f"{where or self.name} has no field {name!r}; its fields are: {', '.join(self._places)}",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        chosen = [field for field in self._fields if field.name in given]
        return self._encode(chosen, [given[field.name] for field in chosen], where)

    def mask(self) -> bytes:
        mask = bytearray(self.size)
        for field in self._fields:
            start, _, bits = _place(field, field.codec.mask() if field.bits is None else -1, self.order)
            _merge(mask, start, bits)
        return bytes(mask)

    def _packer(self) -> struct.Struct | None:
        """What packs all fields at once, for structs of plain numbers."""
        if self._overlaps:
            return None
        code, at = [], 0
        for field in self._fields:
            if field.bits or not field.codec.format or not isinstance(field.codec, IntCodec | EnumCodec):
                return None
            if field.codec.format[-1] == "s" or field.offset < at:
                return None
            code.append(f"{field.offset - at}x{field.codec.format}")
            at = field.offset + field.codec.size
        return struct.Struct(f"{ORDER_MARK[self.order]}{''.join(code)}{self.size - at}x")

    def _encode(self, fields: Sequence[Field], values: Sequence[Any], where: str) -> bytes:
        if self._pack and len(fields) == len(self._fields):
            try:
                return self._pack.pack(*values)
            except (struct.error, TypeError):
                pass  # the long way says which field, or takes the name of an enum
        where = where or self.name
        result = bytearray(self.size)
        written = bytearray(self.size) if self._overlaps else None
        for field, value in zip(fields, values, strict=True):
            path = f"{where}.{field.name}"
            if field.bits is None:
                data: bytes | int = field.codec.encode(value, where=path)
            else:
                data = _bit_value(field, value, path)
            start, encoded, mask = _place(field, data, self.order)
            if start + len(encoded) > len(result) or (
                field.bits is None and len(encoded) != field.codec.size
            ):
                if not (self._is_flexible and field is self._fields[-1]):
                    raise self.wrong(value, "is longer than its place, which is not at the end", path)
                result[start:] = encoded.ljust(self.size - start, b"\0")
                continue
            if written is not None:
                self._check_overlap(result, written, start, encoded, mask, path)
                _merge(written, start, mask)
            _merge(result, start, encoded)
        return bytes(result)

    def _check_overlap(
        self, result: bytearray, written: bytearray, start: int, encoded: bytes, mask: bytes, path: str
    ) -> None:
        stop = start + len(encoded)
        old, new = int.from_bytes(result[start:stop], "big"), int.from_bytes(encoded, "big")
        both = int.from_bytes(written[start:stop], "big") & int.from_bytes(mask, "big")
        if (old ^ new) & both:
            raise ValueRangeError(
                f"{path} differs from another member of the union that was given too",
                hint="give one member of a union only",
            )


def _coverage(fields: Sequence[Field], size: int) -> tuple[bool, bool]:
    """Whether any fields overlap, and whether they leave no bit of the struct unused."""
    spans = sorted(
        (field.bits[0], sum(field.bits))
        if field.bits
        else (field.offset * 8, (field.offset + field.codec.size) * 8)
        for field in fields
    )
    overlaps, covered, end = False, 0, 0
    for start, stop in spans:
        overlaps |= start < end
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    return overlaps, covered == size * 8


def _bit_value(field: Field, value: Any, path: str) -> int:
    assert field.bits is not None
    codec, width = field.codec, field.bits[1]
    if isinstance(codec, EnumCodec):
        return codec.number(value, width, path)
    if isinstance(codec, BoolCodec):
        return codec.encode(value, where=path) != bytes(codec.size)
    assert isinstance(codec, IntCodec)
    return bits_of(codec, value, width, codec.signed, path)


def _place(field: Field, data: bytes | int, order: ByteOrder) -> tuple[int, bytes, bytes]:
    """Where the bytes of a field start, the bytes, and the bits of these that are its own."""
    if isinstance(data, bytes):
        mask = field.codec.mask()
        return field.offset, data, mask
    assert field.bits is not None
    start, stop = field.span()
    shift, ones = field.shift(start, stop, order), (1 << field.bits[1]) - 1
    return (
        start,
        ((data & ones) << shift).to_bytes(stop - start, order),
        (ones << shift).to_bytes(stop - start, order),
    )


def _merge(target: bytearray, start: int, data: bytes) -> None:
    """Or `data` into `target`."""
    stop = start + len(data)
    merged = int.from_bytes(target[start:stop], "big") | int.from_bytes(data, "big")
    target[start:stop] = merged.to_bytes(len(data), "big")


class _Chunk(NamedTuple):
    """Bytes that are unpacked as one item: a plain field, or a run of bit-fields."""

    start: int
    stop: int
    code: str
    variable: str


def _chunks(fields: Sequence[Field]) -> Iterator[tuple[_Chunk, list[int]]]:
    """The items to be unpacked, each with the places of its fields."""
    run: list[int] = []
    start = stop = 0

    def finished() -> Iterator[tuple[_Chunk, list[int]]]:
        if run:
            yield _Chunk(start, stop, f"{stop - start}s", f"v{run[0]}"), list(run)
            run.clear()

    for place, field in enumerate(fields):
        first, last = field.span()
        if field.bits and run and start <= first <= stop:
            stop = max(stop, last)
            run.append(place)
            continue
        yield from finished()
        if field.bits:
            start, stop = first, last
            run.append(place)
        elif field.codec.format:
            yield _Chunk(first, last, field.codec.format, f"v{place}"), [place]
    yield from finished()


def _generate_decode(codec: StructCodec, fields: Sequence[Field], cls: type[StructValue]) -> Any:
    """The function that decodes a struct."""
    scope: dict[str, Any] = {
        "codec": codec,
        "cls": cls,
        "new": object.__new__,
        "set_values": _set_values,
        "set_raw": _set_raw,
        "from_bytes": int.from_bytes,
        "struct_error": struct.error,
        "too_short": too_short,
    }
    # Each unpack takes items in ascending order; fields of a union start over.
    unpacks: list[list[_Chunk]] = [[]]
    numbers: list[str] = []  # lines that make a number of the bytes of a run of bit-fields
    values = [""] * len(fields)
    for chunk, places in _chunks(fields):
        if unpacks[-1] and chunk.start < unpacks[-1][-1].stop:
            unpacks.append([])
        unpacks[-1].append(chunk)
        if fields[places[0]].bits:
            numbers.append(f"{chunk.variable} = from_bytes({chunk.variable}, {codec.order!r})")
        for place in places:
            field = fields[place]
            value = chunk.variable
            if field.bits:
                width = field.bits[1]
                value = (
                    f"({value} >> {field.shift(chunk.start, chunk.stop, codec.order)} & {(1 << width) - 1})"
                )
                if isinstance(field.codec, IntCodec | EnumCodec) and field.codec.signed:
                    value = f"(({value} ^ {1 << width - 1}) - {1 << width - 1})"
            convert = _bit_convert(field.codec) if field.bits else field.codec.convert
            if convert:
                scope[f"convert{place}"] = convert
                value = f"convert{place}({value})"
            values[place] = value
    for place, field in enumerate(fields):
        if not values[place]:
            scope[f"decode{place}"] = field.codec.decode
            values[place] = f"decode{place}(buffer, offset + {field.offset})"
    lines = ["def decode(buffer, offset=0, /):", "    try:"]
    for number, chunks in enumerate(unpacks):
        code, at = [], 0
        for chunk in chunks:
            code.append(f"{chunk.start - at}x{chunk.code}")
            at = chunk.stop
        # The padding makes every buffer that is too short an error here.
        scope[f"unpack{number}"] = struct.Struct(
            f"{ORDER_MARK[codec.order]}{''.join(code)}{max(0, codec.size - at)}x"
        ).unpack_from
        targets = "".join(f"{chunk.variable}, " for chunk in chunks)
        lines.append(f"        {targets and targets + '= '}unpack{number}(buffer, offset)")
    lines.append("    except struct_error:")
    lines.append("        raise too_short(codec, buffer, offset) from None")
    lines.extend(f"    {line}" for line in numbers)
    lines.append("    value = new(cls)")
    lines.append(f"    set_values(value, ({''.join(f'{value}, ' for value in values)}))")
    raw = "None" if codec.is_exact else f"(codec, bytes(buffer[offset : offset + {codec.size}]))"
    lines.append(f"    set_raw(value, {raw})")
    lines.append("    return value")
    exec("\n".join(lines), scope)  # only numbers and names of our own are in these lines
    return scope["decode"]


def _bit_convert(codec: Codec) -> Any:
    return bool if isinstance(codec, BoolCodec) else codec.convert if isinstance(codec, EnumCodec) else None
