"""What a program is bound to when it is loaded: a function, tracepoint, hook or iterator of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ebpf.errors import RelocationError, SpecError
from ebpf.spec.model import ProgramSpec
from ebpf.uapi import AttachType, ProgramType

if TYPE_CHECKING:
    from ebpf.btf.types import Type
    from ebpf.loader.kernel_types import KernelTypes


class Target(NamedTuple):
    """attach_btf_id with the BTF or program that it is an id of; all 0 for most programs."""

    btf_id: int = 0
    btf_fd: int = 0
    program_fd: int = 0


class TargetProgram(NamedTuple):
    """A loaded program whose function another program replaces (freplace) or traces."""

    fd: int
    name: str
    function: str | None = None  #: None: what the section names, or the program itself


NONE = Target()

# How the kernel's BTF names each kind of target (libbpf, btf_get_kernel_prefix_kind).
_PREFIXES: dict[AttachType, tuple[str, str]] = {
    AttachType.TRACE_RAW_TP: ("btf_trace_", "tracepoint"),
    AttachType.LSM_MAC: ("bpf_lsm_", "LSM hook"),
    AttachType.LSM_CGROUP: ("bpf_lsm_", "LSM hook"),
    AttachType.TRACE_ITER: ("bpf_iter_", "iterator"),
    AttachType.TRACE_FENTRY: ("", "function"),
    AttachType.TRACE_FEXIT: ("", "function"),
    AttachType.MODIFY_RETURN: ("", "function"),
}
_TYPES = (ProgramType.TRACING, ProgramType.LSM, ProgramType.EXT)


def find_target(
    program: ProgramSpec, type: ProgramType, types: KernelTypes, given: TargetProgram | None
) -> Target:
    """The target of a program, by what its section names. RelocationError if the kernel has no such thing."""
    if given is not None:
        return _in_program(program, given)
    if type is ProgramType.STRUCT_OPS:
        raise SpecError(f"program {program.name!r}: this version cannot load struct_ops")
    if type not in _TYPES:
        return NONE
    if type is ProgramType.EXT:
        raise SpecError(
            f"program {program.name!r} replaces a function of another program, and none is given",
            hint=f"load(…, targets={{{program.name!r}: (program, 'function')}})",
        )
    if program.attach_type not in _PREFIXES:
        raise SpecError(
            f"program {program.name!r} ({type.label}) has no attach type that says what it is for"
        )
    prefix, what = _PREFIXES[program.attach_type]
    if not program.attach_to:
        raise SpecError(
            f"program {program.name!r}: its section {program.section!r} names no {what}",
            hint=f'write SEC("{program.section}/NAME"), or set '
            f'spec.programs["{program.name}"].attach_to = "NAME" before loading',
        )
    from ebpf.btf.types import Function, Typedef

    kind = Typedef if program.attach_type is AttachType.TRACE_RAW_TP else Function
    name = program.attach_to.rpartition(":")[2]  # "module:function"
    found = types.find(prefix + name, kind)
    if found is None:
        near = _nearest(types, prefix, kind, name)
        raise RelocationError(
            f"program {program.name!r}: this kernel has no {what} {name!r}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    return Target(found.id, found.btf_fd)


def _nearest(types: KernelTypes, prefix: str, kind: type[Type], name: str) -> str | None:
    from difflib import get_close_matches

    names = [t.name.removeprefix(prefix) for t in types.vmlinux.of_kind(kind) if t.name.startswith(prefix)]
    return next(iter(get_close_matches(name, names, n=1, cutoff=0.75)), None)


def _in_program(program: ProgramSpec, given: TargetProgram) -> Target:
    from ebpf.btf.types import Function
    from ebpf.loader.kernel_types import program_types

    btf = program_types(given.fd, f"program {given.name!r}")
    name = given.function or program.attach_to or given.name
    found = btf.get(name, Function)
    if found is None:
        known = ", ".join(sorted(function.name for function in btf.of_kind(Function)))
        raise RelocationError(
            f"program {program.name!r}: program {given.name!r} has no function {name!r}; it has: {known}"
        )
    return Target(found.id, 0, given.fd)
