"""Making BTF: from nothing, or from what another BTF holds.

Types are added as records and get their ids in that order; a type may refer to an id that is added later,
as recursive structs do.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ebpf.btf.btf import BTF
from ebpf.btf.types import Kind, Linkage, Type
from ebpf.btf.wire import (
    HEADER,
    HEADER_SIZE,
    KIND_FLAG,
    MAGIC,
    MAX_VLEN,
    RECORDS,
    VERSION,
    ByteOrder,
    from_words,
    kind_of,
)
from ebpf.errors import BTFError

_MAX_WORD = 0xFFFFFFFF
_INT_SIGNED, _INT_CHAR, _INT_BOOL = 1 << 24, 1 << 25, 1 << 26


class MemberSpec(NamedTuple):
    """A member to be added; `bits` is the width of a bit-field."""

    name: str
    type: int
    bit_offset: int
    bits: int = 0


class BTFBuilder:
    """Collects strings and types; `build` makes a BTF of them.

    Every method that adds a type returns its id. With a `base`, ids and strings go on where those end.
    """

    def __init__(self, *, base: BTF | None = None, byteorder: ByteOrder = "little") -> None:
        self.base = base
        self.byteorder: ByteOrder = base.byteorder if base else byteorder
        self._first_id = base.end_id if base else 1
        self._string_base = base.string_end if base else 0
        self._strings = bytearray() if base else bytearray(1)
        self._known: dict[str, int] = {"": 0}
        self._words = array("I")
        self._offsets = array("I")

    @classmethod
    def from_btf(cls, btf: BTF) -> BTFBuilder:
        """A builder that starts with all of another BTF's types, under the same ids, and its base."""
        builder = cls(base=btf.base, byteorder=btf.byteorder)
        strings = btf.string_bytes()
        builder._strings = bytearray(strings)
        offset = builder._string_base
        for text in strings.split(b"\0")[:-1]:
            builder._known.setdefault(text.decode(errors="surrogateescape"), offset)
            offset += len(text) + 1
        for id in range(btf.first_id, btf.end_id):
            builder._add_words(btf.record(id))
        return builder

    @property
    def next_id(self) -> int:
        """The id that the next type will get."""
        return self._first_id + len(self._offsets)

    def add_string(self, text: str) -> int:
        """The offset of a string, added if it is not there."""
        known = self._known.get(text)
        if known is not None:
            return known
        if "\0" in text:
            raise BTFError(f"a BTF string cannot hold a NUL, as {text!r} does")
        offset = self._base_offset(text)
        if offset is None:
            offset = self._string_base + len(self._strings)
            self._strings += text.encode() + b"\0"
        self._known[text] = offset
        return offset

    def add_int(
        self, name: str, size: int, *, signed: bool = False, is_bool: bool = False, is_char: bool = False
    ) -> int:
        """An integer of `size` bytes."""
        encoding = signed * _INT_SIGNED | is_bool * _INT_BOOL | is_char * _INT_CHAR
        return self._add(Kind.INT, name, size, [encoding | size * 8])

    def add_float(self, name: str, size: int) -> int:
        """A floating-point number."""
        return self._add(Kind.FLOAT, name, size)

    def add_pointer(self, target: int) -> int:
        """A pointer; to 0, `void *`."""
        return self._add(Kind.PTR, "", target)

    def add_array(self, element: int, length: int, index: int) -> int:
        """An array; `index` is any integer type."""
        return self._add(Kind.ARRAY, "", 0, [element, index, length])

    def add_struct(self, name: str, size: int, members: Iterable[MemberSpec] = ()) -> int:
        """A struct."""
        return self._composite(Kind.STRUCT, name, size, members)

    def add_union(self, name: str, size: int, members: Iterable[MemberSpec] = ()) -> int:
        """A union."""
        return self._composite(Kind.UNION, name, size, members)

    def add_enum(
        self, name: str, values: Mapping[str, int], *, size: int = 4, signed: bool | None = None
    ) -> int:
        """An enum, BTF_KIND_ENUM64 (Linux 6.0) where its size or a value needs that."""
        if signed is None:
            signed = any(value < 0 for value in values.values())
        low, high = (-(1 << 31), 1 << 31) if signed else (0, 1 << 32)
        wide = size > 4 or not all(low <= value < high for value in values.values())
        words: list[int] = []
        for label, value in values.items():
            limits = (-(1 << 63), 1 << 63) if signed else (0, 1 << 64)
            if not limits[0] <= value < limits[1]:
                raise BTFError(f"enum {name}: {label} = {value} does not fit 64 bits")
            words += [self.add_string(label), value & _MAX_WORD]
            if wide:
                words.append(value >> 32 & _MAX_WORD)
        return self._add(
            Kind.ENUM64 if wide else Kind.ENUM, name, size, words, count=len(values), flag=signed
        )

    def add_forward(self, name: str, *, is_union: bool = False) -> int:
        """A struct or union that is declared only."""
        return self._add(Kind.FWD, name, 0, flag=is_union)

    def add_typedef(self, name: str, target: int) -> int:
        """A typedef."""
        return self._add(Kind.TYPEDEF, name, target)

    def add_qualifier(self, kind: Literal["const", "volatile", "restrict"], target: int) -> int:
        """A qualified type."""
        return self._add(Kind[kind.upper()], "", target)

    def add_type_tag(self, name: str, target: int, *, is_attribute: bool = False) -> int:
        """A type tag, on what a pointer points to (Linux 5.17; attributes: 6.15)."""
        return self._add(Kind.TYPE_TAG, name, target, flag=is_attribute)

    def add_decl_tag(self, name: str, target: int, *, component: int = -1, is_attribute: bool = False) -> int:
        """A tag on a declaration, or on one of its members or parameters (Linux 5.16)."""
        return self._add(Kind.DECL_TAG, name, target, [component & _MAX_WORD], flag=is_attribute)

    def add_function_proto(
        self, returns: int, parameters: Sequence[tuple[str, int]] = (), *, variadic: bool = False
    ) -> int:
        """A prototype; `parameters` are (name, type)."""
        pairs = [*parameters, *([("", 0)] if variadic else [])]
        words = [word for name, type in pairs for word in (self.add_string(name), type)]
        return self._add(Kind.FUNC_PROTO, "", returns, words, count=len(pairs))

    def add_function(self, name: str, proto: int, *, linkage: Linkage = Linkage.GLOBAL) -> int:
        """A function."""
        return self._add(Kind.FUNC, name, proto, count=linkage)

    def add_variable(self, name: str, type: int, *, linkage: Linkage = Linkage.GLOBAL) -> int:
        """A global variable."""
        return self._add(Kind.VAR, name, type, [linkage])

    def add_section(self, name: str, size: int, entries: Iterable[tuple[int, int, int]] = ()) -> int:
        """A data section; `entries` are (variable, offset, size), and sorted by offset."""
        words = [word for entry in entries for word in entry]
        return self._add(Kind.DATASEC, name, size, words, count=len(words) // 3)

    def copy(self, types: Iterable[Type], known: dict[int, int] | None = None) -> dict[int, int]:
        """Add types of another BTF and all that they refer to; gives the new id of each by its old one.

        Ids in `known` are taken as added already; it is filled in, so that several copies share types. Tags
        on declarations refer to these, not the other way round: name the tags to have them copied.
        """
        ids = {0: 0} if known is None else known
        ids.setdefault(0, 0)
        order: list[Type] = []
        waiting = list(types)
        while waiting:
            type = waiting.pop()
            if type.id in ids:
                continue
            ids[type.id] = self.next_id + len(order)
            order.append(type)
            waiting.extend(type.btf.type(id) for id in reversed(references(type.btf.record(type.id))))
        for type in order:
            record = type.btf.record(type.id)
            self._remap(record, type.btf, ids)
            self._add_words(record)
        return ids

    def patch_section(self, id: int, size: int, places: Mapping[int, tuple[int, int]] | None = None) -> None:
        """Give a data section its size, and variables, by id, their (offset, size); sorts them by offset.

        Compilers leave these to the loader, and the kernel demands them.
        """
        position = self._position(id)
        info = self._words[position + 1]
        if kind_of(info) is not Kind.DATASEC:
            raise BTFError(f"BTF type {id} is {kind_of(info).name}, no data section")
        start, stop = position + 3, position + 3 + 3 * (info & MAX_VLEN)
        body = self._words[start:stop].tolist()
        entries = list(zip(body[::3], body[1::3], body[2::3], strict=True))
        if places is not None:
            entries = [(type, *places.get(type, (offset, length))) for type, offset, length in entries]
        entries.sort(key=lambda entry: entry[1])
        self._words[position + 2] = _word(size, "section size")
        self._words[start:stop] = array("I", (word for entry in entries for word in entry))

    def set_linkage(self, id: int, linkage: Linkage) -> None:
        """Change the linkage of a function or variable, as loaders do for what they link or provide."""
        position = self._position(id)
        info = self._words[position + 1]
        kind = kind_of(info)
        if kind is Kind.FUNC:
            self._words[position + 1] = info & ~MAX_VLEN | linkage
        elif kind is Kind.VAR:
            self._words[position + 3] = linkage
        else:
            raise BTFError(f"BTF type {id} is {kind.name}, which has no linkage")

    def to_bytes(self) -> bytes:
        """The blob."""
        types = from_words(self._words, self.byteorder)
        strings = bytes(self._strings)
        mark = "<" if self.byteorder == "little" else ">"
        header = struct.pack(
            mark + HEADER, MAGIC, VERSION, 0, HEADER_SIZE, 0, len(types), len(types), len(strings)
        )
        return header + types + strings

    def build(self) -> BTF:
        """The BTF. BTFError if a type refers to an id that was never added."""
        btf = BTF.from_bytes(self.to_bytes(), base=self.base)
        for id in range(btf.first_id, btf.end_id):
            for target in references(btf.record(id)):
                if target >= btf.end_id:
                    raise BTFError(f"BTF type {id} refers to type {target}, which was not added")
        return btf

    def _base_offset(self, text: str) -> int | None:
        try:
            return self.base.string_offset(text) if self.base else None
        except BTFError:
            return None

    def _composite(self, kind: Kind, name: str, size: int, members: Iterable[MemberSpec]) -> int:
        members = list(members)
        flag = any(member.bits for member in members)
        words: list[int] = []
        for member in members:
            limit = 1 << 24 if flag else 1 << 32
            if not 0 <= member.bit_offset < limit or not 0 <= member.bits < 256:
                raise BTFError(
                    f"{kind.name.lower()} {name}: member {member.name}, {member.bits} bits at bit "
                    f"{member.bit_offset}, cannot be said in BTF"
                )
            words += [self.add_string(member.name), member.type, member.bits << 24 | member.bit_offset]
        return self._add(kind, name, size, words, count=len(members), flag=flag)

    def _add(
        self,
        kind: Kind,
        name: str,
        third: int,
        words: Sequence[int] = (),
        *,
        count: int = 0,
        flag: bool = False,
    ) -> int:
        if count > MAX_VLEN:
            raise BTFError(
                f"{kind.name} {name}: {count} elements are more than the {MAX_VLEN} that BTF allows"
            )
        info = kind << 24 | count | (KIND_FLAG if flag else 0)
        label = f"{kind.name} {name}"
        return self._add_words(
            array("I", [self.add_string(name), info, _word(third, label), *(_word(w, label) for w in words)])
        )

    def _add_words(self, words: array[int]) -> int:
        id = self.next_id
        self._offsets.append(len(self._words))
        self._words.extend(words)
        return id

    def _position(self, id: int) -> int:
        place = id - self._first_id
        if not 0 <= place < len(self._offsets):
            raise BTFError(f"no type {id} has been added here")
        return self._offsets[place]

    def _remap(self, record: array[int], source: BTF, ids: Mapping[int, int]) -> None:
        for place in name_places(record):
            record[place] = self.add_string(source.string(record[place]))
        for place in reference_places(record):
            record[place] = ids[record[place]]


def _word(value: int, what: str) -> int:
    if not 0 <= value <= _MAX_WORD:
        raise BTFError(f"{what}: {value} does not fit 32 bits")
    return value


def reference_places(record: array[int]) -> list[int]:
    """Which words of a type record are type ids."""
    info = record[1]
    shape = RECORDS[kind_of(info)]
    places = [2] if shape.refers else []
    places += [3 + place for place in shape.fixed_types]
    if shape.element_type is not None:
        start = 3 + shape.fixed
        places += range(start + shape.element_type, start + shape.element * (info & MAX_VLEN), shape.element)
    return places


def references(record: array[int]) -> list[int]:
    """The type ids that a type record refers to."""
    return [record[place] for place in reference_places(record)]


def name_places(record: array[int]) -> list[int]:
    """Which words of a type record are offsets of strings."""
    info = record[1]
    shape = RECORDS[kind_of(info)]
    if not shape.element_name:
        return [0]
    start = 3 + shape.fixed
    return [0, *range(start, start + shape.element * (info & MAX_VLEN), shape.element)]
