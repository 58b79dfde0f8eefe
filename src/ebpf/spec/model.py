"""What a BPF object is, as pure data: programs, maps, variables, types.

Making or editing a Spec never touches the kernel; `Spec.load` is where it meets the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ebpf.errors import UnknownNameError
from ebpf.isa.instruction import Instruction
from ebpf.uapi import AttachType, MapType, ProgramType

if TYPE_CHECKING:
    from os import PathLike

    from ebpf.btf.btf import BTF
    from ebpf.btf.types import Type
    from ebpf.errors import Diagnostic
    from ebpf.loader.object import Object
    from ebpf.maps.map import Map
    from ebpf.programs.program import Program

T = TypeVar("T")


class Named(dict[str, T]):
    """Programs, maps or functions by name; a name that is not there is an error that lists those that are."""

    def __init__(self, kind: str, items: Mapping[str, T] | None = None) -> None:
        super().__init__(items or {})
        self.kind = kind

    def __missing__(self, name: str) -> T:
        raise UnknownNameError(self.kind, name, self)


class Pinning(IntEnum):
    """enum libbpf_pin_type: the `pinning` of a map definition."""

    NONE = 0
    BY_NAME = 1


@dataclass(slots=True)
class MapSpec:
    """A map to be created. Sizes are in bytes; `key` and `value` are None where the object has no types."""

    name: str
    type: MapType
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    flags: int = 0  #: MapFlags
    key: Type | None = None
    value: Type | None = None
    pinning: Pinning = Pinning.NONE
    inner: MapSpec | None = None  #: the template of a map-in-map
    slots: dict[int, str] = field(default_factory=dict)
    """Initial entries by index: names of maps (map-in-map) or programs (prog array; for struct_ops the index
    is the member's)."""
    data: bytearray | None = None
    """Initial bytes, for the maps behind .data, .rodata and .bss, and for struct_ops; None for all others."""
    numa_node: int | None = None
    extra: int = 0  #: map_extra: hash count of a bloom filter, address of an arena

    @property
    def is_data(self) -> bool:
        """Whether it holds global variables."""
        return self.data is not None and self.type is not MapType.STRUCT_OPS

    @property
    def is_readonly(self) -> bool:
        """Whether it is frozen once loaded: .rodata."""
        return self.is_data and self.section.startswith((".rodata", ".kconfig"))

    @property
    def section(self) -> str:
        """The ELF section of a data map, such as ".rodata"; the name of any other map."""
        index = self.name.find(".")
        return self.name[index:] if index >= 0 else self.name

    def copy(self) -> MapSpec:
        """An independent copy; BTF types are shared, being immutable."""
        return replace(
            self,
            slots=dict(self.slots),
            inner=self.inner.copy() if self.inner else None,
            data=bytearray(self.data) if self.data is not None else None,
        )


@dataclass(slots=True)
class ProgramSpec:
    """A program to be loaded. `instructions` are its own function's; subprograms are in `Spec.functions`."""

    name: str
    section: str
    instructions: list[Instruction]
    type: ProgramType | None = None  #: None: the section name does not tell, and the user must
    attach_type: AttachType | None = None
    attach_to: str | None = None  #: what the section names: "syscalls/sys_enter_openat", "tcp_v4_connect", …
    flags: int = 0  #: ProgramFlags
    autoload: bool = True  #: False for a section that starts with "?"
    type_id: int = 0  #: of its BTF function; 0 without BTF
    inferred: bool = False  #: the section has none of libbpf's names; `type` follows from what is plain


@dataclass(slots=True)
class FunctionSpec:
    """A function that programs call (BPF-to-BPF) or pass as a callback."""

    name: str
    section: str
    instructions: list[Instruction]
    is_global: bool = False  #: verified on its own; static functions are verified at each call
    type_id: int = 0


@dataclass(slots=True)
class VariableSpec:
    """Where a global variable lives; offset and size in bytes."""

    name: str
    map: str  #: name of the data map that holds it
    offset: int
    size: int
    type: Type | None = None


@dataclass(slots=True)
class ExternSpec:
    """A symbol that the kernel provides: `__ksym` or `__kconfig`."""

    name: str
    section: Literal[".ksyms", ".kconfig"]
    type: Type | None = None
    is_function: bool = False
    is_weak: bool = False
    offset: int = 0  #: bytes into the .kconfig data map
    size: int = 0


class Variables(MutableMapping[str, Any]):
    """The global variables of a Spec: reads and writes their initial values, typed by BTF."""

    def __init__(self, spec: Spec, places: dict[str, VariableSpec]) -> None:
        self._spec = spec
        self.places = Named("variable", places)

    def _data(self, variable: VariableSpec) -> bytearray:
        data = self._spec.maps[variable.map].data
        assert data is not None  # the reader makes variables only for data maps
        return data

    def __getitem__(self, name: str) -> Any:
        from ebpf.btf.values import variable_codec

        variable = self.places[name]
        return variable_codec(variable.type, variable.size).decode(self._data(variable), variable.offset)

    def __setitem__(self, name: str, value: Any) -> None:
        from ebpf.btf.values import variable_codec

        variable = self.places[name]
        encoded = variable_codec(variable.type, variable.size).encode(value)
        self._data(variable)[variable.offset : variable.offset + variable.size] = encoded

    def __delitem__(self, name: str) -> None:
        raise TypeError("variables of a compiled object cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __repr__(self) -> str:
        return f"Variables({dict(self)!r})"


class Spec:
    """A BPF object as one value: what the kernel, the VM and the tools accept.

    Edit it freely before loading; `copy()` gives an independent one.
    """

    def __init__(
        self,
        name: str,
        *,
        programs: Mapping[str, ProgramSpec] | None = None,
        functions: Mapping[str, FunctionSpec] | None = None,
        maps: Mapping[str, MapSpec] | None = None,
        variables: dict[str, VariableSpec] | None = None,
        externs: Mapping[str, ExternSpec] | None = None,
        btf: BTF | None = None,
        license: str = "",
        kernel_version: int = 0,
        byteorder: Literal["little", "big"] = "little",
        diagnostics: tuple[Diagnostic, ...] = (),
    ) -> None:
        self.name = name
        self.programs = Named("program", programs)
        self.functions = Named("function", functions)
        self.maps = Named("map", maps)
        self.variables = Variables(self, variables or {})
        self.externs = Named("extern", externs)
        self.btf = btf
        self.license = license  #: as the object says; empty where it says nothing
        self.kernel_version = kernel_version
        self.byteorder = byteorder
        self.diagnostics = diagnostics  #: the compiler's warnings

    def __repr__(self) -> str:
        return f"Spec({self.name!r}, programs={list(self.programs)}, maps={list(self.maps)})"

    def copy(self) -> Spec:
        """An independent copy; types and instructions are shared, being immutable."""
        return Spec(
            self.name,
            programs={
                name: replace(program, instructions=list(program.instructions))
                for name, program in self.programs.items()
            },
            functions={
                name: replace(function, instructions=list(function.instructions))
                for name, function in self.functions.items()
            },
            maps={name: spec.copy() for name, spec in self.maps.items()},
            variables={name: replace(place) for name, place in self.variables.places.items()},
            externs={name: replace(extern) for name, extern in self.externs.items()},
            btf=self.btf,
            license=self.license,
            kernel_version=self.kernel_version,
            byteorder=self.byteorder,
            diagnostics=self.diagnostics,
        )

    def load(
        self,
        *,
        programs: Iterable[str] | None = None,
        types: Mapping[str, ProgramType | str] | None = None,
        maps: Mapping[str, Map] | None = None,
        pin_path: str | PathLike[str] | None = None,
        targets: Mapping[str, Program | tuple[Program, str]] | None = None,
        btf: BTF | str | PathLike[str] | None = None,
        log_level: int = 0,
    ) -> Object:
        """Load it into the running kernel: all of it, or nothing of it stays behind.

        The options and the errors are those of `ebpf.loader.load.load`.
        """
        from ebpf.loader.load import load

        return load(
            self,
            programs=programs,
            types=types,
            maps=maps,
            pin_path=pin_path,
            targets=targets,
            btf=btf,
            log_level=log_level,
        )
