"""What the verifier's messages mean: one table of patterns, causes and hints.

The patterns follow the messages of kernel/bpf/verifier.c from 5.4 on; where the wording changed, both stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ebpf.isa.instruction import Instruction
from ebpf.loader.poison import MISSING_CORE, MISSING_KFUNC
from ebpf.uapi import ProgramType


class Scene(NamedTuple):
    """Where a message arose: what a hint may speak of."""

    match: re.Match[str]
    program_type: ProgramType | None
    license: str
    instruction: Instruction | None  #: the one that was refused, where known
    instructions: tuple[Instruction, ...]


class Cause(NamedTuple):
    """One reason of refusal."""

    name: str
    pattern: re.Pattern[str]
    #: Text, or made from the scene; None where nothing sure can be said.
    hint: str | Callable[[Scene], str | None] | None


def _helper_of(scene: Scene) -> str | None:
    """The name of the helper that the refused instruction calls."""
    instruction = scene.instruction
    if instruction is None or instruction.opcode != 0x85 or instruction.src != 0:
        return None
    from ebpf.isa.helpers import by_id

    helper = by_id(instruction.imm)
    return f"bpf_{helper.name}" if helper else None


def _license(scene: Scene) -> str:
    helper = _helper_of(scene)
    who = f"{helper} is" if helper else "the helper is"
    have = f"the object's license is {scene.license!r}" if scene.license else "the object has no license"
    return (
        f"{who} for GPL-compatible programs only, and {have}; "
        'if yours may be, say so: char LICENSE[] SEC("license") = "GPL";'
    )


def _argument(scene: Scene) -> str | None:
    from ebpf.isa.helpers import by_id, declaration

    number = int(scene.match["register"])
    instruction = scene.instruction
    if instruction is None or instruction.opcode != 0x85 or instruction.src != 0:
        return None
    helper = by_id(instruction.imm)
    if helper is None or not 1 <= number <= len(helper.parameters):
        return None
    wanted = f"argument {number} of bpf_{helper.name} is `{declaration(*helper.parameters[number - 1])}`"
    given = _REGISTER_TYPES.get(scene.match["type"] or "")
    return f"{wanted}; it was given {given}" if given else wanted


def _maybe_null_argument(scene: Scene) -> str:
    argument = _argument(scene)
    return _NULL_HINT + (f" ({argument})" if argument else "")


def _helper_not_here(scene: Scene) -> str | None:
    from ebpf.isa.helpers import by_id

    helper = by_id(int(scene.match["id"]))
    if helper is None:
        return "this kernel is older than that helper, or the helper does not exist"
    own = scene.program_type.name if scene.program_type else None
    if own in helper.program_types:
        return (
            f"{own.lower() if own else 'these'} programs have bpf_{helper.name} since Linux {helper.since}: "
            "this kernel is older, or was built without it"
        )
    types = sorted(name.lower() for name in helper.program_types)
    shown = ", ".join(types[:8]) + (f" and {len(types) - 8} more" if len(types) > 8 else "")
    return f"bpf_{helper.name} (since Linux {helper.since}) is for programs of these types: {shown}"


def _stack_frames(scene: Scene) -> str:
    frames = stack_frames(scene.instructions)
    listed = ", ".join(f"{name} {depth}" for name, depth in frames)
    return (
        f"the functions of one call chain share 512 bytes of stack (bytes used: {listed}); "
        "move large variables into a per-CPU array map of one entry"
    )


def stack_frames(instructions: tuple[Instruction, ...]) -> list[tuple[str, int]]:
    """Bytes of stack that each function touches, by the lowest offset from r10; in program order."""
    frames: list[tuple[str, int]] = []
    name, depth = "", 0
    from_frame: set[int] = {10}
    for index, instruction in enumerate(instructions):
        if instruction.symbol is not None:
            if index:
                frames.append((name, depth))
            name, depth, from_frame = instruction.symbol, 0, {10}
        kind = instruction.opcode & 0x07
        base = instruction.src if kind == 1 else instruction.dst if kind in (2, 3) else None
        if base == 10:
            depth = max(depth, -instruction.offset)
        elif instruction.opcode == 0xBF and instruction.src == 10:
            from_frame.add(instruction.dst)
        elif instruction.opcode == 0x07 and instruction.dst in from_frame - {10}:
            depth = max(depth, -instruction.imm)
            from_frame.discard(instruction.dst)
    frames.append((name, depth))
    return [(name or "?", (depth + 7) // 8 * 8) for name, depth in frames]


#: What the verifier calls the content of a register, in words.
_REGISTER_TYPES = {
    "ctx": "the program's context",
    "fp": "memory on the stack",
    "scalar": "a number",
    "inv": "a number",
    "map_ptr": "a map",
    "map_value": "a value in a map",
    "pkt": "a pointer into the packet",
    "pkt_end": "the end of the packet",
    "pkt_meta": "a pointer to the packet's metadata",
}
_NULL_HINT = "the value may be NULL here; test it first: `if (!value) return …;`"
_BOUNDS_HINT = (
    "prove to the verifier that the packet is long enough before the access: "
    "`if ((void *)(header + 1) > data_end) return …;` with data_end from the context"
)
_INDEX_HINT = (
    "bound the offset just before the access: `if (index >= SIZE) return …;`, "
    "or `index &= SIZE - 1` where SIZE is a power of two; make the index unsigned"
)
_LOOP_HINT = (
    "give the loop a constant upper bound that the verifier can see, keep it small, "
    "or use bpf_loop() (Linux 5.17) or bpf_for() (Linux 6.4)"
)


def _cause(name: str, pattern: str, hint: str | Callable[[Scene], str | None] | None = None) -> Cause:
    return Cause(name, re.compile(pattern), hint)


#: In order of precedence: an earlier pattern that matches any line wins over a later one.
CAUSES: tuple[Cause, ...] = (
    _cause(
        "core",
        rf"invalid func unknown#{MISSING_CORE}\b",
        "the instruction reads what this kernel does not have; guard it with bpf_core_field_exists(), "
        "bpf_core_type_exists() or bpf_core_enum_value_exists()",
    ),
    _cause(
        "extern",
        rf"invalid func unknown#{MISSING_KFUNC}",
        "the call is to a weak kernel function that this kernel does not have; "
        "guard it with `if (bpf_ksym_exists(function))`",
    ),
    _cause(
        "license",
        r"cannot call GPL[- ](restricted|only) function|cannot call kernel function from non-GPL"
        r"|(program|struct ops programs?) must have a GPL compatible license",
        _license,
    ),
    _cause(
        "helper",
        r"(program of this type cannot use helper|unknown func|invalid func) (?P<name>\w+)#(?P<id>\d+)",
        _helper_not_here,
    ),
    _cause(
        "kfunc",
        r"calling kernel function (?P<name>\w+) is not allowed",
        "this program type is not among those that the kernel lets call it",
    ),
    _cause(
        "sleep",
        r"helper call might sleep in a non-sleepable prog|kernel func \w+ is sleepable within"
        r"|sleepable helper \S+ in|bpf program is not sleepable",
        'only sleepable programs may: put ".s" in the section, such as SEC("lsm.s/…") or SEC("fentry.s/…")',
    ),
    _cause(
        "null",
        r"R\d+ invalid mem access 'mem_or_null'",
        "arguments of a global function may be NULL: test it first, make the function static, "
        "or mark the parameter __arg_nonnull (Linux 6.8)",
    ),
    _cause("null", r"R\d+ invalid mem access '\w+_or_null'", _NULL_HINT),
    _cause("null", r"R(?P<register>\d+) pointer arithmetic on \w+_or_null prohibited", _NULL_HINT),
    _cause("null", r"R(?P<register>\d+) type=(?P<type>\w+_or_null_?) expected=.*", _maybe_null_argument),
    _cause("null", r"Possibly NULL pointer passed to .*arg\d", _NULL_HINT),
    _cause(
        "packet",
        r"invalid access to packet, off=|R\d+ offset is outside of the packet",
        _BOUNDS_HINT,
    ),
    _cause("stack", r"combined stack size of \d+ calls is \d+\. Too large", _stack_frames),
    _cause(
        "stack",
        r"invalid .*\bstack\b.* off[= ]-(?:5(?:1[3-9]|[2-9]\d)|[6-9]\d\d|\d{4,})\b",
        "a function has 512 bytes of stack; move large variables into a per-CPU array map of one entry",
    ),
    _cause(
        "loop",
        r"BPF program is too large\. Processed \d+ insn|The sequence of \d+ jumps is too complex"
        r"|infinite loop detected at insn (?P<at>\d+)|back-edge from insn (?P<from>\d+) to \d+",
        _LOOP_HINT,
    ),
    _cause(
        "uninitialised",
        r"R0 !read_ok",
        "the value was never set on this path; every path through a function must set its return value",
    ),
    _cause(
        "uninitialised",
        r"R\d+ !read_ok",
        "the variable has no value on this path; initialise it where it is declared",
    ),
    _cause(
        "uninitialised",
        r"invalid (indirect )?read from stack",
        "part of this stack memory was never written; initialise it whole, padding included: "
        "`struct key k = {};` or __builtin_memset",
    ),
    _cause(
        "return",
        r"At (program|subprogram|async callback|callback)\w* \w+ the register R0 has .*should have been in .*"
        r"|At program exit the register R0 is not a known value.*|R0 leaks addr as return value",
        "return one of the values that this program type allows, on every path",
    ),
    _cause(
        "map_value",
        r"invalid access to map value, value_size=|R\d+ unbounded memory access"
        r"|R\d+ (min|max) value is (negative|outside of the (allowed|array|map_value) .*range)"
        r"|invalid access to memory, mem_size=|math between \w+ pointer and register with unbounded",
        _INDEX_HINT,
    ),
    _cause(
        "argument",
        r"R(?P<register>\d+) (type=(?P<type>\S+) expected=.+|must be a .*)",
        _argument,
    ),
    _cause(
        "argument",
        r"R\d+ invalid zero-sized read|R\d+ unbounded size|R\d+ min value is negative, either use unsigned",
        "bound the size first: at least 1 where the helper needs it, at most the buffer, and unsigned",
    ),
    _cause(
        "context",
        r"invalid bpf_context access off=(?P<off>\d+) size=(?P<size>\d+)",
        "this program type's context has no such field, or does not let programs access it this way",
    ),
    _cause(
        "context",
        r"dereference of modified ctx ptr",
        "the context must be accessed at constant offsets from the pointer that was passed in",
    ),
    _cause(
        "reference",
        r"Unreleased reference id=\d+",
        "every path must release what it acquired: bpf_ringbuf_submit or _discard, bpf_sk_release, …",
    ),
    _cause(
        "lock",
        r"cannot be used inside bpf_spin_lock-ed region|bpf_spin_unlock is missing"
        r"|function calls are not allowed while holding a lock",
        "release the lock with bpf_spin_unlock() before this, on every path",
    ),
    _cause(
        "readonly",
        r"write into map forbidden|R\d+ cannot write into \S+",
        "the map is read-only for programs: const variables live in .rodata, which is frozen at load",
    ),
    _cause(
        "pointer",
        r"R\d+ invalid mem access '(scalar|inv|fp|pkt_end)'",
        "this is not a pointer that the verifier knows; kernel and user memory are read with "
        "bpf_probe_read_kernel()/BPF_CORE_READ() and bpf_probe_read_user()",
    ),
    _cause(
        "pointer",
        r"R\d+ (.*pointer.* prohibited|tried to .* pointer)",
        "the verifier allows no such arithmetic on this kind of pointer",
    ),
    _cause("unreachable", r"unreachable insn \d+", "code after the end of the program, or a jump past it"),
    _cause(
        "end",
        r"last insn is not an exit or jmp|jump out of range from insn (?P<at>\d+)",
        "the compiler ended the function without a return: look for undefined behaviour in it",
    ),
    _cause(
        "callback",
        r"tail_calls are not allowed in .*|.* is not allowed in (timer|async) callbacks?.*",
        None,
    ),
)
