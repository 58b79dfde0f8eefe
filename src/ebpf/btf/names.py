"""C names and declarations of types, short: "struct task_struct *", "char[16]", "int (*)(void *)"."""

from __future__ import annotations

from ebpf.btf import types as t
from ebpf.errors import BTFError

#: Declarations that nest deeper are no C.
_MAX_DEPTH = 64

QUALIFIERS: dict[type[t.Type], str] = {t.Const: "const", t.Volatile: "volatile", t.Restrict: "restrict"}


def declaration(type: t.Type, declarator: str = "") -> str:
    """The type as C writes it, around `declarator` (a variable or member name) if one is given.

    Structs, unions and enums are named, not spelled out: an anonymous one is "struct {...}".
    """
    words: list[str] = []  # qualifiers that wait for the type on their right
    pointer = False  # whether `declarator` starts with "*", and arrays need parentheses around it
    for _ in range(_MAX_DEPTH):
        match type:
            case t.Pointer():
                declarator = _qualified("*", words) + _spaced(declarator, bool(words))
                words = []
                pointer = True
            case t.Const() | t.Volatile() | t.Restrict():
                words.append(QUALIFIERS[type.__class__])
            case t.TypeTag():
                pass  # matters to the verifier, and the short name stays short
            case t.Array():
                inner = f"({declarator})" if pointer else declarator
                declarator = f"{inner}[{type.length or ''}]"
                pointer = False
                type = type.element
                continue
            case t.FunctionProto():
                inner = f"({declarator})" if pointer else declarator
                return declaration(type.return_type, f"{inner}({parameters(type)})")
            case t.Function() | t.Variable():
                declarator = type.name
                pointer = False
            case t.Typedef() | t.DeclTag() | t.DataSection():
                return _join([*words, type.name], declarator)
            case _:
                return _join([*words, base_name(type)], declarator)
        type = type.target
    raise BTFError(f"BTF type {type.id} refers to types without end")


def parameters(proto: t.FunctionProto) -> str:
    """The parameter list of a prototype, without the parentheses."""
    parts = [declaration(parameter.type, parameter.name) for parameter in proto.parameters]
    if proto.is_variadic:
        parts.append("...")
    return ", ".join(parts) or "void"


def base_name(type: t.Type) -> str:
    """The name of a type that refers to no other."""
    match type:
        case t.Struct():
            return f"struct {type.name or '{...}'}"
        case t.Union():
            return f"union {type.name or '{...}'}"
        case t.Enum():
            return f"enum {type.name or '{...}'}"
        case t.Forward():
            return f"{'union' if type.is_union else 'struct'} {type.name}"
        case _:
            return type.name


def _qualified(star: str, words: list[str]) -> str:
    return f"{star} {' '.join(words)}" if words else star


def _spaced(declarator: str, qualified: bool) -> str:
    return f" {declarator}" if qualified and declarator else declarator


def _join(words: list[str], declarator: str) -> str:
    # "char[16]" but "char *", "char name[16]"
    glue = "" if not declarator or declarator[0] == "[" else " "
    return " ".join(words) + glue + declarator
