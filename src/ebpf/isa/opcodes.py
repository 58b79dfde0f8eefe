"""The numbers of the BPF instruction set, named as in RFC 9669.

Extensions of Linux and LLVM that the RFC does not have are marked as such; they come from
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from enum import IntEnum

#: Registers that a program may name: r0 to r10, r10 being the frame pointer (section 2).
LAST_REGISTER = 10
#: The verifier's scratch register (BPF_REG_AX); appears only in what the kernel dumps.
KERNEL_REGISTER = 11


class Class(IntEnum):
    """Instruction classes: the low 3 bits of an opcode (section 3.3)."""

    LD = 0
    LDX = 1
    ST = 2
    STX = 3
    ALU = 4
    JMP = 5
    JMP32 = 6
    ALU64 = 7


class Source(IntEnum):
    """Where the second operand comes from, in the arithmetic and jump classes (section 4)."""

    K = 0x00  #: imm
    X = 0x08  #: the src register


class Alu(IntEnum):
    """Codes of arithmetic instructions (section 4.1)."""

    ADD = 0x00
    SUB = 0x10
    MUL = 0x20
    DIV = 0x30  #: signed with offset 1
    OR = 0x40
    AND = 0x50
    LSH = 0x60
    RSH = 0x70
    NEG = 0x80
    MOD = 0x90  #: signed with offset 1
    XOR = 0xA0
    MOV = 0xB0  #: sign-extending with offset 8, 16 or 32
    ARSH = 0xC0
    END = 0xD0  #: byte swaps (section 4.2); imm is the width in bits


class Jump(IntEnum):
    """Codes of jump instructions (section 4.3)."""

    JA = 0x00
    JEQ = 0x10
    JGT = 0x20
    JGE = 0x30
    JSET = 0x40
    JNE = 0x50
    JSGT = 0x60
    JSGE = 0x70
    CALL = 0x80
    EXIT = 0x90
    JLT = 0xA0
    JLE = 0xB0
    JSLT = 0xC0
    JSLE = 0xD0
    JCOND = 0xE0  #: Linux: may_goto


class Size(IntEnum):
    """Widths of loads and stores (section 5)."""

    W = 0x00  #: 4 bytes
    H = 0x08  #: 2 bytes
    B = 0x10  #: 1 byte
    DW = 0x18  #: 8 bytes


class Mode(IntEnum):
    """Modes of loads and stores (section 5)."""

    IMM = 0x00  #: 64-bit immediate (section 5.4)
    ABS = 0x20  #: legacy packet access (section 5.5)
    IND = 0x40  #: legacy packet access (section 5.5)
    MEM = 0x60  #: section 5.1
    MEMSX = 0x80  #: sign-extending (section 5.2)
    ATOMIC = 0xC0  #: section 5.3


class Atomic(IntEnum):
    """Operations of atomic instructions, in imm (section 5.3)."""

    ADD = 0x00
    OR = 0x40
    AND = 0x50
    XOR = 0xA0
    FETCH = 0x01  #: with any of the above: returns the old value
    XCHG = 0xE1
    CMPXCHG = 0xF1
    LOAD_ACQ = 0x100  #: Linux 6.15
    STORE_REL = 0x110  #: Linux 6.15


class Pseudo(IntEnum):
    """What a 64-bit immediate stands for: the src field of LD_IMM64 (section 5.4)."""

    NUMBER = 0
    MAP_FD = 1
    MAP_VALUE = 2  #: low half: descriptor; high half: offset into the value
    BTF_ID = 3  #: a kernel variable
    FUNC = 4  #: a subprogram's address, for callbacks
    MAP_IDX = 5  #: index into the descriptors given at load time
    MAP_IDX_VALUE = 6


class Call(IntEnum):
    """What a call calls: the src field of CALL (sections 4.3.1 and 4.3.2)."""

    HELPER = 0
    LOCAL = 1  #: a subprogram, relative to the next instruction
    KFUNC = 2  #: a kernel function, by BTF id


#: Opcodes with forms of their own.
LD_IMM64 = Class.LD | Mode.IMM | Size.DW
CALL = Class.JMP | Jump.CALL
CALLX = Class.JMP | Jump.CALL | Source.X  #: LLVM: call of a register; the kernel refuses it
EXIT = Class.JMP | Jump.EXIT
GOTO = Class.JMP | Jump.JA
GOTOL = Class.JMP32 | Jump.JA
GOTOX = Class.JMP | Jump.JA | Source.X  #: Linux 6.19
MAY_GOTO = Class.JMP | Jump.JCOND
NOSPEC = Class.ST | Mode.ATOMIC  #: a speculation barrier that the verifier puts in; appears only in dumps
