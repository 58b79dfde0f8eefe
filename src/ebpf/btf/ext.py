"""The .BTF.ext section: which function, source line and CO-RE relocation belongs to which instruction.

Sources: Documentation/bpf/btf.rst section 4.2; include/uapi/linux/bpf.h, struct bpf_core_relo.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from ebpf.btf.btf import BTF
from ebpf.btf.wire import VERSION, byteorder_of
from ebpf.errors import BTFError
from ebpf.isa.instruction import CoreKind, CoreRelocation, SourceLine

T = TypeVar("T")

_HEADER_SIZE = 24
_HEADER_SIZE_CORE = 32  # since clang 10
_FUNCTION_SIZE, _LINE_SIZE, _CORE_SIZE = 8, 16, 16


class FunctionInfo(NamedTuple):
    """Where a function starts."""

    offset: int  #: bytes from the start of the section
    type_id: int  #: of its Function


class LineInfo(NamedTuple):
    """Where a source line starts."""

    offset: int  #: bytes from the start of the section
    line: SourceLine


class CoreInfo(NamedTuple):
    """A CO-RE relocation of an instruction."""

    offset: int  #: bytes from the start of the section
    relocation: CoreRelocation


class BTFExt(NamedTuple):
    """What .BTF.ext holds, by the name of the ELF section that the offsets are in; ascending offsets."""

    functions: dict[str, list[FunctionInfo]]
    lines: dict[str, list[LineInfo]]
    relocations: dict[str, list[CoreInfo]]


def parse_ext(data: bytes, btf: BTF) -> BTFExt:
    """Parse a .BTF.ext section, which refers to the strings and types of `btf`. BTFError if malformed."""
    order = byteorder_of(data, ".BTF.ext")
    if order != btf.byteorder:
        raise BTFError(f".BTF.ext is {order}-endian, its .BTF {btf.byteorder}-endian")
    mark = "<" if order == "little" else ">"
    if len(data) < _HEADER_SIZE:
        raise BTFError(f".BTF.ext is cut off: {len(data)} bytes, where the header takes {_HEADER_SIZE}")
    _, version, flags, header, *places = struct.unpack_from(f"{mark}HBBI4I", data)
    if version != VERSION or flags:
        raise BTFError(f".BTF.ext of version {version} with flags {flags:#x} is not known")
    if not _HEADER_SIZE <= header <= len(data):
        raise BTFError(f".BTF.ext gives the size of its header as {header}, of {len(data)} bytes in all")
    if header >= _HEADER_SIZE_CORE:
        places += struct.unpack_from(f"{mark}2I", data, _HEADER_SIZE)
    else:
        places += 0, 0
    for name, offset, length in zip(
        ("function", "line", "relocation"), places[::2], places[1::2], strict=True
    ):
        if header + offset + length > len(data):
            raise BTFError(f".BTF.ext: the {name} part, {length} bytes at {offset}, ends behind the section")
    reader = _Reader(data, btf, mark)

    def part(index: int) -> slice:
        start: int = header + places[2 * index]
        return slice(start, start + places[2 * index + 1])

    return BTFExt(
        {name: [reader.function(at) for at in rows] for name, rows in reader.rows(part(0), _FUNCTION_SIZE)},
        {name: [reader.line(at) for at in rows] for name, rows in reader.rows(part(1), _LINE_SIZE)},
        {name: [reader.relocation(at) for at in rows] for name, rows in reader.rows(part(2), _CORE_SIZE)},
    )


class _Reader:
    def __init__(self, data: bytes, btf: BTF, mark: str) -> None:
        self._data = data
        self._btf = btf
        self._two = struct.Struct(f"{mark}2I")
        self._four = struct.Struct(f"{mark}4I")
        self._one = struct.Struct(f"{mark}I")
        self._strings: dict[int, str] = {}  # lines share few file names

    def rows(self, part: slice, least: int) -> Iterator[tuple[str, range]]:
        """Each section of one part: its name, and where its records start."""
        at, end = part.start, part.stop
        if at == end:
            return
        if end - at < 4:
            raise BTFError(f".BTF.ext at {at}: no room for the size of records")
        (size,) = self._one.unpack_from(self._data, at)
        if size < least or size % 4:
            raise BTFError(f".BTF.ext at {at}: records of {size} bytes; they have at least {least}")
        at += 4
        seen = set()
        while at < end:
            if end - at < 8:
                raise BTFError(f".BTF.ext at {at}: the head of a section is cut off")
            name_offset, count = self._two.unpack_from(self._data, at)
            name = self.string(name_offset)
            at += 8
            if not count or count * size > end - at:
                raise BTFError(f".BTF.ext at {at}: {count} records of section {name!r} in {end - at} bytes")
            if name in seen:
                raise BTFError(f".BTF.ext at {at}: section {name!r} appears twice")
            seen.add(name)
            yield name, range(at, at + count * size, size)
            at += count * size

    def string(self, offset: int) -> str:
        text = self._strings.get(offset)
        if text is None:
            text = self._strings[offset] = self._btf.string(offset)
        return text

    def function(self, at: int) -> FunctionInfo:
        return FunctionInfo(*self._two.unpack_from(self._data, at))

    def line(self, at: int) -> LineInfo:
        offset, file, text, place = self._four.unpack_from(self._data, at)
        return LineInfo(offset, SourceLine(self.string(file), place >> 10, place & 0x3FF, self.string(text)))

    def relocation(self, at: int) -> CoreInfo:
        offset, type_id, access, kind = self._four.unpack_from(self._data, at)
        try:
            known = CoreKind(kind)
        except ValueError:
            raise BTFError(f".BTF.ext at {at}: CO-RE relocation of unknown kind {kind}") from None
        return CoreInfo(offset, CoreRelocation(known, type_id, self.string(access)))
