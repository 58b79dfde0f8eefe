"""Reading verifier logs of several kernels, without a kernel."""

from __future__ import annotations

import pytest

from ebpf.isa.instruction import Instruction, SourceLine
from ebpf.loader.causes import CAUSES, stack_frames
from ebpf.loader.verifier import excerpt, explain, processed, refusal
from ebpf.uapi import ProgramType

LOOKUP = SourceLine("a.c", 3, 16, "\tvalue = bpf_map_lookup_elem(&m, &key);")
DEREF = SourceLine("a.c", 4, 9, "\treturn *value;")
CODE = (
    Instruction(0x18, 1, 1, 0, 5, symbol="prog", source=LOOKUP),  # slots 0 and 1
    Instruction(0x85, 0, 0, 0, 1),  # slot 2: call bpf_map_lookup_elem
    Instruction(0x79, 0, 0, 0, 0, source=DEREF),  # slot 3
    Instruction(0x95),
)

# The same refusal as three generations of kernels print it.
OLD = """0: (18) r1 = 0xffff8880
2: (85) call bpf_map_lookup_elem#1
3: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 3 insns, stack depth 0
"""
NEW = """0: R1=ctx() R10=fp0
; value = bpf_map_lookup_elem(&m, &key); @ a.c:3
0: (18) r1 = 0xffff888004d2a400       ; R1_w=map_ptr(map=m,ks=4,vs=8)
2: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=m,ks=4,vs=8)
; return *value; @ a.c:4
3: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
FOLLOWED = NEW + "verification time 52 usec\nstack depth 8\nsome closing remark of a later kernel\n"


@pytest.mark.parametrize("log", [OLD, NEW, FOLLOWED], ids=["old", "new", "followed by more"])
def test_reason_place_and_hint(log: str) -> None:
    found = explain(log, CODE)
    assert found.reason == "R0 invalid mem access 'map_value_or_null'"
    assert found.cause == "null" and found.hint is not None and "test it first" in found.hint
    assert found.slot == 3 and found.source == DEREF


def test_reason_from_the_short_log_place_from_the_long_one() -> None:
    short = (
        "R0 invalid mem access 'map_value_or_null'\nverification time 3 usec\nprocessed 3 insns (limit 9)\n"
    )
    found = explain(NEW, CODE, short_log=short)
    assert found.reason.startswith("R0 invalid") and found.source == DEREF
    assert explain("", CODE, short_log=short).slot is None


def test_source_from_the_log_where_the_program_has_none() -> None:
    bare = [instruction._replace(source=None) for instruction in CODE]
    found = explain(NEW, bare)
    assert found.source == SourceLine("a.c", 4, 0, "return *value;")
    assert explain(OLD, bare).source is None


def test_unknown_reason_is_given_as_it_is() -> None:
    log = NEW.replace("R0 invalid mem access 'map_value_or_null'", "the moon is in the wrong phase")
    found = explain(log, CODE)
    assert found.reason == "the moon is in the wrong phase"
    assert found.cause is None and found.hint is None and found.slot == 3
    assert explain("", CODE).reason == "the kernel gives no reason"


def test_slot_named_by_the_reason() -> None:
    assert explain("infinite loop detected at insn 2\n", CODE).slot == 2
    assert explain("back-edge from insn 3 to 0\n", CODE).slot == 3
    assert explain("jump out of range from insn 0 to 99\n", CODE).source == LOOKUP


@pytest.mark.parametrize(
    ("line", "cause", "hint"),
    [
        ("R1 offset is outside of the packet", "packet", "data_end"),
        ("invalid stack off=-520 size=8", "stack", "512 bytes"),
        ("invalid write to stack R10 off=-600 size=8", "stack", "512 bytes"),
        ("BPF program is too large. Processed 1000001 insn", "loop", "bpf_loop"),
        ("The sequence of 8193 jumps is too complex.", "loop", "bpf_loop"),
        ("R0 !read_ok", "uninitialised", "return value"),
        ("invalid indirect read from stack R2 off -16+4 size 16", "uninitialised", "padding"),
        ("cannot call GPL only function from proprietary program", "license", 'SEC("license")'),
        ("R2 type=inv expected=fp, pkt, pkt_meta, map_key, map_value", "argument", "it was given a number"),
        ("R2 type=map_value_or_null expected=fp", "null", "argument 2"),
        (
            "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)",
            "return",
            "path",
        ),
        ("invalid access to map value, value_size=64 off=64 size=1", "map_value", "bound"),
        ("R3 max value is outside of the allowed memory range", "map_value", "bound"),
        ("unknown func bpf_get_current_pid_tgid#14", "helper", "older"),
        ("invalid func unknown#195896080", "core", "bpf_core_field_exists"),
        ("invalid func unknown#2002000000", "extern", "bpf_ksym_exists"),
        ("R1 invalid mem access 'inv'", "pointer", "BPF_CORE_READ"),
        ("unreachable insn 3", "unreachable", "jump"),
    ],
)
def test_causes(line: str, cause: str, hint: str) -> None:
    log = f"2: (85) call bpf_map_lookup_elem#1\n{line}\nprocessed 3 insns (limit 1000000)\n"
    found = explain(log, CODE, program_type=ProgramType.XDP, license="")
    assert (found.reason, found.cause) == (line, cause)
    assert found.hint is not None and hint in found.hint


def test_helper_of_other_types_names_them() -> None:
    log = "program of this type cannot use helper bpf_skb_pull_data#39\n"
    hint = explain(log, CODE, program_type=ProgramType.XDP).hint
    assert hint is not None and hint.startswith("bpf_skb_pull_data (since Linux 4.9) is for programs of")
    assert "sched_cls" in hint
    own = explain(log, CODE, program_type=ProgramType.SCHED_CLS).hint
    assert own is not None and "this kernel is older" in own


def test_license_hint_says_what_is_there() -> None:
    log = (
        "2: (85) call bpf_trace_printk#6\n"
        "cannot call GPL-restricted function from non-GPL compatible program\n"
    )
    hint = explain(log, (*CODE[:1], Instruction(0x85, imm=6), *CODE[2:]), license="MIT").hint
    assert hint is not None and hint.startswith("bpf_trace_printk is") and "license is 'MIT'" in hint


def test_stack_frames_by_function() -> None:
    code = (
        Instruction(0x7B, 10, 1, -16, 0, symbol="outer"),
        Instruction(0x85, 0, 1, 0, 1),
        Instruction(0x95),
        Instruction(0xBF, 2, 10, symbol="inner"),
        Instruction(0x07, 2, 0, 0, -300),
        Instruction(0x95),
    )
    assert stack_frames(code) == [("outer", 16), ("inner", 304)]
    found = explain("combined stack size of 2 calls is 608. Too large\n", code)
    assert found.cause == "stack" and found.source is None
    assert found.hint is not None and "outer 16, inner 304" in found.hint


def test_message() -> None:
    error = refusal(NEW, CODE, program="prog", errno=13, program_type=ProgramType.XDP)
    assert str(error) == (
        "the verifier refused program 'prog' (xdp): R0 invalid mem access 'map_value_or_null'\n"
        "  a.c:4:9\n"
        "    \treturn *value;\n"
        "    \t       ^\n"
        "  hint: the value may be NULL here; test it first: `if (!value) return …;`"
    )
    assert error.source == "a.c:4: return *value;" and error.log == NEW and not error.log_truncated
    assert error.errno_name == "EACCES"


def test_excerpt_without_a_column_or_text() -> None:
    assert excerpt(SourceLine("a.c", 4, 0, "x = 1;")) == "  a.c:4\n    x = 1;"
    assert excerpt(SourceLine("a.c", 4, 3, "")) == "  a.c:4:3"


def test_processed() -> None:
    assert processed(NEW) == 3 and processed("nothing of it") is None


def test_every_pattern_of_the_table_is_of_use() -> None:
    """An earlier pattern that matches everything would hide the later ones."""
    for cause in CAUSES:
        assert not cause.pattern.search("")
        assert not cause.pattern.search("0: (b7) r0 = 0                        ; R0_w=0")
