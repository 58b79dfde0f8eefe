"""The one table of BPF operations, which encoding, assembler and disassembler share.

An operation is an opcode, the text that stands for it, and what its four fields must be. In a template the
words in capitals are operands (`OPERANDS`); everything else stands for itself. A field that no operand fills
is fixed: zero (reserved, RFC 9669 section 3.1) unless the row says otherwise.

The text is LLVM's, as `llvm-objdump -d --no-print-imm-hex` prints it and llvm-mc reads it, but for these:
64-bit immediates are hexadecimal; the call of a subprogram is `call pc+3`, as the kernel writes it, since
LLVM prints it like the call of a helper; and what LLVM cannot write, such as `r0 = *(u8 *)skb[r1 + 4]` or the
call of a kernel function by number, is close to the kernel's log. `aliases` are other spellings that the
assembler takes: LLVM's 32-bit registers in loads and stores, and the kernel's atomics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ebpf.isa.instruction import ReferenceKind
from ebpf.isa.opcodes import (
    CALL,
    CALLX,
    EXIT,
    GOTO,
    GOTOL,
    GOTOX,
    LAST_REGISTER,
    LD_IMM64,
    MAY_GOTO,
    NOSPEC,
    Alu,
    Atomic,
    Call,
    Class,
    Jump,
    Mode,
    Pseudo,
    Size,
    Source,
)

S16 = (-(1 << 15), (1 << 15) - 1)
S32 = (-(1 << 31), (1 << 31) - 1)
S32_U32 = (-(1 << 31), (1 << 32) - 1)
S64_U64 = (-(1 << 63), (1 << 64) - 1)
U16 = (0, (1 << 16) - 1)
REGISTER = (0, LAST_REGISTER)


class Operand(NamedTuple):
    """How an operand is written, and which field it fills."""

    field: str  #: of Instruction, or "name" and "addend" of its reference; "" for a register that is implied
    tokens: str
    """What may be written for it: R, W (registers), N (number), S (signed number), P (pc+N), L (name)."""
    form: str  #: for str.format, with the fields and what `show` derives from them
    bounds: tuple[int, int] = REGISTER
    shift: int = 0  #: its lowest bit in the field


OPERANDS = {
    "DST": Operand("dst", "R", "r{dst}"),
    "SRC": Operand("src", "R", "r{src}"),
    "WDST": Operand("dst", "W", "w{dst}"),
    "WSRC": Operand("src", "W", "w{src}"),
    "R0": Operand("", "R", "r0", (0, 0)),
    "W0": Operand("", "W", "w0", (0, 0)),
    "IMM": Operand("imm", "NS", "{imm}", S32),
    "WIMM": Operand("imm", "NS", "{imm}", S32_U32),  # as wide as the operation: no sign extension to mind
    "INDEX": Operand("imm", "S", "{index}", S32),
    "NUMBER": Operand("imm", "NS", "{wide:#x}", S64_U64),
    "VALUE": Operand("imm", "NS", "{wide}", S64_U64),
    "TO": Operand("imm", "N", "{high}", U16, 16),
    "FROM": Operand("imm", "N", "{low}", U16),
    "OFF": Operand("offset", "S", "{displacement}", S16),
    "JUMP": Operand("offset", "SPL", "{jump}", S16),
    "LONG": Operand("imm", "SPL", "{long}", S32),
    "LOCAL": Operand("imm", "PL", "{local}", S32),
    "HELPER": Operand("imm", "NSL", "{imm}", S32),
    "KFUNC": Operand("imm", "NS", "{imm}", S32),
    "MODULE": Operand("offset", "NS", "{offset}", S16),
    "LABEL": Operand("imm", "L", "{name}", S32),
    "NAME": Operand("name", "L", "{name}"),
    "ADDEND": Operand("addend", "S", "+ {addend}", (0, S32[1])),
}

_OPERAND = re.compile("[A-Z][A-Z0-9]+")


class Operation(NamedTuple):
    """One operation. A field that is None is an operand; a number is what the field must be."""

    opcode: int
    template: str
    dst: int | None
    src: int | None
    offset: int | None
    imm: int | None
    since: str  #: first Linux release that takes it in a program; "" where none does
    aliases: tuple[str, ...] = ()
    reference: ReferenceKind | None = None  #: the kind of symbolic operand that the text names
    jump: str = ""  #: the field with the distance of a jump or local call, in slots from the next instruction

    def show(self, dst: int, src: int, offset: int, imm: int, **texts: object) -> str:
        """The text, for these fields; `texts` replaces what is derived from them, such as a jump's target."""
        values: dict[str, object] = {
            "dst": dst,
            "src": src,
            "offset": offset,
            "imm": imm,
            "wide": imm & 0xFFFFFFFFFFFFFFFF,
            "high": imm >> 16 & 0xFFFF,
            "low": imm & 0xFFFF,
            "displacement": f"+ {offset}" if offset >= 0 else f"- {-offset}",
            "index": f"+ {imm}" if imm >= 0 else f"- {-imm}",
            "jump": f"{offset:+}",
            "long": f"{imm:+}",
            "local": f"pc{imm:+}",
        }
        return _form(self.template).format_map(values | texts)


@cache
def _form(template: str) -> str:
    """The template as a format string."""
    return _OPERAND.sub(lambda match: OPERANDS[match[0]].form, template)


def _operation(
    opcode: int,
    template: str,
    *,
    src: int = 0,
    offset: int = 0,
    imm: int = 0,
    since: str = "3.18",
    aliases: tuple[str, ...] = (),
    reference: ReferenceKind | None = None,
) -> Operation:
    operands = [OPERANDS[word] for word in _OPERAND.findall(template)]
    filled = {operand.field for operand in operands}
    return Operation(
        int(opcode),
        template,
        None if "dst" in filled else 0,
        None if "src" in filled else int(src),
        None if "offset" in filled else offset,
        None if "imm" in filled else int(imm),
        since,
        aliases,
        reference,
        next((operand.field for operand in operands if "P" in operand.tokens), ""),
    )


class _Binary(NamedTuple):
    """An operator between two operands."""

    code: int
    operator: str
    offset: int = 0
    since: str = "3.18"


_ARITHMETIC = (
    _Binary(Alu.ADD, "+="),
    _Binary(Alu.SUB, "-="),
    _Binary(Alu.MUL, "*="),
    _Binary(Alu.DIV, "/="),
    _Binary(Alu.DIV, "s/=", 1, "6.6"),
    _Binary(Alu.OR, "|="),
    _Binary(Alu.AND, "&="),
    _Binary(Alu.LSH, "<<="),
    _Binary(Alu.RSH, ">>="),
    _Binary(Alu.MOD, "%="),
    _Binary(Alu.MOD, "s%=", 1, "6.6"),
    _Binary(Alu.XOR, "^="),
    _Binary(Alu.MOV, "="),
    _Binary(Alu.ARSH, "s>>="),
)

_COMPARISONS = (
    _Binary(Jump.JEQ, "=="),
    _Binary(Jump.JGT, ">"),
    _Binary(Jump.JGE, ">="),
    _Binary(Jump.JSET, "&"),
    _Binary(Jump.JNE, "!="),
    _Binary(Jump.JSGT, "s>"),
    _Binary(Jump.JSGE, "s>="),
    _Binary(Jump.JLT, "<", since="4.14"),
    _Binary(Jump.JLE, "<=", since="4.14"),
    _Binary(Jump.JSLT, "s<", since="4.14"),
    _Binary(Jump.JSLE, "s<=", since="4.14"),
)


def _arithmetic() -> Iterator[Operation]:
    for klass, w in ((Class.ALU64, ""), (Class.ALU, "W")):
        dst, src = f"{w}DST", f"{w}SRC"
        for code, operator, offset, since in _ARITHMETIC:
            for source, operand in ((Source.K, f"{w}IMM"), (Source.X, src)):
                yield _operation(
                    klass | code | source, f"{dst} {operator} {operand}", offset=offset, since=since
                )
        yield _operation(klass | Alu.NEG, f"{dst} = -{dst}")
        for bits in (8, 16) if klass == Class.ALU else (8, 16, 32):
            yield _operation(klass | Alu.MOV | Source.X, f"{dst} = (s{bits}){src}", offset=bits, since="6.6")
    for bits in (16, 32, 64):
        yield _operation(Class.ALU | Alu.END | Source.K, f"DST = le{bits} DST", imm=bits)
        yield _operation(Class.ALU | Alu.END | Source.X, f"DST = be{bits} DST", imm=bits)
        yield _operation(Class.ALU64 | Alu.END, f"DST = bswap{bits} DST", imm=bits, since="6.6")
    move = Class.ALU64 | Alu.MOV | Source.X
    yield _operation(move, "DST = addr_space_cast(SRC, TO, FROM)", offset=1, since="6.9")
    # Made by the verifier alone (BPF_ADDR_PERCPU of include/linux/filter.h); appears only in dumps.
    yield _operation(move, "DST = &(void __percpu *)(SRC)", offset=-1, since="")


def _jumps() -> Iterator[Operation]:
    for klass, w, first in ((Class.JMP, "", "3.18"), (Class.JMP32, "W", "5.1")):
        for code, operator, _, since in _COMPARISONS:
            release = first if w else since
            for source, operand in ((Source.K, f"{w}IMM"), (Source.X, f"{w}SRC")):
                yield _operation(
                    klass | code | source, f"if {w}DST {operator} {operand} goto JUMP", since=release
                )
    yield _operation(GOTO, "goto JUMP")
    yield _operation(GOTOL, "gotol LONG", since="6.6")
    yield _operation(GOTOX, "gotox DST", since="6.19")
    yield _operation(MAY_GOTO, "may_goto JUMP", since="6.9")
    yield _operation(CALL, "call LOCAL", src=Call.LOCAL, since="4.16")
    yield _operation(CALL, "call HELPER")
    yield _operation(CALL, "call kfunc(KFUNC)", src=Call.KFUNC, since="5.13")
    yield _operation(CALL, "call kfunc(KFUNC, MODULE)", src=Call.KFUNC, since="5.16")
    yield _operation(CALLX, "callx DST", since="")
    yield _operation(EXIT, "exit")


_WIDTHS = ((Size.B, 8), (Size.H, 16), (Size.W, 32), (Size.DW, 64))


def _memory() -> Iterator[Operation]:
    for size, bits in _WIDTHS:
        narrow = size != Size.DW
        place = f"*(u{bits} *)"
        yield _operation(
            Class.LDX | Mode.MEM | size,
            f"DST = {place}(SRC OFF)",
            aliases=(f"WDST = {place}(SRC OFF)",) if narrow else (),
        )
        yield _operation(
            Class.STX | Mode.MEM | size,
            f"{place}(DST OFF) = SRC",
            aliases=(f"{place}(DST OFF) = WSRC",) if narrow else (),
        )
        yield _operation(Class.ST | Mode.MEM | size, f"{place}(DST OFF) = {'W' if narrow else ''}IMM")
        if narrow:
            yield _operation(Class.LDX | Mode.MEMSX | size, f"DST = *(s{bits} *)(SRC OFF)", since="6.6")
            yield _operation(Class.LD | Mode.ABS | size, f"R0 = {place}skb[IMM]")
            yield _operation(Class.LD | Mode.IND | size, f"R0 = {place}skb[SRC]")
            yield _operation(Class.LD | Mode.IND | size, f"R0 = {place}skb[SRC INDEX]")
    yield _operation(NOSPEC, "nospec", since="")


_ATOMICS = (
    (Atomic.ADD, "add", "+="),
    (Atomic.OR, "or", "|="),
    (Atomic.AND, "and", "&="),
    (Atomic.XOR, "xor", "^="),
)


def _atomics() -> Iterator[Operation]:
    for size, bits, w, xchg, kernel in (
        (Size.W, 32, "W", "32_32", "atomic"),
        (Size.DW, 64, "", "_64", "atomic64"),
    ):
        opcode = Class.STX | Mode.ATOMIC | size
        place, src, r0 = f"(u{bits} *)(DST OFF)", f"{w}SRC", f"{w or 'R'}0"
        for code, name, operator in _ATOMICS:
            yield _operation(
                opcode,
                f"lock *{place} {operator} {src}",
                imm=code,
                since="3.18" if code == Atomic.ADD else "5.12",
                aliases=(f"lock *{place} {operator} SRC",) if w else (),
            )
            yield _operation(
                opcode,
                f"{src} = atomic_fetch_{name}({place}, {src})",
                imm=code | Atomic.FETCH,
                since="5.12",
                aliases=(f"SRC = {kernel}_fetch_{name}({place}, SRC)",),
            )
        yield _operation(
            opcode,
            f"{src} = xchg{xchg}(DST OFF, {src})",
            imm=Atomic.XCHG,
            since="5.12",
            aliases=(f"SRC = {kernel}_xchg({place}, SRC)",),
        )
        yield _operation(
            opcode,
            f"{r0} = cmpxchg{xchg}(DST OFF, {r0}, {src})",
            imm=Atomic.CMPXCHG,
            since="5.12",
            aliases=(f"R0 = {kernel}_cmpxchg({place}, R0, SRC)",),
        )
    for size, bits in _WIDTHS:
        w = "" if size == Size.DW else "W"
        load, store = f"load_acquire((u{bits} *)(SRC OFF))", f"store_release((u{bits} *)(DST OFF), "
        yield _operation(
            Class.STX | Mode.ATOMIC | size,
            f"{w}DST = {load}",
            imm=Atomic.LOAD_ACQ,
            since="6.15",
            aliases=(f"DST = {load}",) if w else (),
        )
        yield _operation(
            Class.STX | Mode.ATOMIC | size,
            f"{store}{w}SRC)",
            imm=Atomic.STORE_REL,
            since="6.15",
            aliases=(f"{store}SRC)",) if w else (),
        )


def _immediates() -> Iterator[Operation]:
    yield _operation(LD_IMM64, "DST = NUMBER ll")
    for pseudo, operand, since in (
        (Pseudo.MAP_FD, "VALUE", "3.18"),
        (Pseudo.MAP_VALUE, "NUMBER", "5.2"),
        (Pseudo.BTF_ID, "NUMBER", "5.10"),
        (Pseudo.FUNC, "VALUE", "5.13"),
        (Pseudo.MAP_IDX, "VALUE", "5.14"),
        (Pseudo.MAP_IDX_VALUE, "NUMBER", "5.14"),
    ):
        yield _operation(
            LD_IMM64,
            f"ld_pseudo DST, {pseudo.value}, {operand}",
            src=pseudo,
            since=since,
            aliases=("DST = LABEL ll",) if pseudo == Pseudo.FUNC else (),
        )


#: Every operation. Where several share an opcode, the first whose fixed fields agree is the one.
OPERATIONS: tuple[Operation, ...] = (
    *_arithmetic(),
    *_jumps(),
    *_memory(),
    *_atomics(),
    *_immediates(),
)

#: How symbolic operands are written, and what their fields hold until the loader resolves them.
SYMBOLIC: dict[ReferenceKind, Operation] = {
    kind: _operation(opcode, template, src=src, imm=imm, reference=kind)
    for kind, opcode, template, src, imm in (
        (ReferenceKind.MAP, LD_IMM64, "DST = NAME ll", Pseudo.MAP_FD, 0),
        (ReferenceKind.MAP_VALUE, LD_IMM64, "DST = NAME ADDEND ll", Pseudo.MAP_VALUE, 0),
        (ReferenceKind.FUNCTION, LD_IMM64, "DST = func(NAME) ll", Pseudo.FUNC, 0),
        (ReferenceKind.KSYM, LD_IMM64, "DST = ksym(NAME) ll", Pseudo.BTF_ID, 0),
        (ReferenceKind.KCONFIG, LD_IMM64, "DST = kconfig(NAME ADDEND) ll", Pseudo.MAP_VALUE, 0),
        (ReferenceKind.CALL, CALL, "call func(NAME)", Call.LOCAL, -1),
        (ReferenceKind.KFUNC, CALL, "call kfunc(NAME)", Call.KFUNC, -1),
    )
}


def _by_opcode() -> tuple[tuple[Operation, ...], ...]:
    table: list[list[Operation]] = [[] for _ in range(256)]
    for operation in OPERATIONS:
        table[operation.opcode].append(operation)
    return tuple(map(tuple, table))


#: Operations by opcode, 256 entries.
BY_OPCODE = _by_opcode()


def find(
    opcode: int, dst: int, src: int, offset: int, imm: int, *, last_register: int = LAST_REGISTER
) -> Operation | None:
    """The operation that these fields encode; None if they are no valid instruction."""
    if dst > last_register or src > last_register:
        return None
    for operation in BY_OPCODE[opcode]:
        _, _, fixed_dst, fixed_src, fixed_offset, fixed_imm, *_ = operation
        if (
            (fixed_imm is None or fixed_imm == imm)
            and (fixed_offset is None or fixed_offset == offset)
            and (fixed_src is None or fixed_src == src)
            and (fixed_dst is None or fixed_dst == dst)
        ):
            return operation
    return None
