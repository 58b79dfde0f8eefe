"""Instructions as text: assembler and disassembler."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf.errors import AssemblyError, InstructionError
from ebpf.isa import assembler
from ebpf.isa.assembler import assemble
from ebpf.isa.disassembler import disassemble, format_instruction, jump_distance
from ebpf.isa.encoding import decode, encode
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.isa.operations import OPERATIONS, SYMBOLIC, Operation

#: The canonical text, and the bytes in little-endian order: from clang 19 and 22 except where noted.
CANONICAL = {
    "r1 += r2": "0f 21 00 00 00 00 00 00",
    "w1 += -5": "04 01 00 00 fb ff ff ff",
    "w0 s>>= 3": "c4 00 00 00 03 00 00 00",
    "r1 s/= r2": "3f 21 01 00 00 00 00 00",
    "r1 s/= 5": "37 01 01 00 05 00 00 00",
    "w1 s%= w2": "9c 21 01 00 00 00 00 00",
    "r1 = -r1": "87 01 00 00 00 00 00 00",
    "w1 = -w1": "84 01 00 00 00 00 00 00",
    "r1 = (s8)r2": "bf 21 08 00 00 00 00 00",
    "r1 = (s32)r2": "bf 21 20 00 00 00 00 00",
    "w1 = (s16)w2": "bc 21 10 00 00 00 00 00",
    "r1 = bswap16 r1": "d7 01 00 00 10 00 00 00",
    "r1 = bswap32 r1": "d7 01 00 00 20 00 00 00",
    "r1 = bswap64 r1": "d7 01 00 00 40 00 00 00",
    "r1 = be16 r1": "dc 01 00 00 10 00 00 00",
    "r1 = le64 r1": "d4 01 00 00 40 00 00 00",
    "r1 = addr_space_cast(r2, 0, 1)": "bf 21 01 00 01 00 00 00",
    "r1 = addr_space_cast(r2, 1, 0)": "bf 21 01 00 00 00 01 00",
    "r1 = &(void __percpu *)(r2)": "bf 21 ff ff 00 00 00 00",  # kernel/bpf/disasm.c
    "r1 = *(u32 *)(r2 + 4)": "61 21 04 00 00 00 00 00",
    "r1 = *(u64 *)(r2 - 32768)": "79 21 00 80 00 00 00 00",
    "r1 = *(s8 *)(r2 - 1)": "91 21 ff ff 00 00 00 00",
    "*(u64 *)(r10 - 8) = r1": "7b 1a f8 ff 00 00 00 00",
    "*(u8 *)(r1 - 4) = 255": "72 01 fc ff ff 00 00 00",
    "lock *(u64 *)(r1 + 0) += r2": "db 21 00 00 00 00 00 00",
    "lock *(u32 *)(r1 + 0) |= w2": "c3 21 00 00 40 00 00 00",
    "r0 = atomic_fetch_add((u64 *)(r1 + 0), r0)": "db 01 00 00 01 00 00 00",
    "w2 = atomic_fetch_xor((u32 *)(r1 + 0), w2)": "c3 21 00 00 a1 00 00 00",
    "r2 = xchg_64(r1 + 0, r2)": "db 21 00 00 e1 00 00 00",
    "w2 = xchg32_32(r1 + 0, w2)": "c3 21 00 00 e1 00 00 00",
    "r0 = cmpxchg_64(r1 + 8, r0, r2)": "db 21 08 00 f1 00 00 00",
    "w0 = cmpxchg32_32(r1 - 8, w0, w2)": "c3 21 f8 ff f1 00 00 00",
    "w0 = load_acquire((u8 *)(r1 + 0))": "d3 10 00 00 00 01 00 00",
    "r0 = load_acquire((u64 *)(r1 + 8))": "db 10 08 00 00 01 00 00",
    "store_release((u16 *)(r1 + 0), w2)": "cb 21 00 00 10 01 00 00",
    "store_release((u64 *)(r1 - 8), r2)": "db 21 f8 ff 10 01 00 00",
    "r1 = 0x1122334455667788 ll": "18 01 00 00 88 77 66 55 00 00 00 00 44 33 22 11",
    "ld_pseudo r1, 1, 5": "18 11 00 00 05 00 00 00 00 00 00 00 00 00 00 00",
    "ld_pseudo r1, 2, 0x1000000005": "18 21 00 00 05 00 00 00 00 00 00 00 10 00 00 00",  # uapi/linux/bpf.h
    "ld_pseudo r1, 3, 0x5": "18 31 00 00 05 00 00 00 00 00 00 00 00 00 00 00",
    "ld_pseudo r1, 4, 5": "18 41 00 00 05 00 00 00 00 00 00 00 00 00 00 00",
    "ld_pseudo r1, 5, 0": "18 51 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    "ld_pseudo r1, 6, 0x1000000000": "18 61 00 00 00 00 00 00 00 00 00 00 10 00 00 00",
    "r0 = *(u8 *)skb[14]": "30 00 00 00 0e 00 00 00",
    "r0 = *(u32 *)skb[r3]": "40 30 00 00 00 00 00 00",
    "r0 = *(u16 *)skb[r3 - 4]": "48 30 00 00 fc ff ff ff",  # RFC 9669 section 5.5
    "if r1 s> 5 goto +3": "65 01 03 00 05 00 00 00",
    "if w1 s> -5 goto -3": "66 01 fd ff fb ff ff ff",
    "if w1 & w2 goto -3": "4e 21 fd ff 00 00 00 00",
    "goto +2": "05 00 02 00 00 00 00 00",
    "gotol +100000": "06 00 00 00 a0 86 01 00",
    "gotox r1": "0d 01 00 00 00 00 00 00",
    "may_goto +3": "e5 00 03 00 00 00 00 00",
    "call 1": "85 00 00 00 01 00 00 00",
    "call -1": "85 00 00 00 ff ff ff ff",
    "call pc-4": "85 10 00 00 fc ff ff ff",  # RFC 9669 section 4.3.2
    "call kfunc(1234)": "85 20 00 00 d2 04 00 00",
    "call kfunc(1234, 2)": "85 20 02 00 d2 04 00 00",
    "callx r3": "8d 03 00 00 00 00 00 00",
    "nospec": "c2 00 00 00 00 00 00 00",
    "exit": "95 00 00 00 00 00 00 00",
}

#: Other spellings, with the canonical one.
ALIASES = {
    "w1 = *(u32 *)(r2 + 4)": "r1 = *(u32 *)(r2 + 4)",
    "r1 = *(u32 *)(r2 +4)": "r1 = *(u32 *)(r2 + 4)",
    "r1 = *(u32 *)(r2)": "r1 = *(u32 *)(r2 + 0)",
    "*(u16 *)(r1 - 4) = w2": "*(u16 *)(r1 - 4) = r2",
    "lock *(u32 *)(r1 +0) |= r2": "lock *(u32 *)(r1 + 0) |= w2",
    "r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)": "r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)",
    "r2 = atomic_fetch_add((u32 *)(r1 +0), r2)": "w2 = atomic_fetch_add((u32 *)(r1 + 0), w2)",
    "r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)": "w0 = cmpxchg32_32(r1 + 0, w0, w2)",
    "r2 = atomic64_xchg((u64 *)(r1 +0), r2)": "r2 = xchg_64(r1 + 0, r2)",
    "r0 = load_acquire((u8 *)(r1 +0))": "w0 = load_acquire((u8 *)(r1 + 0))",
    "if r1 s> 0x5 goto pc+3": "if r1 s> 5 goto +3",
    "if r1==0x10 goto +0x3": "if r1 == 16 goto +3",
    "r1=-1": "r1 = -1",
    "r1 = 0b101": "r1 = 5",
    "w1 = 0xffffffff": "w1 = -1",
    "*(u32 *)(r1 + 0) = 0xffffffff": "*(u32 *)(r1 + 0) = -1",
    "r1 = -1 ll": "r1 = 0xffffffffffffffff ll",
    "ld_pseudo\tr1, 0x1, 0x5": "ld_pseudo r1, 1, 5",
    "call bpf_map_lookup_elem": "call 1",
    "call map_lookup_elem": "call 1",
    "call bpf_map_lookup_elem#1": "call 1",
    "nop": "goto +0",
    "r1 += 1;": "r1 += 1",
    "r1 += 1 // one more": "r1 += 1",
    "r1 += 1 # one more": "r1 += 1",
    "r1 += /* one */ 1": "r1 += 1",
}


@pytest.mark.parametrize(("text", "data"), CANONICAL.items())
def test_canonical_text(text: str, data: str) -> None:
    expected = bytes.fromhex(data)
    assert encode(assemble(text)) == expected
    assert [format_instruction(item) for item in decode(expected)] == [text]


@pytest.mark.parametrize(("text", "canonical"), ALIASES.items())
def test_other_spellings(text: str, canonical: str) -> None:
    assert [format_instruction(item) for item in assemble(text)] == [canonical]


@st.composite
def any_instruction(draw: st.DrawFn) -> Instruction:
    """An operation, with fields that mostly agree with it."""
    operation: Operation = draw(st.sampled_from(OPERATIONS))
    wide = operation.opcode == 0x18
    ranges = {
        "dst": (0, 15),
        "src": (0, 15),
        "offset": (-(1 << 15), (1 << 15) - 1),
        "imm": (0, (1 << 64) - 1) if wide else (-(1 << 31), (1 << 31) - 1),
    }
    wrong = draw(st.booleans())
    fields = {
        name: draw(st.integers(*bounds)) if (fixed := getattr(operation, name)) is None or wrong else fixed
        for name, bounds in ranges.items()
    }
    return Instruction(operation.opcode, **fields)


@settings(max_examples=500)
@given(program=st.lists(any_instruction(), max_size=8))
def test_text_loses_nothing(program: list[Instruction]) -> None:
    assert assemble(disassemble(program), strict=False) == program


@settings(max_examples=300)
@given(data=st.binary(min_size=8, max_size=64).map(lambda data: data[: len(data) & ~7]))
def test_text_of_any_bytes_loses_nothing(data: bytes) -> None:
    try:
        program = decode(data, strict=False)
    except InstructionError:
        return
    assert encode(assemble(disassemble(program), strict=False), strict=False) == data


@settings(max_examples=500)
@given(text=st.text(alphabet="rw0123456789 =+-*()[]<>s&|^%/,;:#.\nexitcallgotou", max_size=40))
def test_any_text_assembles_or_is_refused(text: str) -> None:
    try:
        program = assemble(text)
    except AssemblyError:
        return
    assert assemble(disassemble(program)) == program


def test_what_is_no_valid_instruction_is_shown_as_it_stands() -> None:
    assert format_instruction(Instruction(0x07, 1, 2, 3, 4)) == ".insn 0x07, 1, 2, 3, 4"
    assert format_instruction(Instruction(0xFF, 15, 0, -1, -1)) == ".insn 0xff, 15, 0, -1, -1"
    assert format_instruction(Instruction(0xBF, 11, 1)) == "r11 = r1"  # in dumps
    assert assemble("r11 = r1", strict=False) == [Instruction(0xBF, 11, 1)]


def test_labels() -> None:
    text = """
    start: r1 = 0x100000000 ll          # takes two slots
    loop:
        r1 += -1
        if r1 != 0 goto loop
        goto done
        gotol start; may_goto done
    done: exit
    """
    program = assemble(text)
    assert [jump_distance(item) for item in program] == [None, None, -2, 2, -6, 0, None]
    assert [item.symbol for item in program] == ["start", "loop", None, None, None, None, "done"]
    assert assemble(disassemble(program)) == program


@pytest.mark.parametrize(
    "label", ["L", "N", "R", "S", "P", "IMM", "DST", "exit", "func", "kfunc", "pc", "ll", "if"]
)
def test_labels_may_have_any_name(label: str) -> None:
    program = assemble(f"goto {label}\n call {label}\n r1 = {label} ll\n {label}: exit")
    assert [(item.offset, item.imm) for item in program[:3]] == [(3, 0), (0, 2), (0, 1)]
    for text in (
        f"r1 = {label}; {label}: exit",
        f"r1 += {label}; {label}: exit",
        f"callx {label}; {label}: exit",
    ):
        with pytest.raises(AssemblyError, match="expected"):
            assemble(text)


def test_local_calls_and_callbacks() -> None:
    program = assemble("call double\n r2 = double ll\n exit\n double: r0 = r1\n r0 += r1\n exit")
    assert (program[0].src, program[0].imm) == (1, 3)
    assert (program[1].src, program[1].imm) == (4, 2)
    backwards = assemble("f: exit\n r1 = f ll\n")[1]
    assert (backwards.src, backwards.imm) == (4, 0xFFFFFFFE)  # the upper half is reserved


@pytest.mark.parametrize(
    ("text", "kind", "name", "offset", "src"),
    [
        ("r1 = flows ll", ReferenceKind.MAP, "flows", 0, 1),
        ("r1 = .bss + 16 ll", ReferenceKind.MAP_VALUE, ".bss", 16, 2),
        ("r1 = .rodata.str1.1 + 0 ll", ReferenceKind.MAP_VALUE, ".rodata.str1.1", 0, 2),
        ("r1 = func(callback) ll", ReferenceKind.FUNCTION, "callback", 0, 4),
        ("r1 = ksym(bpf_prog_active) ll", ReferenceKind.KSYM, "bpf_prog_active", 0, 3),
        ("r1 = kconfig(CONFIG_HZ + 4) ll", ReferenceKind.KCONFIG, "CONFIG_HZ", 4, 2),
        ("call func(parse)", ReferenceKind.CALL, "parse", 0, 1),
        ("call kfunc(bpf_rcu_read_lock)", ReferenceKind.KFUNC, "bpf_rcu_read_lock", 0, 2),
    ],
)
def test_symbols(text: str, kind: ReferenceKind, name: str, offset: int, src: int) -> None:
    (instruction,) = assemble(text)
    assert instruction.reference == Reference(kind, name, offset)
    assert instruction.src == src
    assert format_instruction(instruction) == text
    assert assemble(disassemble([instruction])) == [instruction]


def test_every_kind_of_reference_has_a_form() -> None:
    assert {*SYMBOLIC, ReferenceKind.LABEL} == set(ReferenceKind)


def test_references_of_jumps() -> None:
    jump = Instruction(0x15, 1, imm=5, reference=Reference(ReferenceKind.LABEL, "done"))
    assert format_instruction(jump) == "if r1 == 5 goto done"


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0x95, reference=Reference(ReferenceKind.LABEL, "done")),
        Instruction(0x95, reference=Reference(ReferenceKind.MAP, "flows")),
        Instruction(0x18, reference=Reference(ReferenceKind.CALL, "parse")),
        Instruction(0x18, reference=Reference(ReferenceKind.MAP, "flows", 8)),
    ],
)
def test_references_that_make_no_sense(instruction: Instruction) -> None:
    with pytest.raises(InstructionError, match="cannot"):
        format_instruction(instruction)


def test_targets() -> None:
    jump = Instruction(0x05, offset=3)
    assert format_instruction(jump, target="L1") == "goto L1"
    assert format_instruction(jump, pc=10) == "goto +3  # 14"
    assert format_instruction(Instruction(0x85, src=1, imm=-3), pc=10) == "call pc-3  # 8"
    assert format_instruction(Instruction(0x95), pc=10, target="L1") == "exit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit\n\n  r1 + 2", r"line 3: expected .*'\+='.* not '\+ 2'"),
        ("r1 = r2 r3", "expected the end of the instruction, not 'r3'"),
        ("r11 = 1", "there is no register r11"),
        ("w12 = 1", "there is no register w12"),
        ("r1 = w2", r"expected .*register \(r0 to r10\).* not 'w2'"),
        ("goto 3", r"expected \+N or -N, a name or pc\+N, not '3'"),
        ("goto nowhere", "no label named 'nowhere'"),
        ("loop: goto lop", "did you mean 'loop'"),
        ("call bpf_map_lookup_elm", "did you mean 'bpf_map_lookup_elem'"),
        ("r1 = 0x1ffffffff", "sign-extended"),
        ("if r1 > 0xffffffff goto +1", "sign-extended"),
        ("call 0xffffffff", "must be"),
        ("r1 = 0x1ffffffffffffffff ll", "must be"),
        ("*(u8 *)(r1 + 40000) = 1", "must be -32768 to 32767"),
        ("goto +40000", "gotol reaches further"),
        ("far: " + "r1 = 0 ll\n" * 16384 + "goto far", "far is -32769 here and must be .*\n.*\n.*gotol"),
        ("r1 = be16 r2", "expected r1 again, not 'r2'"),
        ("r2 = atomic_fetch_add((u64 *)(r1 + 0), r3)", "expected r2 again, not 'r3'"),
        ("r1 = cmpxchg_64(r1 + 0, r0, r2)", "expected r0, not 'r1'"),
        ("r1 = addr_space_cast(r2, 65536, 0)", "must be 0 to 65535"),
        ("r1 = 010", "not '010'"),
        ("r1 = 1; add one", "a comment after one starts with"),
        ("exit\nlabel:", "no instruction follows the label 'label'"),
        ("a: exit\na: exit", "line 2: the label 'a' is already defined"),
        ("r1: exit", "is a register"),
        ("r0 = *(u8 *)skb[1", "expected ']', not the end of the line"),
        (".insn 7, 1, 2", "five numbers: opcode, dst, src, offset, imm"),
        (".insn 7, 1, 2, 0, 0", "src is 0x2 and must be 0x0"),
        (".insn 7, 16, 0, 0, 0", "dst is 16 and must be 0 to 15"),
        ("ld_pseudo r1, 7, 5", "expected '1', '2'"),
        ("r1 = kconfig(CONFIG_HZ - 4) ll", "must be 0 to"),
        ("\u00e9xit", "not '\u00e9xit'"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        assemble(text)


def test_errors_name_the_line() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("/* two\nlines */ exit\n   r1 ~ 2 # what\n")
    assert caught.value.line == 3
    assert caught.value.text.strip() == "r1 ~ 2 # what"


def test_source_lines_of_objdump_are_comments() -> None:
    assert len(assemble("; int x = 1; return x;\n r0 = 1; exit")) == 2


def test_nothing_gives_nothing() -> None:
    assert assemble("") == assemble("# nothing\n ; nothing\n") == []
    assert disassemble([]) == ""


def test_the_grammar_is_ambiguous_only_in_names() -> None:
    """Whatever else is written stands for one operation."""
    places = [(assembler._grammar(), "")]
    ambiguous = set()
    while places:
        node, text = places.pop()
        places += [(following, f"{text} {key}") for key, following in node.next.items()]
        if len(node.alternatives) > 1:
            ambiguous.add(text.strip())
    assert ambiguous == {"call <L>", "<R> = <L> ll"}
