/* SPDX-License-Identifier: MIT */
/*
 * Loops without a bound that the verifier could prove: the kernel ends them after enough turns (Linux 6.9).
 *
 *	while (next && can_loop) { … }
 *	for (;;) { cond_break; … }
 */
#ifndef __BPF_EXPERIMENTAL__
#define __BPF_EXPERIMENTAL__

#ifndef __BPF_FEATURE_MAY_GOTO
#error "can_loop and cond_break need clang 19"
#endif

/* Runs `otherwise` once the kernel has had enough. */
#define ___bpf_may_goto(otherwise) \
	({ \
		__label__ ___enough, ___more; \
		asm volatile goto("may_goto %l[___enough]" : : : : ___enough); \
		goto ___more; \
	___enough: \
		otherwise; \
	___more:; \
	})

#define can_loop \
	({ \
		_Bool ___may = 1; \
		___bpf_may_goto(___may = 0); \
		___may; \
	})

#define cond_break ___bpf_may_goto(break)
#define cond_break_label(label) ___bpf_may_goto(goto label)

#endif /* __BPF_EXPERIMENTAL__ */
