"""CO-RE relocations against the running kernel's types: the same numbers as libbpf, asked through bpftool."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf.btf.btf import BTF
from ebpf.compiler.compile import compile_object
from ebpf.errors import CompileError
from ebpf.isa.instruction import Instruction
from ebpf.spec.core import Relocator, is_poisoned
from ebpf.spec.reader import read_object

pytestmark = pytest.mark.kernel

VMLINUX = Path("/sys/kernel/btf/vmlinux")

# Types of the kernel as few of its versions have them: other offsets, sizes, flavours, and things it lacks.
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define KERNEL __attribute__((preserve_access_index))
struct list_head { struct list_head *next, *prev; } KERNEL;
struct sched_entity { __u64 sum_exec_runtime; } KERNEL;
struct task_struct {
    int pid, tgid;
    char comm[16];
    struct task_struct *real_parent;
    struct sched_entity se;
    unsigned sched_reset_on_fork:1, in_execve:1;
    int not_there;
    long exit_code;
    struct list_head tasks;
} KERNEL;
struct task_struct___other { unsigned __state; } KERNEL;
struct sk_buff {
    union { struct { struct sk_buff *next; }; };
    unsigned len, data_len;
    unsigned char pkt_type:3, ip_summed:2;
} KERNEL;
struct net_device { int ifindex; unsigned mtu; unsigned long state; } KERNEL;
struct not_there { int a; } KERNEL;
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_node___bad { int next; };
enum bpf_map_type___x { BPF_MAP_TYPE_HASH___x = 99, BPF_MAP_TYPE_NOT_THERE = 77 };

__u64 out[40];

SEC("socket") int values(struct __sk_buff *ctx)
{
    struct task_struct *task = (void *)ctx;
    struct task_struct___other *other = (void *)ctx;
    struct sk_buff *skb = (void *)ctx;
    int i = 0;

    out[i++] = bpf_core_field_exists(task->pid);
    out[i++] = bpf_core_field_exists(task->not_there);
    out[i++] = bpf_core_field_exists(other->__state);
    out[i++] = bpf_core_field_offset(struct task_struct, tasks.prev);
    out[i++] = bpf_core_field_offset(task->comm[5]);
    out[i++] = bpf_core_field_size(task->comm);
    out[i++] = BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
    out[i++] = BPF_CORE_READ_BITFIELD_PROBED(skb, pkt_type);
    out[i++] = BPF_CORE_READ(task, real_parent, real_parent, tgid);
    out[i++] = bpf_core_type_exists(struct task_struct);
    out[i++] = bpf_core_type_exists(struct not_there);
    out[i++] = bpf_core_type_size(struct net_device);
    out[i++] = bpf_core_type_id_kernel(struct sk_buff);
    out[i++] = bpf_core_type_id_local(struct sk_buff);
    out[i++] = bpf_core_type_matches(struct hlist_node);
    out[i++] = bpf_core_type_matches(struct hlist_node___bad);
    out[i++] = bpf_core_enum_value_exists(enum bpf_map_type___x, BPF_MAP_TYPE_NOT_THERE);
    out[i++] = bpf_core_enum_value(enum bpf_map_type___x, BPF_MAP_TYPE_HASH___x);
    if (bpf_core_enum_value_exists(enum bpf_map_type___x, BPF_MAP_TYPE_NOT_THERE))
        out[i++] = bpf_core_enum_value(enum bpf_map_type___x, BPF_MAP_TYPE_NOT_THERE);
    if (bpf_core_field_exists(task->not_there))
        out[i++] = BPF_CORE_READ(task, not_there);
    return 0;
}

SEC("socket") int accesses(struct __sk_buff *ctx)
{
    struct task_struct *task = (void *)ctx;
    struct net_device *device = (void *)ctx;
    struct sk_buff *skb = (void *)ctx;

    return task->pid + task->se.sum_exec_runtime + task->exit_code + task->real_parent->tgid +
           device->mtu + device->state + skb->len + skb->data_len;
}
char LICENSE[] SEC("license") = "GPL";
"""

_LINE = re.compile(
    r"prog '(\w+)': relo #\d+: "
    r"(?:patched insn #(\d+) \(\S+\) (imm|imm64|off|mem_sz) \d+ -> (\d+)|substituting insn #(\d+))"
)
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "bpf", "none", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def ours(instruction: Instruction, wanted: dict[str, int]) -> dict[str, int]:
    """What we made of an instruction, in the terms of libbpf's log."""
    if is_poisoned(instruction):
        return {"poison": 1}
    if instruction.is_wide:
        return {"imm64": instruction.imm}
    if instruction.opcode & 7 in (4, 7):
        return {"imm": instruction.imm & (1 << 64) - 1}
    made = {"off": instruction.offset}
    if "mem_sz" in wanted:
        made["mem_sz"] = _SIZES[instruction.opcode & 0x18]
    return made


def test_as_libbpf(bpffs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bpftool = shutil.which("bpftool")
    if bpftool is None:
        pytest.skip("needs bpftool to compare with")
    if not VMLINUX.exists():
        pytest.skip("needs a kernel with CONFIG_DEBUG_INFO_BTF (5.2)")
    try:
        data = compile_object(SOURCE, cpu="v3").data
    except CompileError as error:
        if error.diagnostics:
            raise
        pytest.skip(f"needs a compiler: {error}")
    path = tmp_path_factory.mktemp("object") / "core.o"
    path.write_bytes(data)
    log = subprocess.run(
        [bpftool, "-d", "prog", "loadall", str(path), str(bpffs / "core")], capture_output=True, text=True
    ).stderr
    wanted: dict[tuple[str, int], dict[str, int]] = {}
    for program, patched, what, value, poisoned in _LINE.findall(log):
        entry = wanted.setdefault((program, int(patched or poisoned)), {})
        entry.update({what: int(value)} if what else {"poison": 1})
    assert len(wanted) > 40, f"bpftool said:\n{log[-2000:]}"

    spec = read_object(data, name="core")
    assert spec.btf is not None
    relocator = Relocator(spec.btf, BTF.from_bytes(VMLINUX.read_bytes()))
    found = {}
    for name, program in spec.programs.items():
        slot = 0
        for instruction in relocator.relocate(program.instructions, program=name):
            if instruction.relocation is not None:
                found[name, slot] = ours(instruction, wanted.get((name, slot), {}))
            slot += instruction.slots
    assert found == wanted
