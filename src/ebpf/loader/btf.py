"""The object's BTF as the kernel takes it.

Compilers leave to the loader what only a linker knows: sizes of data sections and offsets in them; and they
write externs, which the kernel refuses. This patches a copy, as libbpf does (btf_fixup_datasec,
bpf_object__collect_externs), without changing ids: types and strings are only appended.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.types import Kind, Linkage
from ebpf.btf.wire import HEADER, HEADER_SIZE, MAGIC, VERSION, from_words, parse_header, scan, to_words
from ebpf.errors import SpecError
from ebpf.spec.model import Spec

_KSYMS = ".ksyms"
_KCONFIG = ".kconfig"


class _Entry(NamedTuple):
    """struct btf_var_secinfo."""

    type_id: int
    offset: int
    size: int


class KernelBTF:
    """A copy of a Spec's BTF that is being made ready to load."""

    def __init__(self, btf: BTF) -> None:
        data = btf.to_bytes()
        sections = parse_header(data, is_split=False)
        self._order = sections.byteorder
        self._words = to_words(data[sections.types], sections.byteorder)
        self._places = scan(self._words, first_id=1)
        self._strings = bytearray(data[sections.strings])
        self._offsets: dict[str, int] | None = None

    @classmethod
    def of(cls, spec: Spec) -> KernelBTF | None:
        """The BTF of a Spec, patched; None if it has none."""
        if spec.btf is None:
            return None
        if spec.btf.byteorder != sys.byteorder:
            raise SpecError(f"{spec.name!r} is {spec.byteorder}-endian, this machine {sys.byteorder}-endian")
        made = cls(spec.btf)
        for section in list(spec.btf.of_kind(t.DataSection)):
            made._patch_section(spec, section)
        for function in spec.functions.values():
            # Hidden functions are global to the compiler, and are verified as static ones.
            if function.type_id and not function.is_global:
                made._set_linkage(function.type_id, Linkage.STATIC)
        return made

    def string(self, text: str) -> int:
        """The offset of a string, which is added if it is not there."""
        if self._offsets is None:
            self._offsets = {}
            place = 0
            for part in bytes(self._strings).split(b"\0")[:-1]:
                self._offsets.setdefault(part.decode(errors="surrogateescape"), place)
                place += len(part) + 1
        found = self._offsets.get(text)
        if found is None:
            found = self._offsets[text] = len(self._strings)
            self._strings += text.encode(errors="surrogateescape") + b"\0"
        return found

    def to_bytes(self, *, static_functions: bool = False) -> bytes:
        """The blob. `static_functions` is for kernels before 5.6, which know no linkage of functions."""
        words = self._words
        if static_functions:
            words = words[:]
            for place in self._places:
                if words[place + 1] >> 24 & 0x1F == Kind.FUNC:
                    words[place + 1] &= ~0xFFFF
        types = from_words(words, self._order)
        strings = bytes(self._strings)
        mark = "<" if self._order == "little" else ">"
        header = struct.pack(
            mark + HEADER, MAGIC, VERSION, 0, HEADER_SIZE, 0, len(types), len(types), len(strings)
        )
        return header + types + strings

    # --- data sections ----------------------------------------------------------------------------------

    def _patch_section(self, spec: Spec, section: t.DataSection) -> None:
        if section.name == _KSYMS:
            self._patch_ksyms(section)
            return
        data = spec.maps.get(section.name)
        if section.name == _KCONFIG:
            self._patch_kconfig(spec, section)
        elif data is not None and data.is_data:
            places = [place for place in spec.variables.places.values() if place.map == section.name]
            if len(places) == len(section.entries):  # both are in the order of the section
                entries = [
                    _Entry(entry.type_id, place.offset, place.size)
                    for entry, place in zip(section.entries, places, strict=True)
                ]
                self._set_section(section, entries, data.value_size)
        else:  # .maps, license, …: nothing reads these, but the kernel checks that they make sense
            self._set_section(section, *_in_order(section))

    def _patch_kconfig(self, spec: Spec, section: t.DataSection) -> None:
        entries = []
        end = max((e.offset + e.size for e in spec.externs.values() if e.section == _KCONFIG), default=0)
        for entry in section.entries:
            extern = spec.externs.get(entry.type.name)
            if extern is not None and extern.section == _KCONFIG:
                entries.append(_Entry(entry.type_id, extern.offset, extern.size))
            else:  # declared and never used
                entries.append(_Entry(entry.type_id, end, max(entry.size, 1)))
                end += max(entry.size, 1)
            self._set_variable(entry.type_id, linkage=Linkage.GLOBAL)
        self._set_section(section, entries, end)

    def _patch_ksyms(self, section: t.DataSection) -> None:
        """Externs become integers, functions among them a dummy variable: the kernel has no externs."""
        integer = self._int_id(section.btf)
        dummy = None
        entries = []
        for number, entry in enumerate(section.entries):
            type_id = entry.type_id
            if isinstance(entry.type, t.Function):
                if dummy is None:
                    dummy = self._append(self.string("dummy_ksym"), Kind.VAR << 24, integer, Linkage.GLOBAL)
                self._set_linkage(type_id, Linkage.GLOBAL)
                self._name_parameters(entry.type.proto)
                type_id = dummy
            else:
                self._set_variable(type_id, linkage=Linkage.GLOBAL, target=integer)
            entries.append(_Entry(type_id, number * 4, 4))
        self._set_section(section, entries, 4 * len(entries))

    def _set_section(self, section: t.DataSection, entries: list[_Entry], size: int) -> None:
        at = self._places[section.id - 1]
        self._words[at + 2] = size
        flat = array(
            "I", (word for entry in sorted(entries, key=lambda entry: entry.offset) for word in entry)
        )
        self._words[at + 3 : at + 3 + len(flat)] = flat

    # --- single types -----------------------------------------------------------------------------------

    def _set_linkage(self, function_id: int, linkage: Linkage) -> None:
        at = self._places[function_id - 1] + 1
        self._words[at] = self._words[at] & ~0xFFFF | linkage

    def _set_variable(self, id: int, *, linkage: Linkage, target: int | None = None) -> None:
        at = self._places[id - 1]
        self._words[at + 3] = linkage
        if target is not None:
            self._words[at + 2] = target

    def _name_parameters(self, proto: t.FunctionProto) -> None:
        at = self._places[proto.id - 1] + 3
        for index, parameter in enumerate(proto.parameters):
            if not parameter.name and parameter.type_id:
                self._words[at + 2 * index] = self.string("dummy_ksym")

    def _int_id(self, btf: BTF) -> int:
        for found in btf.of_kind(t.Int):
            if found.size == 4 and found.signed and found.bits == 32:
                return found.id
        return self._append(self.string("int"), Kind.INT << 24, 4, 1 << 24 | 32)

    def _append(self, *words: int) -> int:
        self._places.append(len(self._words))
        self._words.extend(words)
        return len(self._places)


def _in_order(section: t.DataSection) -> tuple[list[_Entry], int]:
    """A layout of the entries one after another, for a section that the kernel does not use."""
    entries, end = [], 0
    for entry in section.entries:
        size = max(entry.size, 1)
        entries.append(_Entry(entry.type_id, end, size))
        end += size
    return entries, max(end, 1)
