"""What the name of a program's section says: `SEC("xdp")`, `SEC("tracepoint/syscalls/sys_enter_openat")`, …

The names are libbpf's, see Documentation/bpf/libbpf/program_types.rst; the table follows libbpf 1.6.
Names of older objects (iproute2's, libbpf's before 1.0, which took any name that started well) are inferred
where they are plain, and marked as such.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ebpf.uapi import AttachType as A
from ebpf.uapi import ProgramFlags
from ebpf.uapi import ProgramType as P


class Rule(NamedTuple):
    """One row of the table.

    `pattern` is an exact name; with "+" at its end also that name followed by "/" and `extras`; with "/" at
    its end only the latter.
    """

    pattern: str
    type: P
    attach_type: A | None = None
    flags: ProgramFlags = ProgramFlags(0)
    extras: str = ""  #: what follows the "/", in the words of program_types.rst


class Match(NamedTuple):
    """What a section name says about the programs in it."""

    type: P
    attach_type: A | None = None
    flags: ProgramFlags = ProgramFlags(0)
    attach_to: str | None = None  #: what follows the "/"; None where nothing does
    extras: str = ""  #: the form of `attach_to`: "<category>/<name>"
    inferred: bool = False  #: the name is none of libbpf's, but its meaning is plain


_SLEEPABLE = ProgramFlags.SLEEPABLE
_FRAGS = ProgramFlags.XDP_HAS_FRAGS
_NONE = ProgramFlags(0)

_FUNCTION = "<function>"
_KPROBE = "<function>[+<offset>]"
_UPROBE = "<path>:<function>[+<offset>]"
_UPROBES = "<path>:<function pattern>"
_CATEGORY = "<category>/<name>"

RULES: tuple[Rule, ...] = (
    Rule("socket", P.SOCKET_FILTER),
    Rule("sk_reuseport/migrate", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT_OR_MIGRATE),
    Rule("sk_reuseport", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT),
    Rule("kprobe+", P.KPROBE, None, _NONE, _KPROBE),
    Rule("kretprobe+", P.KPROBE, None, _NONE, _FUNCTION),
    Rule("kprobe.multi+", P.KPROBE, A.TRACE_KPROBE_MULTI, _NONE, "<function pattern>"),
    Rule("kretprobe.multi+", P.KPROBE, A.TRACE_KPROBE_MULTI, _NONE, "<function pattern>"),
    Rule("kprobe.session+", P.KPROBE, A.TRACE_KPROBE_SESSION, _NONE, "<function pattern>"),
    Rule("uprobe+", P.KPROBE, None, _NONE, _UPROBE),
    Rule("uprobe.s+", P.KPROBE, None, _SLEEPABLE, _UPROBE),
    Rule("uretprobe+", P.KPROBE, None, _NONE, _UPROBE),
    Rule("uretprobe.s+", P.KPROBE, None, _SLEEPABLE, _UPROBE),
    Rule("uprobe.multi+", P.KPROBE, A.TRACE_UPROBE_MULTI, _NONE, _UPROBES),
    Rule("uretprobe.multi+", P.KPROBE, A.TRACE_UPROBE_MULTI, _NONE, _UPROBES),
    Rule("uprobe.session+", P.KPROBE, A.TRACE_UPROBE_SESSION, _NONE, _UPROBES),
    Rule("uprobe.multi.s+", P.KPROBE, A.TRACE_UPROBE_MULTI, _SLEEPABLE, _UPROBES),
    Rule("uretprobe.multi.s+", P.KPROBE, A.TRACE_UPROBE_MULTI, _SLEEPABLE, _UPROBES),
    Rule("uprobe.session.s+", P.KPROBE, A.TRACE_UPROBE_SESSION, _SLEEPABLE, _UPROBES),
    Rule("ksyscall+", P.KPROBE, None, _NONE, "<syscall>"),
    Rule("kretsyscall+", P.KPROBE, None, _NONE, "<syscall>"),
    Rule("usdt+", P.KPROBE, None, _NONE, "<path>:<provider>:<name>"),
    Rule("usdt.s+", P.KPROBE, None, _SLEEPABLE, "<path>:<provider>:<name>"),
    Rule("tcx/ingress", P.SCHED_CLS, A.TCX_INGRESS),
    Rule("tcx/egress", P.SCHED_CLS, A.TCX_EGRESS),
    Rule("tc/ingress", P.SCHED_CLS, A.TCX_INGRESS),
    Rule("tc/egress", P.SCHED_CLS, A.TCX_EGRESS),
    Rule("tc", P.SCHED_CLS),
    Rule("classifier", P.SCHED_CLS),
    Rule("action", P.SCHED_ACT),
    Rule("netkit/primary", P.SCHED_CLS, A.NETKIT_PRIMARY),
    Rule("netkit/peer", P.SCHED_CLS, A.NETKIT_PEER),
    Rule("tracepoint+", P.TRACEPOINT, None, _NONE, _CATEGORY),
    Rule("tp+", P.TRACEPOINT, None, _NONE, _CATEGORY),
    Rule("raw_tracepoint+", P.RAW_TRACEPOINT, None, _NONE, "<tracepoint>"),
    Rule("raw_tp+", P.RAW_TRACEPOINT, None, _NONE, "<tracepoint>"),
    Rule("raw_tracepoint.w+", P.RAW_TRACEPOINT_WRITABLE, None, _NONE, "<tracepoint>"),
    Rule("raw_tp.w+", P.RAW_TRACEPOINT_WRITABLE, None, _NONE, "<tracepoint>"),
    Rule("tp_btf+", P.TRACING, A.TRACE_RAW_TP, _NONE, "<tracepoint>"),
    Rule("fentry+", P.TRACING, A.TRACE_FENTRY, _NONE, _FUNCTION),
    Rule("fmod_ret+", P.TRACING, A.MODIFY_RETURN, _NONE, _FUNCTION),
    Rule("fexit+", P.TRACING, A.TRACE_FEXIT, _NONE, _FUNCTION),
    Rule("fentry.s+", P.TRACING, A.TRACE_FENTRY, _SLEEPABLE, _FUNCTION),
    Rule("fmod_ret.s+", P.TRACING, A.MODIFY_RETURN, _SLEEPABLE, _FUNCTION),
    Rule("fexit.s+", P.TRACING, A.TRACE_FEXIT, _SLEEPABLE, _FUNCTION),
    Rule("freplace+", P.EXT, None, _NONE, _FUNCTION),
    Rule("lsm+", P.LSM, A.LSM_MAC, _NONE, "<hook>"),
    Rule("lsm.s+", P.LSM, A.LSM_MAC, _SLEEPABLE, "<hook>"),
    Rule("lsm_cgroup+", P.LSM, A.LSM_CGROUP, _NONE, "<hook>"),
    Rule("iter+", P.TRACING, A.TRACE_ITER, _NONE, "<iterator>"),
    Rule("iter.s+", P.TRACING, A.TRACE_ITER, _SLEEPABLE, "<iterator>"),
    Rule("syscall", P.SYSCALL, None, _SLEEPABLE),
    Rule("xdp.frags/devmap", P.XDP, A.XDP_DEVMAP, _FRAGS),
    Rule("xdp/devmap", P.XDP, A.XDP_DEVMAP),
    Rule("xdp.frags/cpumap", P.XDP, A.XDP_CPUMAP, _FRAGS),
    Rule("xdp/cpumap", P.XDP, A.XDP_CPUMAP),
    Rule("xdp.frags", P.XDP, A.XDP, _FRAGS),
    Rule("xdp", P.XDP, A.XDP),
    Rule("perf_event", P.PERF_EVENT),
    Rule("lwt_in", P.LWT_IN),
    Rule("lwt_out", P.LWT_OUT),
    Rule("lwt_xmit", P.LWT_XMIT),
    Rule("lwt_seg6local", P.LWT_SEG6LOCAL),
    Rule("sockops", P.SOCK_OPS, A.CGROUP_SOCK_OPS),
    Rule("sk_skb/stream_parser", P.SK_SKB, A.SK_SKB_STREAM_PARSER),
    Rule("sk_skb/stream_verdict", P.SK_SKB, A.SK_SKB_STREAM_VERDICT),
    Rule("sk_skb/verdict", P.SK_SKB, A.SK_SKB_VERDICT),
    Rule("sk_skb", P.SK_SKB),
    Rule("sk_msg", P.SK_MSG, A.SK_MSG_VERDICT),
    Rule("lirc_mode2", P.LIRC_MODE2, A.LIRC_MODE2),
    Rule("flow_dissector", P.FLOW_DISSECTOR, A.FLOW_DISSECTOR),
    Rule("cgroup_skb/ingress", P.CGROUP_SKB, A.CGROUP_INET_INGRESS),
    Rule("cgroup_skb/egress", P.CGROUP_SKB, A.CGROUP_INET_EGRESS),
    Rule("cgroup/skb", P.CGROUP_SKB),
    Rule("cgroup/sock_create", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE),
    Rule("cgroup/sock_release", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_RELEASE),
    Rule("cgroup/sock", P.CGROUP_SOCK, A.CGROUP_INET_SOCK_CREATE),
    Rule("cgroup/post_bind4", P.CGROUP_SOCK, A.CGROUP_INET4_POST_BIND),
    Rule("cgroup/post_bind6", P.CGROUP_SOCK, A.CGROUP_INET6_POST_BIND),
    Rule("cgroup/bind4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_BIND),
    Rule("cgroup/bind6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_BIND),
    Rule("cgroup/connect4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_CONNECT),
    Rule("cgroup/connect6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_CONNECT),
    Rule("cgroup/connect_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_CONNECT),
    Rule("cgroup/sendmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_SENDMSG),
    Rule("cgroup/sendmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_SENDMSG),
    Rule("cgroup/sendmsg_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_SENDMSG),
    Rule("cgroup/recvmsg4", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP4_RECVMSG),
    Rule("cgroup/recvmsg6", P.CGROUP_SOCK_ADDR, A.CGROUP_UDP6_RECVMSG),
    Rule("cgroup/recvmsg_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_RECVMSG),
    Rule("cgroup/getpeername4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETPEERNAME),
    Rule("cgroup/getpeername6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETPEERNAME),
    Rule("cgroup/getpeername_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_GETPEERNAME),
    Rule("cgroup/getsockname4", P.CGROUP_SOCK_ADDR, A.CGROUP_INET4_GETSOCKNAME),
    Rule("cgroup/getsockname6", P.CGROUP_SOCK_ADDR, A.CGROUP_INET6_GETSOCKNAME),
    Rule("cgroup/getsockname_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_GETSOCKNAME),
    Rule("cgroup/sysctl", P.CGROUP_SYSCTL, A.CGROUP_SYSCTL),
    Rule("cgroup/getsockopt", P.CGROUP_SOCKOPT, A.CGROUP_GETSOCKOPT),
    Rule("cgroup/setsockopt", P.CGROUP_SOCKOPT, A.CGROUP_SETSOCKOPT),
    Rule("cgroup/dev", P.CGROUP_DEVICE, A.CGROUP_DEVICE),
    Rule("struct_ops+", P.STRUCT_OPS, None, _NONE, "<member>"),
    Rule("struct_ops.s+", P.STRUCT_OPS, None, _SLEEPABLE, "<member>"),
    Rule("sk_lookup", P.SK_LOOKUP, A.SK_LOOKUP),
    Rule("netfilter", P.NETFILTER, A.NETFILTER),
    # Gone from libbpf with 1.0.
    Rule("xdp_devmap/", P.XDP, A.XDP_DEVMAP, _NONE, "<name>"),
    Rule("xdp_cpumap/", P.XDP, A.XDP_CPUMAP, _NONE, "<name>"),
)

_EXACT: dict[str, Rule] = {rule.pattern.rstrip("+"): rule for rule in RULES if not rule.pattern.endswith("/")}
_PREFIX: dict[str, Rule] = {rule.pattern[:-1]: rule for rule in RULES if rule.pattern[-1] in "+/"}

# The word that a name of no rule starts with, and what it was taken for by libbpf before 1.0 or by tc.
_WORDS: dict[str, Match] = {
    "xdp": Match(P.XDP, A.XDP, inferred=True),
    "xdp.frags": Match(P.XDP, A.XDP, _FRAGS, inferred=True),
    "tc": Match(P.SCHED_CLS, inferred=True),
    "cls": Match(P.SCHED_CLS, inferred=True),
    "classifier": Match(P.SCHED_CLS, inferred=True),
    "ingress": Match(P.SCHED_CLS, inferred=True),
    "egress": Match(P.SCHED_CLS, inferred=True),
    "action": Match(P.SCHED_ACT, inferred=True),
    "socket": Match(P.SOCKET_FILTER, inferred=True),
}
_WORD = re.compile(r"[a-z]+(?:\.frags)?(?![a-z])")

# The first parameter's struct, where only one program type can have it.
_CONTEXTS: dict[str, Match] = {"xdp_md": Match(P.XDP, A.XDP, inferred=True)}
_CONTEXT_OF: dict[P, str] = {
    P.XDP: "xdp_md",
    P.SCHED_CLS: "__sk_buff",
    P.SCHED_ACT: "__sk_buff",
    P.SOCKET_FILTER: "__sk_buff",
}


def match(section: str, *, context: str | None = None) -> Match | None:
    """What `section` says, or None if it says nothing.

    A leading "?" (not loaded unless asked for) is ignored. `context` names the struct that the program's
    first parameter points to, where BTF tells: a name that is none of libbpf's is then inferred from it, and
    never against it.
    """
    section = section.removeprefix("?")
    rule = _EXACT.get(section)
    if rule is not None:
        return Match(rule.type, rule.attach_type, rule.flags, None, rule.extras)
    # Longest first, so that a rule with a "/" of its own would win over its beginning.
    end = section.rfind("/")
    while end > 0:
        rule = _PREFIX.get(section[:end])
        if rule is not None:
            return Match(rule.type, rule.attach_type, rule.flags, section[end + 1 :] or None, rule.extras)
        end = section.rfind("/", 0, end)
    return _infer(section, context)


def _infer(section: str, context: str | None) -> Match | None:
    word = _WORD.match(section)
    found = _WORDS.get(word.group()) if word else None
    if context is None or (found is not None and _CONTEXT_OF[found.type] == context):
        return found
    return _CONTEXTS.get(context)
