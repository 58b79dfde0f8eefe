"""Every class of instruction against the kernel: it loads, computes what it should, and reads back."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ebpf.isa.assembler import assemble
from ebpf.isa.disassembler import disassemble
from ebpf.isa.encoding import decode, decode_dump, encode
from ebpf.isa.instruction import Instruction
from ebpf.isa.listing import Names, listing
from ebpf.isa.opcodes import LD_IMM64
from ebpf.isa.operations import find
from ebpf.kernel import bpf
from ebpf.kernel.btf import vmlinux
from ebpf.kernel.fd import FD
from ebpf.uapi import MapType, ProgramType

pytestmark = pytest.mark.kernel

PACKET = bytes(range(64))
U32 = 0xFFFFFFFF


def load(text: str, *, fd_array: Sequence[int] = ()) -> FD:
    """The program in the kernel; the verifier's log is in the failure."""
    log = bytearray(1 << 16)
    code = encode(assemble(text))
    try:
        return FD(bpf.prog_load(ProgramType.SCHED_CLS, code, "GPL", fd_array=fd_array, log_level=1, log=log))
    except OSError as error:
        needed = max((release(since) for since in releases(text)), default=(0,))
        if release(os.uname().release) < needed:
            pytest.skip(f"an instruction needs Linux {'.'.join(map(str, needed))}")
        reason = log.split(b"\0", 1)[0].decode(errors="replace")
        raise AssertionError(f"{error}\n{reason}\n{text}") from error


def releases(text: str) -> list[str]:
    """The first kernel releases of all instructions of a program."""
    found = [find(*instruction[:5]) for instruction in assemble(text)]
    return [operation.since for operation in found if operation is not None and operation.since]


def release(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def result(text: str, *, fd_array: Sequence[int] = ()) -> int:
    with load(text, fd_array=fd_array) as program:
        return bpf.prog_test_run(program.fileno(), PACKET).retval


#: What r0 is at the end, as the 32 bits that the kernel gives.
SEMANTICS = {
    # RFC 9669 section 4.1
    "add": ("r0 = 40; r0 += 2", 42),
    "sub": ("r0 = 40; r1 = 2; r0 -= r1", 38),
    "mul": ("w0 = 0x10000; w0 *= 0x10001", 0x10000),
    "div": ("r0 = -1; r0 /= 2; r0 >>= 32", 0x7FFFFFFF),
    "div by zero": ("r0 = 7; r1 = 0; r0 /= r1", 0),
    "mod by zero": ("r0 = 7; r1 = 0; r0 %= r1", 7),
    "sdiv": ("r0 = -7; r0 s/= 2", -3 & U32),
    "sdiv by a register": ("r0 = -7; r1 = -2; r0 s/= r1", 3),
    "sdiv32": ("w0 = -7; w0 s/= 2; r0 >>= 1", (-3 & U32) >> 1),
    "smod": ("r0 = -7; r0 s%= 3", -1 & U32),
    "smod32": ("w0 = -7; w1 = 3; w0 s%= w1", -1 & U32),
    "bits": ("r0 = 0xf0; r0 |= 0x0f; r0 &= 0x3c; r0 ^= 1", 0x3D),
    "lsh rsh": ("r0 = 1; r0 <<= 40; r0 >>= 36", 16),
    "arsh": ("r0 = -16; r0 s>>= 2", -4 & U32),
    "arsh32 clears the upper half": ("w0 = -16; w0 s>>= 2; r0 >>= 32", 0),
    "neg": ("r0 = 5; r0 = -r0", -5 & U32),
    "movsx8": ("r1 = 0x80; r0 = (s8)r1; r0 >>= 32", U32),
    "movsx16": ("r1 = 0x8000; r0 = (s16)r1; r0 >>= 32", U32),
    "movsx32": ("w1 = -1; r0 = (s32)r1; r0 >>= 32", U32),
    "movsx8 to 32 bits": ("w1 = 0x80; w0 = (s8)w1; r0 >>= 32", 0),
    # section 4.2
    "bswap16": ("r0 = 0x11223344; r0 = bswap16 r0", 0x4433),
    "bswap32": ("r0 = 0x11223344; r0 = bswap32 r0", 0x44332211),
    "bswap64": ("r0 = 0x1122334455667788 ll; r0 = bswap64 r0", 0x44332211),
    "be and le are opposite": ("r0 = 0x1234; r0 = be16 r0; r0 = le16 r0", None),
    # section 4.3
    "jumps": ("r0 = -1; if r0 > 5 goto +1; goto +2; if w0 s< 0 goto +1; r0 = 9; if r0 != 9 goto +0", U32),
    "jset": ("r0 = 6; r1 = 2; if r0 & r1 goto +1; r0 = 0; if w0 & 1 goto -1", 6),
    "gotol": ("r0 = 1; if r1 == 0 goto +1; gotol +1; r0 = 2", 1),
    "may_goto": ("r0 = 0; l: r0 += 1; r0 &= 7; may_goto out; goto l; out: r0 = 3", 3),
    "local call": ("r1 = 20; call twice; r0 += 2; exit; twice: r0 = r1; r0 += r1", 42),
    "helper": ("call bpf_get_smp_processor_id; r0 >>= 32", 0),
    # section 5
    "loads and stores": (
        "*(u64 *)(r10 - 8) = -2; r0 = *(u16 *)(r10 - 6); r1 = 5; *(u8 *)(r10 - 1) = r1",
        0xFFFF,
    ),
    "ldsx8": ("*(u8 *)(r10 - 1) = 128; r0 = *(s8 *)(r10 - 1); r0 >>= 32", U32),
    "ldsx16": ("*(u16 *)(r10 - 2) = 0x8000; r0 = *(s16 *)(r10 - 2); r0 >>= 32", U32),
    "ldsx32": ("*(u32 *)(r10 - 4) = -1; r0 = *(s32 *)(r10 - 4); r0 >>= 32", U32),
    "add in memory": (
        "*(u64 *)(r10 - 8) = 40; r1 = 2; lock *(u64 *)(r10 - 8) += r1; r0 = *(u64 *)(r10 - 8)",
        42,
    ),
    "or in memory": (
        "*(u32 *)(r10 - 4) = 5; w1 = 2; lock *(u32 *)(r10 - 4) |= w1; r0 = *(u32 *)(r10 - 4)",
        7,
    ),
    "fetch add": ("*(u64 *)(r10 - 8) = 40; r0 = 2; r0 = atomic_fetch_add((u64 *)(r10 - 8), r0)", 40),
    "fetch and": ("*(u32 *)(r10 - 4) = 12; w0 = 6; w0 = atomic_fetch_and((u32 *)(r10 - 4), w0)", 12),
    "fetch xor": (
        "*(u64 *)(r10 - 8) = 12; r1 = 6; r1 = atomic_fetch_xor((u64 *)(r10 - 8), r1); r0 = *(u64 *)(r10 - 8)",
        10,
    ),
    "xchg": ("*(u64 *)(r10 - 8) = 40; r0 = 2; r0 = xchg_64(r10 - 8, r0)", 40),
    "xchg32": ("*(u32 *)(r10 - 4) = 40; w1 = 2; w1 = xchg32_32(r10 - 4, w1); r0 = *(u32 *)(r10 - 4)", 2),
    "cmpxchg": (
        "*(u64 *)(r10 - 8) = 40; r0 = 40; r1 = 7; r0 = cmpxchg_64(r10 - 8, r0, r1); r0 = *(u64 *)(r10 - 8)",
        7,
    ),
    "cmpxchg32": ("*(u32 *)(r10 - 4) = 40; w0 = 1; w1 = 7; w0 = cmpxchg32_32(r10 - 4, w0, w1)", 40),
    "64-bit immediate": ("r0 = 0x1234567800000000 ll; r0 >>= 32", 0x12345678),
    "packet": ("r6 = r1; r0 = *(u16 *)skb[2]", 0x0203),
    "packet by register": ("r6 = r1; r7 = 4; r0 = *(u32 *)skb[r7 + 4]", 0x08090A0B),
    # Linux
    "load_acquire": ("*(u64 *)(r10 - 8) = 42; r0 = load_acquire((u64 *)(r10 - 8))", 42),
    "load_acquire8": ("*(u64 *)(r10 - 8) = -2; w0 = load_acquire((u8 *)(r10 - 8))", 0xFE),
    "store_release": ("r1 = 42; store_release((u64 *)(r10 - 8), r1); r0 = *(u64 *)(r10 - 8)", 42),
    "store_release16": (
        "*(u64 *)(r10 - 8) = 0; w1 = -2; store_release((u16 *)(r10 - 8), w1); r0 = *(u64 *)(r10 - 8)",
        0xFFFE,
    ),
}


@pytest.mark.parametrize(("text", "expected"), SEMANTICS.values(), ids=SEMANTICS)
def test_semantics(text: str, expected: int | None) -> None:
    actual = result(f"{text}; exit")
    assert actual == (0x3412 if expected is None else expected)


def test_maps_in_64_bit_immediates() -> None:
    with FD(bpf.map_create(MapType.ARRAY, 4, 8, 1, name="numbers")) as numbers:
        bpf.map_update(numbers.fileno(), bytes(4), struct.pack("=Q", 41))
        for address in (f"ld_pseudo r1, 1, {numbers.fileno()}", "ld_pseudo r1, 5, 0"):
            text = f"""
                {address}
                *(u32 *)(r10 - 4) = 0
                r2 = r10
                r2 += -4
                call bpf_map_lookup_elem
                if r0 == 0 goto out
                r0 = *(u64 *)(r0 + 0)
            out:
                exit
            """
            assert result(text, fd_array=[numbers.fileno()]) == 41
        # the address of a value, four bytes into it
        for value in (f"ld_pseudo r1, 2, {4 << 32 | numbers.fileno()}", f"ld_pseudo r1, 6, {4 << 32}"):
            text = f"{value}; *(u32 *)(r1 + 0) = 5; r0 = *(u64 *)(r1 - 4); r0 >>= 32; exit"
            assert result(text, fd_array=[numbers.fileno()]) == 5


def test_kernel_functions() -> None:
    kernel = vmlinux()
    lock, unlock = (kernel.find(f"bpf_rcu_read_{name}").id for name in ("lock", "unlock"))
    assert result(f"call kfunc({lock}); call kfunc({unlock}); r0 = 6; exit") == 6


def test_kernel_variables() -> None:
    variable = vmlinux().find("bpf_prog_active").id  # a per-CPU counter
    text = f"ld_pseudo r1, 3, {variable}; call bpf_this_cpu_ptr; r0 = *(u32 *)(r0 + 0); r0 = 8; exit"
    if " bpf_prog_active\n" in Path("/proc/kallsyms").read_text():
        assert result(text) == 8
    else:  # without CONFIG_KALLSYMS_ALL the kernel has no addresses of data; but it must know what is meant
        with pytest.raises(AssertionError, match="address for kernel symbol 'bpf_prog_active'"):
            load(text)


@pytest.mark.parametrize("text", ["callx r1", "r0 = &(void __percpu *)(r1)", "nospec"])
def test_what_the_table_says_no_kernel_takes(text: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        bpf.prog_load(ProgramType.SCHED_CLS, encode(assemble(f"r0 = 0; {text}; exit")), "GPL")


#: The verifier leaves these as they are.
UNCHANGED = """
    r6 = r1
    w2 = w1
    r2 = 0x1122334455667788 ll
    r2 <<= 3
    w2 s>>= 4
    r2 = -r2
    r2 = be16 r2
    w0 = 0
    *(u64 *)(r10 - 16) = r2
    *(u32 *)(r10 - 4) = 7
    lock *(u64 *)(r10 - 16) += r2
    lock *(u64 *)(r10 - 16) ^= r2
    r2 = atomic_fetch_add((u64 *)(r10 - 16), r2)
    r2 = xchg_64(r10 - 16, r2)
    r0 = cmpxchg_64(r10 - 16, r0, r2)
    r3 = *(u8 *)(r10 - 1)
    r4 = *(u64 *)(r10 - 16)
    if r4 s> 5 goto +2
    if w4 != w3 goto +1
    r3 += r4
    if r3 & 8 goto +1
    r0 = 1
    r0 = 0
    exit
"""


def test_the_dump_is_what_was_assembled() -> None:
    expected = assemble(UNCHANGED)
    with load(UNCHANGED) as program:
        dumped = decode_dump(bpf.program_dump(program.fileno()).xlated)
    assert dumped == expected


def test_local_calls_in_dumps() -> None:
    text = "r1 = 1; call one; call two; exit; one: r0 = 1; exit; two: r0 = 2; exit"
    with load(text) as program:
        dump = decode_dump(bpf.program_dump(program.fileno()).xlated)
    assert [item.imm for item in dump if item.opcode == 0x85] == [2, 3]
    calls = [line.text for line in listing(dump, names=Names(functions={4: "one", 6: "two"}))]
    assert calls[1:3] == ["call one", "call two"]


def test_every_dump_round_trips_as_text() -> None:
    """Programs that the verifier rewrites: packet loads, divisions, helpers, maps."""
    for text, _ in SEMANTICS.values():
        with load(f"{text}; exit") as program:
            xlated = bpf.program_dump(program.fileno()).xlated
        dump = decode(xlated, strict=False)
        assert assemble(disassemble(dump), strict=False) == dump
        assert encode(dump, strict=False) == xlated


def test_bpftool_says_the_same() -> None:
    bpftool = shutil.which("bpftool")
    if bpftool is None:
        pytest.skip("needs bpftool")
    with load(UNCHANGED) as program:
        number = str(bpf.program_info(program.fileno()).id)
        output = subprocess.run(
            [bpftool, "prog", "dump", "xlated", "id", number], capture_output=True, text=True
        )
        dumped = decode_dump(bpf.program_dump(program.fileno()).xlated)
    lines = re.findall(r"^ *\d+: \(([0-9a-f]{2})\) (.*)$", output.stdout, re.MULTILINE)
    assert [int(opcode, 16) for opcode, _ in lines] == [item.opcode for item in dumped]
    assert [theirs(opcode, text) for opcode, text in lines] == dumped


def theirs(opcode: str, text: str) -> Instruction:
    """The instruction that a line of bpftool's stands for: the assembler reads all but its 64-bit loads."""
    (instruction,) = assemble(f"{text} ll" if int(opcode, 16) == LD_IMM64 else text)
    return instruction


def test_bpftool_reads_what_we_assemble() -> None:
    """The opcodes of a program without rewrites, from bpftool's JSON."""
    bpftool = shutil.which("bpftool")
    if bpftool is None:
        pytest.skip("needs bpftool")
    with load("r0 = 7; r0 s>>= 1; exit") as program:
        number = str(bpf.program_info(program.fileno()).id)
        command = [bpftool, "-j", "prog", "dump", "xlated", "id", number, "opcodes"]
        rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [row["disasm"] for row in rows] == ["(b7) r0 = 7", "(c7) r0 s>>= 1", "(95) exit"]
