"""Names that C can use: BTF may hold several types of one name, and names that are no identifiers.

The first type of a name keeps it; later ones get "___2", "___3", which CO-RE takes for flavours of the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

from ebpf.btf import types as t
from ebpf.btf.btf import BTF

T = TypeVar("T", bound=t.Type)

#: Words that name the types built into C; a type of any other name needs a typedef.
_TYPE_WORDS = frozenset(
    {"char", "short", "int", "long", "signed", "unsigned", "float", "double", "_Bool", "__int128"}
)
# fmt: off
_KEYWORDS = _TYPE_WORDS | {
    "asm", "auto", "break", "case", "const", "continue", "default", "do", "else", "enum", "extern", "for",
    "goto", "if", "inline", "register", "restrict", "return", "sizeof", "static", "struct", "switch",
    "typedef", "typeof", "union", "void", "volatile", "while",
}
# fmt: on


def all_of(btf: BTF, *kinds: type[T]) -> Iterator[T]:
    """The types of these classes, those of the base first."""
    if btf.base is not None:
        yield from all_of(btf.base, *kinds)
    yield from btf.of_kind(*kinds)


def is_builtin(name: str) -> bool:
    """Whether C has a type of this name without a declaration."""
    return all(word in _TYPE_WORDS for word in name.split()) and name != ""


class Names:
    """The C names of the types of one BTF."""

    def __init__(self, btf: BTF) -> None:
        self._tags_taken: set[str] = set()
        # The compiler has its own, and the kernel's may be laid out differently: BPF's is a mere pointer.
        self._taken = {"__builtin_va_list"}
        self._by_id: dict[int, str] = {}
        self._kinds: dict[str, type[t.Type]] = {}
        for composite in all_of(btf, t.Struct, t.Union, t.Enum):
            if composite.name:
                name = self._by_id[composite.id] = _unique(composite.name, self._tags_taken)
                self._kinds.setdefault(name, type(composite))
        for forward in all_of(btf, t.Forward):
            # One that is defined elsewhere in the BTF is the same struct to C.
            wanted = t.Union if forward.is_union else t.Struct
            if self._kinds.get(forward.name) is wanted:
                self._by_id[forward.id] = forward.name
            else:
                self._by_id[forward.id] = _unique(forward.name, self._tags_taken)
        for typedef in all_of(btf, t.Typedef):
            self._by_id[typedef.id] = _unique(typedef.name, self._taken)

    def of(self, type: t.Type) -> str:
        """The name of a struct, union, enum or typedef; "" if anonymous."""
        return self._by_id.get(type.id, "")

    def is_defined(self, type: t.Forward) -> bool:
        """Whether what is declared has its definition elsewhere in the BTF."""
        return self.of(type) in self._kinds

    def enumerator(self, name: str) -> str:
        """A name for an enumerator about to be written."""
        return _unique(name, self._taken)

    def parameter(self, name: str) -> str:
        """The name of a parameter; "" where it would hide a type that later parameters may need."""
        return "" if name in self._taken else identifier(name)


def identifier(name: str) -> str:
    """The name, with what C does not allow in one replaced; "" stays empty."""
    if name.isascii() and name.isidentifier() and name not in _KEYWORDS:
        return name
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() or name in _KEYWORDS else name


def _unique(name: str, taken: set[str]) -> str:
    name = wanted = identifier(name)
    number = 1
    while name in taken:
        number += 1
        name = f"{wanted}___{number}"
    taken.add(name)
    return name
