"""The BPF instruction set, RFC 9669: model, encoding, text forms, and the one table of helpers."""

from typing import TYPE_CHECKING

from ebpf._lazy import lazy

if TYPE_CHECKING:
    from ebpf.isa.assembler import assemble as assemble
    from ebpf.isa.disassembler import disassemble as disassemble
    from ebpf.isa.encoding import decode as decode
    from ebpf.isa.encoding import encode as encode
    from ebpf.isa.instruction import Instruction as Instruction

__getattr__ = lazy(
    __name__,
    {
        "ebpf.isa.assembler": ("assemble",),
        "ebpf.isa.disassembler": ("disassemble",),
        "ebpf.isa.encoding": ("decode", "encode"),
        "ebpf.isa.instruction": ("Instruction",),
    },
)
