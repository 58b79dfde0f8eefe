"""Annotated listings."""

from __future__ import annotations

from ebpf.isa.assembler import assemble
from ebpf.isa.encoding import encode
from ebpf.isa.instruction import Instruction, SourceLine
from ebpf.isa.listing import LineKind, Names, listing, render

PROGRAM = """
    r6 = r1
    r1 = flows ll
    r2 = .bss + 8 ll
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    call half
    if r0 > 5 goto +1
    r0 = 1
out:
    exit
half:
    r0 >>= 1
    exit
"""

LISTING = """\
count:
   0: r6 = r1
   1: r1 = map[flows]
   3: r2 = map[.bss][0]+8
   5: call bpf_map_lookup_elem#1
   6: if r0 == 0 goto out
   7: call half
   8: if r0 > 5 goto out
   9: r0 = 1
out:
  10: exit
half:
  11: r0 >>= 1
  12: exit
"""


def test_names_and_labels() -> None:
    lines = listing(assemble(PROGRAM), "count")
    assert render(lines) == LISTING
    kinds = {line.text: line.kind for line in lines}
    assert kinds["count:"] is LineKind.FUNCTION
    assert kinds["out:"] is LineKind.LABEL
    assert kinds["half:"] is LineKind.FUNCTION
    assert next(line.target for line in lines if line.text == "call half") == 11


def test_labels_are_numbered_where_there_are_no_symbols() -> None:
    program = assemble("if r1 == 0 goto +2\n r0 = 1\n exit\n r0 = 0\n goto -5\n")
    text = render(listing(program))
    assert text.splitlines() == [
        "L1:",
        "   0: if r1 == 0 goto L2",
        "   1: r0 = 1",
        "   2: exit",
        "L2:",
        "   3: r0 = 0",
        "   4: goto L1",
    ]


def test_jumps_to_nowhere_keep_their_distance() -> None:
    program = assemble("goto +1\n r1 = 0 ll\n goto +100\n goto -100\n call pc+50")
    assert [line.text for line in listing(program)] == [
        "goto +1",  # into the middle of the load
        "r1 = 0x0 ll",
        "goto +100",
        "goto -100",
        "call pc+50",
    ]


def test_source_lines_where_they_change() -> None:
    first = SourceLine("count.bpf.c", 12, 5, "  int x = f(ctx);")
    second = SourceLine("count.bpf.c", 13, 1, "return x;")
    program = [
        Instruction(0xB7, 0, imm=1, source=first),
        Instruction(0xB7, 1, imm=1, source=first._replace(column=9)),
        Instruction(0xB7, 2, imm=1),
        Instruction(0x95, source=second),
    ]
    lines = listing(program, "count")
    assert render(lines) == (
        "count:\n"
        "; count.bpf.c:12: int x = f(ctx);\n"
        "   0: r0 = 1\n"
        "   1: r1 = 1\n"
        "   2: r2 = 1\n"
        "; count.bpf.c:13: return x;\n"
        "   3: exit\n"
    )
    assert ";" not in render(lines, source=False)
    assert lines[2].source == first
    assert lines[2].instruction is program[0]


def test_raw_bytes() -> None:
    program = assemble("r1 = 0x100000002 ll\n exit")
    lines = listing(program)
    assert b"".join(line.raw for line in lines) == encode(program)
    assert render(lines, raw=True) == (
        "   0: 18 01 00 00 02 00 00 00  r1 = 0x100000002 ll\n"
        "      00 00 00 00 01 00 00 00\n"
        "   2: 95 00 00 00 00 00 00 00  exit\n"
    )
    assert listing(program, byteorder="big")[0].raw == encode(program[:1], byteorder="big")


def test_names_for_the_numbers_of_a_dump() -> None:
    program = assemble(
        "ld_pseudo r1, 1, 7\n ld_pseudo r1, 2, 0x1000000007\n ld_pseudo r1, 1, 8\n"
        "call 212345\n call kfunc(99)\n call kfunc(98)\n call pc+2\n ld_pseudo r2, 4, 2\n exit\n exit\n"
    )
    names = Names(
        maps={7: "flows"},
        helpers={212345: "bpf_map_lookup_elem"},
        kfuncs={99: "bpf_rcu_read_lock"},
        functions={12: "half"},
    )
    assert [line.text for line in listing(program, names=names)] == [
        "r1 = map[flows]",
        "r1 = map[flows][0]+16",
        "r1 = map[id:8]",
        "call bpf_map_lookup_elem#212345",
        "call bpf_rcu_read_lock#99",
        "call kfunc(98)",
        "call half",
        "r2 = func(L1) ll",
        "half:",
        "exit",
        "L1:",
        "exit",
    ]


def test_what_is_no_valid_instruction_is_listed() -> None:
    program = [Instruction(0xFF, 15, 15, -1, -1), Instruction(0x07, 1, 2, 3, 4)]
    assert [line.text for line in listing(program)] == [
        ".insn 0xff, 15, 15, -1, -1",
        ".insn 0x07, 1, 2, 3, 4",
    ]
