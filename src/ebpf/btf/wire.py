"""The binary form of BTF: header, records, and where these hold names and type ids.

The type section holds nothing but 32-bit words, so one byte swap makes a foreign byte order native.
Sources: Documentation/bpf/btf.rst and include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Literal, NamedTuple

from ebpf.btf.types import Kind
from ebpf.errors import BTFError

ByteOrder = Literal["little", "big"]

MAGIC = 0xEB9F
VERSION = 1
MAX_VLEN = 0xFFFF
KIND_FLAG = 1 << 31
HEADER = "HBBIIIII"
HEADER_SIZE = 24
#: Kinds that the five bits of `info` can name.
_KINDS = 32
#: Bits of `info` that must be zero: 16 to 23, 29 and 30.
_RESERVED = 0x60FF0000


class Record(NamedTuple):
    """What a type record holds after its three common words; positions count words."""

    fixed: int = 0  #: words that every type of the kind has
    element: int = 0  #: words of each of the `vlen` elements
    refers: bool = False  #: the third common word is a type id, not a size
    fixed_types: tuple[int, ...] = ()  #: type ids among the fixed words
    element_name: bool = False  #: the first word of an element is a name
    element_type: int | None = None  #: the word of an element that is a type id


RECORDS = {
    Kind.INT: Record(fixed=1),
    Kind.PTR: Record(refers=True),
    Kind.ARRAY: Record(fixed=3, fixed_types=(0, 1)),
    Kind.STRUCT: Record(element=3, element_name=True, element_type=1),
    Kind.UNION: Record(element=3, element_name=True, element_type=1),
    Kind.ENUM: Record(element=2, element_name=True),
    Kind.FWD: Record(),
    Kind.TYPEDEF: Record(refers=True),
    Kind.VOLATILE: Record(refers=True),
    Kind.CONST: Record(refers=True),
    Kind.RESTRICT: Record(refers=True),
    Kind.FUNC: Record(refers=True),
    Kind.FUNC_PROTO: Record(element=2, refers=True, element_name=True, element_type=1),
    Kind.VAR: Record(fixed=1, refers=True),
    Kind.DATASEC: Record(element=3, element_type=0),
    Kind.FLOAT: Record(),
    Kind.DECL_TAG: Record(fixed=1, refers=True),
    Kind.TYPE_TAG: Record(refers=True),
    Kind.ENUM64: Record(element=3, element_name=True),
}


def kind_of(info: int) -> Kind:
    """The kind in the `info` word of a record; BTFError if it is newer than this table."""
    kind = info >> 24 & 0x1F
    if kind not in RECORDS:
        raise BTFError(f"kind {kind} is not known")
    return Kind(kind)


class Sections(NamedTuple):
    """Where a BTF blob holds its parts; bytes from its start."""

    byteorder: ByteOrder
    types: slice
    strings: slice
    layout: slice  #: struct btf_layout per kind; empty in BTF of kernels before 7.1


def byteorder_of(data: bytes, what: str = "BTF") -> ByteOrder:
    """The byte order that the magic number at the start of `data` shows; BTFError if it is not there."""
    order: ByteOrder
    for order in ("little", "big"):
        if data[:2] == MAGIC.to_bytes(2, order):
            return order
    raise BTFError(f"not {what}: it starts with {data[:2].hex(' ') or 'nothing'}, not the magic 0xeb9f")


def parse_header(data: bytes, *, is_split: bool) -> Sections:
    """Check the header against the data."""
    order = byteorder_of(data)
    if len(data) < HEADER_SIZE:
        raise BTFError(f"BTF is cut off: {len(data)} bytes, where the header alone takes {HEADER_SIZE}")
    mark = "<" if order == "little" else ">"
    _, version, flags, size, *places = struct.unpack_from(mark + HEADER, data)
    if version != VERSION:
        raise BTFError(f"BTF version {version} is not known; only version {VERSION} is")
    if flags:
        raise BTFError(f"BTF header has unknown flags {flags:#x}")
    if not HEADER_SIZE <= size <= len(data):
        raise BTFError(f"BTF header gives its own size as {size}, of {len(data)} bytes in all")
    if size >= HEADER_SIZE + 8:
        places += struct.unpack_from(mark + "II", data, HEADER_SIZE)
        known = HEADER_SIZE + 8
    else:
        places += 0, 0
        known = HEADER_SIZE
    if any(data[known:size]):
        raise BTFError(f"BTF header is {size} bytes long and uses fields that are not known")
    slices = []
    for name, offset, length in zip(("type", "string", "layout"), places[::2], places[1::2], strict=True):
        if size + offset + length > len(data):
            raise BTFError(
                f"BTF {name} section at offset {offset}, {length} bytes, ends behind the data "
                f"({len(data) - size} bytes after the header)"
            )
        slices.append(slice(size + offset, size + offset + length))
    types, strings, layout = slices
    if (types.stop - types.start) % 4:
        raise BTFError(f"BTF type section has {types.stop - types.start} bytes, no multiple of 4")
    if strings.stop > strings.start:
        if data[strings.stop - 1]:
            raise BTFError("BTF string section does not end with a NUL")
        if not is_split and data[strings.start]:
            raise BTFError("BTF string section does not start with the empty string")
    elif not is_split:
        raise BTFError("BTF has no string section")
    return Sections(order, types, strings, layout)


def to_words(data: bytes, order: ByteOrder) -> array[int]:
    """The 32-bit words of a section."""
    words = array("I")
    words.frombytes(data)
    if order != sys.byteorder:
        words.byteswap()
    return words


def from_words(words: array[int], order: ByteOrder) -> bytes:
    """The opposite of `to_words`."""
    if order != sys.byteorder:
        words = words[:]
        words.byteswap()
    return words.tobytes()


class _Lengths(dict[int, int]):
    """Words of a record by its `info`; a BTF has few distinct ones, so each is worked out once."""

    def __init__(self, layout: bytes) -> None:
        super().__init__()
        self.shapes = {int(kind): (record.fixed, record.element) for kind, record in RECORDS.items()}
        # Kinds newer than this table are passed over by the sizes that the BTF itself gives.
        for kind in range(min(len(layout) // 4, _KINDS)):
            fixed, element = layout[kind * 4], layout[kind * 4 + 1]
            if kind and kind not in self.shapes and fixed % 4 == 0 and element % 4 == 0:
                self.shapes[kind] = fixed // 4, element // 4

    def __missing__(self, info: int) -> int:
        if info & _RESERVED:
            raise BTFError(f"info {info:#010x} has reserved bits set")
        kind = info >> 24 & 0x1F
        if kind not in self.shapes:
            raise BTFError(f"kind {kind} is not known")
        fixed, element = self.shapes[kind]
        length = self[info] = 3 + fixed + element * (info & MAX_VLEN)
        return length


def scan(words: array[int], *, first_id: int, layout: bytes = b"") -> array[int]:
    """Where each type record starts, in words. One pass; this is all that opening BTF does per type."""
    lengths = _Lengths(layout)
    offsets = array("I")
    append = offsets.append
    position, end = 0, len(words)
    try:
        while position < end:
            append(position)
            position += lengths[words[position + 1]]
    except IndexError:
        position = end + 1
    except BTFError as error:
        raise BTFError(f"BTF type {first_id + len(offsets) - 1} at offset {position * 4}: {error}") from None
    if position > end:
        last = len(offsets) - 1
        raise BTFError(
            f"BTF type {first_id + last} at offset {offsets[last] * 4} is cut off by the end of the section"
        )
    return offsets
