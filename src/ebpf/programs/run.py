"""Running a program on test data: BPF_PROG_TEST_RUN (4.12)."""

from __future__ import annotations

import errno
from typing import NamedTuple

from ebpf.errors import Error, KernelError, UnsupportedError
from ebpf.kernel import bpf
from ebpf.maps.failures import ENOTSUPP, kernel_error
from ebpf.uapi import ProgramType, XdpAction

#: Types that are run on a packet; what the kernel prepends to an Ethernet header's length is theirs.
_ON_PACKETS = frozenset(
    {
        ProgramType.SOCKET_FILTER,
        ProgramType.SCHED_CLS,
        ProgramType.SCHED_ACT,
        ProgramType.XDP,
        ProgramType.CGROUP_SKB,
        ProgramType.LWT_IN,
        ProgramType.LWT_OUT,
        ProgramType.LWT_XMIT,
        ProgramType.LWT_SEG6LOCAL,
        ProgramType.FLOW_DISSECTOR,
        ProgramType.NETFILTER,
    }
)
#: Types that are run on a context alone.
_ON_CONTEXT = frozenset(
    {
        ProgramType.SYSCALL,
        ProgramType.RAW_TRACEPOINT,
        ProgramType.RAW_TRACEPOINT_WRITABLE,
        ProgramType.TRACING,
        ProgramType.SK_LOOKUP,
    }
)
#: Of these, the kernel refuses to be told a number of repetitions.
_NO_REPEAT = frozenset({ProgramType.SYSCALL, ProgramType.RAW_TRACEPOINT, ProgramType.RAW_TRACEPOINT_WRITABLE})
_ETHERNET = 14
#: From here on a packet may not fit the page that older kernels build it in.
_LARGE = 3000
#: Room for what a program adds to a packet.
_GROWTH = 4096


class RunResult(NamedTuple):
    """What a run of a program gave."""

    value: int  #: what it returned: an XdpAction for XDP programs
    data: bytes | None = None  #: the packet afterwards; None for types without packets
    ctx: bytes | None = None  #: the context afterwards, if one was given and the type gives it back
    duration: int = 0  #: nanoseconds per run, averaged by the kernel

    @property
    def action(self) -> int:
        """The same as `value`: what an XDP or traffic control program decided."""
        return self.value


def run(
    fd: int,
    type: ProgramType,
    name: str,
    data: bytes | bytearray | memoryview | None,
    *,
    ctx: bytes | None = None,
    repeat: int = 1,
    flags: int = 0,
    cpu: int = 0,
) -> RunResult:
    """Run a program of a type on a packet or a context; errors name what the type needs."""
    if type not in _ON_PACKETS and type not in _ON_CONTEXT:
        raise Error(f"program {name!r}: the kernel has no test run for type {type.label}")
    if type in _ON_PACKETS and (data is None or len(data) < _ETHERNET):
        given = "none was given" if data is None else f"{len(data)} bytes were given"
        raise Error(
            f"program {name!r} ({type.label}) runs on a packet, from its Ethernet header on: {given}, "
            f"and {_ETHERNET} are the least"
        )
    if type in _ON_CONTEXT and data is not None:
        raise Error(f"program {name!r} ({type.label}) runs on a context and takes no packet: give ctx=")
    if type in _NO_REPEAT:
        if repeat != 1:
            raise Error(f"program {name!r}: the kernel runs type {type.label} once only")
        repeat = 0
    packet = bytes(data) if data is not None else None
    gives_context = ctx is not None and type in _ON_PACKETS
    try:
        result = bpf.prog_test_run(
            fd,
            packet,
            data_size_out=len(packet) + _GROWTH if packet is not None else 0,
            ctx=ctx,
            ctx_size_out=len(ctx) if gives_context and ctx is not None else 0,
            repeat=repeat,
            flags=flags,
            cpu=cpu,
        )
    except OSError as error:
        raise _failure(error, type, name, len(packet or b""), ctx) from None
    return RunResult(_value(type, result.retval), result.data, result.ctx, result.duration)


def _value(type: ProgramType, number: int) -> int:
    if type is ProgramType.XDP:
        try:
            return XdpAction(number)
        except ValueError:
            return number  # no action: the kernel counts it as aborted
    return number


def _failure(error: OSError, type: ProgramType, name: str, size: int, ctx: bytes | None) -> KernelError:
    code = error.errno or 0
    operation = f"run program {name!r} ({type.label})"
    if code in (ENOTSUPP, errno.EOPNOTSUPP):
        return UnsupportedError(f"cannot {operation}: this kernel has no test run for its type", errno=code)
    failure = kernel_error(error, operation)
    if failure.hint is None:
        failure.hint = _hint(code, size, ctx)
    return failure


def _hint(code: int, size: int, ctx: bytes | None) -> str | None:
    if ctx is not None and code in (errno.EINVAL, errno.ENODEV):
        return "the context sets a field that a test run does not take, or that contradicts the data"
    if size > _LARGE and code in (errno.EINVAL, errno.ENOMEM, errno.E2BIG):
        return f"the packet, {size} bytes, may be more than the kernel takes in a test run"
    return None
