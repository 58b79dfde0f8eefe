"""Loading a Spec into the running kernel: whole, or nothing of it stays behind."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ebpf.errors import SpecError, UnknownNameError
from ebpf.kernel import bpf
from ebpf.kernel.fd import FD
from ebpf.kernel.memlock import raise_limit
from ebpf.loader.btf import KernelBTF
from ebpf.loader.externs import Resolver
from ebpf.loader.kernel_types import KernelTypes
from ebpf.loader.maps import Maps
from ebpf.loader.object import Object
from ebpf.loader.program import Prepared, load_program, missing_type, prepare
from ebpf.loader.target import TargetProgram, find_target
from ebpf.maps.failures import errno_text, kernel_error
from ebpf.maps.map import Map
from ebpf.programs.program import Program
from ebpf.spec.model import Named, ProgramSpec, Spec
from ebpf.uapi import MapType, ProgramType

if TYPE_CHECKING:
    from ebpf.btf.btf import BTF


def load(
    spec: Spec,
    *,
    programs: Iterable[str] | None = None,
    types: Mapping[str, ProgramType | str] | None = None,
    maps: Mapping[str, Map] | None = None,
    pin_path: str | os.PathLike[str] | None = None,
    targets: Mapping[str, Program | tuple[Program, str]] | None = None,
    btf: BTF | str | os.PathLike[str] | None = None,
    log_level: int = 0,
) -> Object:
    """Create the maps and load the programs of a Spec; the Spec itself is not changed.

    `programs` names those to load, by default all whose section does not start with "?". `types` says what
    a program is whose section does not ("xdp" or ProgramType.XDP). `maps` are used in place of those that
    the object defines; they stay the caller's to close. Maps that are pinned by name live in `pin_path`,
    /sys/fs/bpf by default: one that is there is used if it is the same, and its content is left alone.
    `targets` gives the loaded program, and its function, that a program replaces (freplace) or traces. `btf`
    is what CO-RE relocates against, the running kernel by default. With a `log_level` (1, 2, 4 as the kernel
    has them) `Program.log` holds the verifier's log.

    Raises VerifierError for a program that the verifier refuses; SpecError for what cannot be loaded as it
    stands, RelocationError for what this kernel lacks; KernelError, with PrivilegeError and UnsupportedError,
    for what the kernel refuses otherwise. After an error nothing is left: no map, no program, no pin.
    """
    if spec.byteorder != sys.byteorder:
        raise SpecError(f"{spec.name!r} is {spec.byteorder}-endian; this machine is {sys.byteorder}-endian")
    chosen = _choose(spec, programs)
    kinds = _types(spec, chosen, types or {})
    raise_limit()
    notes: list[str] = []
    with ExitStack() as undo, ExitStack() as scope:
        kernel_types = KernelTypes(btf)
        scope.callback(kernel_types.close)

        # What is pure comes first, so that its errors cost nothing.
        kernel_btf = KernelBTF.of(spec)
        prepared = [prepare(spec, program, kinds[program.name], kernel_btf) for program in chosen]
        contents = _contents(spec)

        btf_fd = _load_btf(kernel_btf, scope, notes) if kernel_btf is not None else 0
        live_maps = Maps(
            spec,
            undo,
            btf_fd=btf_fd,
            given=maps or {},
            pin_path=os.fspath(pin_path) if pin_path is not None else None,
        )
        live_maps.create(contents)
        resolver = Resolver(spec, live_maps.all, kernel_types)
        live = _load_programs(
            spec,
            prepared,
            resolver,
            kernel_types,
            _given_targets(spec, targets or {}),
            undo,
            btf_fd,
            log_level,
        )
        _fill_program_arrays(spec, live_maps, live)
        undo.pop_all()
    return Object(spec, live, live_maps.all, foreign=frozenset(maps or ()), notes=tuple(notes))


def _choose(spec: Spec, names: Iterable[str] | None) -> list[ProgramSpec]:
    if names is None:
        return [program for program in spec.programs.values() if program.autoload]
    if isinstance(names, str):
        names = (names,)
    return [spec.programs[name] for name in dict.fromkeys(names)]


def _types(
    spec: Spec, chosen: list[ProgramSpec], given: Mapping[str, ProgramType | str]
) -> dict[str, ProgramType]:
    for name in given:
        if name not in spec.programs:
            raise UnknownNameError("program", name, spec.programs)
    found: dict[str, ProgramType] = {}
    for program in chosen:
        type = given.get(program.name, program.type)
        if type is None:
            raise missing_type(program)
        found[program.name] = _program_type(type) if isinstance(type, str) else type
    return found


def _program_type(name: str) -> ProgramType:
    known = {type.label: type for type in ProgramType}
    found = known.get(name.lower())
    if found is None:
        raise UnknownNameError("program type", name, known)
    return found


def _contents(spec: Spec) -> dict[str, bytes]:
    """What data maps hold that the Spec cannot know: the kernel's configuration."""
    config = spec.maps.get(".kconfig")
    if config is None:
        return {}
    from ebpf.loader.kconfig import fill

    return {".kconfig": fill(spec.externs.values(), config.value_size)}


def _load_btf(kernel_btf: KernelBTF, scope: ExitStack, notes: list[str]) -> int:
    """A descriptor of the object's types; 0, with a note, if the kernel refuses them: most load without."""
    for static_functions in (False, True):
        try:
            fd = bpf.btf_load(kernel_btf.to_bytes(static_functions=static_functions))
        except OSError as error:
            if error.errno == errno.EPERM:
                raise kernel_error(error, "load the object's types (BTF)") from None
            refused = error
        else:
            if static_functions:
                notes.append("this kernel knows no global functions (5.6): they are verified at each call")
            return scope.enter_context(FD(fd, "BTF")).fileno()
    notes.append(
        f"this kernel refused the object's types ({errno_text(refused.errno or 0)}): maps have no BTF, and "
        "programs no source lines"
    )
    return 0


def _given_targets(
    spec: Spec, targets: Mapping[str, Program | tuple[Program, str]]
) -> dict[str, TargetProgram]:
    found = {}
    for name, target in targets.items():
        if name not in spec.programs:
            raise UnknownNameError("program", name, spec.programs)
        program, function = target if isinstance(target, tuple) else (target, None)
        found[name] = TargetProgram(program.fileno(), program.name, function)
    return found


def _load_programs(
    spec: Spec,
    prepared: list[Prepared],
    resolver: Resolver,
    types: KernelTypes,
    targets: Mapping[str, TargetProgram],
    undo: ExitStack,
    btf_fd: int,
    log_level: int,
) -> Named[Program]:
    live = Named[Program]("program")
    for each in prepared:
        name = each.spec.name
        loaded = load_program(
            each,
            resolver,
            license=spec.license,
            kernel_version=spec.kernel_version or _kernel_version(each.type),
            btf_fd=btf_fd,
            target=find_target(each.spec, each.type, types, targets.get(name)),
            log_level=log_level,
        )
        program = Program(FD(loaded.fd, f"program {name!r}"), each.type, name, log=loaded.log)
        live[name] = undo.enter_context(program)
    return live


def _kernel_version(type: ProgramType) -> int:
    """What kernels before 5.0 want to be told of a kprobe: the version that it was compiled for."""
    if type is not ProgramType.KPROBE:
        return 0
    from ebpf.loader.kconfig import version_code

    return version_code()


def _fill_program_arrays(spec: Spec, maps: Maps, live: Named[Program]) -> None:
    for name, array in spec.maps.items():
        if array.type is not MapType.PROG_ARRAY or name in maps.reused:
            continue
        for index, program in array.slots.items():
            if program not in live:
                raise SpecError(
                    f"slot {index} of map {name!r} is for program {program!r}, which is not to be loaded",
                    hint=f"load it too, or del spec.maps[{name!r}].slots[{index}]",
                )
            maps.all[name].put(index, live[program])
