"""Which operations user space has on each type of map: one table, from the map_ops of kernel/bpf/."""

from __future__ import annotations

from ebpf.errors import Error
from ebpf.uapi import MapType

# Bits, and not a Flag: they are tested at every access to a map.
LOOKUP, UPDATE, DELETE, WALK, PUSH, POP, PEEK = (1 << bit for bit in range(7))
_L, _U, _D, _W = LOOKUP, UPDATE, DELETE, WALK
_ALL = _L | _U | _D | _W
_NONE = 0

_OPERATIONS: dict[MapType, int] = {
    MapType.ARRAY: _L | _U | _W,
    MapType.PERCPU_ARRAY: _L | _U | _W,
    MapType.PERF_EVENT_ARRAY: _U | _D | _W,
    MapType.CGROUP_ARRAY: _U | _D | _W,
    MapType.STACK_TRACE: _L | _D | _W,
    MapType.XSKMAP: _U | _D | _W,
    MapType.CGROUP_STORAGE: _L | _U | _W,
    MapType.PERCPU_CGROUP_STORAGE: _L | _U | _W,
    MapType.QUEUE: PUSH | POP | PEEK,
    MapType.STACK: PUSH | POP | PEEK,
    MapType.BLOOM_FILTER: PUSH,
    MapType.SK_STORAGE: _L | _U | _D,
    MapType.INODE_STORAGE: _L | _U | _D,
    MapType.TASK_STORAGE: _L | _U | _D,
    MapType.CGRP_STORAGE: _L | _U | _D,
    MapType.STRUCT_OPS: _L | _U | _D | _W,
    MapType.RINGBUF: _NONE,
    MapType.USER_RINGBUF: _NONE,
    MapType.ARENA: _NONE,
    MapType.INSN_ARRAY: _L | _U | _W,
}

_SPELLED = {
    LOOKUP: "map[key]",
    UPDATE: "map[key] = value",
    DELETE: "del map[key]",
    WALK: "iteration",
    PUSH: "push(value)",
    POP: "pop()",
    PEEK: "peek()",
}

_INSTEAD = {
    MapType.RINGBUF: "it is a stream of records, read by a ring-buffer consumer",
    MapType.USER_RINGBUF: "it is a stream of records, written by a ring-buffer producer",
    MapType.ARENA: "it is memory, reached by mmap",
    MapType.ARRAY: "entries of an array cannot be removed: write zeros instead",
    MapType.PERCPU_ARRAY: "entries of an array cannot be removed: write zeros instead",
    MapType.BLOOM_FILTER: "a bloom filter tells only programs what it holds",
}


def operations(type: MapType) -> int:
    """The operations of a map type, as bits; hash-like types have all but the queue's."""
    return _OPERATIONS.get(type, _ALL)


def require(type: MapType, operation: int, name: str) -> None:
    """Refuse an operation that the type does not have, naming those that it has."""
    have = operations(type)
    if operation & have:
        return
    listed = ", ".join(text for each, text in _SPELLED.items() if each & have) or "none"
    raise Error(
        f"map {name!r} is of type {type.label}, which has no {_SPELLED[operation]}; it has: {listed}",
        hint=_INSTEAD.get(type),
    )
