"""The verifier's commonest refusals, each provoked by a real program: reason, source line and hint."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

import ebpf
from ebpf.errors import VerifierError
from ebpf.kernel import bpf

pytestmark = pytest.mark.kernel

HEAD = """
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
"""
GPL = 'char LICENSE[] SEC("license") = "GPL";\n'
HASH = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64);
         __uint(max_entries, 4); } counts SEC(".maps");
"""
ARRAY = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __uint(value_size, 64);
         __uint(max_entries, 4); } blobs SEC(".maps");
"""


class Case(NamedTuple):
    code: str  # the refused line is marked HERE
    reason: str
    hint: str
    line: bool = True


CASES = {
    "packet bounds": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    struct ethhdr *eth = (void *)(long)ctx->data;
    return eth->h_proto == 8 ? XDP_DROP : XDP_PASS; // HERE
}""",
        "invalid access to packet",
        "data_end",
    ),
    "null map value": Case(
        GPL
        + HASH
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *value = bpf_map_lookup_elem(&counts, &key);
    *value += 1; // HERE
    return XDP_PASS;
}""",
        "invalid mem access 'map_value_or_null'",
        "test it first",
    ),
    "stack": Case(
        GPL
        + """
static __noinline int inner(int x)
{
    volatile char big[300];
    for (int i = 0; i < 300; i += 4) big[i] = x;
    return big[x & 255];
}
SEC("xdp") int prog(struct xdp_md *ctx)
{
    volatile char big[300];
    for (int i = 0; i < 300; i += 4) big[i] = i;
    return inner(ctx->ingress_ifindex) + big[ctx->ingress_ifindex & 255];
}""",
        "combined stack size of 2 calls is",
        "(bytes used: prog 3",
        line=False,
    ),
    "endless loop": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    for (;;) __asm__ volatile(""); // HERE
    return XDP_PASS;
}""",
        "infinite loop detected",
        "upper bound",
    ),
    "too many instructions": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    int sum = 0;
    for (int i = 0; i < 1000000; i++) // HERE
        sum += bpf_get_prandom_u32() & 1;
    return sum ? XDP_DROP : XDP_PASS;
}""",
        "BPF program is too large. Processed 1000001 insn",
        "bpf_loop()",
    ),
    "uninitialised register": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    int result;
    __asm__ volatile("%0 = r7" : "=r"(result)); // HERE
    return result;
}""",
        "R7 !read_ok",
        "initialise it",
    ),
    "license": Case(
        """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    bpf_printk("hello"); // HERE
    return XDP_PASS;
}""",
        "cannot call GPL-restricted function",
        "bpf_trace_printk is for GPL-compatible programs only, and the object has no license; if yours may "
        'be, say so: char LICENSE[] SEC("license") = "GPL";',
    ),
    "helper argument": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    return bpf_map_lookup_elem(ctx, &key) ? XDP_PASS : XDP_DROP; // HERE
}""",
        "R1 type=ctx expected=map_ptr",
        "argument 1 of bpf_map_lookup_elem is `void *map`; it was given the program's context",
    ),
    "return value": Case(
        GPL
        + """
SEC("cgroup_skb/egress") int prog(struct __sk_buff *ctx)
{
    return 5; // HERE
}""",
        "At program exit the register R0 has",
        "return one of the values",
    ),
    "map value bounds": Case(
        GPL
        + ARRAY
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    __u32 key = 0;
    char *blob = bpf_map_lookup_elem(&blobs, &key);
    if (!blob)
        return XDP_PASS;
    blob[ctx->ingress_ifindex] = 1; // HERE
    return XDP_PASS;
}""",
        "unbounded memory access",
        "bound the offset",
    ),
    "helper of another type": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    return bpf_skb_pull_data((void *)ctx, 0) ? XDP_PASS : XDP_DROP; // HERE
}""",
        "program of this type cannot use helper bpf_skb_pull_data#39",
        "since Linux 4.9) is for programs of these types: lwt_in",
    ),
    "reference leak": Case(
        GPL
        + """
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx)
{
    int *record = bpf_ringbuf_reserve(&ring, 4, 0);
    if (record) *record = 1;
    return XDP_PASS; // HERE
}""",
        "Unreleased reference",
        "bpf_ringbuf_submit",
    ),
    "read-only variable": Case(
        GPL
        + """
const volatile int limit = 3;
SEC("xdp") int prog(struct xdp_md *ctx)
{
    *(volatile int *)&limit = 4; // HERE
    return XDP_PASS;
}""",
        "write into map forbidden",
        "read-only",
    ),
    "context": Case(
        GPL
        + """
SEC("xdp") int prog(struct xdp_md *ctx)
{
    return *((int *)ctx + 20); // HERE
}""",
        "invalid bpf_context access off=80 size=4",
        "no such field",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str) -> None:
    case = CASES[name]
    code = HEAD + case.code + "\n"
    spec = ebpf.compile(code, name="refused.bpf.c")
    with pytest.raises(VerifierError) as caught:
        spec.load()
    error = caught.value
    assert case.reason in error.reason
    assert error.hint is not None and case.hint in error.hint
    assert error.program == "prog"
    assert error.errno != 0
    if case.line:
        lines = code.splitlines()
        number = next(index for index, line in enumerate(lines, 1) if "HERE" in line)
        assert error.source is not None
        assert error.source.startswith(f"refused.bpf.c:{number}: "), error
        # The caret stands below the line, inside of it.
        excerpt, caret = str(error).split("\n")[2:4]
        assert excerpt.strip() == lines[number - 1].strip()
        assert caret.strip() == "^" and len(caret) <= len(excerpt)
    else:
        assert error.source is None


def test_message_is_short_and_log_is_whole() -> None:
    case = CASES["packet bounds"]
    with pytest.raises(VerifierError) as caught:
        ebpf.compile(HEAD + case.code + "\n", name="x.bpf.c").load()
    error = caught.value
    assert len(str(error).splitlines()) == 5
    assert str(error).startswith(
        "the verifier refused program 'prog' (xdp): invalid access to packet, off=12"
    )
    assert "0: (61) r1 = *(u32 *)(r1 +0)" in error.log or "R1=ctx()" in error.log
    assert not error.log_truncated


def test_huge_log_is_bounded() -> None:
    """The states of a million instructions are hundreds of megabytes: they are not asked for."""
    case = CASES["too many instructions"]
    with pytest.raises(VerifierError) as caught:
        ebpf.compile(HEAD + case.code + "\n", name="x.bpf.c").load()
    assert caught.value.log_truncated
    assert len(caught.value.log) < 1 << 20


def test_core_field_that_this_kernel_lacks() -> None:
    code = (
        HEAD
        + GPL
        + """
struct xdp_md___made_up { __u32 data; __u32 no_such_field; } __attribute__((preserve_access_index));
SEC("xdp") int prog(struct xdp_md *ctx)
{
    return ((struct xdp_md___made_up *)ctx)->no_such_field; // HERE
}
"""
    )
    with pytest.raises(VerifierError) as caught:
        ebpf.compile(code, name="x.bpf.c").load()
    error = caught.value
    assert "195896080" in error.reason
    assert (
        error.hint is not None
        and "field 'no_such_field' of struct xdp_md is not in this kernel" in error.hint
    )
    assert "bpf_core_field_exists" in error.hint
    assert error.source is not None and "no_such_field; // HERE" in error.source


def test_refused_program_leaves_nothing() -> None:
    spec = ebpf.compile(HEAD + CASES["null map value"].code + "\n", name="x.bpf.c")
    maps, descriptors = set(bpf.ids(bpf.Kind.MAP)), os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(VerifierError):
            spec.load()
    assert os.listdir("/proc/self/fd") == descriptors
    assert not {id for id in set(bpf.ids(bpf.Kind.MAP)) - maps if _named(id, "counts")}


def _named(id: int, name: str) -> bool:
    try:
        fd = bpf.fd_by_id(bpf.Kind.MAP, id)
    except OSError:
        return False
    try:
        return bpf.map_info(fd).name == name
    finally:
        os.close(fd)
