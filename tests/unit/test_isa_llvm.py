"""The text form against LLVM: its assembler reads ours, and its disassembler writes ours."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf.isa.assembler import assemble
from ebpf.isa.disassembler import disassemble, format_instruction
from ebpf.isa.encoding import ByteOrder, decode, encode
from ebpf.isa.instruction import Instruction
from ebpf.isa.opcodes import CALL, LD_IMM64, Class, Mode, Pseudo
from ebpf.isa.operations import OPERATIONS, Operation

SOURCE = """
typedef unsigned long long u64; typedef unsigned int u32; typedef signed char s8; typedef short s16;
struct ctx { u64 a; u32 b; short c; signed char d; int e; };
static int (*const tail)(u64, u32) = (void *)12;
int global; const char text[] = "text";
__attribute__((noinline)) static u64 mix(u64 a, u64 b) { return (a / (b | 1)) ^ __builtin_bswap64(a + b); }
u64 arithmetic(struct ctx *c) {
    u64 x = c->a; u32 y = c->b;
    for (int i = 0; i < (int)c->c; i++) { x = mix(x, i) + (y >> i); y = y * 17 % (i + 3); }
    return x + c->d + c->e + __builtin_bswap16(y) + __builtin_bswap32(y) - (x << 3);
}
long divide(long a, long b, int c, int d) { return a / (b | 1) + a % 7 + c / (d | 1) + c % 13; }
int atomics(long *p, int *q) {
    __sync_fetch_and_add(p, 3);
    global = 7;
    return q[1] + text[global & 3] + tail(p[2], 1000000007);
}
long compare(long a, unsigned long b, int c, u32 d) {
    if (a > 5 && b <= 0x123456789aULL) return c < -3 ? (s8)a : (s16)c;
    if (d >= 70000u || (a & 0x40) || c == (int)d) return -a;
    return (int)b;
}
"""
FETCHING = """
long fetch(long *p, int *q) {
    long x = __sync_fetch_and_add(p, 1) + __sync_fetch_and_or(p, 2) + __sync_fetch_and_and(q, 3);
    x += __sync_lock_test_and_set(p, 9) + __sync_val_compare_and_swap(q, 4, 5);
    return x + __sync_fetch_and_xor(q, 6) + __sync_val_compare_and_swap(p, 7, 8);
}
"""


def tool(name: str) -> str | None:
    """The newest of an LLVM tool that is installed."""
    for version in range(30, 16, -1):
        if path := shutil.which(f"{name}-{version}"):
            return path
    return shutil.which(name)


@functools.cache
def clang(byteorder: ByteOrder) -> list[str] | None:
    target = "bpfel" if byteorder == "little" else "bpfeb"
    path = tool("clang")
    return [path, "-target", target] if path else None


def zig(byteorder: ByteOrder) -> list[str] | None:
    target = "bpfel" if byteorder == "little" else "bpfeb"
    if importlib.util.find_spec("ziglang") is None:
        return None
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-freestanding-none"]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sections(data: bytes) -> Iterator[bytes]:
    """The sections of an ELF object that hold instructions."""
    order = "<" if data[5] == 1 else ">"
    start, entry, count = (
        *struct.unpack_from(f"{order}Q", data, 40),
        *struct.unpack_from(f"{order}HH", data, 58),
    )
    for place in range(start, start + entry * count, entry):
        kind, flags, _, offset, size = struct.unpack_from(f"{order}4xIQQQQ", data, place)
        if kind == 1 and flags & 4:  # SHT_PROGBITS, SHF_EXECINSTR
            yield data[offset : offset + size]


def example(operation: Operation, number: int) -> Instruction:
    """An instruction with fields that make each operation different."""
    wide = operation.opcode == LD_IMM64
    imm = 0x1122334455667788 if wide else (-1) ** number * (0x10000 + number)
    offset = (-1) ** number * number
    given = {"dst": number % 11, "src": (number + 3) % 11, "offset": offset, "imm": imm}
    fields = {
        name: value if (fixed := getattr(operation, name)) is None else fixed for name, value in given.items()
    }
    return Instruction(operation.opcode, **fields)


def known_to_llvm(operation: Operation) -> bool:
    """Whether LLVM 19 has this text; the docstring of `operations` names the differences."""
    atomic = operation.opcode & 7 == Class.STX and operation.opcode & 0xE0 == Mode.ATOMIC
    return not (
        operation.template.startswith(("call LOCAL", "call kfunc", "gotox", "nospec"))
        or "INDEX" in operation.template
        or "__percpu" in operation.template
        or (operation.opcode == LD_IMM64 and operation.src != Pseudo.NUMBER)  # it drops the upper half
        or (atomic and operation.imm in (0x100, 0x110))  # from LLVM 20 on
        or operation.template == "gotol LONG"  # takes 16 bits, without a label
    )


EXAMPLES = [
    example(operation, number) for number, operation in enumerate(OPERATIONS) if known_to_llvm(operation)
]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_llvm_assembles_our_text(byteorder: ByteOrder, tmp_path: Path) -> None:
    command = clang(byteorder)
    if command is None:
        pytest.skip("needs clang with the BPF target")
    (tmp_path / "x.s").write_text(disassemble(EXAMPLES))
    run([*command, "-mcpu=v4", "-c", str(tmp_path / "x.s"), "-o", str(tmp_path / "x.o")])
    (theirs,) = sections((tmp_path / "x.o").read_bytes())
    assert decode(theirs, byteorder=byteorder) == EXAMPLES
    assert theirs == encode(EXAMPLES, byteorder=byteorder)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_llvm_assembles_newer_instructions(byteorder: ByteOrder, tmp_path: Path) -> None:
    command = zig(byteorder)
    if command is None:
        pytest.skip("needs the ziglang wheel: load_acquire takes LLVM 20")
    program = assemble(
        """
        w0 = load_acquire((u8 *)(r1 + 0))
        w3 = load_acquire((u16 *)(r1 - 2))
        w0 = load_acquire((u32 *)(r2 + 4))
        r0 = load_acquire((u64 *)(r1 + 8))
        store_release((u8 *)(r1 + 0), w2)
        store_release((u16 *)(r1 + 0), w2)
        store_release((u32 *)(r1 + 0), w2)
        store_release((u64 *)(r1 - 8), r2)
        """
    )
    (tmp_path / "x.s").write_text(disassemble(program))
    run([*command, "-mcpu=v4", "-c", str(tmp_path / "x.s"), "-o", str(tmp_path / "x.o")])
    (theirs,) = sections((tmp_path / "x.o").read_bytes())
    assert theirs == encode(program, byteorder=byteorder)


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3", "v4"])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_compiled_code(cpu: str, byteorder: ByteOrder, tmp_path: Path) -> None:
    """Real code decodes, round-trips as text, and reads as llvm-objdump prints it."""
    command = clang(byteorder)
    if command is None:
        pytest.skip("needs clang with the BPF target")
    code = SOURCE
    if cpu in ("v1", "v2", "v3"):
        code = re.sub(r"a / \(b \| 1\) \+ a % 7 \+ c / \(d \| 1\) \+ c % 13", "a + b + c + d", code)
    if cpu in ("v3", "v4"):
        code += FETCHING
    (tmp_path / "x.c").write_text(code)
    object_file = tmp_path / "x.o"
    run([*command, f"-mcpu={cpu}", "-O2", "-c", str(tmp_path / "x.c"), "-o", str(object_file)])
    (data,) = sections(object_file.read_bytes())
    program = decode(data, byteorder=byteorder)
    assert len(program) > 50
    assert encode(program, byteorder=byteorder) == data
    assert assemble(disassemble(program)) == program

    objdump = tool("llvm-objdump")
    if objdump is None:
        pytest.skip("needs llvm-objdump for the comparison of texts")
    options = ["-d", "--no-print-imm-hex", "--no-show-raw-insn", f"--mcpu={cpu}"]
    theirs = re.findall(r"^ +\d+:\t(.*)$", run([objdump, *options, str(object_file)]), re.MULTILINE)
    assert [as_llvm(item) for item in program] == [normal(text) for text in theirs]


def normal(text: str) -> str:
    """LLVM's text without the symbols, and with the RFC's 64-bit registers in loads and stores."""
    text = re.sub(r" <[^<>]*>$", "", text.replace("\t", " "))
    text = re.sub(r"^w(\d+ = \*\(u)", r"r\1", text)
    return re.sub(r"^(\*\(u.*= )w(\d+)$", r"\1r\2", text)


def as_llvm(instruction: Instruction) -> str:
    """Our text, with the two differences from LLVM's undone."""
    if instruction.opcode == LD_IMM64:
        value = (instruction.imm ^ 1 << 63) - (1 << 63)
        return f"r{instruction.dst} = {value} ll"
    if instruction.opcode == CALL:
        return f"call {instruction.imm}"
    return format_instruction(instruction)
