"""The table of BPF helpers: the functions that the kernel offers to programs by number.

It is the source of the C header, of the disassembler's names and of what the other rooms know of helpers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ebpf.isa.helper_table import ROWS, Row


class Helper(NamedTuple):
    """One helper, as include/uapi/linux/bpf.h declares it."""

    id: int  #: the immediate of the call instruction
    name: str  #: without `bpf_`: "map_lookup_elem"
    returns: str  #: C type
    parameters: tuple[tuple[str, str], ...]
    """C type and name of each; ("...", "") where any number of further ones may follow."""
    since: str  #: the first kernel release that has it
    gpl_only: bool  #: whether some program type may call it under a GPL-compatible licence only
    program_types: frozenset[str]
    """Names of the ProgramTypes that may call it (Linux 6.18). EXT is in none: such a program may call what
    the program that it replaces may call."""
    summary: str  #: one line

    @property
    def prototype(self) -> str:
        """The C declaration: "void *bpf_map_lookup_elem(void *map, const void *key)"."""
        parameters = ", ".join(declaration(*parameter) for parameter in self.parameters)
        return f"{declaration(self.returns, f'bpf_{self.name}')}({parameters or 'void'})"


def declaration(ctype: str, name: str) -> str:
    """A C declaration of `name`, with the star at the name: "void *key"."""
    return f"{ctype}{name}" if ctype.endswith("*") or not name else f"{ctype} {name}"


def by_id(id: int) -> Helper | None:
    """The helper with this number, or None."""
    return HELPERS[id - 1] if 0 < id <= len(HELPERS) else None


def by_name(name: str) -> Helper | None:
    """The helper with this name, with or without `bpf_`, or None."""
    return _names().get(name.removeprefix("bpf_"))


@cache
def _names() -> dict[str, Helper]:
    return {helper.name: helper for helper in HELPERS}


def _split(text: str) -> tuple[str, str]:
    """Type and name of a C declaration of a scalar or pointer."""
    if text == "...":
        return text, ""
    cut = max(text.rfind(" "), text.rfind("*")) + 1
    return text[:cut].rstrip(" "), text[cut:]


def _helper(row: Row) -> Helper:
    id, since, licence, types, prototype, summary = row
    head, _, tail = prototype.removesuffix(")").partition("(")
    returns, name = _split(head)
    parameters = () if tail == "void" else tuple(map(_split, tail.split(", ")))
    return Helper(id, name, returns, parameters, since, licence == "GPL", frozenset(types), summary)


#: All helpers, in the order of their numbers, from 1.
HELPERS: tuple[Helper, ...] = tuple(map(_helper, ROWS))
