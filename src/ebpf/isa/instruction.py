"""The instruction model that compiler, linker, disassembler, debugger and loader share.

An instruction keeps what is known about it (label, reference, source line, CO-RE relocation) until the
last encoding; RFC 9669 section 3 gives the binary form.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple


class SourceLine(NamedTuple):
    """A line of source that an instruction was compiled from."""

    file: str
    line: int  #: from 1
    column: int  #: from 1; 0 if unknown
    text: str  #: the line itself, as the compiler recorded it


class ReferenceKind(Enum):
    """What a symbolic operand stands for."""

    MAP = "map"  #: ld_imm64 of a map's descriptor (BPF_PSEUDO_MAP_FD)
    MAP_VALUE = "map_value"  #: ld_imm64 of the address of a map's value plus offset (BPF_PSEUDO_MAP_VALUE)
    CALL = "call"  #: call of a subprogram (BPF_PSEUDO_CALL)
    FUNCTION = "function"  #: ld_imm64 of a subprogram's address, for callbacks (BPF_PSEUDO_FUNC)
    KFUNC = "kfunc"  #: call of a kernel function (BPF_PSEUDO_KFUNC_CALL)
    KSYM = "ksym"  #: ld_imm64 of a kernel symbol (BPF_PSEUDO_BTF_ID, or its address)
    KCONFIG = "kconfig"  #: ld_imm64 of a value in the .kconfig section
    LABEL = "label"  #: a jump to a label, in assembly that has not been laid out


class Reference(NamedTuple):
    """A symbolic operand: resolved by the loader, by name."""

    kind: ReferenceKind
    name: str
    offset: int = 0  #: bytes into the value, for MAP_VALUE and KCONFIG


class CoreKind(IntEnum):
    """enum bpf_core_relo_kind of include/uapi/linux/bpf.h."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


class CoreRelocation(NamedTuple):
    """A CO-RE relocation of one instruction (struct bpf_core_relo)."""

    kind: CoreKind
    type_id: int  #: of the object's own BTF
    access: str  #: the accessor, "0:1:2"


class Instruction(NamedTuple):
    """One BPF instruction, with what is known about it.

    A 64-bit immediate load takes two 8-byte slots and is one Instruction; jump offsets count slots, as the
    kernel counts them.
    """

    opcode: int  #: 8 bits
    dst: int = 0  #: register 0 to 10
    src: int = 0  #: register 0 to 10, or a pseudo source
    offset: int = 0  #: signed 16 bits
    imm: int = 0  #: signed 32 bits; the 64-bit constant for ld_imm64, signed or unsigned
    symbol: str | None = None  #: name of the function or label that starts here
    reference: Reference | None = None
    source: SourceLine | None = None
    relocation: CoreRelocation | None = None

    @property
    def is_wide(self) -> bool:
        """Whether this is a 64-bit immediate load, which takes two slots."""
        return self.opcode == 0x18

    @property
    def slots(self) -> int:
        """How many 8-byte slots it takes."""
        return 2 if self.opcode == 0x18 else 1
