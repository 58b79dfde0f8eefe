"""Values of per-CPU maps: one per possible CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from ebpf.btf.structvalue import StructValue, make_struct
from ebpf.errors import Error, ValueRangeError
from ebpf.kernel.features import possible_cpus

T = TypeVar("T")


class PerCpu(Sequence[T], Generic[T]):
    """One value per possible CPU, in order of CPU number."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[T]) -> None:
        self._values = tuple(values)

    @classmethod
    def of(cls, value: T) -> PerCpu[T]:
        """The same value for every possible CPU of this machine."""
        return cls([value] * possible_cpus())

    def sum(self) -> T:
        """All CPUs added up: integers, and structs and arrays of integers field by field.

        Error names the field that cannot be summed, such as text, a flag or an enumerator.
        """
        if not self._values:
            raise Error("no CPU, no sum")
        total: T = _sum(self._values, "value")
        return total

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[T]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PerCpu):
            return self._values == other._values
        if isinstance(other, (list, tuple)):
            return self._values == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"PerCpu({list(self._values)!r})"


def _sum(values: Sequence[Any], place: str) -> Any:
    first = values[0]
    kind = type(first)
    if kind in (int, float):
        return sum(values)
    if isinstance(first, Mapping):
        fields = {name: _sum([value[name] for value in values], f"{place}.{name}") for name in first}
        if isinstance(first, StructValue):
            return make_struct(kind, tuple(fields.values()))
        return fields
    if kind is tuple:
        return tuple(_sum(column, f"{place}[{i}]") for i, column in enumerate(zip(*values, strict=True)))
    raise Error(f"{place} is {kind.__name__} {first!r}, which cannot be summed over CPUs")


def per_cpu_values(value: object, what: str) -> Sequence[Any]:
    """The values to be written, one per possible CPU; anything else is an error that says what to give."""
    if not isinstance(value, (PerCpu, list)):
        raise ValueRangeError(
            f"{what} holds one value per CPU and was given {value!r}",
            hint=f"give a list of {possible_cpus()} values, or PerCpu.of(value) for the same on every CPU",
        )
    if len(value) != possible_cpus():
        raise ValueRangeError(
            f"{what} holds one value for each of {possible_cpus()} possible CPUs, and {len(value)} were given"
        )
    return value
