"""Creating the maps of an object: fresh, pinned by name, or the caller's."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from ebpf.errors import Error, KernelError, SpecError, UnknownNameError
from ebpf.kernel.memlock import kernel_version
from ebpf.loader.names import map_name
from ebpf.maps.map import Map
from ebpf.spec.model import MapSpec, Named, Pinning, Spec
from ebpf.uapi import MapFlags, MapType

#: Types that the kernel creates without BTF only (libbpf, bpf_object__create_map).
_UNTYPED = frozenset(
    {
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.STACK_TRACE,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.QUEUE,
        MapType.STACK,
        MapType.ARENA,
    }
)
_RINGS = (MapType.RINGBUF, MapType.USER_RINGBUF)
_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, 524)


class Maps:
    """The maps of one object while it is loaded. What it made, `undo` gives up on failure."""

    def __init__(
        self, spec: Spec, undo: ExitStack, *, btf_fd: int, given: Mapping[str, Map], pin_path: str | None
    ) -> None:
        for name in given:
            if name not in spec.maps:
                raise UnknownNameError("map", name, spec.maps)
        self._spec = spec
        self._undo = undo
        self._btf_fd = btf_fd
        self._given = given
        self._pin_path = pin_path
        self.all = Named[Map]("map")
        self.reused: set[str] = set()  #: pinned before, or the caller's: their content is left alone

    def create(self, contents: Mapping[str, bytes]) -> None:
        """All maps; the data maps hold `contents` where that has them, else their spec's data."""
        for name, spec in self._spec.maps.items():
            if spec.type is MapType.STRUCT_OPS:
                raise SpecError(f"map {name!r}: this version cannot load struct_ops")
            self.all[name] = self._given_map(name, spec) or self._pinned(name, spec) or self._new(spec)
        for name, spec in self._spec.maps.items():
            if spec.data is not None and name not in self.reused:
                self._fill(self.all[name], spec, contents.get(name, bytes(spec.data)))
        for name, spec in self._spec.maps.items():
            if spec.type.is_map_in_map and name not in self.reused:
                for index, inner in spec.slots.items():
                    self.all[name].put(index, self.all[inner])

    def _given_map(self, name: str, spec: MapSpec) -> Map | None:
        given = self._given.get(name)
        if given is None:
            return None
        _check(given, _adjusted(spec), f"the map given for {name!r}")
        self.reused.add(name)
        return given

    def _pinned(self, name: str, spec: MapSpec) -> Map | None:
        if spec.pinning is not Pinning.BY_NAME:
            return None
        path = self.pin_of(spec)
        if not os.path.exists(path):
            return None
        found = self._undo.enter_context(Map.open(path))
        _check(
            found,
            _adjusted(spec),
            f"the map pinned as {path}",
            hint=f"remove it (rm {path}) or rename the map",
        )
        found.adopt(spec)
        self.reused.add(name)
        return found

    def pin_of(self, spec: MapSpec) -> str:
        """Where a map that is pinned by name is pinned."""
        from ebpf.kernel import mounts

        folder = self._pin_path if self._pin_path is not None else mounts.bpffs()
        return os.path.join(folder, spec.name.replace(".", "_"))

    def _new(self, spec: MapSpec) -> Map:
        made = self._undo.enter_context(self._create(spec))
        if spec.pinning is Pinning.BY_NAME:
            made.pin(self.pin_of(spec))
            self._undo.callback(_unpin_quietly, made)
        return made

    def _create(self, spec: MapSpec) -> Map:
        name = map_name(spec, self._spec.name)
        asked = _adjusted(spec)
        template: Map | None = None
        if spec.type.is_map_in_map:
            if spec.inner is None:
                raise SpecError(
                    f"map {spec.name!r} ({spec.type.label}) has no template of the maps in it",
                    hint="give it __array(values, struct inner_map), or .inner a MapSpec",
                )
            template = self._create(spec.inner)
        try:
            inner_fd = template.fileno() if template is not None else 0
            key, value = self._type_ids(spec)
            if not (key or value):
                return Map.create(asked, name=name, inner_fd=inner_fd)
            try:
                return Map.create(
                    asked,
                    name=name,
                    inner_fd=inner_fd,
                    btf_fd=self._btf_fd,
                    key_type_id=key,
                    value_type_id=value,
                )
            except KernelError as error:
                if error.errno not in _REFUSALS:
                    raise
            # What the kernel cannot type it may still create; if not, this error is the one to show.
            return Map.create(asked, name=name, inner_fd=inner_fd)
        finally:
            if template is not None:
                template.close()

    def _type_ids(self, spec: MapSpec) -> tuple[int, int]:
        if not self._btf_fd or spec.type in _UNTYPED:
            return 0, 0
        key, value = (
            type.id if type is not None and type.btf is self._spec.btf else 0
            for type in (spec.key, spec.value)
        )
        return (key, value) if value and (key or spec.is_data) else (0, 0)

    def _fill(self, target: Map, spec: MapSpec, data: bytes) -> None:
        if len(data) != spec.value_size:
            raise SpecError(f"map {spec.name!r} holds {spec.value_size} bytes, and its data is {len(data)}")
        if any(data):
            target.write_raw(bytes(4), data)
        if spec.is_readonly:
            try:
                target.freeze()
            except KernelError as error:
                if (
                    error.errno != errno.EINVAL
                ):  # Linux before 5.2 cannot freeze, and loads such objects still
                    raise


def _adjusted(spec: MapSpec) -> MapSpec:
    """The definition with what depends on the machine, as libbpf has it."""
    if spec.is_data and spec.flags:
        flags = spec.flags
        if kernel_version() < (5, 5, 0):
            flags &= ~MapFlags.MMAPABLE
        if kernel_version() < (5, 2, 0):
            flags &= ~MapFlags.RDONLY_PROG
        return spec if flags == spec.flags else replace(spec, flags=flags)
    if spec.type in _RINGS and spec.max_entries:
        size = os.sysconf("SC_PAGE_SIZE")
        while size < spec.max_entries:
            size *= 2
        return spec if size == spec.max_entries else replace(spec, max_entries=size)
    if spec.type is MapType.PERF_EVENT_ARRAY and not spec.max_entries:
        from ebpf.kernel.features import possible_cpus

        return replace(spec, max_entries=possible_cpus())
    return spec


def _check(found: Map, spec: MapSpec, what: str, *, hint: str | None = None) -> None:
    """That a map that exists is what the object defines."""
    info = found.info
    # The kernel sets flags of its own on some maps, and NUMA placement is no part of what a program sees.
    ignored = (
        MapFlags.NUMA_NODE | MapFlags.RDONLY_PROG if spec.type in (MapType.DEVMAP, MapType.DEVMAP_HASH) else 0
    )
    pairs = (
        ("type", found.type.label, spec.type.label),
        ("key size", info.key_size, spec.key_size),
        ("value size", info.value_size, spec.value_size),
        ("max_entries", info.max_entries, spec.max_entries),
        ("flags", hex(info.flags & ~ignored), hex(spec.flags & ~ignored)),
    )
    differing = [f"{name} is {have}, the object has {want}" for name, have, want in pairs if have != want]
    if differing:
        raise SpecError(f"{what} cannot be used for {spec.name!r}: {'; '.join(differing)}", hint=hint)


def _unpin_quietly(made: Map) -> None:
    """Take back a pin that a load made before it failed; the failure is what the user should see."""
    try:
        if made.pinned is not None:
            os.unlink(made.pinned)
    except (OSError, Error):
        pass
