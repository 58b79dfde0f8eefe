"""Codecs of values that have no parts: integers, enums, pointers, floats, text, bytes."""

# ruff: noqa: D102  (what overrides do is said in Codec)

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from ebpf.btf import types as t
from ebpf.btf.structvalue import enum_class
from ebpf.btf.wire import ByteOrder
from ebpf.errors import ValueRangeError

Buffer: TypeAlias = "bytes | bytearray | memoryview"
ORDER_MARK = {"little": "<", "big": ">"}
INT_FORMATS = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"}
INT_FORMATS |= {(size, True): code.lower() for (size, _), code in INT_FORMATS.items()}
_FLOAT_FORMATS = {2: "e", 4: "f", 8: "d"}


class Decode(Protocol):
    """Bytes to value: from `buffer` at `offset`; ValueRangeError if it ends too early."""

    def __call__(self, buffer: Buffer, offset: int = 0, /) -> Any: ...


class Codec:
    """Turns bytes into Python values of one type, and back."""

    __slots__ = ("convert", "decode", "format", "is_exact", "leaves", "size", "type")

    def __init__(self, type: t.Type | None, size: int) -> None:
        self.type = type
        self.size = size  #: bytes; values with a flexible array may go on behind
        self.decode: Decode
        #: How `struct` unpacks it as one item, and what makes the value of that item; None if it has parts.
        self.format: str | None = None
        self.convert: Callable[[Any], Any] | None = None
        #: Whether encoding a decoded value always gives the same bytes.
        self.is_exact = True
        #: How many Python objects a value is made of.
        self.leaves = 1

    def __repr__(self) -> str:
        return f"<codec of {self.type or 'bytes'}, {self.size} bytes>"

    def encode(self, value: Any, *, where: str = "") -> bytes:
        """Value to bytes. ValueRangeError if it does not fit; `where` is what the error calls it."""
        raise NotImplementedError

    def decode_whole(self, buffer: Buffer) -> Any:
        """As `decode`, with a flexible array at the end taking what is left of the buffer."""
        return self.decode(buffer)

    @property
    def is_flexible(self) -> bool:
        """Whether values may go on behind `size`."""
        return False

    def mask(self) -> bytes:
        """`size` bytes with the bits set that hold the value; the others are padding."""
        return b"\xff" * self.size

    @property
    def name(self) -> str:
        """What errors call the type."""
        return str(self.type) if self.type is not None else f"{self.size} bytes"

    def wrong(self, value: Any, why: str, where: str, *, hint: str | None = None) -> ValueRangeError:
        """The error for a value that does not fit."""
        text = repr(value)
        if len(text) > 80:
            text = f"{text[:77]}..."
        return ValueRangeError(f"{where or self.name}: {text} {why}", hint=hint)

    def raw(self, value: Buffer, where: str) -> bytes:
        """Bytes given for the value itself, which must be of its size."""
        if len(value) != self.size:
            raise self.wrong(value, f"is {len(value)} bytes long; {self.name} takes {self.size}", where)
        return bytes(value)

    def _unpack_by(self, code: str, order: ByteOrder, convert: Callable[[Any], Any] | None = None) -> None:
        self.format = code
        self.convert = convert
        unpack = struct.Struct(ORDER_MARK[order] + code).unpack_from

        def decode(buffer: Buffer, offset: int = 0, /) -> Any:
            try:
                return unpack(buffer, offset)[0]
            except struct.error:
                raise too_short(self, buffer, offset) from None

        def decode_converted(buffer: Buffer, offset: int = 0, /) -> Any:
            try:
                return convert(unpack(buffer, offset)[0])  # type: ignore[misc]
            except struct.error:
                raise too_short(self, buffer, offset) from None

        self.decode = decode if convert is None else decode_converted


def too_short(codec: Codec, buffer: Buffer, offset: int) -> ValueRangeError:
    """The error for a buffer that ends before the value does."""
    at = f" at offset {offset}" if offset else ""
    return ValueRangeError(f"{codec.name} takes {codec.size} bytes{at}; there are {len(buffer) - offset}")


def bits_of(codec: Codec, value: Any, bits: int, signed: bool, where: str) -> int:
    """An integer that fits so many bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise codec.wrong(value, f"is no integer, as {codec.name} needs", where) from None
    low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= number <= high:
        of = codec.name if bits == codec.size * 8 else f"{codec.name} of {bits} bits"
        raise codec.wrong(value, f"does not fit {of} ({low} to {high})", where)
    return number


class IntCodec(Codec):
    """Integers, and pointers as integers. `bits` and `shift` differ from the whole for odd types only."""

    __slots__ = ("bits", "order", "shift", "signed")

    def __init__(
        self,
        type: t.Type | None,
        size: int,
        signed: bool,
        order: ByteOrder,
        *,
        bits: int = 0,
        bit_offset: int = 0,
    ) -> None:
        super().__init__(type, size)
        self.signed = signed
        self.order = order
        self.bits = bits or size * 8
        self.shift = bit_offset if order == "little" else size * 8 - bit_offset - self.bits
        code = INT_FORMATS.get((size, signed))
        if code and self.bits == size * 8:
            self._unpack_by(code, order)
        else:
            self.is_exact = self.bits == size * 8
            shift, mask, sign = self.shift, (1 << self.bits) - 1, (1 << self.bits - 1 if signed else 0)
            self._unpack_by(
                f"{size}s",
                order,
                lambda data: ((int.from_bytes(data, order) >> shift & mask) ^ sign) - sign,
            )

    @property
    def name(self) -> str:
        return str(self.type) if self.type is not None else f"{'s' if self.signed else 'u'}{self.size * 8}"

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.raw(value, where)
        number = bits_of(self, value, self.bits, self.signed, where)
        return ((number & (1 << self.bits) - 1) << self.shift).to_bytes(self.size, self.order)

    def mask(self) -> bytes:
        return ((1 << self.bits) - 1 << self.shift).to_bytes(self.size, self.order)


class WireIntCodec(IntCodec):
    """Integers of a declared byte order, such as `__be32`: they are the number that they mean on the wire.

    As bytes to `struct`, so that a struct of the machine's order can hold them.
    """

    __slots__ = ()

    def __init__(self, type: t.Type, size: int, order: ByteOrder) -> None:
        super().__init__(type, size, False, order)
        self._unpack_by(f"{size}s", order, lambda data: int.from_bytes(data, order))


class BoolCodec(Codec):
    """Booleans."""

    __slots__ = ("order",)

    def __init__(self, type: t.Type, size: int, order: ByteOrder) -> None:
        super().__init__(type, size)
        self.order = order
        self.is_exact = False  # any number but 0 is true
        if size == 1:
            self._unpack_by("?", order)
        else:
            self._unpack_by(f"{size}s", order, any)

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.raw(value, where)
        if value not in (True, False):
            raise self.wrong(value, "is neither True nor False", where)
        return int(value).to_bytes(self.size, self.order)


class EnumCodec(Codec):
    """Enums: any number of the right size, by number or by name."""

    __slots__ = ("order", "signed", "values")

    def __init__(self, type: t.Enum, order: ByteOrder) -> None:
        super().__init__(type, type.size)
        self.signed = type.signed
        self.order = order
        self.values = dict(reversed(type.members))
        # A value may be kept in more or in fewer bits than the enum is wide.
        bits = type.size * 8
        sign = 1 << bits - 1 if self.signed else 0
        fold = (1 << bits) - 1
        cls = enum_class(
            type.name, tuple((((value & fold) ^ sign) - sign, name) for name, value in type.members)
        )
        known = {value: cls(value) for value in cls._names}
        self._unpack_by(
            INT_FORMATS[type.size, self.signed], order, lambda number: known.get(number) or cls(number)
        )

    def number(self, value: Any, bits: int, where: str) -> int:
        """The number of a value given as a number or a name."""
        if isinstance(value, str):
            if value not in self.values:
                from difflib import get_close_matches

                near = get_close_matches(value, self.values, n=1)
                hint = f"did you mean {near[0]!r}?" if near else None
                raise self.wrong(value, f"is no name of {self.name}", where, hint=hint)
            value = self.values[value]
        return bits_of(self, value, bits, self.signed, where)

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.raw(value, where)
        number = self.number(value, self.size * 8, where)
        return number.to_bytes(self.size, self.order, signed=self.signed)


class FloatCodec(Codec):
    """Floating-point numbers; the sizes that Python cannot compute with stay bytes."""

    __slots__ = ("pack",)

    def __init__(self, type: t.Float, order: ByteOrder) -> None:
        super().__init__(type, type.size)
        code = _FLOAT_FORMATS.get(type.size)
        self.pack = struct.Struct(ORDER_MARK[order] + code).pack if code else None
        self.is_exact = type.size == 8 or not code  # narrower ones lose the payload of a signalling NaN
        self._unpack_by(code or f"{type.size}s", order)

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.raw(value, where)
        if self.pack is None:
            raise self.wrong(value, f"cannot be made {self.size} bytes of floating point; give bytes", where)
        try:
            return self.pack(value)
        except (struct.error, OverflowError, TypeError):
            raise self.wrong(value, f"is no number that {self.name} holds", where) from None


class BytesCodec(Codec):
    """Bytes of a fixed number, as they are."""

    __slots__ = ()

    def __init__(self, size: int, type: t.Type | None = None) -> None:
        super().__init__(type, size)
        self._unpack_by(f"{size}s", "little")

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise self.wrong(value, f"is not bytes, of which {self.size} are needed", where)
        return self.raw(value, where)


class Text(str):
    """Text whose array holds something behind the NUL, which is kept so that encoding gives it back."""

    __slots__ = ("raw",)
    raw: bytes


class TextCodec(Codec):
    """Arrays of `char`: str up to the first NUL where that is UTF-8, bytes where it is not."""

    __slots__ = ()

    def __init__(self, type: t.Type, size: int) -> None:
        super().__init__(type, size)
        self._unpack_by(f"{size}s", "little", _text)

    @property
    def is_flexible(self) -> bool:
        return self.size == 0

    def decode_whole(self, buffer: Buffer) -> Any:
        return _text(bytes(buffer)) if self.is_flexible else self.decode(buffer)

    def encode(self, value: Any, *, where: str = "") -> bytes:
        if isinstance(value, Text) and (len(value.raw) == self.size or self.is_flexible):
            return value.raw
        if isinstance(value, str):
            data = value.encode()
        elif isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
        else:
            raise self.wrong(value, "is neither str nor bytes", where)
        if self.is_flexible:
            return data
        if len(data) > self.size:
            raise self.wrong(value, f"takes {len(data)} bytes; {self.name} holds {self.size}", where)
        return data.ljust(self.size, b"\0")


def _text(data: bytes) -> str | bytes:
    head, _, rest = data.partition(b"\0")
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return data
    if rest.strip(b"\0"):
        text = Text(text)
        text.raw = data
    return text
