"""Bytes to instructions and back, and what is refused."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf.errors import InstructionError
from ebpf.isa.encoding import ByteOrder, decode, decode_dump, encode, validate
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.isa.opcodes import CALL, EXIT, LD_IMM64, Alu, Call, Class, Pseudo, Source
from ebpf.isa.operations import BY_OPCODE, OPERATIONS, Operation, find

BYTEORDERS: tuple[ByteOrder, ...] = ("little", "big")
REGISTERS = st.integers(0, 10)
FIELDS = {"dst": REGISTERS, "src": REGISTERS, "offset": st.integers(-(1 << 15), (1 << 15) - 1)}


@st.composite
def valid_instructions(draw: st.DrawFn) -> Instruction:
    operation: Operation = draw(st.sampled_from(OPERATIONS))
    imm = (
        st.integers(0, (1 << 64) - 1)
        if operation.opcode == LD_IMM64
        else st.integers(-(1 << 31), (1 << 31) - 1)
    )
    fields = {
        name: draw(strategy) if (fixed := getattr(operation, name)) is None else fixed
        for name, strategy in {**FIELDS, "imm": imm}.items()
    }
    return Instruction(operation.opcode, **fields)


@pytest.mark.parametrize("byteorder", BYTEORDERS)
@given(program=st.lists(valid_instructions(), max_size=8))
def test_every_valid_instruction_survives(program: list[Instruction], byteorder: ByteOrder) -> None:
    data = encode(program, byteorder=byteorder)
    assert len(data) == 8 * sum(item.slots for item in program)
    assert decode(data, byteorder=byteorder) == program


@pytest.mark.parametrize("byteorder", BYTEORDERS)
@pytest.mark.parametrize("strict", [True, False])
@settings(max_examples=400)
@given(data=st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(data: bytes, strict: bool, byteorder: ByteOrder) -> None:
    try:
        program = decode(data, byteorder=byteorder, strict=strict)
    except InstructionError:
        return
    assert encode(program, byteorder=byteorder, strict=strict) == data


def test_layout_in_both_byte_orders() -> None:
    # RFC 9669 section 3.1; the same instruction on hosts of either kind
    program = [Instruction(0x61, dst=1, src=2, offset=-2, imm=0)]
    assert encode(program) == bytes.fromhex("61 21 fe ff 00 00 00 00")
    assert encode(program, byteorder="big") == bytes.fromhex("61 12 ff fe 00 00 00 00")


def test_wide_immediates() -> None:
    data = bytes.fromhex("18 01 00 00 88 77 66 55  00 00 00 00 44 33 22 11")
    assert decode(data) == [Instruction(0x18, 1, imm=0x1122334455667788)]
    assert encode([Instruction(0x18, 1, imm=-1)]) == encode([Instruction(0x18, 1, imm=(1 << 64) - 1)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("95 00 00", "3 bytes are no whole number"),
        ("95 00 00 00 00 00 00 00 18 01 00 00 00 00 00 00", "slot 1: .* cut off"),
        ("18 01 00 00 00 00 00 00 00 01 00 00 00 00 00 00", "slot 1: the second slot"),
        ("18 01 00 00 00 00 00 00 95 00 00 00 00 00 00 00", "slot 1: the second slot"),
        ("18 01 00 00 00 00 00 00 00 00 01 00 00 00 00 00", "slot 1: the second slot"),
        ("18 71 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "src is 0x7"),
        ("00 00 00 00 00 00 00 00", "slot 0: opcode 0x00 is no BPF instruction"),
        ("b7 0b 00 00 00 00 00 00", "dst is register 11"),
        ("bf c0 00 00 00 00 00 00", "src is register 12"),
        ("b7 10 00 00 00 00 00 00", "src is 0x1 and must be 0x0"),
        ("07 00 01 00 00 00 00 00", "offset is 0x1 and must be 0x0"),
        ("0f 00 00 00 01 00 00 00", "imm is 0x1 and must be 0x0"),
        ("95 01 00 00 00 00 00 00", "dst is 0x1 and must be 0x0"),
        ("d7 01 00 00 11 00 00 00", "imm is 0x11"),  # bswap17
        ("bf 21 09 00 00 00 00 00", "offset is 0x9"),  # movsx of 9 bits
        ("b7 01 08 00 00 00 00 00", "offset is 0x8"),  # movsx has no immediate form
        ("c3 21 00 00 02 00 00 00", "imm is 0x2"),  # no such atomic
        ("cb 21 00 00 00 00 00 00", "imm is 0x0"),  # a 16-bit atomic add
        ("85 30 00 00 00 00 00 00", "src is 0x3"),  # call of no kind
        ("8e 00 00 00 00 00 00 00", "opcode 0x8e"),  # no calls in JMP32
        ("38 00 00 00 00 00 00 00", "opcode 0x38"),  # packets have no 64-bit loads
    ],
)
def test_what_is_refused(data: str, message: str) -> None:
    with pytest.raises(InstructionError, match=message):
        decode(bytes.fromhex(data))


def test_slot_numbers_count_wide_instructions_twice() -> None:
    good = encode([Instruction(LD_IMM64, 1)] * 3)
    with pytest.raises(InstructionError, match="slot 6:"):
        decode(good + bytes(8))


def test_only_what_is_strict_refuses_what_kernels_dump() -> None:
    data = bytes.fromhex("bf 1b 00 00 00 00 00 00")  # r11 = r1
    assert decode(data, strict=False) == [Instruction(0xBF, 11, 1)]
    assert encode(decode(data, strict=False), strict=False) == data


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0x100),
        Instruction(0xB7, dst=16),
        Instruction(0xBF, src=-1),
        Instruction(0x05, offset=1 << 15),
        Instruction(0xB7, imm=1 << 31),
        Instruction(0x18, imm=1 << 64),
        Instruction(0x18, imm=-(1 << 63) - 1),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_fields_out_of_range_are_refused(instruction: Instruction, strict: bool) -> None:
    with pytest.raises(InstructionError, match="and must be"):
        encode([instruction], strict=strict)


def test_a_label_without_a_place_is_refused() -> None:
    jump = Instruction(0x05, reference=Reference(ReferenceKind.LABEL, "done"))
    with pytest.raises(InstructionError, match="'done'"):
        encode([jump])


def test_validate() -> None:
    validate(Instruction(EXIT))
    with pytest.raises(InstructionError, match="imm is 0x1"):
        validate(Instruction(EXIT, imm=1))


def test_dumps_have_the_distance_of_local_calls_in_imm() -> None:
    data = struct.pack("=BBhi", CALL, (Call.LOCAL << 4), 7, 2)
    (call,) = decode_dump(data)
    assert (call.src, call.offset, call.imm) == (Call.LOCAL, 0, 7)


def test_the_table_is_unambiguous() -> None:
    """Operations of one opcode differ in a fixed field, except that a later one may be the general case."""
    for operations in BY_OPCODE:
        for operation in operations:
            fields = [0 if value is None else value for value in operation[2:6]]
            first = find(operation.opcode, *fields)
            assert first is not None
            # LD_IND without and with imm, kfuncs without and with a module
            assert first is operation or operation.template.startswith(("R0 = *", "call kfunc("))


def test_the_table_covers_rfc_9669() -> None:
    opcodes = {opcode for opcode in range(256) if BY_OPCODE[opcode]}
    arithmetic = {
        klass | code | source for klass in (4, 7) for code in range(0, 0xD0, 0x10) for source in (0, 8)
    }
    jumps = {
        klass | code | source for klass in (5, 6) for code in range(0x10, 0xE0, 0x10) for source in (0, 8)
    }
    calls_and_exits = {
        klass | code | source for klass in (5, 6) for code in (0x80, 0x90) for source in (0, 8)
    }
    memory = {mode | size | klass for mode in (0x60,) for size in (0, 8, 16, 24) for klass in (1, 2, 3)}
    expected = (
        (arithmetic - {klass | Alu.NEG | Source.X for klass in (Class.ALU, Class.ALU64)})
        | {0xD4, 0xDC, 0xD7}  # le, be, bswap
        | (jumps - calls_and_exits)
        | {0x05, 0x06, 0x85, 0x95}
        | memory
        | {0x81, 0x89, 0x91}  # sign-extending loads
        | {0xC3, 0xDB}  # atomics
        | {0x18}
        | {mode | size for mode in (0x20, 0x40) for size in (0, 8, 16)}  # packets
    )
    extensions = {0x0D, 0xE5, 0x8D, 0xC2, 0xCB, 0xD3}  # gotox, may_goto, callx, nospec, acquire and release
    assert opcodes == expected | extensions


def test_pseudo_sources() -> None:
    assert {operation.src for operation in BY_OPCODE[LD_IMM64]} == set(Pseudo)
    assert {operation.src for operation in BY_OPCODE[CALL]} == set(Call)


def test_decoding_is_fast() -> None:
    data = encode([Instruction(0x61, 1, 2, 4), Instruction(0x07, 1, imm=5)] * 5000)
    fastest = min(_time(data) for _ in range(5))
    assert fastest < 0.05  # seconds, for 10,000 instructions


def _time(data: bytes) -> float:
    start = time.perf_counter()
    decode(data)
    return time.perf_counter() - start
