"""What the readers of an object's parts share: the file, its types, and how they speak of it."""

from __future__ import annotations

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.ext import BTFExt
from ebpf.errors import Diagnostic, ObjectError
from ebpf.spec.elf import Elf, Section, Symbol, SymbolType


class ObjectSource:
    """An object while it is read."""

    def __init__(self, name: str, elf: Elf, btf: BTF | None, ext: BTFExt | None) -> None:
        self.name = name
        self.elf = elf
        self.btf = btf
        self.ext = ext
        self.diagnostics: list[Diagnostic] = []
        self._symbols: dict[int, list[Symbol]] | None = None

    def error(self, what: str, *, hint: str | None = None) -> ObjectError:
        """An error that names the object."""
        return ObjectError(f"{self.name}: {what}", hint=hint)

    def warn(self, what: str) -> None:
        """Note what the object holds and a BPF program cannot use."""
        self.diagnostics.append(Diagnostic("warning", self.name, 0, 0, what, ""))

    def symbols_of(self, section: Section) -> list[Symbol]:
        """The symbols in a section, without those that stand for the section itself, by address."""
        if self._symbols is None:
            self._symbols = {}
            for symbol in self.elf.symbols:
                if symbol.type not in (SymbolType.SECTION, SymbolType.FILE):
                    self._symbols.setdefault(symbol.section, []).append(symbol)
            for symbols in self._symbols.values():
                symbols.sort(key=lambda symbol: symbol.value)
        return self._symbols.get(section.number, [])

    def data_section(self, name: str) -> t.DataSection | None:
        """The BTF of a section of variables."""
        return self.btf.get(name, t.DataSection) if self.btf else None
