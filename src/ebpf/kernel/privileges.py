"""Why the kernel answers EPERM: what is known about this process, and what remains possible.

Capabilities are those of capabilities(7); which operation needs which one follows kernel/bpf/syscall.c, where
bpf_token_capable() lets CAP_SYS_ADMIN stand in for CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ebpf.errors import PrivilegeError
from ebpf.kernel.memlock import counts_memlock
from ebpf.uapi import ProgramType

#: Bit numbers in CapEff of /proc/PID/status (linux/capability.h).
_BITS = {
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}

#: A need is the capabilities of which one suffices; the first is the one to ask for.
Need = tuple[str, ...]
BPF: Need = ("CAP_BPF", "CAP_SYS_ADMIN")
PERFMON: Need = ("CAP_PERFMON", "CAP_SYS_ADMIN")
NET_ADMIN: Need = ("CAP_NET_ADMIN",)
NET_ADMIN_TO_LOAD: Need = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")
SYS_ADMIN: Need = ("CAP_SYS_ADMIN",)

#: kernel/bpf/syscall.c, is_net_admin_prog_type() and is_perfmon_prog_type().
_NET_ADMIN_TYPES = frozenset(
    {
        ProgramType.SCHED_CLS,
        ProgramType.SCHED_ACT,
        ProgramType.XDP,
        ProgramType.LWT_IN,
        ProgramType.LWT_OUT,
        ProgramType.LWT_XMIT,
        ProgramType.LWT_SEG6LOCAL,
        ProgramType.SK_SKB,
        ProgramType.SK_MSG,
        ProgramType.FLOW_DISSECTOR,
        ProgramType.CGROUP_DEVICE,
        ProgramType.CGROUP_SOCK,
        ProgramType.CGROUP_SOCK_ADDR,
        ProgramType.CGROUP_SOCKOPT,
        ProgramType.CGROUP_SYSCTL,
        ProgramType.SOCK_OPS,
        ProgramType.NETFILTER,
        ProgramType.EXT,
    }
)
_PERFMON_TYPES = frozenset(
    {
        ProgramType.KPROBE,
        ProgramType.TRACEPOINT,
        ProgramType.PERF_EVENT,
        ProgramType.RAW_TRACEPOINT,
        ProgramType.RAW_TRACEPOINT_WRITABLE,
        ProgramType.TRACING,
        ProgramType.LSM,
        ProgramType.STRUCT_OPS,
        ProgramType.EXT,
    }
)


@dataclass(frozen=True, slots=True)
class Privileges:
    """What is known about this process. None where the kernel did not tell."""

    uid: int  #: effective
    capabilities: frozenset[str]  #: effective; of the ones that matter for BPF
    initial_user_namespace: bool | None
    seccomp: int | None  #: 0 none, 1 strict, 2 filter
    unprivileged_bpf_disabled: int | None  #: sysctl: 0 allowed, 1 off until reboot, 2 off
    lockdown: str | None  #: "none", "integrity", "confidentiality"
    security_modules: tuple[str, ...] | None  #: active LSMs

    def has(self, need: Need) -> bool:
        """Whether one of the capabilities of a need is there."""
        return not self.capabilities.isdisjoint(need)


def needs_to_load(type: int) -> tuple[Need, ...]:
    """What loading a program of a type needs."""
    needs = [BPF]
    if type in _NET_ADMIN_TYPES:
        needs.append(NET_ADMIN_TO_LOAD)
    if type in _PERFMON_TYPES:
        needs.append(PERFMON)
    return tuple(needs)


def missing(needs: Sequence[Need]) -> list[str]:
    """The needed capabilities that this process lacks; all of them outside the initial user namespace."""
    known = read()
    if known.initial_user_namespace is False:
        return [need[0] for need in needs]
    return [need[0] for need in needs if not known.has(need)]


def explain(operation: str, needs: Sequence[Need], errno: int) -> PrivilegeError:
    """The error for an operation, such as "attach to eth0", that failed with EPERM or EACCES.

    It names what is known to be missing. If nothing is, it says so, and lists what can still have refused.
    """
    return describe(operation, needs, errno, read())


def describe(operation: str, needs: Sequence[Need], errno: int, known: Privileges) -> PrivilegeError:
    """`explain` for a given state of affairs."""
    failed = f"cannot {operation}: {os.strerror(errno)}"
    lacking = [need for need in needs if not known.has(need)]
    if lacking:
        names = " and ".join(" or ".join(need) for need in lacking)
        who = "root" if known.uid == 0 else f"user {known.uid}"
        hint = "run it as root (sudo)" if known.uid else "its capabilities were dropped: by a container?"
        return PrivilegeError(f"{failed}; this process ({who}) lacks {names}", errno=errno, hint=hint)
    if known.initial_user_namespace is False:
        return PrivilegeError(
            f"{failed}; this process is in a user namespace of its own, and its capabilities do not count"
            " outside of it",
            errno=errno,
            hint="run it outside the user namespace, or in a container that is not rootless",
        )
    needed = ", ".join(need[0] for need in needs)
    message = f"{failed}, although the process has the capabilities for it ({needed})"
    possible = _possible_causes(known, errno)
    if not possible:
        return PrivilegeError(f"{message}; nothing else that can refuse it is active here", errno=errno)
    return PrivilegeError(f"{message}. What can have refused it: {'; '.join(possible)}", errno=errno)


def _possible_causes(known: Privileges, errno: int) -> list[str]:
    causes = []
    if known.lockdown in ("integrity", "confidentiality"):
        causes.append(f"kernel lockdown ({known.lockdown}), for programs that read or write kernel memory")
    elif known.lockdown is None:
        causes.append("kernel lockdown, whose state cannot be read here")
    if known.seccomp:
        causes.append("the process's seccomp filter")
    if known.security_modules is None:
        causes.append("a security module (LSM); which ones are active cannot be read here")
    else:
        policies = [name for name in known.security_modules if name not in _SILENT_MODULES]
        if policies:
            causes.append(f"a policy of {', '.join(policies)}")
    if errno == _errno.EPERM and counts_memlock():
        causes.append("RLIMIT_MEMLOCK, which this kernel counts maps and programs against (ulimit -l)")
    return causes


#: Modules that have no say in BPF, or are reported on their own.
_SILENT_MODULES = frozenset(
    {"capability", "lockdown", "yama", "integrity", "loadpin", "safesetid", "landlock"}
)


def read() -> Privileges:
    """What is known about the calling thread."""
    status = dict(
        line.split(":\t", 1)
        for line in (_text("/proc/thread-self/status") or "").splitlines()
        if ":\t" in line
    )
    effective = int(status.get("CapEff", "0"), 16)
    uids = status.get("Uid", "").split()
    disabled = _text("/proc/sys/kernel/unprivileged_bpf_disabled")
    modules = _text("/sys/kernel/security/lsm")
    return Privileges(
        uid=int(uids[1]) if len(uids) > 1 else os.geteuid(),
        capabilities=frozenset(name for name, bit in _BITS.items() if effective >> bit & 1),
        initial_user_namespace=_in_initial_user_namespace(),
        seccomp=int(status["Seccomp"]) if "Seccomp" in status else None,
        unprivileged_bpf_disabled=int(disabled) if disabled else None,
        lockdown=_lockdown(_text("/sys/kernel/security/lockdown")),
        security_modules=tuple(modules.strip().split(",")) if modules is not None else None,
    )


def _in_initial_user_namespace() -> bool | None:
    """The initial one has a fixed inode number, PROC_USER_INIT_INO (include/linux/proc_ns.h)."""
    try:
        return os.readlink("/proc/thread-self/ns/user") == "user:[4026531837]"
    except OSError:
        return None


def _lockdown(text: str | None) -> str | None:
    """The state is the word in brackets: "none [integrity] confidentiality"."""
    return text[text.index("[") + 1 : text.index("]")] if text and "[" in text else None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None
