"""What the instructions of an object refer to: maps, variables, functions and symbols of the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ebpf.errors import ObjectError
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.spec.code import CALL, PSEUDO_CALL, SLOT, Function, Place
from ebpf.spec.elf import SHN_COMMON, SHN_LORESERVE, Relocation, Symbol, SymbolType
from ebpf.spec.model import ExternSpec, MapSpec
from ebpf.spec.source import ObjectSource

_LD_IMM64 = 0x18

# Pseudo source registers, include/uapi/linux/bpf.h.
_MAP_FD = 1
_MAP_VALUE = 2
_BTF_ID = 3
_FUNC = 4
_KFUNC_CALL = 2

# What compilers emit calls of for copies and the like that they do not unroll.
_LIBRARY = frozenset({"memcpy", "memset", "memmove", "memcmp", "bcmp", "strlen", "strcmp", "abort"})

MAP_SECTIONS = (".maps", "maps")


class Resolver:
    """Turns ELF relocations into references by name."""

    def __init__(
        self,
        source: ObjectSource,
        *,
        functions: Sequence[Function],
        maps: Mapping[tuple[int, int], str],
        data: Mapping[int, MapSpec],
        externs: Mapping[str, ExternSpec],
    ) -> None:
        self._source = source
        self._functions: dict[tuple[int, int], str] = {}
        for function in functions:
            self._functions.setdefault((function.section.number, function.start), function.name)
        self._code = {function.section.number for function in functions}
        self._maps = maps  #: names by section number and offset
        self._map_sections = {section for section, _ in maps}
        self._data = data  #: by section number
        self._externs = externs

    def __call__(self, instruction: Instruction, relocation: Relocation | None, place: Place) -> Instruction:
        """The instruction with its reference; `relocation` is None for a call resolved by the compiler."""
        if instruction.opcode == CALL:
            return self._call(instruction, relocation, place)
        assert relocation is not None
        if instruction.opcode != _LD_IMM64:
            raise place.error(
                f"relocation against {relocation.symbol.name!r} of an instruction with "
                f"opcode {instruction.opcode:#04x}; only calls and 64-bit immediate loads refer to symbols"
            )
        return self._load(instruction, relocation, place)

    def _call(self, instruction: Instruction, relocation: Relocation | None, place: Place) -> Instruction:
        if relocation is None:
            section, target = place.function.section.number, place.offset + (instruction.imm + 1) * SLOT
        else:
            symbol = relocation.symbol
            if symbol.is_undefined:
                return self._kernel_call(symbol, place)
            if instruction.src != PSEUDO_CALL:
                raise place.error(f"call of {symbol.name!r} that is not marked as a call of a subprogram")
            section, target = symbol.section, symbol.value
            target += (instruction.imm + 1) * SLOT if relocation.addend is None else relocation.addend
        name = self._functions.get((section, target))
        if name is None:
            where = f"{relocation.symbol.name!r}: " if relocation else ""
            raise place.error(f"call of {where}no function starts at {target:#x} of section {section}")
        return Instruction(CALL, 0, PSEUDO_CALL, 0, -1, reference=Reference(ReferenceKind.CALL, name))

    def _kernel_call(self, symbol: Symbol, place: Place) -> Instruction:
        extern = self._externs.get(symbol.name)
        if extern is not None and extern.is_function:
            return Instruction(
                CALL, 0, _KFUNC_CALL, 0, 0, reference=Reference(ReferenceKind.KFUNC, symbol.name)
            )
        if symbol.name in _LIBRARY:
            hint = f"there is no C library in BPF: use __builtin_{symbol.name} with a small constant size"
        else:
            hint = (
                "define it in this object, link the object that does (`bpftool gen object`), "
                "or declare it `extern … __ksym` and compile with -g if it is a kernel function"
            )
        raise place.error(f"call of {symbol.name!r}, which nothing here defines", hint=hint)

    def _load(self, instruction: Instruction, relocation: Relocation, place: Place) -> Instruction:
        symbol = relocation.symbol
        addend = relocation.addend
        if addend is None:
            addend = ((instruction.imm & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        if symbol.is_undefined:
            return self._extern(instruction, symbol, addend, place)
        section, target = symbol.section, symbol.value + addend
        if section in self._data:
            data = self._data[section]
            size = data.value_size
            if not 0 <= target <= size:
                raise place.error(
                    f"{symbol.name or data.name!r}{addend:+d} is at {target:#x}, outside {data.name!r} "
                    f"of {size:#x} bytes"
                )
            return self._refer(instruction, _MAP_VALUE, Reference(ReferenceKind.MAP_VALUE, data.name, target))
        if section in self._code:
            name = self._functions.get((section, target))
            if name is None:
                raise place.error(f"address of {symbol.name!r}{addend:+d}, where no function starts")
            return self._refer(instruction, _FUNC, Reference(ReferenceKind.FUNCTION, name))
        if section in self._map_sections:
            name = self._maps.get((section, target))
            if name is None:
                raise place.error(f"address of {symbol.name!r}{addend:+d}, where no map is defined")
            return self._refer(instruction, _MAP_FD, Reference(ReferenceKind.MAP, name))
        raise self._refusal(symbol, place)

    def _extern(self, instruction: Instruction, symbol: Symbol, addend: int, place: Place) -> Instruction:
        extern = self._externs.get(symbol.name)
        if extern is None:
            raise place.error(
                f"{symbol.name!r} is used, but nothing here defines it",
                hint="link the object that defines it (`bpftool gen object`), or declare it "
                "`extern … __ksym` or `extern … __kconfig` and compile with -g if the kernel does",
            )
        if extern.section == ".kconfig":
            reference = Reference(ReferenceKind.KCONFIG, extern.name, addend)
            return self._refer(instruction, _MAP_VALUE, reference)
        if addend:
            raise place.error(
                f"address of kernel symbol {symbol.name!r}{addend:+d}; an offset cannot be applied to it"
            )
        pseudo = _BTF_ID if extern.type is not None else 0
        return self._refer(instruction, pseudo, Reference(ReferenceKind.KSYM, extern.name))

    @staticmethod
    def _refer(instruction: Instruction, pseudo: int, reference: Reference) -> Instruction:
        return Instruction(_LD_IMM64, instruction.dst, pseudo, 0, 0, reference=reference)

    def _refusal(self, symbol: Symbol, place: Place) -> ObjectError:
        if symbol.section >= SHN_LORESERVE:
            return place.error(
                f"{symbol.name!r} is in no section (index {symbol.section:#x})",
                hint="compile with -fno-common" if symbol.section == SHN_COMMON else None,
            )
        section = self._source.elf.sections[symbol.section].name
        what = (
            f"section {section!r}" if symbol.type == SymbolType.SECTION else f"{symbol.name!r} in {section!r}"
        )
        if section in MAP_SECTIONS:
            return place.error(f"{what} is no map definition")
        return place.error(
            f"reference to {what}, which is loaded nowhere",
            hint="global variables belong in .data, .rodata, .bss or a section named after one: "
            'SEC(".data.name")',
        )
