"""Reading a compiled object into a Spec."""

from __future__ import annotations

import builtins
import os
from collections.abc import Collection, Sequence

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.ext import parse_ext
from ebpf.btf.layout import resolve
from ebpf.errors import BTFError, ObjectError
from ebpf.spec.code import Function, find_functions, read_instructions
from ebpf.spec.elf import Elf
from ebpf.spec.externs import KCONFIG, kconfig_map, read_externs
from ebpf.spec.maps import read_maps, read_slots
from ebpf.spec.model import FunctionSpec, MapSpec, ProgramSpec, Spec
from ebpf.spec.relocations import Resolver
from ebpf.spec.sections import match
from ebpf.spec.source import ObjectSource
from ebpf.spec.variables import read_data, read_variables

#: Bytes; the largest objects, with all debug information, have a few million.
_MAX_FILE = 1 << 28


def open(path: str | os.PathLike[str]) -> Spec:
    """Read the object file that `clang -target bpf -c` wrote. Needs no privileges and touches no kernel.

    The Spec is named after the file, up to its first dot. Raises ObjectError for a file that cannot be read,
    is no BPF object, or is malformed.
    """
    path = os.fspath(path)
    try:
        with builtins.open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise ObjectError(f"there is no file {path!r}") from None
    except OSError as error:
        raise ObjectError(f"{path!r} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise ObjectError(f"{path!r} is larger than {_MAX_FILE} bytes: no BPF object")
    name = path.rpartition(os.sep)[2]
    try:
        return read_object(data, name=name.partition(".")[0] or name)
    except ObjectError as error:
        if name.endswith((".c", ".h")):
            raise ObjectError(error.message, hint="it is C source: use ebpf.compile() for it") from None
        raise


def read_object(data: bytes, *, name: str) -> Spec:
    """Read an ELF object that is in memory; `name` is that of the Spec.

    Raises ObjectError for what is no BPF object or contradicts itself, BTFError for malformed types.
    """
    try:
        return _read(data, name)
    except BTFError as error:
        raise BTFError(f"{name}: {error.message}", hint=error.hint) from None


def _read(data: bytes, name: str) -> Spec:
    elf = Elf(data, name=name)
    btf = ext = None
    section = elf.section(".BTF")
    if section is not None and section.size:
        btf = BTF.from_bytes(elf.data(section))
        if btf.byteorder != elf.byteorder:
            raise BTFError(f"a {elf.byteorder}-endian object with {btf.byteorder}-endian BTF")
        section = elf.section(".BTF.ext")
        if section is not None and section.size:
            ext = parse_ext(bytes(elf.data(section)), btf)
    source = ObjectSource(name, elf, btf, ext)

    functions = find_functions(source)
    places = read_maps(source)
    tails: Collection[str] = ()
    if any(section.name.startswith("maps") for section in elf.sections):
        from ebpf.spec.legacy_maps import read_legacy_maps, tail_calls  # old objects only

        places += read_legacy_maps(source, functions)
        tails = tail_calls(functions)
    read_slots(source, places, functions)
    data_maps = read_data(source)
    variables = read_variables(source, data_maps)
    externs = read_externs(source)
    resolver = Resolver(
        source,
        functions=functions,
        maps={(place.section, place.offset): place.spec.name for place in places},
        data=data_maps,
        externs=externs,
    )
    read_instructions(source, functions, resolver)

    kconfig = kconfig_map(externs, source.data_section(KCONFIG))
    maps = [
        *(place.spec for place in places),
        *data_maps.values(),
        *([kconfig] if kconfig else []),
    ]
    if any(".struct_ops" in section.name for section in elf.sections):
        from ebpf.spec.struct_ops import read_struct_ops  # few objects need it

        maps += read_struct_ops(source, functions)
    programs, subprograms = _programs(source, functions, tails), {}
    for function in functions:
        if function.name not in programs:
            subprograms[function.name] = FunctionSpec(
                function.name,
                function.section.name,
                function.instructions,
                function.is_global,
                function.type_id,
            )
    return Spec(
        name,
        programs=programs,
        functions=subprograms,
        maps=_by_name(source, maps),
        variables=variables,
        externs=externs,
        btf=btf,
        license=_license(source),
        kernel_version=_version(source),
        byteorder=elf.byteorder,
        diagnostics=tuple(source.diagnostics),
    )


def _by_name(source: ObjectSource, maps: Sequence[MapSpec]) -> dict[str, MapSpec]:
    named: dict[str, MapSpec] = {}
    for spec in maps:
        if spec.name in named:
            raise source.error(f"two maps are named {spec.name!r}")
        named[spec.name] = spec
    return named


def _programs(
    source: ObjectSource, functions: Sequence[Function], tails: Collection[str]
) -> dict[str, ProgramSpec]:
    found = [function for function in functions if function.is_program]
    if not found and len(functions) == 1 and functions[0].symbol.is_global:
        # As libbpf: code without SEC() that stands alone can only be meant to be loaded.
        found = [functions[0]]
    programs = {function.name: _program(source, function) for function in found}
    # Tail calls in iproute2's convention are of the type of the program that makes them.
    types = {program.type for program in programs.values() if program.type is not None}
    if len(types) == 1:
        for name in tails:
            if programs[name].type is None:
                programs[name].type, programs[name].inferred = next(iter(types)), True
    return programs


def _program(source: ObjectSource, function: Function) -> ProgramSpec:
    section = function.section.name
    found = match(section, context=_context(source, function))
    spec = ProgramSpec(
        function.name,
        section.removeprefix("?"),
        function.instructions,
        autoload=not section.startswith("?"),
        type_id=function.type_id,
    )
    if found is not None:
        spec.type, spec.attach_type, spec.flags = found.type, found.attach_type, found.flags
        spec.attach_to, spec.inferred = found.attach_to, found.inferred
    return spec


def _context(source: ObjectSource, function: Function) -> str | None:
    """The name of the struct that the function's first parameter points to, where BTF tells."""
    if source.btf is None or not function.type_id:
        return None
    type = source.btf.type(function.type_id)
    if not isinstance(type, t.Function) or not type.proto.parameters:
        return None
    pointer = resolve(type.proto.parameters[0].type)
    target = resolve(pointer.target) if isinstance(pointer, t.Pointer) else None
    return target.name if isinstance(target, t.Struct | t.Forward) else None


def _license(source: ObjectSource) -> str:
    section = source.elf.section("license")
    if section is None:
        return ""
    return bytes(source.elf.data(section)).partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _version(source: ObjectSource) -> int:
    section = source.elf.section("version")
    if section is None:
        return 0
    if section.size != 4:
        raise source.error(f"section 'version' holds {section.size} bytes; a 32-bit number is expected")
    return int.from_bytes(source.elf.data(section), source.elf.byteorder)
