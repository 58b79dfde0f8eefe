"""Which operations user space has on each type of map: one table, from the map_ops of kernel/bpf/."""

from __future__ import annotations

from enum import Flag, auto

from ebpf.errors import Error
from ebpf.uapi import MapType


class Operation(Flag):
    """What can be done with a map from user space."""

    LOOKUP = auto()
    UPDATE = auto()
    DELETE = auto()
    WALK = auto()  #: go through the keys
    PUSH = auto()
    POP = auto()
    PEEK = auto()


_L, _U, _D, _W = Operation.LOOKUP, Operation.UPDATE, Operation.DELETE, Operation.WALK
_ALL = _L | _U | _D | _W
_NONE = Operation(0)

_OPERATIONS: dict[MapType, Operation] = {
    MapType.ARRAY: _L | _U | _W,
    MapType.PERCPU_ARRAY: _L | _U | _W,
    MapType.PERF_EVENT_ARRAY: _U | _D | _W,
    MapType.CGROUP_ARRAY: _U | _D | _W,
    MapType.STACK_TRACE: _L | _D | _W,
    MapType.XSKMAP: _U | _D | _W,
    MapType.CGROUP_STORAGE: _L | _U | _W,
    MapType.PERCPU_CGROUP_STORAGE: _L | _U | _W,
    MapType.QUEUE: Operation.PUSH | Operation.POP | Operation.PEEK,
    MapType.STACK: Operation.PUSH | Operation.POP | Operation.PEEK,
    MapType.BLOOM_FILTER: Operation.PUSH,
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
    Operation.LOOKUP: "map[key]",
    Operation.UPDATE: "map[key] = value",
    Operation.DELETE: "del map[key]",
    Operation.WALK: "iteration",
    Operation.PUSH: "push(value)",
    Operation.POP: "pop()",
    Operation.PEEK: "peek()",
}

_INSTEAD = {
    MapType.RINGBUF: "it is a stream of records, read by a ring-buffer consumer",
    MapType.USER_RINGBUF: "it is a stream of records, written by a ring-buffer producer",
    MapType.ARENA: "it is memory, reached by mmap",
    MapType.ARRAY: "entries of an array cannot be removed: write zeros instead",
    MapType.PERCPU_ARRAY: "entries of an array cannot be removed: write zeros instead",
    MapType.BLOOM_FILTER: "a bloom filter tells only programs what it holds",
}


def operations(type: MapType) -> Operation:
    """The operations of a map type; hash-like types have all but the queue's."""
    return _OPERATIONS.get(type, _ALL)


def require(type: MapType, operation: Operation, name: str) -> None:
    """Refuse an operation that the type does not have, naming those that it has."""
    have = operations(type)
    if operation in have:
        return
    listed = ", ".join(text for each, text in _SPELLED.items() if each in have) or "none"
    raise Error(
        f"map {name!r} is of type {type.label}, which has no {_SPELLED[operation]}; it has: {listed}",
        hint=_INSTEAD.get(type),
    )
