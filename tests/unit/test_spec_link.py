"""Static linking: every reachable function once, in libbpf's order, at distances that the verifier takes."""

from __future__ import annotations

import pytest

from ebpf.errors import RelocationError
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind
from ebpf.spec.link import link_program
from ebpf.spec.model import FunctionSpec, ProgramSpec, Spec

EXIT = Instruction(0x95)


def call(name: str) -> Instruction:
    return Instruction(0x85, src=1, imm=-1, reference=Reference(ReferenceKind.CALL, name))


def address(name: str) -> Instruction:
    return Instruction(0x18, 1, 4, reference=Reference(ReferenceKind.FUNCTION, name))


def spec_of(program: list[Instruction], **functions: list[Instruction]) -> tuple[Spec, ProgramSpec]:
    main = ProgramSpec("main", "xdp", program)
    subprograms = {
        name: FunctionSpec(name, ".text", body, type_id=number)
        for number, (name, body) in enumerate(functions.items(), 1)
    }
    return Spec("test", programs={"main": main}, functions=subprograms), main


def targets(instructions: list[Instruction]) -> list[tuple[str, int]]:
    """Slots that calls and addresses lead to, as the verifier counts them."""
    found, slot = [], 0
    for instruction in instructions:
        if instruction.reference is not None:
            distance = (instruction.imm ^ 1 << 31) - (1 << 31) if instruction.is_wide else instruction.imm
            found.append((instruction.reference.name, slot + distance + 1))
        slot += instruction.slots
    return found


def test_depth_first_and_each_function_once() -> None:
    spec, main = spec_of(
        [call("a"), call("b"), call("a"), EXIT],
        b=[call("c"), EXIT],
        a=[call("c"), EXIT],
        c=[EXIT],
        unused=[EXIT],
    )
    linked = link_program(spec, main)
    assert [(f.offset, f.name, f.type_id) for f in linked.functions] == [
        (0, "main", 0),
        (4, "a", 2),
        (6, "c", 3),
        (7, "b", 1),
    ]
    assert targets(linked.instructions) == [("a", 4), ("b", 7), ("a", 4), ("c", 6), ("c", 6)]


def test_wide_loads_take_two_slots() -> None:
    wide = Instruction(0x18, 2, imm=1 << 40)
    spec, main = spec_of([wide, call("sub"), wide, EXIT], sub=[EXIT])
    linked = link_program(spec, main)
    assert linked.functions[1].offset == 6
    assert targets(linked.instructions) == [("sub", 6)]


def test_recursion_and_callbacks() -> None:
    spec, main = spec_of(
        [address("callback"), call("f"), EXIT], f=[call("f"), address("main"), EXIT], callback=[EXIT]
    )
    linked = link_program(spec, main)
    assert targets(linked.instructions) == [("callback", 4), ("f", 5), ("f", 5), ("main", 0)]
    backwards = linked.instructions[-2]
    assert 0 <= backwards.imm < 1 << 32, "the upper half of a function's address is zero"


def test_deep_chains_do_not_overflow_the_stack() -> None:
    chain = {f"f{n}": [call(f"f{n + 1}"), EXIT] for n in range(5000)}
    spec, main = spec_of([call("f0"), EXIT], **chain, f5000=[EXIT])
    assert len(link_program(spec, main).functions) == 5002


def test_the_spec_is_left_alone() -> None:
    spec, main = spec_of([call("sub"), EXIT], sub=[EXIT])
    link_program(spec, main)
    assert main.instructions[0].imm == -1


def test_missing_function() -> None:
    spec, main = spec_of([call("gone"), EXIT])
    with pytest.raises(RelocationError, match="'main' calls 'gone'"):
        link_program(spec, main)
