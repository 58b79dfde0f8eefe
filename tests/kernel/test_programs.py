"""Live programs: test runs, facts, pins, attaching."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import ebpf
from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf, mounts
from ebpf.kernel.fd import FD
from ebpf.loader.object import Object
from ebpf.programs.program import Program
from ebpf.uapi import ProgramType, XdpAction

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

__u64 runs;

SEC("xdp") int grow(struct xdp_md *ctx)
{
    runs++;
    if (bpf_xdp_adjust_head(ctx, -4))
        return XDP_ABORTED;
    char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (data + 4 > end)
        return XDP_ABORTED;
    data[0] = 'a'; data[1] = 'b'; data[2] = 'c'; data[3] = 'd';
    return XDP_TX;
}
SEC("xdp") int strange(struct xdp_md *ctx) { return ctx->rx_queue_index + 77; }
SEC("tc") int mark(struct __sk_buff *ctx) { ctx->mark = ctx->mark + 5; return ctx->len; }
SEC("syscall") int call(__u64 *ctx) { return ctx ? 9 : 8; }
SEC("kprobe/do_nothing") int probe(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
PACKET = bytes(range(60))


@pytest.fixture(scope="module")
def spec() -> ebpf.Spec:
    return ebpf.compile(SOURCE, name="programs.bpf.c")


@pytest.fixture
def obj(spec: ebpf.Spec) -> Iterator[Object]:
    with spec.load() as loaded:
        yield loaded


def test_run_gives_the_packet_back(obj: Object) -> None:
    result = obj.programs["grow"].run(PACKET)
    assert result.action is XdpAction.TX and result.data == b"abcd" + PACKET
    assert obj.variables["runs"] == 1
    again = obj.programs["grow"].run(bytearray(PACKET), repeat=10)
    assert obj.variables["runs"] > 1 and again.duration >= 0


def test_run_with_context(obj: Object) -> None:
    strange = obj.programs["strange"].run(PACKET)
    assert strange.value == 77 and not isinstance(strange.value, XdpAction)
    skb = bytearray(192)
    struct.pack_into("=I", skb, 8, 37)  # mark
    result = obj.programs["mark"].run(PACKET, ctx=bytes(skb))
    assert result.value == len(PACKET) and result.ctx is not None
    assert struct.unpack_from("=I", result.ctx, 8) == (42,)
    assert obj.programs["call"].run(ctx=bytes(8)).value == 9
    with pytest.raises(KernelError, match="cannot run program 'mark'") as caught:
        obj.programs["mark"].run(PACKET, ctx=b"\xff" * 192)
    assert caught.value.hint is not None and "context" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("grow", b"short", "5 bytes were given, and 14 are the least"),
        ("grow", None, "none was given, and 14 are the least"),
        ("call", b"x" * 64, "runs on a context and takes no packet"),
        ("probe", PACKET, "the kernel has no test run for type kprobe"),
    ],
)
def test_run_says_what_it_needs(obj: Object, name: str, data: bytes | None, message: str) -> None:
    with pytest.raises(Error, match=message):
        obj.programs[name].run(data)


def test_packet_too_large(obj: Object) -> None:
    with pytest.raises(KernelError, match="cannot run program 'grow'") as caught:
        obj.programs["grow"].run(bytes(1 << 20))
    assert caught.value.hint is not None and "1048576 bytes, may be more" in caught.value.hint


def test_facts(obj: Object) -> None:
    program = obj.programs["grow"]
    info = program.info
    assert info.name == "grow" and info.type == ProgramType.XDP == program.type
    assert len(info.tag) == 16 and info.xlated_size > 0 and info.verified_insns > 0
    assert program.maps == (obj.maps[".bss"].id,)
    assert program.id == info.id and program.fd == program.fileno()
    code = program.instructions
    assert code[0].symbol == "grow" and code[-1].opcode == 0x95
    assert sum(instruction.slots for instruction in code) * 8 == info.xlated_size
    texts = {instruction.source.text.strip() for instruction in code if instruction.source}
    assert "runs++;" in texts
    assert "grow" in repr(program) and "xdp" in repr(program)


def test_closed_and_unknown(obj: Object) -> None:
    program = obj.programs["strange"]
    program.close()
    program.close()
    with pytest.raises(Error, match="program 'strange' is closed"):
        program.run(PACKET)
    with pytest.raises(KernelError, match="no program has the id"):
        Program.from_id(2**31)
    with pytest.raises(Error, match="a map is no program, but bpf-map"):
        Program.from_fd(FD(bpf.fd_by_id(bpf.Kind.MAP, obj.maps[".bss"].id), "a map"))


def test_pin(obj: Object, tmp_path: Path) -> None:
    folder = tmp_path / "bpffs"
    mounts.mount_bpffs(folder)
    try:
        program = obj.programs["grow"]
        with pytest.raises(Error, match="was not pinned here"):
            program.unpin()
        assert program.pin(folder / "sub" / "grow") == str(folder / "sub" / "grow")
        with Program.open(folder / "sub" / "grow") as opened:
            assert opened.id == program.id and opened.name == "grow" and opened.type is ProgramType.XDP
        program.unpin()
        assert program.pinned is None
        with pytest.raises(KernelError, match="no program is pinned as"):
            Program.open(folder / "sub" / "grow")
        obj.maps[".bss"].pin(folder / "bss")
        with pytest.raises(Error, match="is no program, but bpf-map"):
            Program.open(folder / "bss")
    finally:
        mounts.unmount(folder)


def test_only_xdp_attaches(obj: Object) -> None:
    with pytest.raises(Error, match="'mark' is of type sched_cls; this version attaches type xdp only"):
        obj.programs["mark"].attach("lo")


def test_attach(obj: Object) -> None:
    with obj.programs["strange"].attach("lo", mode="generic") as link:
        assert link.program_id == obj.programs["strange"].id
