"""The section names: libbpf's exactly, older ones inferred and marked."""

from __future__ import annotations

import pytest

from ebpf.spec.sections import RULES, match
from ebpf.uapi import AttachType, ProgramFlags, ProgramType

P, A = ProgramType, AttachType


@pytest.mark.parametrize(
    ("section", "type", "attach_type", "flags", "attach_to"),
    [
        ("xdp", P.XDP, A.XDP, 0, None),
        ("?xdp", P.XDP, A.XDP, 0, None),
        ("xdp.frags", P.XDP, A.XDP, ProgramFlags.XDP_HAS_FRAGS, None),
        ("xdp/devmap", P.XDP, A.XDP_DEVMAP, 0, None),
        ("xdp.frags/cpumap", P.XDP, A.XDP_CPUMAP, ProgramFlags.XDP_HAS_FRAGS, None),
        ("xdp_devmap/egress", P.XDP, A.XDP_DEVMAP, 0, "egress"),
        ("tc", P.SCHED_CLS, None, 0, None),
        ("tcx/ingress", P.SCHED_CLS, A.TCX_INGRESS, 0, None),
        ("kprobe", P.KPROBE, None, 0, None),
        ("kprobe/tcp_v4_connect", P.KPROBE, None, 0, "tcp_v4_connect"),
        ("kprobe.multi/tcp_*", P.KPROBE, A.TRACE_KPROBE_MULTI, 0, "tcp_*"),
        ("uprobe.s//bin/bash:readline", P.KPROBE, None, ProgramFlags.SLEEPABLE, "/bin/bash:readline"),
        ("tracepoint/syscalls/sys_enter_openat", P.TRACEPOINT, None, 0, "syscalls/sys_enter_openat"),
        ("tp_btf/sched_switch", P.TRACING, A.TRACE_RAW_TP, 0, "sched_switch"),
        ("fentry.s/do_unlinkat", P.TRACING, A.TRACE_FENTRY, ProgramFlags.SLEEPABLE, "do_unlinkat"),
        ("raw_tracepoint.w/nbd", P.RAW_TRACEPOINT_WRITABLE, None, 0, "nbd"),
        ("lsm_cgroup/socket_bind", P.LSM, A.LSM_CGROUP, 0, "socket_bind"),
        ("iter.s/task", P.TRACING, A.TRACE_ITER, ProgramFlags.SLEEPABLE, "task"),
        ("syscall", P.SYSCALL, None, ProgramFlags.SLEEPABLE, None),
        ("cgroup/connect_unix", P.CGROUP_SOCK_ADDR, A.CGROUP_UNIX_CONNECT, 0, None),
        ("cgroup_skb/egress", P.CGROUP_SKB, A.CGROUP_INET_EGRESS, 0, None),
        ("sk_reuseport/migrate", P.SK_REUSEPORT, A.SK_REUSEPORT_SELECT_OR_MIGRATE, 0, None),
        ("struct_ops.s/init", P.STRUCT_OPS, None, ProgramFlags.SLEEPABLE, "init"),
        ("netkit/peer", P.SCHED_CLS, A.NETKIT_PEER, 0, None),
        ("freplace/prog0", P.EXT, None, 0, "prog0"),
    ],
)
def test_names_of_libbpf(
    section: str, type: P, attach_type: A | None, flags: int, attach_to: str | None
) -> None:
    found = match(section)
    assert found is not None and not found.inferred
    assert (found.type, found.attach_type, found.flags, found.attach_to) == (
        type,
        attach_type,
        flags,
        attach_to,
    )


def test_extras_tell_what_to_write() -> None:
    found = match("tracepoint")
    assert found is not None and found.extras == "<category>/<name>"


@pytest.mark.parametrize(
    ("section", "type"),
    [
        ("xdp_icmp_echo", P.XDP),
        ("xdp_vlan01", P.XDP),
        ("xdp-foo", P.XDP),
        ("xdp/foo", P.XDP),
        ("xdp1", P.XDP),
        ("tc_count", P.SCHED_CLS),
        ("classifier_x", P.SCHED_CLS),
        ("ingress", P.SCHED_CLS),
        ("socket1", P.SOCKET_FILTER),
    ],
)
def test_plain_names_are_inferred(section: str, type: P) -> None:
    found = match(section)
    assert found is not None and found.inferred and found.type is type


def test_frags_survive_inference() -> None:
    found = match("xdp.frags/foo")
    assert found is not None and found.inferred and found.flags == ProgramFlags.XDP_HAS_FRAGS


@pytest.mark.parametrize("section", ["prog", "xdpcap", "tcp_thing", "1/0", "", "/", "filter", "kprobes/x"])
def test_others_say_nothing(section: str) -> None:
    assert match(section) is None


def test_context_decides_names_that_say_nothing() -> None:
    found = match("prog", context="xdp_md")
    assert found is not None and found.inferred and found.type is P.XDP
    assert match("prog", context="__sk_buff") is None, "several types have that context"
    tc = match("cls_main", context="__sk_buff")
    assert tc is not None and tc.type is P.SCHED_CLS


def test_context_is_never_contradicted() -> None:
    assert match("xdp_like", context="__sk_buff") is None
    ingress = match("ingress", context="xdp_md")
    assert ingress is not None and ingress.type is P.XDP


def test_the_table_is_unambiguous() -> None:
    patterns = [rule.pattern.rstrip("+/") for rule in RULES]
    assert len(patterns) == len(set(patterns))
    assert {rule.type for rule in RULES} == set(P), "every program type has a section name"
