"""A BTF blob: its types and strings, decoded when asked for.

Opening one does a single pass over the types that notes where each starts; the kernel's own BTF holds more
than a hundred thousand.
"""

from __future__ import annotations

import builtins
import struct
import sys
from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ebpf.btf.decode import decode
from ebpf.btf.index import FLAVOR, TypeIndex
from ebpf.btf.types import DeclTag, Kind, Type, Void
from ebpf.btf.wire import ByteOrder, kind_of, parse_header, scan, to_words
from ebpf.errors import BTFError

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T", bound=Type)

#: A name search goes over the bytes of the strings so many times before an index of all names pays.
_SEARCHES_BEFORE_INDEX = 24
#: Strings that end in the searched name, beyond which the index is cheaper too.
_SUFFIXES_BEFORE_INDEX = 64


class BTF:
    """Types and strings of one BTF blob, alone or on top of a base (the BTF of a kernel module).

    Ids count from 1; 0 is void. With a base, ids and string offsets go on where those of the base end.
    """

    def __init__(self, data: bytes, *, base: BTF | None = None, index: TypeIndex | None = None) -> None:
        sections = parse_header(data, is_split=base is not None)
        if base is not None and base.byteorder != sections.byteorder:
            raise BTFError(f"BTF is {sections.byteorder}-endian, its base {base.byteorder}-endian")
        self.base = base
        self.byteorder: ByteOrder = sections.byteorder
        self.first_id = base.end_id if base else 1  #: the id of its own first type
        self._data = data
        self._strings_start: int = sections.strings.start
        self._strings_stop: int = sections.strings.stop
        self._string_base = base.string_end if base else 0
        self._words = to_words(data[sections.types], sections.byteorder)
        if index is not None:
            index.check(len(self._words))
        self._index = index
        self._searches = 0
        self._offsets = (
            index.offsets
            if index is not None
            else scan(self._words, first_id=self.first_id, layout=data[sections.layout])
        )
        self._types: dict[int, Type] = {} if base else {0: Void(self, 0, "void")}
        #: What other modules of this room remember about its types, by their own keys.
        self.cache: dict[Hashable, Any] = {}

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        base: BTF | None = None,
        index: TypeIndex | None = None,
    ) -> BTF:
        """Open a blob: the content of a .BTF section or of a file in /sys/kernel/btf.

        `base` is what a module's BTF builds on; `index` one that `name_index` gave for the same blob, which
        spares the pass over the types. Raises BTFError for what is no BTF.
        """
        return cls(bytes(data), base=base, index=index)

    def to_bytes(self) -> bytes:
        """The blob, as it was opened."""
        return self._data

    def __repr__(self) -> str:
        base = f" on {self.first_id - 1}" if self.base else ""
        return f"<BTF of {len(self)} types{base}, {len(self._data)} bytes, {self.byteorder}-endian>"

    def __len__(self) -> int:
        """How many types it holds itself, without void and its base."""
        return len(self._offsets)

    def __iter__(self) -> Iterator[Type]:
        """Its own types by ascending id, without void and its base."""
        return map(self.type, range(self.first_id, self.end_id))

    @property
    def end_id(self) -> int:
        """One more than the highest id."""
        return self.first_id + len(self._offsets)

    @property
    def string_end(self) -> int:
        """The end of its strings, counted with those of its base."""
        return self._string_base + self._strings_stop - self._strings_start

    def type(self, id: int) -> Type:
        """The type with an id; BTFError if there is none, or its record makes no sense."""
        found = self._types.get(id)
        if found is not None:
            return found
        place = id - self.first_id
        if place < 0 and self.base is not None:
            return self.base.type(id)
        if not 0 <= place < len(self._offsets):
            raise BTFError(f"BTF has no type {id}: its ids end at {self.end_id - 1}")
        position = self._offsets[place]
        try:
            found = decode(self, id, self._words, position)
        except BTFError as error:
            raise BTFError(f"BTF type {id} at offset {position * 4}: {error}") from None
        except (IndexError, ValueError):  # only an index of another BTF leads here
            raise BTFError(f"BTF type {id} at offset {position * 4} is cut off") from None
        self._types[id] = found
        return found

    def kind(self, id: int) -> Kind:
        """The kind of a type, without decoding it."""
        place = id - self.first_id
        if 0 <= place < len(self._offsets):
            return kind_of(self._words[self._offsets[place] + 1])
        return self.type(id).kind

    def record(self, id: int) -> array[int]:
        """A copy of the record of a type, in words; what each is depends on its kind, as btf.rst says."""
        place = id - self.first_id
        if place < 0 and self.base is not None:
            return self.base.record(id)
        if not 0 <= place < len(self._offsets):
            raise BTFError(f"BTF has no type {id}: its ids end at {self.end_id - 1}")
        following = place + 1
        end = self._offsets[following] if following < len(self._offsets) else len(self._words)
        return self._words[self._offsets[place] : end]

    def string_bytes(self) -> bytes:
        """Its own string section, without that of its base."""
        return self._data[self._strings_start : self._strings_stop]

    def of_kind(self, *kinds: builtins.type[T]) -> Iterator[T]:
        """Its own types of these classes by ascending id; only these are decoded."""
        wanted = {kind.kind for kind in kinds}
        if Kind.ENUM in wanted:
            wanted.add(Kind.ENUM64)
        words = self._words
        for id, position in enumerate(self._offsets, self.first_id):
            if words[position + 1] >> 24 & 0x1F in wanted:
                found = self.type(id)
                assert isinstance(found, kinds)
                yield found

    def string(self, offset: int) -> str:
        """The string at an offset; BTFError if that is outside the strings, or no UTF-8."""
        if not offset:
            return ""
        if offset < self._string_base and self.base is not None:
            return self.base.string(offset)
        start = offset - self._string_base + self._strings_start
        if start >= self._strings_stop:
            raise BTFError(f"string offset {offset} is behind the end of the strings at {self.string_end}")
        text = self._data[start : self._data.index(b"\0", start)]
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise BTFError(f"the string at offset {offset} is no UTF-8: {text!r}") from None

    def string_offset(self, text: str) -> int:
        """Where a string is; BTFError if it is not there."""
        if not text:
            return 0
        if self.base is not None:
            try:
                return self.base.string_offset(text)
            except BTFError:
                pass
        wanted, start, stop = text.encode() + b"\0", self._strings_start, self._strings_stop
        place = start if self._data.startswith(wanted, start, stop) else -1
        if place < 0:
            place = self._data.find(b"\0" + wanted, start, stop) + 1
        if not place:
            place = self._data.find(wanted, start, stop)
        if place < 0 or "\0" in text:
            raise BTFError(f"BTF has no string {text!r}")
        return place - start + self._string_base

    @overload
    def get(self, name: str) -> Type | None: ...
    @overload
    def get(self, name: str, *kinds: builtins.type[T]) -> T | None: ...
    def get(self, name: str, *kinds: builtins.type[Type]) -> Type | None:
        """The first type of a name (those of the base first), of one of the classes `kinds`; or None."""
        return next(self._named(name, kinds, flavors=False), None)

    @overload
    def find(self, name: str) -> Type: ...
    @overload
    def find(self, name: str, *kinds: builtins.type[T]) -> T: ...
    def find(self, name: str, *kinds: builtins.type[Type]) -> Type:
        """As `get`, but BTFError with the nearest name if there is none."""
        found = self.get(name, *kinds)
        if found is not None:
            return found
        what = " or ".join(kind.kind.name.lower() for kind in kinds) or "type"
        others = self.find_all(name)
        if others:
            kind = others[0].kind.name.lower()
            raise BTFError(f"BTF has no {what} named {name!r}", hint=f"it has a {kind} of that name")
        from difflib import get_close_matches

        near = get_close_matches(name, self._all_names(kinds), n=1)
        raise BTFError(
            f"BTF has no {what} named {name!r}", hint=f"did you mean {near[0]!r}?" if near else None
        )

    @overload
    def find_all(self, name: str) -> list[Type]: ...
    @overload
    def find_all(self, name: str, *kinds: builtins.type[T]) -> list[T]: ...
    def find_all(self, name: str, *kinds: builtins.type[Type]) -> list[Any]:
        """Every type of a name, those of the base first."""
        return list(self._named(name, kinds, flavors=False))

    @overload
    def find_flavors(self, name: str) -> list[Type]: ...
    @overload
    def find_flavors(self, name: str, *kinds: builtins.type[T]) -> list[T]: ...
    def find_flavors(self, name: str, *kinds: builtins.type[Type]) -> list[Any]:
        """Every type whose name is `name` up to a CO-RE flavour: "task_struct", "task_struct___old"."""
        return list(self._named(name, kinds, flavors=True))

    @cached_property
    def decl_tags(self) -> dict[int, list[DeclTag]]:
        """Declaration tags by the id of the type they are on; of this BTF, without its base."""
        tags: dict[int, list[DeclTag]] = {}
        for tag in self.of_kind(DeclTag):
            tags.setdefault(tag.target_id, []).append(tag)
        return tags

    @property
    def name_index(self) -> TypeIndex:
        """The index of names, built when first asked for: tens of milliseconds for a kernel's BTF."""
        if self._index is None:
            names, strings = self._name_offsets, self._data[self._strings_start : self._strings_stop]
            if self._string_base:  # give each name of the base its own place behind the strings
                names, strings = self._flatten_names()
            if any(offset >= len(strings) for offset in set(names)):
                raise BTFError("BTF has names outside its strings")
            self._index = TypeIndex.build(self._offsets, names, strings)
        return self._index

    @cached_property
    def _name_offsets(self) -> array[int]:
        return array("I", map(self._words.__getitem__, self._offsets))

    def _flatten_names(self) -> tuple[array[int], bytes]:
        texts = {offset: self.string(offset).encode() for offset in set(self._name_offsets)}
        places, strings = {}, bytearray()
        for offset, text in texts.items():
            places[offset] = len(strings)
            strings += text + b"\0"
        return array("I", map(places.__getitem__, self._name_offsets)), bytes(strings)

    def _all_names(self, kinds: tuple[builtins.type[Type], ...]) -> set[str]:
        own = self.of_kind(*kinds) if kinds else self
        names = {found.name for found in own if found.name}
        return names | self.base._all_names(kinds) if self.base else names

    def _named(self, name: str, kinds: tuple[builtins.type[Type], ...], *, flavors: bool) -> Iterator[Type]:
        if not name or "\0" in name:
            return
        if self.base is not None:
            yield from self.base._named(name, kinds, flavors=flavors)
        wanted = name.encode()
        places = self._search(wanted, flavors=flavors) if self._index is None else None
        if places is None:
            places = self.name_index.candidates(wanted)
        flavored = f"{name}{FLAVOR.decode()}"
        for place in places:
            found = self.type(self.first_id + place)
            if (not kinds or isinstance(found, kinds)) and (
                found.name == name
                or (flavors and found.name.startswith(flavored) and found.name.rfind("___") == len(name))
            ):
                yield found

    def _search(self, name: bytes, *, flavors: bool) -> Iterator[int] | None:
        """Positions of types whose name may be `name`, by looking through the bytes; None: use the index."""
        self._searches += 1
        if self.base is not None or self._searches > _SEARCHES_BEFORE_INDEX:
            return None
        offsets: list[int] = []
        data, start, stop = self._data, self._strings_start, self._strings_stop
        for tail in (b"\0", FLAVOR) if flavors else (b"\0",):
            place = data.find(name + tail, start, stop)
            while place >= 0:
                offsets.append(place - start)
                if len(offsets) > _SUFFIXES_BEFORE_INDEX:
                    return None
                place = data.find(name + tail, place + 1, stop)
        packed = self._packed_names
        places = []
        for offset in offsets:
            needle = struct.pack("=I", offset)
            hit = packed.find(needle)
            while hit >= 0:
                if hit % 4 == 0:
                    places.append(hit // 4)
                hit = packed.find(needle, hit + 1)
        return iter(sorted(places))

    @cached_property
    def _packed_names(self) -> bytes:
        return self._name_offsets.tobytes()


assert array("I").itemsize == 4 and sys.byteorder in ("little", "big")
