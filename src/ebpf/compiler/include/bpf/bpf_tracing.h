/* SPDX-License-Identifier: MIT */
/*
 * Arguments of traced functions and system calls: by register, and as the arguments of a C function.
 *
 * Registers differ between architectures: the program is compiled with one of
 *	-D__TARGET_ARCH_x86, arm64, arm, s390, powerpc, riscv, loongarch, mips, sparc, arc
 * The macros that end in _CORE follow the kernel's own struct pt_regs (CO-RE) and need bpf_core_read.h.
 */
#ifndef __BPF_TRACING_H__
#define __BPF_TRACING_H__

#include "bpf_helpers.h"

/* Whether struct pt_regs is the kernel's own, or the one of the UAPI headers, which names registers otherwise. */
#if defined(__KERNEL__) || defined(__VMLINUX_H__)
#define ___bpf_kernel_regs
#endif

/*
 * For each architecture: registers of the arguments of functions (PARMn) and, where they differ, of system calls
 * (PARMn_SYSCALL); the return address or where it lies (RET), frame (FP), stack (SP), result (RC) and
 * instruction pointer (IP).
 */
#if defined(__TARGET_ARCH_x86)

#ifdef ___bpf_kernel_regs
#define __PT_PARM1_REG di
#define __PT_PARM2_REG si
#define __PT_PARM3_REG dx
#define __PT_PARM4_REG cx
#define __PT_PARM5_REG r8
#define __PT_PARM6_REG r9
#define __PT_PARM4_SYSCALL_REG r10
#define __PT_RET_REG sp
#define __PT_FP_REG bp
#define __PT_SP_REG sp
#define __PT_RC_REG ax
#define __PT_IP_REG ip
#elif defined(__i386__)
/* The kernel passes three arguments in registers. */
#define __PT_PARM1_REG eax
#define __PT_PARM2_REG edx
#define __PT_PARM3_REG ecx
#define __PT_PARM4_SYSCALL_REG esi
#define __PT_PARM1_SYSCALL_REG ebx
#define __PT_PARM2_SYSCALL_REG ecx
#define __PT_PARM3_SYSCALL_REG edx
#define __PT_PARM5_SYSCALL_REG edi
#define __PT_PARM6_SYSCALL_REG ebp
#define __PT_RET_REG esp
#define __PT_FP_REG ebp
#define __PT_SP_REG esp
#define __PT_RC_REG eax
#define __PT_IP_REG eip
#else
#define __PT_PARM1_REG rdi
#define __PT_PARM2_REG rsi
#define __PT_PARM3_REG rdx
#define __PT_PARM4_REG rcx
#define __PT_PARM5_REG r8
#define __PT_PARM6_REG r9
#define __PT_PARM4_SYSCALL_REG r10
#define __PT_RET_REG rsp
#define __PT_FP_REG rbp
#define __PT_SP_REG rsp
#define __PT_RC_REG rax
#define __PT_IP_REG rip
#endif

#elif defined(__TARGET_ARCH_arm64)

/* The first argument of a system call is kept beside the registers: its own becomes the result. */
struct pt_regs___arm64 {
	unsigned long orig_x0;
} __attribute__((preserve_access_index));

#define __PT_REGS_CAST(x) ((const struct user_pt_regs *)(x))
#define __PT_PARM1_REG regs[0]
#define __PT_PARM2_REG regs[1]
#define __PT_PARM3_REG regs[2]
#define __PT_PARM4_REG regs[3]
#define __PT_PARM5_REG regs[4]
#define __PT_PARM6_REG regs[5]
#define __PT_PARM7_REG regs[6]
#define __PT_PARM8_REG regs[7]
#define ___bpf_syscall_origin struct pt_regs___arm64
#define __PT_PARM1_SYSCALL_REG orig_x0
#define __PT_RET_REG regs[30]
#define __PT_FP_REG regs[29]
#define __PT_SP_REG sp
#define __PT_RC_REG regs[0]
#define __PT_IP_REG pc

#elif defined(__TARGET_ARCH_arm)

#define __PT_PARM1_REG uregs[0]
#define __PT_PARM2_REG uregs[1]
#define __PT_PARM3_REG uregs[2]
#define __PT_PARM4_REG uregs[3]
#define __PT_PARM5_SYSCALL_REG uregs[4]
#define __PT_PARM6_SYSCALL_REG uregs[5]
#define ___bpf_syscall_regs_are_ctx
#define __PT_RET_REG uregs[14]
#define __PT_FP_REG uregs[11]
#define __PT_SP_REG uregs[13]
#define __PT_RC_REG uregs[0]
#define __PT_IP_REG uregs[15]

#elif defined(__TARGET_ARCH_s390)

struct pt_regs___s390 {
	unsigned long orig_gpr2;
} __attribute__((preserve_access_index));

#define __PT_REGS_CAST(x) ((const user_pt_regs *)(x))
#define __PT_PARM1_REG gprs[2]
#define __PT_PARM2_REG gprs[3]
#define __PT_PARM3_REG gprs[4]
#define __PT_PARM4_REG gprs[5]
#define __PT_PARM5_REG gprs[6]
#define ___bpf_syscall_origin struct pt_regs___s390
#define __PT_PARM1_SYSCALL_REG orig_gpr2
#define __PT_PARM6_SYSCALL_REG gprs[7]
#define __PT_RET_REG gprs[14]
#define __PT_FP_REG gprs[11]
#define __PT_SP_REG gprs[15]
#define __PT_RC_REG gprs[2]
#define __PT_IP_REG psw.addr

#elif defined(__TARGET_ARCH_powerpc)

#define __PT_PARM1_REG gpr[3]
#define __PT_PARM2_REG gpr[4]
#define __PT_PARM3_REG gpr[5]
#define __PT_PARM4_REG gpr[6]
#define __PT_PARM5_REG gpr[7]
#define __PT_PARM6_REG gpr[8]
#define __PT_PARM7_REG gpr[9]
#define __PT_PARM8_REG gpr[10]
#define __PT_PARM1_SYSCALL_REG orig_gpr3
#define __PT_RET_REG link
#define __PT_FP_REG gpr[31]
#define __PT_SP_REG gpr[1]
#define __PT_RC_REG gpr[3]
#define __PT_IP_REG nip

#elif defined(__TARGET_ARCH_riscv)

struct pt_regs___riscv {
	unsigned long orig_a0;
} __attribute__((preserve_access_index));

#define __PT_REGS_CAST(x) ((const struct user_regs_struct *)(x))
#define __PT_PARM1_REG a0
#define __PT_PARM2_REG a1
#define __PT_PARM3_REG a2
#define __PT_PARM4_REG a3
#define __PT_PARM5_REG a4
#define __PT_PARM6_REG a5
#define __PT_PARM7_REG a6
#define __PT_PARM8_REG a7
#define ___bpf_syscall_origin struct pt_regs___riscv
#define __PT_PARM1_SYSCALL_REG orig_a0
#define __PT_RET_REG ra
#define __PT_FP_REG s0
#define __PT_SP_REG sp
#define __PT_RC_REG a0
#define __PT_IP_REG pc

#elif defined(__TARGET_ARCH_loongarch)

#define __PT_REGS_CAST(x) ((const struct user_pt_regs *)(x))
#define __PT_PARM1_REG regs[4]
#define __PT_PARM2_REG regs[5]
#define __PT_PARM3_REG regs[6]
#define __PT_PARM4_REG regs[7]
#define __PT_PARM5_REG regs[8]
#define __PT_PARM6_REG regs[9]
#define __PT_PARM7_REG regs[10]
#define __PT_PARM8_REG regs[11]
#define ___bpf_syscall_regs_are_ctx
#define __PT_RET_REG regs[1]
#define __PT_FP_REG regs[22]
#define __PT_SP_REG regs[3]
#define __PT_RC_REG regs[4]
#define __PT_IP_REG csr_era

#elif defined(__TARGET_ARCH_mips)

#define __PT_PARM1_REG regs[4]
#define __PT_PARM2_REG regs[5]
#define __PT_PARM3_REG regs[6]
#define __PT_PARM4_REG regs[7]
#define __PT_PARM5_REG regs[8]
#define __PT_PARM6_REG regs[9]
#define __PT_PARM7_REG regs[10]
#define __PT_PARM8_REG regs[11]
#define ___bpf_syscall_regs_are_ctx
#define __PT_RET_REG regs[31]
#define __PT_FP_REG regs[30]
#define __PT_SP_REG regs[29]
#define __PT_RC_REG regs[2]
#define __PT_IP_REG cp0_epc

#elif defined(__TARGET_ARCH_sparc)

/* u_regs: globals, then outs from 8. */
#define __PT_PARM1_REG u_regs[8]
#define __PT_PARM2_REG u_regs[9]
#define __PT_PARM3_REG u_regs[10]
#define __PT_PARM4_REG u_regs[11]
#define __PT_PARM5_REG u_regs[12]
#define __PT_PARM6_REG u_regs[13]
#define ___bpf_syscall_regs_are_ctx
#define __PT_RET_REG u_regs[15]
#define __PT_FP_REG u_regs[14]
#define __PT_SP_REG u_regs[14]
#define __PT_RC_REG u_regs[8]
#ifdef __arch64__
#define __PT_IP_REG tpc
#else
#define __PT_IP_REG pc
#endif

#elif defined(__TARGET_ARCH_arc)

#define __PT_REGS_CAST(x) ((const struct user_regs_struct *)(x))
#define __PT_PARM1_REG scratch.r0
#define __PT_PARM2_REG scratch.r1
#define __PT_PARM3_REG scratch.r2
#define __PT_PARM4_REG scratch.r3
#define __PT_PARM5_REG scratch.r4
#define __PT_PARM6_REG scratch.r5
#define __PT_PARM7_REG scratch.r6
#define __PT_PARM8_REG scratch.r7
#define ___bpf_syscall_regs_are_ctx
#define __PT_RET_REG scratch.blink
#define __PT_FP_REG scratch.fp
#define __PT_SP_REG scratch.sp
#define __PT_RC_REG scratch.r0
#define __PT_IP_REG scratch.ret

#else

#define __BPF_TARGET_MISSING "GCC error \"registers are used: compile with -D__TARGET_ARCH_…, such as x86\""

#endif

struct pt_regs;

#ifndef __BPF_TARGET_MISSING

#ifndef __PT_REGS_CAST
#define __PT_REGS_CAST(x) (x)
#endif

/* An argument without a register of its own cannot be told: using it breaks the build. */
#ifndef __PT_PARM4_REG
#define __PT_PARM4_REG __unsupported__
#endif
#ifndef __PT_PARM5_REG
#define __PT_PARM5_REG __unsupported__
#endif
#ifndef __PT_PARM6_REG
#define __PT_PARM6_REG __unsupported__
#endif
#ifndef __PT_PARM7_REG
#define __PT_PARM7_REG __unsupported__
#endif
#ifndef __PT_PARM8_REG
#define __PT_PARM8_REG __unsupported__
#endif

/* System calls take their arguments as functions do, where nothing else was said above. */
#ifndef __PT_PARM1_SYSCALL_REG
#define __PT_PARM1_SYSCALL_REG __PT_PARM1_REG
#endif
#ifndef __PT_PARM2_SYSCALL_REG
#define __PT_PARM2_SYSCALL_REG __PT_PARM2_REG
#endif
#ifndef __PT_PARM3_SYSCALL_REG
#define __PT_PARM3_SYSCALL_REG __PT_PARM3_REG
#endif
#ifndef __PT_PARM4_SYSCALL_REG
#define __PT_PARM4_SYSCALL_REG __PT_PARM4_REG
#endif
#ifndef __PT_PARM5_SYSCALL_REG
#define __PT_PARM5_SYSCALL_REG __PT_PARM5_REG
#endif
#ifndef __PT_PARM6_SYSCALL_REG
#define __PT_PARM6_SYSCALL_REG __PT_PARM6_REG
#endif

#define ___bpf_reg(x, reg) (__PT_REGS_CAST(x)->reg)
#define ___bpf_core_reg(x, reg) BPF_CORE_READ(__PT_REGS_CAST(x), reg)

#define PT_REGS_PARM1(x) ___bpf_reg(x, __PT_PARM1_REG)
#define PT_REGS_PARM2(x) ___bpf_reg(x, __PT_PARM2_REG)
#define PT_REGS_PARM3(x) ___bpf_reg(x, __PT_PARM3_REG)
#define PT_REGS_PARM4(x) ___bpf_reg(x, __PT_PARM4_REG)
#define PT_REGS_PARM5(x) ___bpf_reg(x, __PT_PARM5_REG)
#define PT_REGS_PARM6(x) ___bpf_reg(x, __PT_PARM6_REG)
#define PT_REGS_PARM7(x) ___bpf_reg(x, __PT_PARM7_REG)
#define PT_REGS_PARM8(x) ___bpf_reg(x, __PT_PARM8_REG)
#define PT_REGS_PARM1_CORE(x) ___bpf_core_reg(x, __PT_PARM1_REG)
#define PT_REGS_PARM2_CORE(x) ___bpf_core_reg(x, __PT_PARM2_REG)
#define PT_REGS_PARM3_CORE(x) ___bpf_core_reg(x, __PT_PARM3_REG)
#define PT_REGS_PARM4_CORE(x) ___bpf_core_reg(x, __PT_PARM4_REG)
#define PT_REGS_PARM5_CORE(x) ___bpf_core_reg(x, __PT_PARM5_REG)
#define PT_REGS_PARM6_CORE(x) ___bpf_core_reg(x, __PT_PARM6_REG)
#define PT_REGS_PARM7_CORE(x) ___bpf_core_reg(x, __PT_PARM7_REG)
#define PT_REGS_PARM8_CORE(x) ___bpf_core_reg(x, __PT_PARM8_REG)
#define PT_REGS_RET(x) ___bpf_reg(x, __PT_RET_REG)
#define PT_REGS_RET_CORE(x) ___bpf_core_reg(x, __PT_RET_REG)
#define PT_REGS_FP(x) ___bpf_reg(x, __PT_FP_REG)
#define PT_REGS_FP_CORE(x) ___bpf_core_reg(x, __PT_FP_REG)
#define PT_REGS_RC(x) ___bpf_reg(x, __PT_RC_REG)
#define PT_REGS_RC_CORE(x) ___bpf_core_reg(x, __PT_RC_REG)
#define PT_REGS_SP(x) ___bpf_reg(x, __PT_SP_REG)
#define PT_REGS_SP_CORE(x) ___bpf_core_reg(x, __PT_SP_REG)
#define PT_REGS_IP(x) ___bpf_reg(x, __PT_IP_REG)
#define PT_REGS_IP_CORE(x) ___bpf_core_reg(x, __PT_IP_REG)

#ifdef ___bpf_syscall_origin
#define PT_REGS_PARM1_SYSCALL(x) \
	({ \
		unsigned long ___first; \
		bpf_probe_read_kernel(&___first, sizeof(___first), __builtin_preserve_access_index( \
				      &((const ___bpf_syscall_origin *)(x))->__PT_PARM1_SYSCALL_REG)); \
		___first; \
	})
#define PT_REGS_PARM1_CORE_SYSCALL(x) BPF_CORE_READ((const ___bpf_syscall_origin *)(x), __PT_PARM1_SYSCALL_REG)
#else
#define PT_REGS_PARM1_SYSCALL(x) ___bpf_reg(x, __PT_PARM1_SYSCALL_REG)
#define PT_REGS_PARM1_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM1_SYSCALL_REG)
#endif
#define PT_REGS_PARM2_SYSCALL(x) ___bpf_reg(x, __PT_PARM2_SYSCALL_REG)
#define PT_REGS_PARM3_SYSCALL(x) ___bpf_reg(x, __PT_PARM3_SYSCALL_REG)
#define PT_REGS_PARM4_SYSCALL(x) ___bpf_reg(x, __PT_PARM4_SYSCALL_REG)
#define PT_REGS_PARM5_SYSCALL(x) ___bpf_reg(x, __PT_PARM5_SYSCALL_REG)
#define PT_REGS_PARM6_SYSCALL(x) ___bpf_reg(x, __PT_PARM6_SYSCALL_REG)
#define PT_REGS_PARM2_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM2_SYSCALL_REG)
#define PT_REGS_PARM3_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM3_SYSCALL_REG)
#define PT_REGS_PARM4_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM4_SYSCALL_REG)
#define PT_REGS_PARM5_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM5_SYSCALL_REG)
#define PT_REGS_PARM6_CORE_SYSCALL(x) ___bpf_core_reg(x, __PT_PARM6_SYSCALL_REG)

/* The registers of the system call, inside a probe on its function: mostly they are that one's only argument. */
#ifdef ___bpf_syscall_regs_are_ctx
#define PT_REGS_SYSCALL_REGS(ctx) ctx
#else
#define PT_REGS_SYSCALL_REGS(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))
#endif

/* Where the traced function returns to: for kprobes, for kretprobes. */
#if defined(__TARGET_ARCH_powerpc) || defined(__TARGET_ARCH_sparc) || defined(__TARGET_ARCH_arm64) || \
	defined(__TARGET_ARCH_s390) || defined(__TARGET_ARCH_riscv) || defined(__TARGET_ARCH_loongarch)
#define BPF_KPROBE_READ_RET_IP(ip, ctx) ({ (ip) = PT_REGS_RET(ctx); })
#define BPF_KRETPROBE_READ_RET_IP BPF_KPROBE_READ_RET_IP
#else
#define BPF_KPROBE_READ_RET_IP(ip, ctx) \
	({ bpf_probe_read_kernel(&(ip), sizeof(ip), (void *)PT_REGS_RET(ctx)); })
#define BPF_KRETPROBE_READ_RET_IP(ip, ctx) \
	({ bpf_probe_read_kernel(&(ip), sizeof(ip), (void *)(PT_REGS_FP(ctx) + sizeof(ip))); })
#endif

#else /* __BPF_TARGET_MISSING */

#define ___bpf_no_target ({ _Pragma(__BPF_TARGET_MISSING); 0l; })

#define PT_REGS_PARM1(x) ___bpf_no_target
#define PT_REGS_PARM1_CORE(x) ___bpf_no_target
#define PT_REGS_PARM2(x) ___bpf_no_target
#define PT_REGS_PARM2_CORE(x) ___bpf_no_target
#define PT_REGS_PARM3(x) ___bpf_no_target
#define PT_REGS_PARM3_CORE(x) ___bpf_no_target
#define PT_REGS_PARM4(x) ___bpf_no_target
#define PT_REGS_PARM4_CORE(x) ___bpf_no_target
#define PT_REGS_PARM5(x) ___bpf_no_target
#define PT_REGS_PARM5_CORE(x) ___bpf_no_target
#define PT_REGS_PARM6(x) ___bpf_no_target
#define PT_REGS_PARM6_CORE(x) ___bpf_no_target
#define PT_REGS_PARM7(x) ___bpf_no_target
#define PT_REGS_PARM7_CORE(x) ___bpf_no_target
#define PT_REGS_PARM8(x) ___bpf_no_target
#define PT_REGS_PARM8_CORE(x) ___bpf_no_target
#define PT_REGS_RET(x) ___bpf_no_target
#define PT_REGS_RET_CORE(x) ___bpf_no_target
#define PT_REGS_FP(x) ___bpf_no_target
#define PT_REGS_FP_CORE(x) ___bpf_no_target
#define PT_REGS_RC(x) ___bpf_no_target
#define PT_REGS_RC_CORE(x) ___bpf_no_target
#define PT_REGS_SP(x) ___bpf_no_target
#define PT_REGS_SP_CORE(x) ___bpf_no_target
#define PT_REGS_IP(x) ___bpf_no_target
#define PT_REGS_IP_CORE(x) ___bpf_no_target
#define PT_REGS_PARM1_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM1_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM2_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM2_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM3_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM3_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM4_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM4_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM5_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM5_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM6_SYSCALL(x) ___bpf_no_target
#define PT_REGS_PARM6_CORE_SYSCALL(x) ___bpf_no_target
#define PT_REGS_SYSCALL_REGS(x) ___bpf_no_target
#define BPF_KPROBE_READ_RET_IP(ip, ctx) ___bpf_no_target
#define BPF_KRETPROBE_READ_RET_IP(ip, ctx) ___bpf_no_target

#endif

/* ---- Programs as C functions ---------------------------------------------------------------------------
 *
 * Each of these macros defines the program, which takes the context, and a function of the same arguments that
 * the body belongs to, which takes them one by one; `ctx` is there as well.
 */

/* A register goes to an argument of any type, pointers included. */
#define ___bpf_cast_quietly(statement) \
	_Pragma("GCC diagnostic push") \
	_Pragma("GCC diagnostic ignored \"-Wint-conversion\"") \
	statement \
	_Pragma("GCC diagnostic pop")

#define ___bpf_define(context, name, call, args...) \
name(context *ctx); \
static __always_inline typeof(name(0)) ____##name(context *ctx, ##args); \
typeof(name(0)) name(context *ctx) \
{ \
	___bpf_cast_quietly(return ____##name(call);) \
} \
static __always_inline typeof(name(0)) ____##name(context *ctx, ##args)

/* The context as an array: one number for each argument. */
#define ___bpf_ctx0() ctx
#define ___bpf_ctx1() ___bpf_ctx0(), (void *)ctx[0]
#define ___bpf_ctx2() ___bpf_ctx1(), (void *)ctx[1]
#define ___bpf_ctx3() ___bpf_ctx2(), (void *)ctx[2]
#define ___bpf_ctx4() ___bpf_ctx3(), (void *)ctx[3]
#define ___bpf_ctx5() ___bpf_ctx4(), (void *)ctx[4]
#define ___bpf_ctx6() ___bpf_ctx5(), (void *)ctx[5]
#define ___bpf_ctx7() ___bpf_ctx6(), (void *)ctx[6]
#define ___bpf_ctx8() ___bpf_ctx7(), (void *)ctx[7]
#define ___bpf_ctx9() ___bpf_ctx8(), (void *)ctx[8]
#define ___bpf_ctx10() ___bpf_ctx9(), (void *)ctx[9]
#define ___bpf_ctx11() ___bpf_ctx10(), (void *)ctx[10]
#define ___bpf_ctx12() ___bpf_ctx11(), (void *)ctx[11]

/*
 * fentry, fexit, fmod_ret, raw tracepoints with BTF, LSM hooks, struct_ops:
 *
 *	SEC("fentry/do_unlinkat")
 *	int BPF_PROG(on_unlink, int dfd, struct filename *name) { … }
 *
 * For arguments that are structs, see BPF_PROG2.
 */
#define BPF_PROG(name, args...) \
	___bpf_define(unsigned long long, name, ___bpf_apply(___bpf_ctx, ___bpf_narg(args))(), ##args)

#define ___bpf_kprobe0() ctx
#define ___bpf_kprobe1() ___bpf_kprobe0(), (void *)PT_REGS_PARM1(ctx)
#define ___bpf_kprobe2() ___bpf_kprobe1(), (void *)PT_REGS_PARM2(ctx)
#define ___bpf_kprobe3() ___bpf_kprobe2(), (void *)PT_REGS_PARM3(ctx)
#define ___bpf_kprobe4() ___bpf_kprobe3(), (void *)PT_REGS_PARM4(ctx)
#define ___bpf_kprobe5() ___bpf_kprobe4(), (void *)PT_REGS_PARM5(ctx)
#define ___bpf_kprobe6() ___bpf_kprobe5(), (void *)PT_REGS_PARM6(ctx)
#define ___bpf_kprobe7() ___bpf_kprobe6(), (void *)PT_REGS_PARM7(ctx)
#define ___bpf_kprobe8() ___bpf_kprobe7(), (void *)PT_REGS_PARM8(ctx)

/* kprobes: the arguments are read from registers as they are at the function's first instruction. */
#define BPF_KPROBE(name, args...) \
	___bpf_define(struct pt_regs, name, ___bpf_apply(___bpf_kprobe, ___bpf_narg(args))(), ##args)

#define ___bpf_kretprobe0() ctx
#define ___bpf_kretprobe1() ___bpf_kretprobe0(), (void *)PT_REGS_RC(ctx)

/* kretprobes: at most the return value; the arguments are gone. */
#define BPF_KRETPROBE(name, args...) \
	___bpf_define(struct pt_regs, name, ___bpf_apply(___bpf_kretprobe, ___bpf_narg(args))(), ##args)

#define BPF_UPROBE(name, args...) BPF_KPROBE(name, ##args)
#define BPF_URETPROBE(name, args...) BPF_KRETPROBE(name, ##args)

#define ___bpf_syscall0() ctx
#define ___bpf_syscall1() ___bpf_syscall0(), (void *)PT_REGS_PARM1_SYSCALL(regs)
#define ___bpf_syscall2() ___bpf_syscall1(), (void *)PT_REGS_PARM2_SYSCALL(regs)
#define ___bpf_syscall3() ___bpf_syscall2(), (void *)PT_REGS_PARM3_SYSCALL(regs)
#define ___bpf_syscall4() ___bpf_syscall3(), (void *)PT_REGS_PARM4_SYSCALL(regs)
#define ___bpf_syscall5() ___bpf_syscall4(), (void *)PT_REGS_PARM5_SYSCALL(regs)
#define ___bpf_syscall6() ___bpf_syscall5(), (void *)PT_REGS_PARM6_SYSCALL(regs)
#define ___bpf_wrapped0() ctx
#define ___bpf_wrapped1() ___bpf_wrapped0(), (void *)PT_REGS_PARM1_CORE_SYSCALL(regs)
#define ___bpf_wrapped2() ___bpf_wrapped1(), (void *)PT_REGS_PARM2_CORE_SYSCALL(regs)
#define ___bpf_wrapped3() ___bpf_wrapped2(), (void *)PT_REGS_PARM3_CORE_SYSCALL(regs)
#define ___bpf_wrapped4() ___bpf_wrapped3(), (void *)PT_REGS_PARM4_CORE_SYSCALL(regs)
#define ___bpf_wrapped5() ___bpf_wrapped4(), (void *)PT_REGS_PARM5_CORE_SYSCALL(regs)
#define ___bpf_wrapped6() ___bpf_wrapped5(), (void *)PT_REGS_PARM6_CORE_SYSCALL(regs)

/*
 * kprobes on system calls. Since 4.17 most architectures wrap them in functions that take the registers of user
 * space; the loader tells which it is. Needs bpf_core_read.h.
 */
#define BPF_KSYSCALL(name, args...) \
name(struct pt_regs *ctx); \
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig; \
static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args); \
typeof(name(0)) name(struct pt_regs *ctx) \
{ \
	struct pt_regs *regs __attribute__((unused)) = \
		LINUX_HAS_SYSCALL_WRAPPER ? (struct pt_regs *)PT_REGS_PARM1(ctx) : ctx; \
	___bpf_cast_quietly( \
		if (LINUX_HAS_SYSCALL_WRAPPER) \
			return ____##name(___bpf_apply(___bpf_wrapped, ___bpf_narg(args))()); \
		return ____##name(___bpf_apply(___bpf_syscall, ___bpf_narg(args))());) \
} \
static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args)

#define BPF_KPROBE_SYSCALL BPF_KSYSCALL

/* ---- Arguments that are structs: types and names in turn -----------------------------------------------
 *
 *	SEC("fentry/f")
 *	int BPF_PROG2(on_f, struct pair, a, int, b) { … }
 *
 * A struct of up to 16 bytes takes as many places in the context as it fills registers.
 */
#define ___bpf_places(type) ((sizeof(type) + 7) / 8)
#define ___bpf_place(type, n) \
	({ \
		union { \
			unsigned char one; \
			unsigned short two; \
			unsigned int four; \
			unsigned long long eight[2]; \
			type value; \
		} ___place; \
		if (sizeof(type) == 1) \
			___place.one = ctx[n]; \
		else if (sizeof(type) == 2) \
			___place.two = ctx[n]; \
		else if (sizeof(type) == 4) \
			___place.four = ctx[n]; \
		else \
			___place.eight[0] = ctx[n]; \
		if (sizeof(type) > 8) \
			___place.eight[1] = ctx[(n) + 1]; \
		___place.value; \
	})

#define ___bpf_nth2(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, _17, _18, _19, _20, \
		    _21, _22, _23, _24, N, ...) N
#define ___bpf_pairs(...) \
	___bpf_nth2(_, ##__VA_ARGS__, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0)

#define ___bpf_declare0()
#define ___bpf_declare1(type, x) , type x
#define ___bpf_declare2(type, x, more...) , type x ___bpf_declare1(more)
#define ___bpf_declare3(type, x, more...) , type x ___bpf_declare2(more)
#define ___bpf_declare4(type, x, more...) , type x ___bpf_declare3(more)
#define ___bpf_declare5(type, x, more...) , type x ___bpf_declare4(more)
#define ___bpf_declare6(type, x, more...) , type x ___bpf_declare5(more)
#define ___bpf_declare7(type, x, more...) , type x ___bpf_declare6(more)
#define ___bpf_declare8(type, x, more...) , type x ___bpf_declare7(more)
#define ___bpf_declare9(type, x, more...) , type x ___bpf_declare8(more)
#define ___bpf_declare10(type, x, more...) , type x ___bpf_declare9(more)
#define ___bpf_declare11(type, x, more...) , type x ___bpf_declare10(more)
#define ___bpf_declare12(type, x, more...) , type x ___bpf_declare11(more)
#define ___bpf_declare(args...) ___bpf_apply(___bpf_declare, ___bpf_pairs(args))(args)

#define ___bpf_take0(n)
#define ___bpf_take1(n, type, x) , ___bpf_place(type, n)
#define ___bpf_take2(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take1(n + ___bpf_places(type), more)
#define ___bpf_take3(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take2(n + ___bpf_places(type), more)
#define ___bpf_take4(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take3(n + ___bpf_places(type), more)
#define ___bpf_take5(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take4(n + ___bpf_places(type), more)
#define ___bpf_take6(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take5(n + ___bpf_places(type), more)
#define ___bpf_take7(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take6(n + ___bpf_places(type), more)
#define ___bpf_take8(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take7(n + ___bpf_places(type), more)
#define ___bpf_take9(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take8(n + ___bpf_places(type), more)
#define ___bpf_take10(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take9(n + ___bpf_places(type), more)
#define ___bpf_take11(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take10(n + ___bpf_places(type), more)
#define ___bpf_take12(n, type, x, more...) \
	, ___bpf_place(type, n) ___bpf_take11(n + ___bpf_places(type), more)

#define BPF_PROG2(name, args...) \
name(unsigned long long *ctx); \
static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx ___bpf_declare(args)); \
typeof(name(0)) name(unsigned long long *ctx) \
{ \
	return ____##name(ctx ___bpf_apply(___bpf_take, ___bpf_pairs(args))(0, ##args)); \
} \
static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx ___bpf_declare(args))

#endif /* __BPF_TRACING_H__ */
