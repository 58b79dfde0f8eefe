"""CO-RE relocations between hand-made BTF of an object ("local") and of a kernel ("target")."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.errors import RelocationError
from ebpf.isa.instruction import CoreKind, CoreRelocation, Instruction, SourceLine
from ebpf.spec.core import Relocator, is_poisoned, relocate
from ebpf.spec.core_compat import essential_name

K = CoreKind
M = MemberSpec


class Types:
    """Short ways to make the types that the tests share."""

    def __init__(self, byteorder: str = "little") -> None:
        self.builder = BTFBuilder(byteorder=byteorder)  # type: ignore[arg-type]
        add = self.builder.add_int
        self.u8, self.u16, self.u32, self.u64 = (add(f"u{8 * size}", size) for size in (1, 2, 4, 8))
        self.s32, self.s64 = add("int", 4, signed=True), add("long", 8, signed=True)
        self.pointer = self.builder.add_pointer(0)

    def struct(self, name: str, size: int, *members: MemberSpec) -> int:
        return self.builder.add_struct(name, size, members)

    def array(self, element: int, length: int) -> int:
        return self.builder.add_array(element, length, self.u32)


def mov(imm: int) -> Instruction:
    return Instruction(0xB7, 1, imm=imm)


def ldx(offset: int, size: int = 0x00) -> Instruction:
    return Instruction(0x61 & ~0x18 | size, 1, 2, offset)


def wide(imm: int) -> Instruction:
    return Instruction(0x18, 1, imm=imm)


def one(
    local: Types,
    target: Types,
    kind: CoreKind,
    type_id: int,
    access: str,
    instruction: Instruction,
) -> list[Instruction]:
    relocation = CoreRelocation(kind, type_id, access)
    return relocate(
        [instruction._replace(relocation=relocation)],
        local=local.builder.build(),
        target=target.builder.build(),
    )


@pytest.fixture
def task() -> tuple[Types, int, Types]:
    """A struct whose fields lie elsewhere in the kernel, one of them in an anonymous union there."""
    local, target = Types(), Types()
    inner = local.struct("inner", 8, M("x", local.u32, 0), M("y", local.u32, 32))
    names = local.array(local.u8, 16)
    task = local.struct(
        "task___mine",
        48,
        M("pid", local.u32, 0),
        M("comm", names, 32),
        M("in", inner, 160),
        M("gone", local.u64, 256),
        M("flags", local.u32, 320, 3),
        M("wide", local.u32, 352),
    )
    inner = target.struct(
        "inner", 16, M("pad", target.u64, 0), M("y", target.u32, 64), M("x", target.u32, 96)
    )
    anonymous = target.builder.add_union("", 8, [M("other", target.u64, 0), M("pid", target.s32, 0)])
    names = target.array(target.u8, 32)
    target.struct(
        "task",
        96,
        M("state", target.u64, 0),
        M("", anonymous, 64),
        M("comm", names, 128),
        M("in", inner, 384),
        M("flags", target.u32, 520, 5),
        M("wide", target.u64, 576),
    )
    return local, task, target


@pytest.mark.parametrize(
    ("kind", "access", "before", "after"),
    [
        (K.FIELD_BYTE_OFFSET, "0:0", 0, 8),
        (K.FIELD_BYTE_OFFSET, "0:1", 4, 16),
        (K.FIELD_BYTE_OFFSET, "0:1:5", 9, 21),
        (K.FIELD_BYTE_OFFSET, "0:2:1", 24, 56),
        (K.FIELD_BYTE_OFFSET, "2:0", 96, 200),
        (K.FIELD_BYTE_SIZE, "0:1", 16, 32),
        (K.FIELD_BYTE_SIZE, "0:1:3", 1, 1),
        (K.FIELD_BYTE_SIZE, "0:5", 4, 8),
        (K.FIELD_EXISTS, "0:0", 1, 1),
        (K.FIELD_EXISTS, "0:3", 1, 0),
        (K.FIELD_SIGNED, "0:0", 0, 1),
        (K.FIELD_SIGNED, "0:1", 0, 0),
        # flags: bits 520 to 524 of the kernel's struct, in the 4 bytes at 64
        (K.FIELD_BYTE_OFFSET, "0:4", 40, 64),
        (K.FIELD_BYTE_SIZE, "0:4", 4, 4),
        (K.FIELD_LSHIFT_U64, "0:4", 61, 64 - (8 + 5)),
        (K.FIELD_RSHIFT_U64, "0:4", 61, 59),
        (K.TYPE_EXISTS, "0", 1, 1),
        (K.TYPE_SIZE, "0", 48, 96),
        (K.TYPE_MATCHES, "0", 1, 0),
    ],
)
def test_immediates(task: tuple[Types, int, Types], kind: K, access: str, before: int, after: int) -> None:
    local, type_id, target = task
    (patched,) = one(local, target, kind, type_id, access, mov(before))
    assert patched.imm == after and patched.relocation is not None


def test_loads_and_stores(task: tuple[Types, int, Types]) -> None:
    local, type_id, target = task
    (patched,) = one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:2:0", ldx(20))
    assert (patched.opcode, patched.offset) == (0x61, 60)
    (patched,) = one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:5", ldx(44))
    assert (patched.opcode, patched.offset) == (0x79, 72), "an unsigned field of 8 bytes, not 4"


def test_type_ids(task: tuple[Types, int, Types]) -> None:
    local, type_id, target = task
    (patched,) = one(local, target, K.TYPE_ID_LOCAL, type_id, "0", wide(0))
    assert patched.imm == type_id
    (patched,) = one(local, target, K.TYPE_ID_TARGET, type_id, "0", wide(77))
    assert patched.imm == target.builder.build().find("task").id


def test_what_is_missing_poisons(task: tuple[Types, int, Types]) -> None:
    local, type_id, target = task
    relocator = Relocator(local.builder.build(), target.builder.build())
    relocation = CoreRelocation(K.FIELD_BYTE_OFFSET, type_id, "0:3")
    line = SourceLine("a.c", 3, 1, "return task->gone;")
    poisoned, after = relocator.relocate(
        [ldx(32, 0x18)._replace(relocation=relocation, source=line), Instruction(0x95)]
    )
    assert (poisoned.opcode, poisoned.src, poisoned.imm) == (0x85, 0, 195896080)
    assert is_poisoned(poisoned) and not is_poisoned(after) and poisoned.source == line
    assert relocator.explain(poisoned) == "field 'gone' of struct task is not in this kernel"
    assert relocator.explain(after) is None


def test_a_wide_load_is_poisoned_in_both_slots() -> None:
    local, target = Types(), Types()
    enum = local.builder.add_enum("color", {"RED": 1, "BLUE": 9})
    target.builder.add_enum("color", {"RED": 4})
    poisoned = one(local, target, K.ENUMVAL_VALUE, enum, "1", wide(9)._replace(symbol="main"))
    assert [is_poisoned(instruction) for instruction in poisoned] == [True, True]
    assert [instruction.symbol for instruction in poisoned] == ["main", None]


def test_signed_fields_do_not_change_size() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 8, M("code", local.s64, 0))
    target.struct("s", 8, M("code", target.s32, 32))
    relocator = Relocator(local.builder.build(), target.builder.build())
    relocation = CoreRelocation(K.FIELD_BYTE_OFFSET, type_id, "0:0")
    (poisoned,) = relocator.relocate([ldx(0, 0x18)._replace(relocation=relocation)])
    assert is_poisoned(poisoned)
    assert "has 4 bytes in this kernel, not 8" in (relocator.explain(poisoned) or "")
    (patched,) = relocator.relocate([mov(0)._replace(relocation=relocation)])
    assert patched.imm == 4, "an offset in an immediate is right at any size"


@pytest.mark.parametrize(
    ("access", "before", "after"), [("0", 1, 4), ("1", 1 << 40, 1 << 41), ("2", -5 & (1 << 64) - 1, -6)]
)
def test_enumerators(access: str, before: int, after: int) -> None:
    local, target = Types(), Types()
    enum = local.builder.add_enum("color___v2", {"RED___v2": 1, "BLUE": 1 << 40, "LOW": -5}, size=8)
    target.builder.add_enum("color", {"LOW": -6, "BLUE": 1 << 41, "RED": 4}, size=8)
    (patched,) = one(local, target, K.ENUMVAL_VALUE, enum, access, wide(before))
    assert patched.imm == after & (1 << 64) - 1
    (patched,) = one(local, target, K.ENUMVAL_EXISTS, enum, access, mov(1))
    assert patched.imm == 1


def test_big_endian_bit_field() -> None:
    local, target = Types("big"), Types("big")
    type_id = local.struct("s", 4, M("f", local.u32, 0, 3))
    target.struct("s", 8, M("f", target.u32, 36, 3))
    (patched,) = one(local, target, K.FIELD_LSHIFT_U64, type_id, "0:0", mov(32))
    assert patched.imm == 32 + 4


def test_a_bit_field_across_two_words_needs_a_wider_load() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 4, M("f", local.u32, 0, 3))
    target.struct("s", 8, M("f", target.u32, 30, 4))
    (patched,) = one(local, target, K.FIELD_BYTE_SIZE, type_id, "0:0", mov(4))
    assert patched.imm == 8


def test_flexible_arrays_have_any_index() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 4, M("n", local.u32, 0), M("items", local.array(local.u32, 0), 32))
    target.struct("s", 8, M("n", target.u64, 0), M("items", target.array(target.u32, 0), 64))
    (patched,) = one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:1:5", mov(24))
    assert patched.imm == 28


def test_candidates_that_agree_and_that_do_not() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 8, M("a", local.u32, 0), M("b", local.u32, 32))
    target.struct("s", 16, M("a", target.u32, 64), M("b", target.u32, 96))
    target.struct("s___2", 32, M("a", target.u32, 64), M("b", target.u32, 128))
    (patched,) = one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:0", mov(0))
    assert patched.imm == 8
    with pytest.raises(RelocationError, match=r"field 'b' of struct s: it is ambiguous"):
        one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:1", mov(4))


def test_modules_are_asked_only_for_what_the_kernel_lacks() -> None:
    local, target = Types(), Types()
    known = local.struct("known", 4, M("a", local.u32, 0))
    lost = local.struct("lost", 4, M("a", local.u32, 0))
    target.struct("known", 8, M("a", target.u32, 32))
    base = target.builder.build()
    module = BTFBuilder(base=base)
    module.add_struct("lost", 16, [M("a", target.u32, 96)])
    asked = []

    def modules() -> Iterator[BTF]:
        asked.append(True)
        yield module.build()

    relocator = Relocator(local.builder.build(), base, modules())

    def offset(type_id: int) -> int:
        relocation = CoreRelocation(K.FIELD_BYTE_OFFSET, type_id, "0:0")
        return relocator.relocate([mov(0)._replace(relocation=relocation)])[0].imm

    assert offset(known) == 4 and not asked
    assert offset(lost) == 12 and asked
    assert offset(lost) == 12, "also the second time"


def test_type_matches() -> None:
    def pair(change: Callable[[Types], int]) -> int:
        local, target = Types(), Types()
        forward = target.builder.add_forward("far")
        target.struct(
            "s",
            24,
            M("a", target.u32, 0),
            M("p", target.builder.add_pointer(forward), 64),
            M("c", target.u64, 128),
        )
        return one(local, target, K.TYPE_MATCHES, change(local), "0", mov(1))[0].imm

    assert pair(lambda t: t.struct("s", 8, M("a", t.u32, 0))) == 1, "fewer members"
    assert pair(lambda t: t.struct("s", 8, M("a", t.u64, 0))) == 0, "another size"
    assert pair(lambda t: t.struct("s", 8, M("z", t.u32, 0))) == 0, "another name"
    assert pair(lambda t: t.builder.add_union("s", 8, [M("a", t.u32, 0)])) == 0, "another kind"
    assert pair(
        lambda t: t.struct("s", 8, M("p", t.builder.add_pointer(t.struct("far", 4, M("q", t.u32, 0))), 0))
    ), "behind a pointer the name is enough"
    assert not pair(lambda t: t.struct("s", 8, M("p", t.builder.add_pointer(t.struct("near", 4)), 0)))


REFUSED = {
    "stale": (K.FIELD_BYTE_OFFSET, "0:0", mov(99), "holds 99, where the object's types say 0"),
    "opcode": (K.FIELD_BYTE_OFFSET, "0:0", Instruction(0x95), "opcode 0x95 cannot be relocated"),
    "register": (K.FIELD_BYTE_OFFSET, "0:0", Instruction(0x0F), "opcode 0x0f cannot be relocated"),
    "access size": (K.FIELD_BYTE_OFFSET, "0:5", ldx(44, 0x10), "accesses 1 bytes of a field of 4"),
    "accessor": (K.FIELD_BYTE_OFFSET, "0:x", mov(0), "accessor '0:x'"),
    "long number": (K.FIELD_BYTE_OFFSET, "0:" + "9" * 5000, mov(0), "accessor '0:999"),
    "member": (K.FIELD_BYTE_OFFSET, "0:50", mov(0), "member 50 of struct task___mine, which has 6"),
    "element": (K.FIELD_BYTE_OFFSET, "0:1:16", mov(0), r"element 16 of u8\[16\]"),
    "scalar": (K.FIELD_BYTE_OFFSET, "0:0:0", mov(0), "a field of u32, which has none"),
    "array": (K.FIELD_SIGNED, "0:1:0", mov(0), "cannot be asked of an array element"),
    "no enum": (K.ENUMVAL_VALUE, "0", mov(0), "into struct"),
    "type access": (K.TYPE_SIZE, "0:1", mov(0), "accessor '0:1'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(task: tuple[Types, int, Types], case: str) -> None:
    kind, access, instruction, message = REFUSED[case]
    local, type_id, target = task
    with pytest.raises(RelocationError, match=message) as caught:
        one(local, target, kind, type_id, access, instruction)
    assert "instruction 0: CO-RE relocation" in str(caught.value)


def test_offsets_and_immediates_that_do_not_fit() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 4, M("a", local.u32, 0))
    target.struct("s", 1 << 20, M("pad", target.array(target.u8, 40000), 0), M("a", target.u32, 320000))
    with pytest.raises(RelocationError, match="offset 40000 does not fit"):
        one(local, target, K.FIELD_BYTE_OFFSET, type_id, "0:0", ldx(0))
    enum = local.builder.add_enum("e", {"A": 1})
    target.builder.add_enum("e", {"A": 1 << 40}, size=8)
    with pytest.raises(RelocationError, match="does not fit the 32 bits"):
        one(local, target, K.ENUMVAL_VALUE, enum, "0", mov(1))


def test_errors_name_program_and_source() -> None:
    local, target = Types(), Types()
    type_id = local.struct("", 4, M("a", local.u32, 0))
    relocation = CoreRelocation(K.FIELD_BYTE_OFFSET, type_id, "0:0")
    line = SourceLine("a.c", 3, 1, "")
    with pytest.raises(RelocationError, match=r"program 'p', instruction 2 \(a.c:3\): .* without a name"):
        relocate(
            [wide(1), mov(0)._replace(relocation=relocation, source=line)],
            local=local.builder.build(),
            target=target.builder.build(),
            program="p",
        )


def test_anonymous_members_nested_without_end_are_an_error() -> None:
    local, target = Types(), Types()
    type_id = local.struct("s", 4, M("a", local.u32, 0))
    innermost = target.builder.next_id + 1
    target.struct("s", 4, M("", innermost, 0), M("", innermost, 0))
    for level in range(90):
        next_id = innermost + level + 1
        target.struct("", 4, M("", next_id, 0), M("", next_id, 0))
    target.struct("", 4, M("b", target.u32, 0))
    with pytest.raises(RelocationError, match="types without end"):
        one(local, target, K.FIELD_EXISTS, type_id, "0:0", mov(1))


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("task_struct", "task_struct"),
        ("task_struct___old", "task_struct"),
        ("a___b___c", "a___b"),
        ("___x", "___x"),
        ("a____b", "a____b"),
        ("a___", "a___"),
        ("a___b____c", "a"),
        ("", ""),
    ],
)
def test_flavours(name: str, essential: str) -> None:
    assert essential_name(name) == essential
