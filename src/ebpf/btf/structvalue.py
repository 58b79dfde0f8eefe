"""What decoded values are: structs and unions as `StructValue`, enums as `EnumValue`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

from ebpf.errors import Error


class EnumValue(int):
    """A value of an enum: an int whose repr is its name. Numbers without a name stay plain numbers."""

    _names: ClassVar[dict[int, str]] = {}

    @property
    def name(self) -> str | None:
        """The enumerator; None for a number that the enum does not name."""
        return self._names.get(int(self))

    def __repr__(self) -> str:
        return self.name or int.__repr__(self)

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return (
            format(str(self), spec) if not spec or spec[-1] in "s<>^0123456789" else format(int(self), spec)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_enum, (type(self).__name__, tuple(self._names.items()), int(self))


def enum_class(name: str, members: tuple[tuple[int, str], ...]) -> type[EnumValue]:
    """The class for an enum of these (value, name); of several names for a value, the first counts."""
    names: dict[int, str] = {}
    for value, label in members:
        names.setdefault(value, label)
    return type(name or "enum", (EnumValue,), {"_names": names, "__module__": EnumValue.__module__})


_enum_class = lru_cache(256)(enum_class)


def _restore_enum(name: str, members: tuple[tuple[int, str], ...], value: int) -> EnumValue:
    return _enum_class(name, members)(value)


class StructValue(Mapping[str, Any]):
    """A decoded struct or union: immutable, hashable, fields by attribute and by name.

    It is equal to a StructValue or dict with the same fields and values. Fields of anonymous members are
    fields of the struct, as in C. Where a field has the name of a method of mappings ("keys", "items"), the
    attribute is the field.
    """

    __slots__ = ("_raw", "_values")

    _fields: ClassVar[tuple[str, ...]] = ()
    _places: ClassVar[dict[str, int]] = {}
    _values: tuple[Any, ...]
    #: The codec and the bytes it was decoded from, where these hold more than the fields show (padding).
    _raw: tuple[object, bytes] | None

    def __getitem__(self, name: str) -> Any:
        return self._values[self._places[name]]

    def __getattr__(self, name: str) -> Any:
        from difflib import get_close_matches

        near = get_close_matches(name, self._fields, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a dict of it, and change that")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StructValue) and other._fields == self._fields:
            return self._values == other._values
        if isinstance(other, Mapping):
            return dict(zip(self._fields, self._values, strict=True)) == dict(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        pairs = zip(self._fields, self._values, strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_struct, (type(self).__name__, self._fields, self._values)

    def _asdict(self) -> dict[str, Any]:
        """A dict of the fields; nested values stay as they are."""
        return dict(zip(self._fields, self._values, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested data, as `plain` makes it."""
        return {name: plain(value) for name, value in zip(self._fields, self._values, strict=True)}


# Past the guard of __setattr__.
_set_values: Callable[[StructValue, tuple[Any, ...]], None] = StructValue.__dict__["_values"].__set__
_set_raw: Callable[[StructValue, tuple[object, bytes] | None], None] = StructValue.__dict__["_raw"].__set__


@lru_cache(1024)
def struct_class(name: str, fields: tuple[str, ...]) -> type[StructValue]:
    """The class for structs of a name and fields; the same one for the same arguments."""
    namespace: dict[str, Any] = {
        field: property(_getter(place))
        for place, field in enumerate(fields)
        # These would break the object; they can be had as items.
        if field not in _RESERVED and not (field.startswith("__") and field.endswith("__"))
    }
    namespace |= {
        "__slots__": (),
        "__module__": StructValue.__module__,
        "__match_args__": fields,
        "_fields": fields,
        "_places": {field: place for place, field in enumerate(fields)},
    }
    return type(name or "struct", (StructValue,), namespace)


def _getter(place: int) -> Callable[[StructValue], Any]:
    return lambda self: self._values[place]


_RESERVED = frozenset({"_asdict", "_fields", "_places", "_raw", "_values", "_abc_impl"})


def make_struct(cls: type[StructValue], values: tuple[Any, ...]) -> StructValue:
    """A value of a class that `struct_class` gave."""
    value = object.__new__(cls)
    _set_values(value, values)
    _set_raw(value, None)
    return value


def _restore_struct(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> StructValue:
    return make_struct(struct_class(name, fields), values)


def plain(value: Any) -> Any:
    """A decoded value as plain data for JSON: dicts, lists, numbers, strings.

    Enums become their names, bytes "hex:0a 00", both of which `ebpf.btf.text.parse` reads back.
    """
    match value:
        case StructValue():
            return {name: plain(item) for name, item in zip(value._fields, value._values, strict=True)}
        case EnumValue():
            return value.name or int(value)
        case str():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return f"hex:{bytes(value).hex(' ')}"
        case Mapping():
            return {plain(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            raise Error(f"{type(value).__name__} is no value of a BTF type")
