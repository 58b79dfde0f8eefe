"""Live maps: dictionaries that programs and user space share, with keys and values typed from BTF."""

from __future__ import annotations

import errno
import os
from collections.abc import ItemsView as _ItemsView
from collections.abc import Iterator, MutableMapping
from collections.abc import ValuesView as _ValuesView
from typing import TYPE_CHECKING, Any, NoReturn

from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf
from ebpf.kernel.fd import FD
from ebpf.maps import walk
from ebpf.maps.failures import kernel_error
from ebpf.maps.held import Held
from ebpf.maps.operations import DELETE, LOOKUP, PEEK, POP, PUSH, UPDATE, WALK, operations, require
from ebpf.spec.model import MapSpec
from ebpf.uapi import MapFlags, MapType, UpdateFlags

if TYPE_CHECKING:
    from ebpf.btf.types import Type
    from ebpf.btf.values import Codec
    from ebpf.kernel.bpf import MapInfo

_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
#: Arrays of which only the slots that are set count as entries.
_SPARSE = (MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.DEVMAP, MapType.CPUMAP, MapType.SOCKMAP)
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, 524)
_UNSET: Any = object()
# Plain numbers, as they are used at every access.
_ANY, _NOEXIST, _EXIST, _LOCK = (
    int(flag) for flag in (UpdateFlags.ANY, UpdateFlags.NOEXIST, UpdateFlags.EXIST, UpdateFlags.LOCK)
)


class Map(Held, MutableMapping[Any, Any]):
    """A map in the kernel, used like a dict.

    Keys and values are Python values by the map's BTF: integers, structs with fields by name, text. A map
    without BTF has integers where the size is 1, 2, 4 or 8 bytes, and bytes otherwise. Values of per-CPU maps
    are `PerCpu`. Maps in maps are read as `Map`, which the reader closes, and written as `Map`; a prog array
    is read as ids of programs and written as programs.

    Iterating is safe while others change the map: what stays is given exactly once. An array always has all
    its entries. `Map.create`, `Map.open` and `Map.from_id` make one; it owns a descriptor: `close()` it, or
    use `with`.
    """

    def __init__(self, fd: FD, spec: MapSpec, *, name: str | None = None) -> None:
        super().__init__(fd)
        self._spec = spec
        self._name = name if name is not None else spec.name
        self._operations = operations(spec.type)
        self._id: int | None = None
        self._codecs: tuple[Codec, Codec] | None = None
        self._stride: int | None = None
        self._is_percpu = spec.type.is_percpu
        self._key_name, self._value_name = f"key of map {self._name!r}", f"value of map {self._name!r}"

    # --- where maps come from ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        spec: MapSpec,
        *,
        name: str | None = None,
        btf_fd: int = 0,
        key_type_id: int = 0,
        value_type_id: int = 0,
        vmlinux_value_type_id: int = 0,
        inner_fd: int = 0,
    ) -> Map:
        """A new map. `name` is what the kernel calls it, the spec's by default.

        The type ids are of the BTF behind `btf_fd`; `inner_fd` is the template of a map-in-map.
        """
        name = spec.name if name is None else name
        try:
            number = bpf.map_create(
                spec.type,
                spec.key_size,
                spec.value_size,
                spec.max_entries,
                flags=spec.flags,
                name=name,
                inner_map_fd=inner_fd,
                numa_node=spec.numa_node,
                btf_fd=btf_fd,
                key_type_id=key_type_id,
                value_type_id=value_type_id,
                vmlinux_value_type_id=vmlinux_value_type_id,
                extra=spec.extra,
            )
        except OSError as error:
            from ebpf.maps.refusals import creation_error

            raise creation_error(error, spec) from None
        return cls(FD(number, f"map {spec.name!r}"), spec)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Map:
        """The map pinned under a path."""
        from ebpf.maps import pins

        number, place = pins.open_pinned(path, "map")
        opened = cls.from_fd(FD(number, f"map {place}"))
        opened._pin = place
        return opened

    @classmethod
    def from_id(cls, id: int) -> Map:
        """The map with this id (4.13; CAP_SYS_ADMIN)."""
        try:
            number = bpf.fd_by_id(bpf.Kind.MAP, id)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise KernelError(f"no map has the id {id}", errno=errno.ENOENT) from None
            from ebpf.kernel.privileges import SYS_ADMIN

            raise kernel_error(error, f"open map {id}", (SYS_ADMIN,)) from None
        return cls.from_fd(FD(number, f"map {id}"))

    @classmethod
    def from_fd(cls, fd: FD) -> Map:
        """The map of a descriptor, which it takes over; Error, and it is closed, if that is no map."""
        from ebpf.maps.descriptors import expect

        expect(fd, "map")
        try:
            info = bpf.map_info(fd.fileno())
            type = MapType(info.type)
        except (OSError, ValueError) as error:
            fd.close()
            raise Error(f"{fd.what} is no map that this version knows: {error}") from None
        spec = MapSpec(
            info.name,
            type,
            info.key_size,
            info.value_size,
            info.max_entries,
            info.flags,
            extra=info.extra,
        )
        fd.what = f"map {info.name!r}"
        opened = cls(fd, spec)
        opened._id = info.id
        return opened

    def adopt(self, spec: MapSpec) -> None:
        """Take name and types from an object's definition, for a map that was found pinned."""
        self._spec.key, self._spec.value = spec.key, spec.value
        self._name = self._spec.name = spec.name
        self._key_name, self._value_name = f"key of map {self._name!r}", f"value of map {self._name!r}"
        self._codecs = None

    # --- facts ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name in the object; at most 15 bytes of it if the map was opened from the kernel."""
        return self._name

    @property
    def type(self) -> MapType:
        """How it stores its entries."""
        return self._spec.type

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._spec.key_size

    @property
    def value_size(self) -> int:
        """Bytes of a value, for one CPU."""
        return self._spec.value_size

    @property
    def max_entries(self) -> int:
        """How many entries it holds; bytes of a ring buffer."""
        return self._spec.max_entries

    @property
    def flags(self) -> MapFlags:
        """The flags that it was created with."""
        return MapFlags(self._spec.flags)

    @property
    def info(self) -> MapInfo:
        """What the kernel says of it now."""
        try:
            return bpf.map_info(self.fileno())
        except OSError as error:
            raise kernel_error(error, f"inspect map {self._name!r}") from None

    @property
    def id(self) -> int:
        """The kernel's number for it."""
        if self._id is None:
            self._id = self.info.id
        return self._id

    @property
    def key_type(self) -> Type | None:
        """The BTF type of its keys, if it has one."""
        self._resolve_types()
        return self._spec.key

    @property
    def value_type(self) -> Type | None:
        """The BTF type of its values, if it has one."""
        self._resolve_types()
        return self._spec.value

    # --- entries ----------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self.lookup(key)

    def lookup(self, key: Any, *, lock: bool = False) -> Any:
        """The value under a key; KeyError if there is none. `lock` takes the value's bpf_spin_lock (5.1)."""
        if not self._operations & LOOKUP:
            require(self.type, LOOKUP, self._name)
        raw = self._encode_key(key)
        try:
            found = bpf.map_lookup(self.fileno(), raw, self._value_bytes(), flags=_LOCK if lock else 0)
        except OSError as error:
            self._refuse(error, "read", key)
        return self._decode_value(found, 0)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def put(self, key: Any, value: Any, *, exist: bool | None = None, lock: bool = False) -> None:
        """Set an entry.

        `exist=True` only replaces (KeyError if the key is not there), `exist=False` only adds (KernelError
        EEXIST if it is there already). `lock` holds the value's bpf_spin_lock meanwhile (5.1).
        """
        if not self._operations & UPDATE:
            require(self.type, UPDATE, self._name)
        raw_key, raw_value = self._encode_key(key), self._encode_value(value)
        flags = _ANY if exist is None else _EXIST if exist else _NOEXIST
        try:
            bpf.map_update(self.fileno(), raw_key, raw_value, flags | _LOCK if lock else flags)
        except OSError as error:
            self._refuse(error, "written", key)

    def __delitem__(self, key: Any) -> None:
        if not self._operations & DELETE:
            require(self.type, DELETE, self._name)
        raw = self._encode_key(key)
        try:
            bpf.map_delete(self.fileno(), raw)
        except OSError as error:
            self._refuse(error, "deleted", key)

    def __contains__(self, key: object) -> bool:
        if not self._operations & LOOKUP:
            require(self.type, LOOKUP, self._name)
        raw = self._encode_key(key)
        try:
            bpf.map_lookup(self.fileno(), raw, self._value_bytes())
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            self._refuse(error, "read", key)
        return True

    def __iter__(self) -> Iterator[Any]:
        if not self._operations & WALK:
            require(self.type, WALK, self._name)
        decode = self._key().decode
        for raw in self._raw_keys():
            yield decode(raw)

    def __len__(self) -> int:
        """The number of entries: counted, except for an array, which always has all of them."""
        if self.type in _ARRAYS:
            return self.max_entries
        if not self._operations & WALK:
            require(self.type, WALK, self._name)
        return sum(1 for _ in self._raw_keys())

    def items(self) -> ItemsView:
        """Keys with their values, read in batches where the kernel can (5.6)."""
        return ItemsView(self)

    def values(self) -> ValuesView:
        """The values, read in batches where the kernel can (5.6)."""
        return ValuesView(self)

    def clear(self) -> None:
        """Delete every entry; Error for an array, whose entries cannot be deleted."""
        if self._operations & POP:
            while self._take(b"", self.value_size) is not None:
                pass
            return
        if not self._operations & DELETE:
            require(self.type, DELETE, self._name)
        for raw in list(self._raw_keys()):
            try:
                bpf.map_delete(self.fileno(), raw)
            except OSError as error:
                if error.errno != errno.ENOENT:  # gone already
                    self._refuse(error, "deleted", self._key().decode(raw))

    def pop(self, key: Any = _UNSET, default: Any = _UNSET) -> Any:
        """Take an entry out and give its value; KeyError if it is not there and no default is given.

        A queue or stack gives its next value with `pop()`; IndexError if it is empty. In a hash table reading
        and deleting are one step from 5.14 on; before, a change between the two is lost.
        """
        if key is _UNSET:
            if not self._operations & POP:
                require(self.type, POP, self._name)
            taken = self._take(b"", self.value_size)
            if taken is None:
                raise IndexError(f"map {self._name!r} is empty")
            return self._value().decode(taken)
        if not self._operations & DELETE:
            require(self.type, DELETE, self._name)
        if not self._operations & LOOKUP:
            require(self.type, LOOKUP, self._name)
        raw = self._encode_key(key)
        try:
            found = bpf.map_lookup_and_delete(self.fileno(), raw, self._value_bytes())
        except OSError as error:
            if error.errno == errno.ENOENT:
                if default is _UNSET:
                    raise KeyError(key) from None
                return default
            if error.errno not in _UNSUPPORTED:
                self._refuse(error, "taken out", key)
        else:
            return self._decode_value(found, 0)
        return super().pop(key) if default is _UNSET else super().pop(key, default)

    def push(self, value: Any, *, evict: bool = False) -> None:
        """Add to a queue, stack (4.20) or bloom filter (5.16). `evict` drops the oldest of a full queue."""
        if not self._operations & PUSH:
            require(self.type, PUSH, self._name)
        raw = self._encode_one(value)
        try:
            bpf.map_update(self.fileno(), b"", raw, _EXIST if evict else _ANY)
        except OSError as error:
            self._refuse(error, "written", None)

    def peek(self) -> Any:
        """The value that `pop()` would give, left in place; IndexError if there is none."""
        if not self._operations & PEEK:
            require(self.type, PEEK, self._name)
        try:
            found = bpf.map_lookup(self.fileno(), b"", self.value_size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise IndexError(f"map {self._name!r} is empty") from None
            self._refuse(error, "read", None)
        return self._value().decode(found)

    def create_inner(self) -> Map:
        """A new, empty map of the kind that this map-in-map holds, for `outer[key] = inner`; close it after.

        Error for a map that holds no maps, or one that was opened by id or pin, which does not tell its kind.
        """
        template = self._spec.inner
        if template is None:
            raise Error(
                f"map {self._name!r} has no template of the maps in it",
                hint="maps in maps have one, as long as they come out of Spec.load; otherwise use Map.create",
            )
        return Map.create(template)

    def freeze(self) -> None:
        """Make it read-only for user space, for good (5.2); programs may still write it."""
        try:
            bpf.map_freeze(self.fileno())
        except OSError as error:
            raise kernel_error(error, f"freeze map {self._name!r}") from None

    # --- raw access, for the loader and for bulk reading --------------------------------------------------

    def read_raw(self, key: bytes) -> bytes:
        """The value as the kernel copies it: per-CPU values one after another, each rounded up to 8 bytes."""
        try:
            return bpf.map_lookup(self.fileno(), key, self._value_bytes())
        except OSError as error:
            self._refuse(error, "read", key)

    def write_raw(self, key: bytes, value: bytes) -> None:
        """Set an entry from bytes as the kernel copies them."""
        if len(key) != self.key_size or len(value) != self._value_bytes():
            raise Error(
                f"map {self._name!r} takes keys of {self.key_size} and values of {self._value_bytes()} "
                f"bytes, not {len(key)} and {len(value)}"
            )
        try:
            bpf.map_update(self.fileno(), key, value)
        except OSError as error:
            self._refuse(error, "written", key)

    def _what(self) -> str:
        return f"map {self._name!r}"

    def __repr__(self) -> str:
        sizes = f"key {self.key_size}, value {self.value_size} bytes, {self.max_entries} entries"
        return f"<Map {self._name!r} {self.type.label}: {sizes}{', closed' if self.closed else ''}>"

    def __bool__(self) -> bool:
        return True  # the map itself; emptiness would cost a walk

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    # --- inside -----------------------------------------------------------------------------------------

    def _key(self) -> Codec:
        return (self._codecs or self._make_codecs())[0]

    def _value(self) -> Codec:
        return (self._codecs or self._make_codecs())[1]

    def _make_codecs(self) -> tuple[Codec, Codec]:
        from ebpf.maps.codecs import key_codec, value_codec

        self._resolve_types()
        spec = self._spec
        self._codecs = (
            key_codec(spec.type, spec.key_size, spec.key),
            value_codec(spec.type, spec.value_size, spec.value, self._open_inner),
        )
        return self._codecs

    def _open_inner(self, id: int) -> Map:
        """A map in this one; typed by the template where the kernel has no types for it."""
        inner, template = Map.from_id(id), self._spec.inner
        if template is not None and (inner.key_size, inner.value_size) == (
            template.key_size,
            template.value_size,
        ):
            inner._resolve_types()
            if inner._spec.key is None and inner._spec.value is None:
                inner._spec.key, inner._spec.value = template.key, template.value
        return inner

    def _resolve_types(self) -> None:
        """The types of a map that was opened from the kernel, out of the kernel's BTF for it."""
        if self._id is None or self._spec.key is not None or self._spec.value is not None:
            return
        info = self.info
        if not info.btf_id or not (info.key_type_id or info.value_type_id):
            return
        from ebpf.btf.btf import BTF

        try:
            with FD(bpf.fd_by_id(bpf.Kind.BTF, info.btf_id), f"BTF {info.btf_id}") as fd:
                btf = BTF.from_bytes(bpf.btf_data(fd.fileno()))
        except OSError as error:
            raise kernel_error(error, f"read the types of map {self._name!r}") from None
        self._spec.key = btf.type(info.key_type_id) if info.key_type_id else None
        self._spec.value = btf.type(info.value_type_id) if info.value_type_id else None

    def _value_bytes(self) -> int:
        """Bytes of one lookup."""
        if self._stride is None:
            size = self.value_size
            if self._is_percpu:
                from ebpf.kernel.features import possible_cpus

                size = (size + 7) // 8 * 8 * possible_cpus()
            self._stride = size
        return self._stride

    def _decode_value(self, buffer: bytes | bytearray, offset: int) -> Any:
        decode = self._value().decode
        if not self._is_percpu:
            return decode(buffer, offset)
        from ebpf.maps.percpu import PerCpu

        step = (self.value_size + 7) // 8 * 8
        return PerCpu([decode(buffer, at) for at in range(offset, offset + self._value_bytes(), step)])

    def _encode_key(self, key: Any) -> bytes:
        return self._key().encode(key, where=self._key_name)

    def _encode_one(self, value: Any) -> bytes:
        return self._value().encode(value, where=self._value_name)

    def _encode_value(self, value: Any) -> bytes:
        encode = self._encode_one
        if not self._is_percpu:
            return encode(value)
        from ebpf.maps.percpu import per_cpu_values

        padding = bytes(-self.value_size % 8)
        each = per_cpu_values(value, f"map {self._name!r}")
        return b"".join(encode(one) + padding for one in each)

    def _shape(self) -> walk.Shape:
        return walk.Shape(self.type, self._name, self.key_size, self._value_bytes(), self.max_entries)

    def _raw_keys(self) -> Iterator[bytes]:
        shape = self._shape()
        try:
            if self.type in walk.BATCHED or self.type in _SPARSE:
                for chunk in walk.chunks(self.fileno(), shape):
                    for start in range(0, chunk.entries * self.key_size, self.key_size):
                        yield bytes(chunk.keys[start : start + self.key_size])
            else:
                yield from walk.keys(self.fileno(), shape)
        except OSError as error:
            raise kernel_error(error, f"go through map {self._name!r}") from None

    def _entries(self) -> Iterator[tuple[bytes | bytearray, int, bytes | bytearray, int]]:
        """Per entry: key buffer and offset, value buffer and offset."""
        if not self._operations & WALK:
            require(self.type, WALK, self._name)
        if not self._operations & LOOKUP:
            require(self.type, LOOKUP, self._name)
        key_size, stride = self.key_size, self._value_bytes()
        try:
            for keys, values, count in walk.chunks(self.fileno(), self._shape()):
                for index in range(count):
                    yield keys, index * key_size, values, index * stride
        except OSError as error:
            raise kernel_error(error, f"go through map {self._name!r}") from None

    def _take(self, key: bytes, size: int) -> bytes | None:
        try:
            return bpf.map_lookup_and_delete(self.fileno(), key, size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            self._refuse(error, "read", None)

    def _refuse(self, error: OSError, done: str, key: Any) -> NoReturn:
        """The error for an entry that could not be read, written, deleted."""
        from ebpf.maps.refusals import entry_error

        raise entry_error(error, self._spec, self.fileno(), done, key) from None


class ItemsView(_ItemsView[Any, Any]):
    """The entries of a map."""

    _mapping: Map

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        decode_key, decode_value = self._mapping._key().decode, self._mapping._decode_value
        for keys, key_at, values, value_at in self._mapping._entries():
            yield decode_key(keys, key_at), decode_value(values, value_at)


class ValuesView(_ValuesView[Any]):
    """The values of a map."""

    _mapping: Map

    def __iter__(self) -> Iterator[Any]:
        decode = self._mapping._decode_value
        for _, _, values, value_at in self._mapping._entries():
            yield decode(values, value_at)
