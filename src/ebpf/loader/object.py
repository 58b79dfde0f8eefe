"""What loading gives: live programs, maps and variables that are closed together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from ebpf.errors import Error
from ebpf.loader.names import map_name
from ebpf.maps.map import Map
from ebpf.programs.program import Program
from ebpf.spec.model import Named, Spec, VariableSpec

if TYPE_CHECKING:
    from ebpf.btf.values import Codec
    from ebpf.maps.memory import MapMemory


class Object:
    """A Spec in the kernel: use `with`, or `close()` it. What nothing else holds is unloaded then.

    `notes` says in words what this kernel could not have as the object asks for it, such as its types.
    """

    def __init__(
        self,
        spec: Spec,
        programs: Named[Program],
        maps: Named[Map],
        *,
        foreign: frozenset[str] = frozenset(),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec  #: what it was loaded from
        self.programs = programs
        self.maps = maps
        self.notes = notes
        self._foreign = foreign  # maps that the caller gave, and closes
        self.variables = LiveVariables(spec, maps)

    def close(self) -> None:
        """Close everything; what is attached or pinned stays. A second time does nothing."""
        self.variables.close()
        for program in self.programs.values():
            program.close()
        for name, map in self.maps.items():
            if name not in self._foreign:
                map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def pin(self, folder: str | os.PathLike[str]) -> None:
        """Pin every program and map in a folder of a bpffs, by name, as `bpftool prog loadall` does.

        Maps of variables get their kernel name with "_" for "." ("count_bss"). All or nothing: if one name is
        taken, none stays pinned.
        """
        names: dict[str, str] = {}
        with ExitStack() as undo:
            for pinned, name in self._pin_names():
                clash = names.setdefault(name, repr(pinned))
                if clash != repr(pinned):
                    raise Error(f"cannot pin both {clash} and {pinned!r} as {name!r}")
                undo.callback(pinned.unpin, pinned.pin(os.path.join(folder, name)))
            undo.pop_all()

    def _pin_names(self) -> Iterator[tuple[Program | Map, str]]:
        for name, program in self.programs.items():
            yield program, name
        for name, live in self.maps.items():
            spec = self.spec.maps[name]
            yield live, (map_name(spec, self.spec.name) if spec.is_data else name).replace(".", "_")

    def __repr__(self) -> str:
        return f"<Object {self.spec.name!r}: programs {list(self.programs)}, maps {list(self.maps)}>"


class LiveVariables(MutableMapping[str, Any]):
    """The global variables of a loaded object: reads and writes go to the running programs' memory.

    Writing touches the variable's own bytes only where the map can be mapped (5.5, global variables).
    Elsewhere the whole section is read and written back, and what a program changes meanwhile in it is lost.
    """

    def __init__(self, spec: Spec, maps: Mapping[str, Map]) -> None:
        self._places = spec.variables.places
        self._spec = spec
        self._maps = maps
        self._memories: dict[str, MapMemory] = {}

    def __getitem__(self, name: str) -> Any:
        place = self._places[name]
        return _codec(place).decode(self._memory(place.map).read(place.offset, place.size))

    def __setitem__(self, name: str, value: Any) -> None:
        place = self._places[name]
        if self._spec.maps[place.map].is_readonly:
            raise Error(
                f"variable {name!r} is in {place.map}, which is frozen once it is loaded",
                hint="set it before: spec.variables[…] = …, then spec.load()",
            )
        self._memory(place.map).write(place.offset, _codec(place).encode(value, where=name))

    def __delitem__(self, name: str) -> None:
        raise TypeError("variables of a loaded object cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return f"LiveVariables({list(self._places)})"

    def close(self) -> None:
        """Unmap what was mapped."""
        for memory in self._memories.values():
            memory.close()
        self._memories.clear()

    def _memory(self, name: str) -> MapMemory:
        memory = self._memories.get(name)
        if memory is None or self._maps[name].closed:
            from ebpf.maps.memory import MapMemory

            memory = self._memories[name] = MapMemory(self._maps[name])
        return memory


def _codec(place: VariableSpec) -> Codec:
    from ebpf.btf.values import variable_codec

    return variable_codec(place.type, place.size)
