"""BTF as C that compiles: what `bpftool btf dump … format c` does, and `vmlinux.h` is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.clayout import plan
from ebpf.btf.cnames import Names, all_of, identifier, is_builtin
from ebpf.btf.layout import bit_field
from ebpf.btf.names import QUALIFIERS
from ebpf.errors import BTFError

#: Longer ones are made by malformed BTF: function pointers that take function pointers without end.
_MAX_DECLARATION = 1 << 18
#: Padding of more words than this is written as an array.
_MAX_PADDING_WORDS = 64
_PADDING = ((64, "long"), (32, "int"), (16, "short"), (8, "char"))
_KFUNC_TAG, _FASTCALL_TAG = "bpf_kfunc", "bpf_fastcall"
_ENUM_MODES = {1: "byte", 2: "HI", 4: "", 8: "DI"}
_INT_BY_SIZE = {1: "char", 2: "short", 4: "int", 8: "long long", 16: "__int128"}

_HEAD = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif
"""
_KFUNCS_HEAD = """\
#ifndef BPF_NO_KFUNC_PROTOTYPES
#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif
#ifndef __bpf_fastcall
#if defined(__has_attribute)
#if __has_attribute(bpf_fastcall)
#define __bpf_fastcall __attribute__((bpf_fastcall))
#endif
#endif
#endif
#ifndef __bpf_fastcall
#define __bpf_fastcall
#endif
"""
_KFUNCS_TAIL = "#endif\n"
_TAIL = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif
"""


def to_c(btf: BTF, *, root: str | None = None) -> str:
    """All types as one C header, or the type named `root` ("task_struct", "__u32") and all that it needs.

    Every struct has the size, and its members the offsets, that BTF gives, by padding and packing where the
    rules of C alone would not do. Accesses through the structs are CO-RE relocatable unless
    BPF_NO_PRESERVE_ACCESS_INDEX is defined. Prototypes of kfuncs stand under BPF_NO_KFUNC_PROTOTYPES, where
    the BTF marks kfuncs (Linux 6.10). Raises BTFError for a root that is not there, and for malformed types.
    """
    writer = _Writer(btf)
    try:
        if root is not None:
            kinds = (t.Struct, t.Union, t.Enum, t.Typedef)
            writer.require(btf.find(root.rpartition(" ")[2], *kinds).id, complete=True)
        else:
            writer.write_all()
    except RecursionError:
        raise BTFError("BTF types are nested too deeply to be C") from None
    return "\n".join([_HEAD, *writer.blocks, _TAIL])


class _Declarator(NamedTuple):
    """What goes around the name that is declared."""

    before: str
    after: str

    def around(self, name: str) -> str:
        return f"{self.before}{name}{self.after}" if name else f"{self.before.rstrip()}{self.after}"


class _Writer:
    """Writes definitions in an order that C accepts: each after all that it needs."""

    def __init__(self, btf: BTF) -> None:
        self.blocks: list[str] = []
        self._btf = btf
        self._names = Names(btf)
        self._done: set[int] = set()  # defined
        self._busy: set[int] = set()  # being defined
        self._passed: set[tuple[int, int]] = set()  # without a name, and all they need for an owner written
        self._declared: set[str] = set()  # tags with a forward declaration
        self._declarators: dict[tuple[int, str, str], _Declarator] = {}
        self._inlined = 0  # anonymous types spelled out so far
        self._spelled: set[int] = set()  # enums written, by themselves or inside another type

    def write_all(self) -> None:
        for type in all_of(self._btf, t.Struct, t.Union, t.Enum, t.Typedef, t.Forward):
            if type.name and not (isinstance(type, t.Forward) and self._names.is_defined(type)):
                self.require(type.id, complete=True)
        for enum in all_of(self._btf, t.Enum):
            if enum.id not in self._spelled and enum.members:
                self.blocks.append(f"{self._enum(enum)};\n")
        kfuncs = list(self._kfuncs())
        if kfuncs:
            self.blocks.append(f"{_KFUNCS_HEAD}\n" + "".join(kfuncs) + _KFUNCS_TAIL)

    def require(self, id: int, *, complete: bool, owner: int = 0) -> None:
        """Write what must stand before a use of the type; `complete` where its size matters.

        `owner` is the struct whose definition uses it, which may point to itself.
        """
        type = self._btf.type(id)
        match type:
            case t.Pointer():
                self.require(type.target_id, complete=False, owner=owner)
            case t.Const() | t.Volatile() | t.Restrict() | t.TypeTag():
                self.require(type.target_id, complete=complete, owner=owner)
            case t.Array():
                self.require(type.element_id, complete=True, owner=owner)
            case t.FunctionProto() if (id, owner) not in self._passed:
                self.require(type.return_id, complete=False, owner=owner)
                for parameter in type.parameters:
                    self.require(parameter.type_id, complete=False, owner=owner)
                self._passed.add((id, owner))
            case t.Typedef():
                self._define_typedef(type)
                if complete:
                    self.require(type.target_id, complete=True, owner=owner)
            case t.Composite() if not type.name:
                if (id, owner) not in self._passed:
                    self._require_members(type, owner)
                    self._passed.add((id, owner))
            case t.Composite() if complete:
                self._define_composite(type)
            case t.Composite() | t.Forward():
                if type.id not in self._done and type.id != owner:
                    self._declare(type)
            case t.Enum():
                if type.name and type.id not in self._done:
                    self._done.add(type.id)
                    self.blocks.append(f"{self._enum(type)};\n")
            case t.Int() | t.Float():
                self._define_number(type)
            case _:
                pass

    def _require_members(self, type: t.Composite, owner: int) -> None:
        self._begin(type)
        for member in type.members:
            self.require(member.type_id, complete=True, owner=owner)
        self._busy.remove(type.id)

    def _begin(self, type: t.Type) -> None:
        if type.id in self._busy:
            raise BTFError(f"BTF type {type.id} ({type}) contains itself")
        self._busy.add(type.id)

    def _declare(self, type: t.Type) -> None:
        name = self._names.of(type)
        if name not in self._declared:
            self._declared.add(name)
            self.blocks.append(f"{_keyword(type)} {name};\n")

    def _define_composite(self, type: t.Composite) -> None:
        if type.id in self._done:
            return
        self._require_members(type, type.id)
        self._done.add(type.id)
        self._declared.add(self._names.of(type))
        self.blocks.append(f"{self._composite(type)};\n")

    def _define_typedef(self, type: t.Typedef) -> None:
        if type.id in self._done:
            return
        self._begin(type)
        self.require(type.target_id, complete=False)
        self._busy.remove(type.id)
        self._done.add(type.id)
        self.blocks.append(f"typedef {self._declare_as(type.target_id, self._names.of(type))};\n")

    def _define_number(self, type: t.Int | t.Float) -> None:
        """A typedef for a number type that is none of C's own, such as those of Rust, or `__Poly8_t`."""
        if type.id in self._done or is_builtin(type.name):
            return
        self._done.add(type.id)
        if isinstance(type, t.Int):
            name = self._number_name(type)
            if name not in self._declared:
                self._declared.add(name)
                sign = "signed" if type.signed else "unsigned"
                self.blocks.append(f"typedef {sign} {_INT_BY_SIZE[type.size]} {name};\n")

    def _number_name(self, type: t.Int | t.Float) -> str:
        return type.name if is_builtin(type.name) or isinstance(type, t.Float) else identifier(type.name)

    def _declare_as(self, id: int, name: str) -> str:
        text = self._declarator(id).around(name)
        if len(text) > _MAX_DECLARATION:
            raise BTFError(f"BTF type {id} is too long a declaration to be C")
        return text

    def _declarator(self, id: int, qualifiers: str = "", tags: str = "") -> _Declarator:
        key = (id, qualifiers, tags)
        known = self._declarators.get(key)
        if known is not None:
            return known
        inlined = self._inlined
        made = self._make_declarator(self._btf.type(id), qualifiers, tags)
        if len(made.before) + len(made.after) > _MAX_DECLARATION:
            raise BTFError(f"BTF type {id} is too long a declaration to be C")
        if inlined == self._inlined:  # enumerators are written once, so their text is of no further use
            self._declarators[key] = made
        return made

    def _make_declarator(self, type: t.Type, qualifiers: str, tags: str) -> _Declarator:
        match type:
            case t.Const() | t.Volatile() | t.Restrict():
                word = f"{QUALIFIERS[type.__class__]} "
                # Arrays of const elements that are const themselves say it twice.
                more = "" if word in qualifiers else word
                return self._declarator(type.target_id, qualifiers + more, tags)
            case t.TypeTag():
                tag = type.name if type.is_attribute else f"btf_type_tag({_quoted(type.name)})"
                return self._declarator(type.target_id, qualifiers, f"{tags}__attribute__(({tag})) ")
            case t.Pointer():
                before, after = self._declarator(type.target_id)
                if self._is_function_or_array(type.target):
                    return _Declarator(f"{before}(*{qualifiers}{tags}", f"){after}")
                return _Declarator(f"{before}*{qualifiers}{tags}", after)
            case t.Array():
                before, after = self._declarator(type.element_id, qualifiers, tags)
                return _Declarator(before, f"[{type.length}]{after}")
            case t.FunctionProto():
                before, after = self._declarator(type.return_id)
                return _Declarator(before, f"({self._parameters(type)}){after}")
            case t.Composite() if not type.name:
                base = self._composite(type)
            case t.Enum() if not type.name:
                base = self._enum(type)
            case t.Composite() | t.Enum() | t.Forward():
                base = f"{_keyword(type)} {self._names.of(type)}"
            case t.Typedef():
                base = self._names.of(type)
            case t.Int() | t.Float():
                base = self._number_name(type)
            case t.Void():
                base = "void"
            case _:
                raise BTFError(f"BTF type {type.id} ({type.kind.name}) cannot be declared in C")
        return _Declarator(f"{qualifiers}{base} {tags}", "")

    def _is_function_or_array(self, type: t.Type) -> bool:
        while isinstance(type, t.Const | t.Volatile | t.Restrict | t.TypeTag):
            type = type.target
        return isinstance(type, t.FunctionProto | t.Array)

    def _parameters(self, proto: t.FunctionProto) -> str:
        parts = [
            self._declare_as(parameter.type_id, self._names.parameter(parameter.name))
            for parameter in proto.parameters
        ]
        if proto.is_variadic:
            parts.append("...")
        return ", ".join(parts) or "void"

    def _composite(self, type: t.Composite) -> str:
        """The definition of a struct or union, without the semicolon."""
        if not type.name:
            self._inlined += 1
        layout = plan(type)
        name = self._names.of(type)
        lines = [f"{_keyword(type)} {name} {{" if name else f"{_keyword(type)} {{"]
        for member, gap in zip(type.members, layout.gaps, strict=True):
            field = bit_field(member)
            if gap:
                lines.extend(_padding((field[0] if field else member.bit_offset) - gap, gap))
            text = self._declare_as(member.type_id, identifier(member.name))
            if field:
                text = f"{text}: {field[1]}" if member.name else f"{text} : {field[1]}"
            lines.append("\t" + text.replace("\n", "\n\t") + ";")
        if layout.tail:
            if isinstance(type, t.Union):
                lines.append(f"\tunsigned char ___size[{layout.tail // 8}];")
            else:
                lines.extend(_padding(type.size * 8 - layout.tail, layout.tail))
        lines.append("} __attribute__((packed))" if layout.packed else "}")
        return "\n".join(lines)

    def _enum(self, type: t.Enum) -> str:
        """The definition of an enum, without the semicolon."""
        self._inlined += 1
        self._spelled.add(type.id)
        suffix = "" if not type.is_wide else "LL" if type.signed else "ULL"
        lines = [f"enum {self._names.of(type)} {{".replace("  ", " ")]
        for name, value in type.members:
            lines.append(f"\t{self._names.enumerator(name)} = {_constant(value, suffix)},")
        if not type.members:  # C has no empty enums
            lines.append(f"\t{self._names.enumerator(f'___{type.name}_empty')} = 0,")
        lines.append("}")
        narrow = all(-(1 << 31) <= value < 1 << 32 for _, value in type.members)
        mode = _ENUM_MODES[type.size]
        return "\n".join(lines) + (f" __attribute__((mode({mode})))" if mode and narrow else "")

    def _kfuncs(self) -> Iterator[str]:
        btf: BTF | None = self._btf
        while btf is not None:
            for function in sorted(btf.decl_tags):
                tags = {tag.name for tag in btf.decl_tags[function] if tag.component < 0}
                if _KFUNC_TAG in tags and isinstance(kfunc := btf.type(function), t.Function):
                    self.require(kfunc.target_id, complete=False)
                    fastcall = "__bpf_fastcall " if _FASTCALL_TAG in tags else ""
                    text = self._declare_as(kfunc.target_id, kfunc.name)
                    yield f"extern {text} {fastcall}__weak __ksym;\n"
            btf = btf.base


def _keyword(type: t.Type) -> str:
    match type:
        case t.Union() | t.Forward(is_union=True):
            return "union"
        case t.Enum():
            return "enum"
        case _:
            return "struct"


def _constant(value: int, suffix: str) -> str:
    # The lowest number has no literal of its own: -N is minus applied to N.
    if value == -(1 << 63):
        return f"-{(1 << 63) - 1}LL - 1"
    return f"{value}{suffix}"


def _padding(start: int, bits: int) -> Iterator[str]:
    """Members without a name that take the bits from `start` on."""
    end = start + bits
    while start < end:
        if start % 8:
            size = min(8 - start % 8, end - start)
            yield f"\tchar: {size};"
        elif (words := (end - start) // 64) > _MAX_PADDING_WORDS:
            size = words * 64
            yield f"\tunsigned char ___padding_{start // 8}[{size // 8}];"
        else:
            fitting = ((unit, name) for unit, name in _PADDING if start % unit == 0 and unit <= end - start)
            size, name = next(fitting, (end - start, "char"))
            yield f"\t{name}: {size};"
        start += size


def _quoted(text: str) -> str:
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{"".join(plain)}"'
