"""Finding types by name: an index of hashes that is built in one go, and can be kept in a file.

It holds no names, only hashes of them, so whoever uses it compares the name of what it finds. Types whose
names differ in a CO-RE flavour only ("task_struct___old") share a hash, so that they are found together.
"""

from __future__ import annotations

import os
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, compress
from operator import contains
from typing import TYPE_CHECKING, Self
from zlib import adler32, crc32

from ebpf.errors import BTFError

if TYPE_CHECKING:
    from pathlib import Path

FLAVOR = b"___"

_MAGIC = b"ebpf-btf-index-1"


def essential(name: bytes) -> bytes:
    """The name without its CO-RE flavour: what follows the last "___", if anything goes before it."""
    cut = name.rfind(FLAVOR)
    return name[:cut] if cut > 0 else name


class TypeIndex:
    """Where the types of one BTF start, and which have a name of a given hash."""

    __slots__ = ("_hashes", "_ids", "offsets")

    def __init__(self, offsets: array[int], hashes: array[int], ids: array[int]) -> None:
        self.offsets = offsets  #: of each type record, in words
        self._hashes = hashes  # sorted
        self._ids = ids  # in the order of the hashes, equal hashes by id

    @classmethod
    def build(cls, offsets: array[int], name_offsets: Sequence[int], strings: bytes) -> Self:
        """Index the names at `name_offsets` of the string section; the ids count from 0."""
        texts = strings.split(b"\0")
        starts = accumulate(map(len, texts), lambda start, length: start + length + 1, initial=0)
        known = dict(zip(starts, texts, strict=False))
        try:
            names = [known[offset] for offset in name_offsets]
        except KeyError:  # a name that shares the end of a longer string
            names = [strings[offset : strings.find(b"\0", offset)] for offset in name_offsets]
        for flavored in compress(range(len(names)), map(contains, names, _forever(FLAVOR))):
            names[flavored] = essential(names[flavored])
        order = sorted(hash << 32 | id for id, hash in enumerate(map(crc32, names)) if names[id])
        packed = array("Q", order).tobytes()
        halves = array("I", packed)
        low, high = (halves[::2], halves[1::2]) if sys.byteorder == "little" else (halves[1::2], halves[::2])
        return cls(offsets, high, low)

    def candidates(self, name: bytes) -> Iterator[int]:
        """Positions, ascending, of the types whose name may be `name` or a flavour of it."""
        wanted = crc32(essential(name))
        place = bisect_left(self._hashes, wanted)
        while place < len(self._hashes) and self._hashes[place] == wanted:
            yield self._ids[place]
            place += 1

    def save(self, path: Path, identity: bytes) -> None:
        """Keep it in a file. `identity` tells this BTF from any other, such as the kernel's build id.

        The file takes its place only when it is whole. OSError where it cannot be written.
        """
        body = b"".join(
            chain.from_iterable(
                (len(part).to_bytes(4, sys.byteorder), part.tobytes())
                for part in (self.offsets, self._hashes, self._ids)
            )
        )
        head = _MAGIC + len(identity).to_bytes(4, sys.byteorder) + identity
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_bytes(head + adler32(body).to_bytes(4, sys.byteorder) + body)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, identity: bytes) -> Self | None:
        """Read it back; None if there is no such file, or it is of another BTF, or damaged."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        head = _MAGIC + len(identity).to_bytes(4, sys.byteorder) + identity
        start = len(head) + 4
        if not data.startswith(head) or data[start - 4 : start] != adler32(memoryview(data)[start:]).to_bytes(
            4, sys.byteorder
        ):
            return None
        parts = []
        for _ in range(3):
            length = int.from_bytes(data[start : start + 4], sys.byteorder) * 4
            part = array("I")
            part.frombytes(data[start + 4 : start + 4 + length])
            parts.append(part)
            start += 4 + length
        if start != len(data) or len(parts[1]) != len(parts[2]):
            return None
        return cls(*parts)

    def check(self, words: int) -> None:
        """BTFError if it cannot be of a BTF whose type section has so many words."""
        if self.offsets and (self.offsets[0] or self.offsets[-1] + 3 > words):
            raise BTFError("the type index is of another BTF")


def _forever(value: bytes) -> Iterator[bytes]:
    while True:
        yield value
