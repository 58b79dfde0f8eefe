"""C names and declarations of types, short: "struct task_struct *", "char[16]", "int (*)(void *)"."""

from __future__ import annotations

from ebpf.btf import types as t

QUALIFIERS: dict[type[t.Type], str] = {t.Const: "const", t.Volatile: "volatile", t.Restrict: "restrict"}
#: What stands for the rest of a type that is too long, or without end.
_ELLIPSIS = "…"
#: Types that one declaration may go through, and prototypes within prototypes.
_MAX_STEPS, _MAX_DEPTH = 512, 16


def declaration(type: t.Type, declarator: str = "") -> str:
    """The type as C writes it, around `declarator` (a variable or member name) if one is given.

    Structs, unions and enums are named, not spelled out: an anonymous one is "struct {...}".
    """
    return _Short().declaration(type, declarator)


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


class _Short:
    """One declaration. Steps are counted, because malformed types can go on without end."""

    def __init__(self) -> None:
        self.steps = _MAX_STEPS
        self.depth = 0

    def declaration(self, type: t.Type, declarator: str) -> str:
        words: list[str] = []  # qualifiers that wait for what they qualify
        pointer = False  # whether `declarator` starts with "*", and arrays need parentheses around it
        while self.steps > 0:
            self.steps -= 1
            match type:
                case t.Pointer():
                    declarator = _star(words, declarator)
                    words = []
                    pointer = True
                case t.Const() | t.Volatile() | t.Restrict():
                    words.append(QUALIFIERS[type.__class__])
                case t.TypeTag():
                    pass  # matters to the verifier; a short name stays short
                case t.Array():
                    inner = f"({declarator})" if pointer else declarator
                    declarator = f"{inner}[{type.length or ''}]"
                    pointer = False
                    type = type.element
                    continue
                case t.FunctionProto():
                    inner = f"({declarator})" if pointer else declarator
                    declarator = f"{inner}({self.parameters(type)})"
                    pointer = False
                    type = type.return_type
                    continue
                case t.Function() | t.Variable():
                    declarator = type.name
                    pointer = False
                case t.Typedef() | t.DeclTag() | t.DataSection():
                    return _join([*words, type.name], declarator)
                case _:
                    return _join([*words, base_name(type)], declarator)
            type = type.target
        return _join([_ELLIPSIS], declarator)

    def parameters(self, proto: t.FunctionProto) -> str:
        if self.depth >= _MAX_DEPTH:
            return _ELLIPSIS
        self.depth += 1
        parts = []
        for parameter in proto.parameters:
            if self.steps <= 0:
                parts.append(_ELLIPSIS)
                break
            parts.append(self.declaration(parameter.type, parameter.name))
        if proto.is_variadic:
            parts.append("...")
        self.depth -= 1
        return ", ".join(parts) or "void"


def _star(words: list[str], declarator: str) -> str:
    if not words:
        return f"*{declarator}"
    return f"* {' '.join(words)} {declarator}".rstrip()


def _join(words: list[str], declarator: str) -> str:
    # "char[16]" but "char *", "char name[16]"
    glue = "" if not declarator or declarator[0] == "[" else " "
    return " ".join(words) + glue + declarator
