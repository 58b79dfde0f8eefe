"""Entries of maps as rows of a table: a column for each field of the key and of the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ebpf.cli.output import Column
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.cli.typed import Formats
    from ebpf.maps.map import Map

_NONE: Formats = {}
_LONG_ARRAY = 16  #: elements of an array that are shown; JSON has all


class Entry(NamedTuple):
    """A key and what is under it: one value, or one per CPU and their sum where there is one."""

    key: Any
    value: Any  #: of a per-CPU map the sum; None where it has no sum
    per_cpu: tuple[Any, ...] | None = None


def read(live: Map) -> list[Entry]:
    """All entries of a map, in a stable order; those of an array that are all zero included."""
    return in_order([make_entry(key, value) for key, value in live.items()])


def in_order(entries: list[Entry]) -> list[Entry]:
    """Sorted by key, where keys can be."""
    try:
        return sorted(entries, key=lambda entry: _order(entry.key))
    except TypeError:
        return entries


def make_entry(key: Any, value: Any) -> Entry:
    """An entry of what a lookup gave; maps in maps are closed and become their ids."""
    from ebpf.maps.map import Map
    from ebpf.maps.percpu import PerCpu

    if isinstance(value, Map):
        with value:
            return Entry(key, value.id)
    if not isinstance(value, PerCpu):
        return Entry(key, value)
    try:
        return Entry(key, value.sum(), tuple(value))
    except Error:  # a field that cannot be added up
        return Entry(key, None, tuple(value))


def _order(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(_order(item) for item in value.values())
    if isinstance(value, tuple):
        return tuple(map(_order, value))
    return value


def entry_json(entry: Entry) -> dict[str, Any]:
    """key and value; of a per-CPU map also per_cpu, and value is the sum, or null where there is none."""
    from ebpf.btf.structvalue import plain

    facts = {"key": plain(entry.key), "value": plain(entry.value)}
    return facts if entry.per_cpu is None else facts | {"per_cpu": [plain(value) for value in entry.per_cpu]}


def columns_and_rows(
    entries: list[Entry], forms: tuple[Formats, Formats] = (_NONE, _NONE), *, each_cpu: bool = False
) -> tuple[list[Column], list[list[str]]]:
    """The table: fields of the key first. `each_cpu` gives a row per CPU in place of the sum."""
    key_formats, value_formats = forms
    keys = [flatten(entry.key, "key", key_formats) for entry in entries]
    lines: list[tuple[int, dict[str, Any]]] = []  # which entry, its value's cells
    for number, entry in enumerate(entries):
        if entry.per_cpu is None or (entry.value is not None and not each_cpu):
            lines.append((number, flatten(entry.value, "value", value_formats)))
        else:
            lines += [
                (number, {"cpu": cpu, **flatten(value, "value", value_formats)})
                for cpu, value in enumerate(entry.per_cpu)
            ]
    key_titles = list(dict.fromkeys(title for cells in keys for title in cells))
    value_titles = list(dict.fromkeys(title for _, cells in lines for title in cells))
    sample_key = keys[0] if keys else {}
    sample_value = lines[0][1] if lines else {}
    columns = [Column(title, "cyan", right=is_number(sample_key.get(title))) for title in key_titles]
    columns += [
        Column(f"value.{title}" if title in key_titles else title, right=is_number(sample_value.get(title)))
        for title in value_titles
    ]
    rows = [
        [text(keys[number].get(title)) for title in key_titles]
        + [text(cells.get(title)) for title in value_titles]
        for number, cells in lines
    ]
    return columns, rows


def flatten(value: Any, name: str, formats: Formats = _NONE) -> dict[str, Any]:
    """The parts of a value by path: {"saddr": 1, "ports.source": 2}; of what has no parts, {name: value}.

    A part that has a format is that text.
    """
    cells: dict[str, Any] = {}
    _flatten(value, name, "", formats, cells)
    return cells


def _flatten(value: Any, path: str, prefix: str, formats: Formats, cells: dict[str, Any]) -> None:
    if path in formats and value is not None:
        cells[path] = formats[path](value)
    elif isinstance(value, Mapping):
        for field, item in value.items():
            _flatten(item, f"{prefix}{field}", f"{prefix}{field}.", formats, cells)
    else:
        cells[path] = value


def text(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return value.hex(" ") or "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text(item)}" for name, item in value.items())
    if isinstance(value, tuple | list):
        shown = " ".join(text(item) for item in value[:_LONG_ARRAY])
        more = f" … {len(value) - _LONG_ARRAY} more" if len(value) > _LONG_ARRAY else ""
        return f"[{shown}{more}]"
    return str(value)


def printable(value: str) -> str:
    """Without what a terminal would obey: control characters, as what programs print may hold."""
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)


def is_number(value: Any) -> bool:
    """Whether it is a plain number, not a flag or an enumerator with a name."""
    return isinstance(value, int) and not isinstance(value, bool) and str(value).lstrip("-").isdigit()
