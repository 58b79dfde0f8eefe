"""The C headers: the generated one is up to date; with every compiler at hand they work without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ebpf.compiler import toolchain
from ebpf.compiler.architecture import current
from ebpf.compiler.headers import HELPER_DEFS, INCLUDE, helper_defs
from ebpf.isa.helpers import HELPERS

HEADERS = ("bpf_helpers.h", "bpf_endian.h", "bpf_tracing.h", "bpf_core_read.h")
ARCHITECTURES = ("x86", "arm64", "arm", "s390", "powerpc", "riscv", "loongarch", "mips", "sparc", "arc")


def compilers() -> list[list[str]]:
    found = [[path, "-target", "bpfel"] for n in range(14, 30) if (path := shutil.which(f"clang-{n}"))]
    if zig := toolchain.zig_directory():
        found.append([str(zig / "zig"), "cc", "-target", "bpfel-freestanding", "-fno-sanitize=all"])
    return found


COMPILERS = compilers()


@pytest.fixture(params=COMPILERS, ids=lambda command: Path(command[0]).name)
def compiler(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param
    return command


needs_compiler = pytest.mark.skipif(not COMPILERS, reason="SKIPPED: needs a clang, or the ziglang wheel")


def build(compiler: Sequence[str], folder: Path, text: str, *flags: str) -> tuple[int, str, Path]:
    source, output = folder / "t.bpf.c", folder / "t.o"
    source.write_text(text)
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    machine = current()
    system = [f"-idirafter/usr/include/{machine.multiarch}"] if machine else []
    command = [
        *compiler, "-O2", "-g", "-mcpu=v3", "-std=gnu17",
        "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", f"-I{INCLUDE}",
        *system, "-idirafter/usr/include", *flags, "-c", str(source), "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **caches})
    return done.returncode, done.stderr, output


def test_the_generated_header_is_up_to_date() -> None:
    assert HELPER_DEFS.read_text() == helper_defs(), "run `python -m ebpf.compiler.headers`"


def test_it_declares_every_helper() -> None:
    numbers = re.findall(r"= \(void \*\) (\d+);", helper_defs())
    assert [int(number) for number in numbers] == [helper.id for helper in HELPERS]


#: Types that the programs below use, as vmlinux.h would have them.
KERNEL = """
#define __VMLINUX_H__
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef int __s32;
typedef unsigned long long __u64; typedef long long __s64; typedef __u16 __be16; typedef __u32 __be32;
typedef __u32 __wsum;
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct pt_regs {
	unsigned long di, si, dx, cx, r8, r9, r10, sp, bp, ax, ip;
	unsigned long regs[32], uregs[18], gprs[16], gpr[32], u_regs[16];
	unsigned long orig_gpr3, link, nip, cp0_epc, tpc, pc;
};
struct user_pt_regs { unsigned long regs[32], sp, pc, csr_era; };
typedef struct { unsigned long gprs[16]; struct { unsigned long addr; } psw; } user_pt_regs;
struct user_regs_struct {
	unsigned long a0, a1, a2, a3, a4, a5, a6, a7, ra, s0, sp, pc;
	struct { unsigned long r0, r1, r2, r3, r4, r5, r6, r7, blink, fp, sp, ret; } scratch;
};
struct inode { unsigned long i_ino; };
struct file { struct inode *f_inode; char name[16]; };
struct mm { struct file *exe; };
struct task { struct mm *mm; int pid; unsigned flag : 3; signed small : 5; struct { int in; } deep; };
enum color { RED = 1, BLUE = 1000 };
#pragma clang attribute pop
struct bpf_iter_num { __u64 opaque[1]; } __attribute__((aligned(8)));
"""

TRACING = """
struct pair { long a, b; };
SEC("fentry/f") int BPF_PROG2(f2, struct pair, p, int, i, char, c, void *, q)
{
	return p.a + p.b + i + c + !q;
}
SEC("fentry/f") int BPF_PROG(f1, struct task *t, int i) { return t->pid + i; }
SEC("fentry/f") int BPF_PROG(f0) { return 0; }
SEC("kprobe/k") int BPF_KPROBE(k4, void *a, int b, long c, char d) { return !a + b + c + d; }
SEC("kprobe/k") int BPF_KPROBE(k0) { return 0; }
SEC("kretprobe/k") int BPF_KRETPROBE(r1, int result) { return result; }
SEC("kretprobe/k") int BPF_KRETPROBE(r0)
{
	unsigned long ip = 0;

	BPF_KRETPROBE_READ_RET_IP(ip, ctx);
	return ip + PT_REGS_IP(ctx) + PT_REGS_SP_CORE(ctx) + PT_REGS_FP(ctx) + PT_REGS_RC(ctx) + PT_REGS_RET(ctx);
}
SEC("ksyscall/openat") int BPF_KSYSCALL(s4, int fd, const char *name, int flags, int mode)
{
	return fd + !name + mode;
}
SEC("uprobe") int BPF_UPROBE(u1, int a) { return a; }
SEC("uretprobe") int BPF_URETPROBE(v1, int a) { return a; }
SEC("kprobe/k") int raw(struct pt_regs *ctx)
{
	struct pt_regs *regs = PT_REGS_SYSCALL_REGS(ctx);

	return PT_REGS_PARM1_CORE_SYSCALL(regs) + PT_REGS_PARM4_CORE_SYSCALL(regs) + PT_REGS_PARM2_CORE(ctx);
}
"""

READING = """
SEC("raw_tp/x") int read(struct task *t)
{
	struct inode *inode;
	char name[16];
	int sum = BPF_CORE_READ(t, mm, exe, f_inode, i_ino) + BPF_CORE_READ(t, pid) + BPF_CORE_READ(t, deep.in);

	sum += BPF_CORE_READ(BPF_CORE_READ(t, mm), exe, f_inode, i_ino);
	sum += !BPF_PROBE_READ(t, mm, exe) + BPF_CORE_READ_USER(t, pid);
	sum += BPF_CORE_READ((const struct task *)t, pid);
	sum += BPF_CORE_READ_INTO(&inode, t, mm, exe, f_inode) + BPF_CORE_READ_STR_INTO(&name, t, mm, exe, name);
	sum += BPF_CORE_READ_BITFIELD(t, flag) + BPF_CORE_READ_BITFIELD_PROBED(t, small);
	BPF_CORE_WRITE_BITFIELD(t, flag, 2);
	sum += bpf_core_field_exists(t->pid) + bpf_core_field_exists(struct task, mm);
	sum += bpf_core_field_size(t->mm) + bpf_core_field_offset(struct task, pid);
	sum += bpf_core_type_exists(struct task) + bpf_core_type_size(struct task);
	sum += bpf_core_type_id_local(struct task) + bpf_core_type_id_kernel(struct task);
	sum += bpf_core_enum_value(enum color, BLUE) + bpf_core_enum_value_exists(enum color, RED);
	return sum + bpf_core_cast(inode, struct inode)->i_ino + name[0];
}
"""

PRINTING = """
SEC("syscall") int print(void *ctx)
{
	char out[32];
	int i, sum = 0, *at;

	bpf_printk("none");
	bpf_printk("%d %d %d", 1, 2, 3);
	bpf_printk("%d %d %d %p", 1, 2, 3, ctx);
	bpf_printk("%d %d %d %d %d %d %d %d %d %d %d %d", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
	BPF_SNPRINTF(out, sizeof(out), "none");
	BPF_SNPRINTF(out, sizeof(out), "%d %s", sum, out);
	bpf_stream_printk(1, "%d", sum);
	bpf_for(i, 0, 10)
		sum += i;
	bpf_for_each(num, at, 0, 10)
		sum += *at;
	bpf_repeat(3)
		sum++;
	if (bpf_ksym_exists(bpf_iter_num_new))
		barrier_var(sum);
	return likely(sum) + container_of(&sum, struct { int first; }, first)->first + KERNEL_VERSION(6, 1, 300);
}
SEC("xdp") int tail(void *ctx)
{
	bpf_tail_call_static(ctx, &programs, 3);
	return 0;
}
SEC("iter/task") int seq(void *ctx)
{
	return BPF_SEQ_PRINTF(ctx, "%d %d", 1, 2);
}
"""

MAPS = """
struct {
	__uint(type, 1);
	__type(key, __u32);
	__type(value, __u64);
	__ulong(map_extra, 1ULL << 40);
} m SEC(".maps");
struct {
	__uint(type, 3);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__array(values, int(void *));
} programs SEC(".maps") = { .values = {} };
extern int CONFIG_HZ __kconfig __weak;
static __noinline __hidden int sub(void *ctx __arg_ctx, int *p __arg_nonnull) { return *p; }
struct held { struct task __kptr *t; struct task __kptr_untrusted *u; };
"""


@needs_compiler
@pytest.mark.parametrize("text", [TRACING, READING, MAPS + PRINTING], ids=["tracing", "reading", "printing"])
def test_no_macro_warns(compiler: list[str], text: str, tmp_path: Path) -> None:
    includes = "".join(f"#include <bpf/{header}>\n" for header in HEADERS)
    quiet = ("-Wno-unused-function", "-Wno-sign-compare", "-Wno-int-conversion", "-D__TARGET_ARCH_x86")
    status, messages, _ = build(compiler, tmp_path, f"{KERNEL}{includes}{text}", *quiet)
    assert (status, messages) == (0, "")


@needs_compiler
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_of_every_architecture(compiler: list[str], architecture: str, tmp_path: Path) -> None:
    includes = "".join(f"#include <bpf/{header}>\n" for header in HEADERS)
    quiet = ("-Wno-sign-compare", f"-D__TARGET_ARCH_{architecture}")
    status, messages, _ = build(compiler, tmp_path, f"{KERNEL}{includes}{TRACING}", *quiet)
    assert (status, messages) == (0, "")


@needs_compiler
def test_registers_without_an_architecture_break_the_build(compiler: list[str], tmp_path: Path) -> None:
    text = f'{KERNEL}#include <bpf/bpf_tracing.h>\nSEC("kprobe/f") int BPF_KPROBE(f, int a) {{ return a; }}\n'
    status, messages, _ = build(compiler, tmp_path, text)
    assert status != 0 and "__TARGET_ARCH_" in messages


@needs_compiler
@pytest.mark.parametrize("header", HEADERS)
def test_each_header_stands_alone_after_linux_bpf_h(compiler: list[str], header: str, tmp_path: Path) -> None:
    status, messages, _ = build(
        compiler, tmp_path, f"#include <linux/bpf.h>\n#include <bpf/{header}>\nint x;\n"
    )
    if "'linux/bpf.h' file not found" in messages:
        pytest.skip("SKIPPED: needs the kernel's UAPI headers")
    assert (status, messages) == (0, "")


@needs_compiler
def test_byte_order_is_constant_and_right(compiler: list[str], tmp_path: Path) -> None:
    text = """
#include <bpf/bpf_endian.h>
_Static_assert(bpf_htons(0x1234) == 0x3412 && bpf_ntohs(0x1234) == 0x3412, "16");
_Static_assert(bpf_htonl(0x12345678) == 0x78563412 && bpf_ntohl(1) == 1 << 24, "32");
_Static_assert(bpf_cpu_to_be64(0x1122334455667788) == 0x8877665544332211, "64");
int f(unsigned short p) { switch (p) { case bpf_htons(0x800): return 1; } return bpf_ntohs(p); }
"""
    status, messages, _ = build(compiler, tmp_path, text)
    assert (status, messages) == (0, "")
    big = [argument.replace("bpfel", "bpfeb") for argument in compiler]
    flipped = re.sub(r"== 0x3412", "== 0x1234", text).replace("0x78563412", "0x12345678")
    flipped = flipped.replace("1 << 24", "1").replace("0x8877665544332211", "0x1122334455667788")
    status, messages, _ = build(big, tmp_path, flipped)
    assert (status, messages) == (0, "")


@needs_compiler
def test_constants_of_printing_make_no_section(compiler: list[str], tmp_path: Path) -> None:
    text = (
        f'{KERNEL}#include <bpf/bpf_helpers.h>\nint f(void) {{ return bpf_printk("%d%d%d%d", 1, 2, 3, 4); }}'
    )
    _, _, output = build(compiler, tmp_path, text)
    assert b".rodata.cst" not in output.read_bytes()
