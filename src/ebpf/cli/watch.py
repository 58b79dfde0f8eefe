"""Sampling the maps and variables of a loaded object, and how fast they change."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ebpf.cli import entries
from ebpf.cli.entries import Entry
from ebpf.cli.typed import Formats, forms_of
from ebpf.maps.codecs import FD_VALUES
from ebpf.maps.operations import LOOKUP, WALK, operations
from ebpf.uapi import MapType

if TYPE_CHECKING:
    from ebpf.loader.object import Object
    from ebpf.maps.map import Map

READ_AT_MOST = 4096  #: entries of a map per sample
VARIABLES = "variables"
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
#: Filled by user space; what is in them does not change by itself.
_TABLES = frozenset(FD_VALUES) | {MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP}


class Row(NamedTuple):
    """An entry, its parts by path, and the change per second of those that are numbers."""

    entry: Entry
    key: dict[str, Any]
    value: dict[str, Any]
    rates: dict[str, float]
    changed: bool  #: since the last sample, or new


class Sample(NamedTuple):
    """A map at one time."""

    name: str
    type: str
    size: int | None  #: of an array, in which only what is not zero is a row
    rows: list[Row]
    is_cut: bool  #: whether the map has more entries than were read
    gone: list[Row]  #: those that were in the last sample and are not now


class Watcher:
    """Samples what is worth watching in an object: its maps with entries, and its variables."""

    def __init__(self, live: Object) -> None:
        self._live = live
        self._maps = [
            each for name, each in live.maps.items() if _is_watched(each) and not _is_data(live, name)
        ]
        self._variables = [
            name
            for name, place in live.spec.variables.places.items()
            if not live.spec.maps[place.map].is_readonly and place.type is not None
        ]
        self._forms = {each.name: forms_of(each) for each in self._maps}
        self._last: dict[str, tuple[float, dict[str, Row]]] = {}

    def sample(self) -> list[Sample]:
        """Everything, now."""
        samples = [self._sample(each.name, each, *_read(each)) for each in self._maps]
        if self._variables:
            values = [Entry(name, self._live.variables[name]) for name in self._variables]
            samples.append(self._sample(VARIABLES, None, values, False))
        return samples

    def _sample(self, name: str, source: Map | None, found: Iterable[Entry], is_cut: bool) -> Sample:
        now = time.monotonic()
        before, old = self._last.get(name, (now, None))
        key_forms, value_forms = self._forms.get(name, ({}, {}))
        rows: dict[str, Row] = {}
        for entry in found:
            label, value = repr(entry.key), _parts(entry, value_forms)
            known = old.get(label) if old is not None else None
            rows[label] = Row(
                entry,
                entries.flatten(entry.key, "key", key_forms),
                value,
                _rates(value, known.value if known else {}, now - before) if old is not None else {},
                known is None or known.value != value,
            )
        gone = [] if is_cut or old is None else [row for label, row in old.items() if label not in rows]
        self._last[name] = now, rows
        size = source.max_entries if source is not None and source.type in _ARRAYS else None
        return Sample(name, str(source.type) if source else "", size, list(rows.values()), is_cut, gone)


def _is_data(live: Object, name: str) -> bool:
    return live.spec.maps[name].is_data


def _is_watched(each: Map) -> bool:
    return (
        each.type not in _TABLES and operations(each.type) & WALK != 0 and operations(each.type) & LOOKUP != 0
    )


def _read(each: Map) -> tuple[list[Entry], bool]:
    """The entries, those of arrays that are zero left out, and whether there are more."""
    pairs = list(islice(each.items(), READ_AT_MOST + 1))
    is_cut = len(pairs) > READ_AT_MOST
    found = [entries.make_entry(key, value) for key, value in pairs[:READ_AT_MOST]]
    if each.type in _ARRAYS:
        found = [entry for entry in found if any(map(_is_set, _parts(entry, {}).values()))]
    return entries.in_order(found), is_cut


def _parts(entry: Entry, forms: Formats) -> dict[str, Any]:
    """The value's parts: the sum over the CPUs, or where there is none, each CPU's."""
    if entry.value is None and entry.per_cpu is not None:
        return {
            f"cpu{cpu}.{path}": part
            for cpu, value in enumerate(entry.per_cpu)
            for path, part in entries.flatten(value, "value", forms).items()
        }
    return entries.flatten(entry.value, "value", forms)


def _is_set(part: Any) -> bool:
    return any(map(_is_set, part)) if isinstance(part, tuple) else bool(part)


def _rates(value: dict[str, Any], before: dict[str, Any], seconds: float) -> dict[str, float]:
    """Change per second of the parts that count upwards; a new entry has counted from 0."""
    if seconds <= 0:
        return {}
    return {
        path: (part - before.get(path, 0)) / seconds
        for path, part in value.items()
        if entries.is_number(part) and part > before.get(path, 0)
    }
