"""The numbers of the kernel's BPF interface, `include/uapi/linux/bpf.h`, as enums.

Each member carries `since`, the first kernel release that has it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Self


class _Since(IntEnum):
    """An integer with the kernel release that brought it."""

    since: str

    def __new__(cls, value: int, since: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.since = since
        return member

    @property
    def label(self) -> str:
        """The name as tools print it: "xdp", "percpu_hash"."""
        return self.name.lower()

    def __str__(self) -> str:
        return self.label


class Command(_Since):
    """enum bpf_cmd: the first argument of bpf(2)."""

    MAP_CREATE = 0, "3.18"
    MAP_LOOKUP_ELEM = 1, "3.18"
    MAP_UPDATE_ELEM = 2, "3.18"
    MAP_DELETE_ELEM = 3, "3.18"
    MAP_GET_NEXT_KEY = 4, "3.18"
    PROG_LOAD = 5, "3.18"
    OBJ_PIN = 6, "4.4"
    OBJ_GET = 7, "4.4"
    PROG_ATTACH = 8, "4.10"
    PROG_DETACH = 9, "4.10"
    PROG_TEST_RUN = 10, "4.12"
    PROG_GET_NEXT_ID = 11, "4.13"
    MAP_GET_NEXT_ID = 12, "4.13"
    PROG_GET_FD_BY_ID = 13, "4.13"
    MAP_GET_FD_BY_ID = 14, "4.13"
    OBJ_GET_INFO_BY_FD = 15, "4.13"
    PROG_QUERY = 16, "4.15"
    RAW_TRACEPOINT_OPEN = 17, "4.17"
    BTF_LOAD = 18, "4.18"
    BTF_GET_FD_BY_ID = 19, "4.18"
    TASK_FD_QUERY = 20, "4.18"
    MAP_LOOKUP_AND_DELETE_ELEM = 21, "4.20"
    MAP_FREEZE = 22, "5.2"
    BTF_GET_NEXT_ID = 23, "5.4"
    MAP_LOOKUP_BATCH = 24, "5.6"
    MAP_LOOKUP_AND_DELETE_BATCH = 25, "5.6"
    MAP_UPDATE_BATCH = 26, "5.6"
    MAP_DELETE_BATCH = 27, "5.6"
    LINK_CREATE = 28, "5.7"
    LINK_UPDATE = 29, "5.7"
    LINK_GET_FD_BY_ID = 30, "5.8"
    LINK_GET_NEXT_ID = 31, "5.8"
    ENABLE_STATS = 32, "5.8"
    ITER_CREATE = 33, "5.8"
    LINK_DETACH = 34, "5.9"
    PROG_BIND_MAP = 35, "5.10"
    TOKEN_CREATE = 36, "6.9"
    PROG_STREAM_READ_BY_FD = 37, "6.17"


class ProgramType(_Since):
    """enum bpf_prog_type: what a program may do and what its context is."""

    SOCKET_FILTER = 1, "3.19"
    KPROBE = 2, "4.1"
    SCHED_CLS = 3, "4.1"
    SCHED_ACT = 4, "4.1"
    TRACEPOINT = 5, "4.7"
    XDP = 6, "4.8"
    PERF_EVENT = 7, "4.9"
    CGROUP_SKB = 8, "4.10"
    CGROUP_SOCK = 9, "4.10"
    LWT_IN = 10, "4.10"
    LWT_OUT = 11, "4.10"
    LWT_XMIT = 12, "4.10"
    SOCK_OPS = 13, "4.13"
    SK_SKB = 14, "4.14"
    CGROUP_DEVICE = 15, "4.15"
    SK_MSG = 16, "4.17"
    RAW_TRACEPOINT = 17, "4.17"
    CGROUP_SOCK_ADDR = 18, "4.17"
    LWT_SEG6LOCAL = 19, "4.18"
    LIRC_MODE2 = 20, "4.18"
    SK_REUSEPORT = 21, "4.19"
    FLOW_DISSECTOR = 22, "4.20"
    CGROUP_SYSCTL = 23, "5.2"
    RAW_TRACEPOINT_WRITABLE = 24, "5.2"
    CGROUP_SOCKOPT = 25, "5.3"
    TRACING = 26, "5.5"
    STRUCT_OPS = 27, "5.6"
    EXT = 28, "5.6"
    LSM = 29, "5.7"
    SK_LOOKUP = 30, "5.9"
    SYSCALL = 31, "5.14"
    NETFILTER = 32, "6.4"


class MapType(_Since):
    """enum bpf_map_type: how a map stores its entries."""

    HASH = 1, "3.19"
    ARRAY = 2, "3.19"
    PROG_ARRAY = 3, "4.2"
    PERF_EVENT_ARRAY = 4, "4.3"
    PERCPU_HASH = 5, "4.6"
    PERCPU_ARRAY = 6, "4.6"
    STACK_TRACE = 7, "4.6"
    CGROUP_ARRAY = 8, "4.8"
    LRU_HASH = 9, "4.10"
    LRU_PERCPU_HASH = 10, "4.10"
    LPM_TRIE = 11, "4.11"
    ARRAY_OF_MAPS = 12, "4.12"
    HASH_OF_MAPS = 13, "4.12"
    DEVMAP = 14, "4.14"
    SOCKMAP = 15, "4.14"
    CPUMAP = 16, "4.15"
    XSKMAP = 17, "4.18"
    SOCKHASH = 18, "4.18"
    CGROUP_STORAGE = 19, "4.19"
    REUSEPORT_SOCKARRAY = 20, "4.19"
    PERCPU_CGROUP_STORAGE = 21, "4.20"
    QUEUE = 22, "4.20"
    STACK = 23, "4.20"
    SK_STORAGE = 24, "5.2"
    DEVMAP_HASH = 25, "5.4"
    STRUCT_OPS = 26, "5.6"
    RINGBUF = 27, "5.8"
    INODE_STORAGE = 28, "5.10"
    TASK_STORAGE = 29, "5.11"
    BLOOM_FILTER = 30, "5.16"
    USER_RINGBUF = 31, "6.1"
    CGRP_STORAGE = 32, "6.2"
    ARENA = 33, "6.9"
    INSN_ARRAY = 34, "6.19"

    @property
    def is_percpu(self) -> bool:
        """Whether a lookup gives one value per possible CPU."""
        return self in _PERCPU

    @property
    def is_map_in_map(self) -> bool:
        """Whether the values are other maps."""
        return self in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


_PERCPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)


class AttachType(_Since):
    """enum bpf_attach_type: where a program of a type is attached."""

    CGROUP_INET_INGRESS = 0, "4.10"
    CGROUP_INET_EGRESS = 1, "4.10"
    CGROUP_INET_SOCK_CREATE = 2, "4.10"
    CGROUP_SOCK_OPS = 3, "4.13"
    SK_SKB_STREAM_PARSER = 4, "4.14"
    SK_SKB_STREAM_VERDICT = 5, "4.14"
    CGROUP_DEVICE = 6, "4.15"
    SK_MSG_VERDICT = 7, "4.17"
    CGROUP_INET4_BIND = 8, "4.17"
    CGROUP_INET6_BIND = 9, "4.17"
    CGROUP_INET4_CONNECT = 10, "4.17"
    CGROUP_INET6_CONNECT = 11, "4.17"
    CGROUP_INET4_POST_BIND = 12, "4.17"
    CGROUP_INET6_POST_BIND = 13, "4.17"
    CGROUP_UDP4_SENDMSG = 14, "4.18"
    CGROUP_UDP6_SENDMSG = 15, "4.18"
    LIRC_MODE2 = 16, "4.18"
    FLOW_DISSECTOR = 17, "4.20"
    CGROUP_SYSCTL = 18, "5.2"
    CGROUP_UDP4_RECVMSG = 19, "5.2"
    CGROUP_UDP6_RECVMSG = 20, "5.2"
    CGROUP_GETSOCKOPT = 21, "5.3"
    CGROUP_SETSOCKOPT = 22, "5.3"
    TRACE_RAW_TP = 23, "5.5"
    TRACE_FENTRY = 24, "5.5"
    TRACE_FEXIT = 25, "5.5"
    MODIFY_RETURN = 26, "5.7"
    LSM_MAC = 27, "5.7"
    TRACE_ITER = 28, "5.8"
    CGROUP_INET4_GETPEERNAME = 29, "5.8"
    CGROUP_INET6_GETPEERNAME = 30, "5.8"
    CGROUP_INET4_GETSOCKNAME = 31, "5.8"
    CGROUP_INET6_GETSOCKNAME = 32, "5.8"
    XDP_DEVMAP = 33, "5.8"
    CGROUP_INET_SOCK_RELEASE = 34, "5.9"
    XDP_CPUMAP = 35, "5.9"
    SK_LOOKUP = 36, "5.9"
    XDP = 37, "5.9"
    SK_SKB_VERDICT = 38, "5.13"
    SK_REUSEPORT_SELECT = 39, "5.14"
    SK_REUSEPORT_SELECT_OR_MIGRATE = 40, "5.14"
    PERF_EVENT = 41, "5.15"
    TRACE_KPROBE_MULTI = 42, "5.18"
    LSM_CGROUP = 43, "6.0"
    STRUCT_OPS = 44, "6.4"
    NETFILTER = 45, "6.4"
    TCX_INGRESS = 46, "6.6"
    TCX_EGRESS = 47, "6.6"
    TRACE_UPROBE_MULTI = 48, "6.6"
    CGROUP_UNIX_CONNECT = 49, "6.7"
    CGROUP_UNIX_SENDMSG = 50, "6.7"
    CGROUP_UNIX_RECVMSG = 51, "6.7"
    CGROUP_UNIX_GETPEERNAME = 52, "6.7"
    CGROUP_UNIX_GETSOCKNAME = 53, "6.7"
    NETKIT_PRIMARY = 54, "6.7"
    NETKIT_PEER = 55, "6.7"
    TRACE_KPROBE_SESSION = 56, "6.10"
    TRACE_UPROBE_SESSION = 57, "6.13"


class LinkType(_Since):
    """enum bpf_link_type: what kind of attachment a link is."""

    RAW_TRACEPOINT = 1, "5.7"
    TRACING = 2, "5.7"
    CGROUP = 3, "5.7"
    ITER = 4, "5.8"
    NETNS = 5, "5.8"
    XDP = 6, "5.9"
    PERF_EVENT = 7, "5.15"
    KPROBE_MULTI = 8, "5.18"
    STRUCT_OPS = 9, "6.4"
    NETFILTER = 10, "6.4"
    TCX = 11, "6.6"
    UPROBE_MULTI = 12, "6.6"
    NETKIT = 13, "6.7"
    SOCKMAP = 14, "6.10"


class MapFlags(IntFlag):
    """BPF_F_* of BPF_MAP_CREATE."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    STACK_BUILD_ID = 1 << 5
    ZERO_SEED = 1 << 6
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    PRESERVE_ELEMS = 1 << 11
    INNER_MAP = 1 << 12
    LINK = 1 << 13
    PATH_FD = 1 << 14
    VTYPE_BTF_OBJ_FD = 1 << 15
    TOKEN_FD = 1 << 16
    SEGV_ON_FAULT = 1 << 17
    NO_USER_CONV = 1 << 18


class ProgramFlags(IntFlag):
    """BPF_F_* of BPF_PROG_LOAD."""

    STRICT_ALIGNMENT = 1 << 0
    ANY_ALIGNMENT = 1 << 1
    TEST_RND_HI32 = 1 << 2
    TEST_STATE_FREQ = 1 << 3
    SLEEPABLE = 1 << 4
    XDP_HAS_FRAGS = 1 << 5
    XDP_DEV_BOUND_ONLY = 1 << 6
    TEST_REG_INVARIANTS = 1 << 7
    TOKEN_FD = 1 << 16


class UpdateFlags(IntFlag):
    """The flags of a map update."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2
    LOCK = 4


class XdpAction(IntEnum):
    """enum xdp_action: what an XDP program returns."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


class XdpFlags(IntFlag):
    """XDP_FLAGS_* of if_link.h: how an XDP program is attached."""

    UPDATE_IF_NOEXIST = 1 << 0
    SKB_MODE = 1 << 1
    DRV_MODE = 1 << 2
    HW_MODE = 1 << 3
    REPLACE = 1 << 4


#: Names of programs and maps in the kernel hold at most this many bytes (BPF_OBJ_NAME_LEN less the NUL).
NAME_LENGTH = 15
