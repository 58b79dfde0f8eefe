"""Assembly text to instructions: the syntax of LLVM (see `ebpf.isa.operations`) with labels and symbols.

    start:                              # a label; also the symbol of the instruction after it
        r1 = flows ll                   # a map, resolved by name when the program is loaded
        r2 = .bss + 16 ll               # an address within the value of a map
        call bpf_map_lookup_elem        # a helper by name, or by number
        if r0 == 0 goto done            # a label, or +N and -N slots from the next instruction
        call count                      # a subprogram at the label `count`; pc+N for a distance
        call kfunc(bpf_rcu_read_lock)   # a kernel function
    done:
        exit

Comments start with `#` or `//`, or stand between `/*` and `*/`; a line that starts with `;` is one too, as
llvm-objdump prints source. Elsewhere `;` separates instructions, as for LLVM. Further symbols: `call func(f)`
and `r1 = func(f) ll` (a function elsewhere), `r1 = ksym(s) ll`, `r1 = kconfig(CONFIG_HZ + 0) ll`.
`nop` is `goto +0`; `.insn opcode, dst, src, offset, imm` gives the fields themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import NamedTuple

from ebpf.errors import AssemblyError
from ebpf.isa.encoding import problem
from ebpf.isa.instruction import Instruction, Reference
from ebpf.isa.opcodes import KERNEL_REGISTER, LAST_REGISTER, LD_IMM64
from ebpf.isa.operations import OPERANDS, OPERATIONS, S16, S32, S64_U64, SYMBOLIC, Operand, Operation

_NUMBER = r"(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0|[1-9][0-9]*)\b"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<P>pc[+-]{_NUMBER})
    | (?P<exact>(?:func|kfunc|ksym|kconfig)\( | >>= | <<= | s>>= | s[/%]= | s[<>]=? | [-+*/%|&^=!<>]= )
    | (?P<S>[+-]\s*{_NUMBER})
    | (?P<N>{_NUMBER})
    | (?P<word>[A-Za-z_.$][\w.$]*)
    | (?P<sign>[-+*&()\[\],=<>])
    )""",
    re.VERBOSE,
)
_REGISTER = re.compile(r"([rw])(0|[1-9][0-9]*)")
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*)\s*:")
_COMMENT = re.compile(r"#.*|//.*")
_BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

#: The classes of tokens, as the grammar has them beside the tokens that stand for themselves, in words.
_IN_WORDS = {
    "<R>": "a register (r0 to r10)",
    "<W>": "a 32-bit register (w0 to w10)",
    "<N>": "a number",
    "<S>": "+N or -N",
    "<P>": "pc+N",
    "<L>": "a name",
    "": "the end of the instruction",
}

#: How many possibilities a message names.
_MOST_NAMED = 16

_FIELDS: Mapping[str, tuple[int, int]] = {
    "opcode": (0, 0xFF),
    "dst": (0, 15),
    "src": (0, 15),
    "offset": S16,
    "imm": S32,
}


def assemble(text: str, *, strict: bool = True) -> list[Instruction]:
    """The instructions that the text stands for, with labels as their symbols and jumps laid out.

    Symbols that are no labels stay as references, for the loader to resolve. Of several labels at one place
    the first is the symbol. Not strict, it also takes what only kernel dumps hold: r11, and any `.insn`.
    Raises AssemblyError, which names the line and what was expected.
    """
    statements: list[_Statement] = []
    labels: dict[str, int] = {}
    symbols: dict[int, str] = {}  # by statement
    pc = 0
    for line in _lines(text):
        rest = line.text
        while label := _LABEL.match(rest):
            if label[1] in labels:
                raise line.error(f"the label {label[1]!r} is already defined")
            if _REGISTER.fullmatch(label[1]):
                raise line.error(f"{label[1]!r} is a register, and cannot be a label")
            labels[label[1]] = pc
            symbols.setdefault(len(statements), label[1])
            rest = rest[label.end() :]
        if rest.strip():
            statement = _parse(line._replace(text=rest), pc, strict)
            statements.append(statement)
            pc += statement.slots
        last = line
    if len(statements) in symbols:
        raise last.error(f"no instruction follows the label {symbols[len(statements)]!r}")
    return [
        _lay_out(statement, labels)._replace(symbol=symbols.get(index))
        for index, statement in enumerate(statements)
    ]


class _Line(NamedTuple):
    """One instruction's text, and where it stands."""

    number: int  # from 1
    whole: str
    text: str  # without comments; only one of several instructions of the line
    follows: bool  # on another instruction, after a semicolon

    def error(self, message: str, *, hint: str | None = None) -> AssemblyError:
        return AssemblyError(message, line=self.number, text=self.whole, hint=hint)


class _Token(NamedTuple):
    kind: str  # as in `Operand.tokens`, or "exact" for what only stands for itself
    text: str
    value: int = 0  # of numbers and registers


class _Alternative(NamedTuple):
    """An operation that a sequence of tokens may stand for, and which token fills which operand."""

    operation: Operation
    operands: tuple[tuple[int, Operand], ...]


class _Statement(NamedTuple):
    line: _Line
    pc: int  # slot
    tokens: list[_Token]
    alternatives: tuple[_Alternative, ...]
    raw: Instruction | None = None

    @property
    def slots(self) -> int:
        opcode = self.raw.opcode if self.raw else self.alternatives[0].operation.opcode
        return 2 if opcode == LD_IMM64 else 1


class _Node:
    """A place in the grammar: what may come next, and what it is if nothing does."""

    __slots__ = ("alternatives", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.alternatives: tuple[_Alternative, ...] = ()


def _lines(text: str) -> Iterator[_Line]:
    """The text of each instruction, without comments."""
    text = _BLOCK_COMMENT.sub(lambda comment: "\n" * comment[0].count("\n") or " ", text)
    for number, whole in enumerate(text.split("\n"), 1):
        code = _COMMENT.sub("", whole)
        if code.lstrip().startswith(";"):
            continue
        for index, part in enumerate(code.split(";")):
            if part.strip():
                yield _Line(number, whole, part, index > 0)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens of the text; the kind of the last is "?" where there is none."""
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            yield _Token("?", text[place:end].strip())
            return
        place = match.end()
        kind, token = str(match.lastgroup), match[0].strip()
        if register := _REGISTER.fullmatch(token):
            yield _Token(register[1].upper(), token, int(register[2]))
        elif kind in "PSN":
            yield _Token(kind, token, int(re.sub(r"pc|\s", "", token), 0))
        elif kind == "word":
            yield _Token("L", token)
        else:
            yield _Token("exact", token)


@cache
def _grammar() -> _Node:
    """All spellings of all operations as a tree of tokens."""
    root = _Node()
    for operation in (*OPERATIONS, *SYMBOLIC.values()):
        for spelling in (operation.template, *operation.aliases):
            variants = (spelling, spelling.replace(" OFF)", ")")) if " OFF)" in spelling else (spelling,)
            for variant in variants:
                _add(root, operation, variant)
    return root


def _add(root: _Node, operation: Operation, spelling: str) -> None:
    """Add one spelling of an operation, with all that may be written for its operands."""
    words = [token.text for token in _tokens(spelling)]
    operands = tuple((index, OPERANDS[word]) for index, word in enumerate(words) if word in OPERANDS)
    choices = (
        [f"<{kind}>" for kind in OPERANDS[word].tokens] if word in OPERANDS else [word] for word in words
    )
    for choice in product(*choices):
        node = root
        for key in choice:
            node = node.next.setdefault(key, _Node())
        # A name may be a label, a helper or a map: they are tried in the order of the tables.
        node.alternatives += (_Alternative(operation, operands),)


def _parse(line: _Line, pc: int, strict: bool) -> _Statement:
    """Find the operations that a line may stand for."""
    tokens = list(_tokens(line.text))
    if tokens[0].text == ".insn":
        return _Statement(line, pc, tokens, (), _raw(line, tokens[1:], strict))
    if [token.text for token in tokens] == ["nop"]:
        tokens = list(_tokens("goto +0"))
    node = _grammar()
    last_register = LAST_REGISTER if strict else KERNEL_REGISTER
    for token in tokens:
        if token.kind in ("R", "W") and token.value > last_register:
            raise line.error(f"there is no register {token.text}: programs have r0 to r10, or w0 to w10")
        exact = str(token.value) if token.kind == "N" else token.text
        following = node.next.get(exact) or node.next.get(f"<{token.kind}>")
        if following is None:
            raise _unexpected(line, node, repr(token.text))
        node = following
    if not node.alternatives:
        raise _unexpected(line, node, "the end of the line")
    return _Statement(line, pc, tokens, node.alternatives)


def _unexpected(line: _Line, node: _Node, what: str) -> AssemblyError:
    keys = [*node.next, ""] if node.alternatives else list(node.next)
    expected = sorted(
        {_IN_WORDS.get(key, f"'{key}'") for key in keys}, key=lambda text: (text[0] == "'", text)
    )
    if len(expected) > _MOST_NAMED:
        expected[_MOST_NAMED - 1 :] = ["another operation"]
    choice = f"{', '.join(expected[:-1])} or {expected[-1]}" if expected[1:] else expected[0]
    hint = "';' separates instructions; a comment after one starts with '#' or '//'" if line.follows else None
    return line.error(f"expected {choice}, not {what}", hint=hint)


def _raw(line: _Line, tokens: list[_Token], strict: bool) -> Instruction:
    """The instruction of an .insn directive."""
    numbers = tokens[::2]
    commas = tokens[1::2]
    if (
        len(tokens) != 2 * len(_FIELDS) - 1
        or any(token.kind not in "NS" for token in numbers)
        or any(token.text != "," for token in commas)
    ):
        raise line.error(f"expected .insn with five numbers: {', '.join(_FIELDS)}")
    wide = numbers[0].value == LD_IMM64
    for (name, bounds), token in zip(_FIELDS.items(), numbers, strict=True):
        low, high = S64_U64 if wide and name == "imm" else bounds
        if not low <= token.value <= high:
            raise line.error(f"{name} is {token.text} and must be {low} to {high}")
    opcode, dst, src, offset, imm = (token.value for token in numbers)
    instruction = Instruction(opcode, dst, src, offset, imm)
    if strict and (wrong := problem(instruction)) is not None:
        raise line.error(wrong)
    return instruction


def _lay_out(statement: _Statement, labels: Mapping[str, int]) -> Instruction:
    """The instruction of a statement, now that all labels are known."""
    if statement.raw is not None:
        return statement.raw
    for alternative in statement.alternatives:
        instruction = _fill(statement, alternative, labels)
        if instruction is not None:
            return instruction
    name = next(token.text for token in statement.tokens[1:] if token.kind == "L")
    raise _unknown(statement, name, labels)


def _fill(statement: _Statement, alternative: _Alternative, labels: Mapping[str, int]) -> Instruction | None:
    """The instruction, if this is what the statement means; None if it names what is not there."""
    operation, operands = alternative
    fields: dict[str, int] = {}
    name: str | None = None
    seen: dict[Operand, int] = {}
    for index, operand in operands:
        token = statement.tokens[index]
        value = token.value
        if operand.field == "name":
            name = token.text
        elif token.kind == "L":
            found = _symbol(statement, operand, token.text, labels)
            if found is None:
                return None
            value = found
        value = _checked(statement, operand, token, value)
        if seen.setdefault(operand, value) != value:
            register = f"{operand.form[0]}{seen[operand]}"
            raise statement.line.error(f"expected {register} again, not {token.text!r}: they are one operand")
        if operand is OPERANDS["LABEL"]:
            value &= 0xFFFFFFFF  # the upper half of the 64-bit immediate is reserved
        fields[operand.field] = fields.get(operand.field, 0) | value << operand.shift
    wide = operation.opcode == LD_IMM64
    imm = fields.get("imm", operation.imm or 0)
    reference = None
    if operation.reference is not None and name is not None:
        reference = Reference(operation.reference, name, fields.get("addend", 0))
    return Instruction(
        operation.opcode,
        fields.get("dst", operation.dst or 0),
        fields.get("src", operation.src or 0),
        fields.get("offset", operation.offset or 0),
        imm & 0xFFFFFFFFFFFFFFFF if wide else (imm & 0xFFFFFFFF ^ 0x80000000) - 0x80000000,
        reference=reference,
    )


def _checked(statement: _Statement, operand: Operand, token: _Token, value: int) -> int:
    """The value of an operand, if it is in range."""
    low, high = operand.bounds
    if operand.tokens in ("R", "W") and operand.field:
        return value  # _parse has checked registers, and knows whether r11 is one
    if low <= value <= high:
        return value
    if operand.tokens in ("R", "W"):
        raise statement.line.error(f"expected {operand.form}, not {token.text!r}")
    hint = None
    if operand is OPERANDS["IMM"]:
        hint = "it is sign-extended to 64 bits; load a larger number into a register, with ll"
    elif operand is OPERANDS["JUMP"]:
        hint = "gotol reaches further"
    raise statement.line.error(
        f"{token.text} is {value} here and must be {low} to {high}"
        if token.kind == "L"
        else f"{token.text} must be {low} to {high}",
        hint=hint,
    )


def _symbol(statement: _Statement, operand: Operand, name: str, labels: Mapping[str, int]) -> int | None:
    """What a name stands for in this operand: the distance to a label, or the number of a helper."""
    if operand is OPERANDS["HELPER"]:
        from ebpf.isa.helpers import by_name  # a large table, which most programs in assembly do not need

        helper = by_name(name)
        return helper.id if helper is not None else None
    place = labels.get(name)
    if place is None:
        return None
    return place - statement.pc - 1


def _unknown(statement: _Statement, name: str, labels: Mapping[str, int]) -> AssemblyError:
    from difflib import get_close_matches

    known = list(labels)
    kinds = "label"
    if any(operand is OPERANDS["HELPER"] for _, operand in statement.alternatives[-1].operands):
        from ebpf.isa.helpers import HELPERS

        kinds = "label and no helper"
        known += [f"bpf_{helper.name}" for helper in HELPERS]
    close = get_close_matches(name, known, n=1)
    return statement.line.error(
        f"there is no {kinds} named {name!r}", hint=f"did you mean {close[0]!r}?" if close else None
    )
