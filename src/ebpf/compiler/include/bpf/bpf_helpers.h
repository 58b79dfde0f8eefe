/* SPDX-License-Identifier: MIT */
/*
 * What every BPF program needs: sections, map definitions, annotations for the verifier, printing, loops.
 *
 * Include linux/bpf.h or vmlinux.h first: the integer types come from there.
 */
#ifndef __BPF_HELPERS__
#define __BPF_HELPERS__

#include "bpf_helper_defs.h"

/* ---- Definitions of maps -------------------------------------------------------------------------------
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_HASH);
 *		__uint(max_entries, 1024);
 *		__type(key, __u32);
 *		__type(value, struct flow);
 *	} flows SEC(".maps");
 *
 * The numbers and types are kept in BTF: nothing of the struct is ever read at run time.
 */
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
/* A 64-bit number, such as map_extra: an array's length would not hold it. */
#define __ulong(name, val) enum { ___bpf_apply(__unique_value, __COUNTER__) = val } name

enum libbpf_pin_type {
	LIBBPF_PIN_NONE,
	LIBBPF_PIN_BY_NAME, /* the pin is named as the map is */
};

/* Answers of `extern enum libbpf_tristate CONFIG_X __kconfig`. */
enum libbpf_tristate {
	TRI_NO = 0,
	TRI_YES = 1,
	TRI_MODULE = 2,
};

#ifdef __EBPF_LEGACY_MAPS
/* The map definition of old, for programs that leave it to this header: SEC("maps"). */
struct bpf_map_def {
	unsigned int type;
	unsigned int key_size;
	unsigned int value_size;
	unsigned int max_entries;
	unsigned int map_flags;
};
#endif

/* ---- Sections and linkage ------------------------------------------------------------------------------ */

/* Some compilers complain of attributes on external declarations: one macro serves those, too. */
#define SEC(name) \
	_Pragma("GCC diagnostic push") \
	_Pragma("GCC diagnostic ignored \"-Wignored-attributes\"") \
	__attribute__((section(name), used)) \
	_Pragma("GCC diagnostic pop")

/* The kernel's own headers define some of these words otherwise. */
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif

/* A global function that is verified as a part of its callers, as static ones are. */
#define __hidden __attribute__((visibility("hidden")))

/* What the kernel provides: a value of its configuration, a symbol. */
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))

/* Pointers to kernel objects, inside map values. */
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define __uptr __attribute__((btf_type_tag("uptr")))
#define __kptr_ref __attribute__((btf_type_tag("kptr_ref"))) /* what __kptr was until Linux 6.3 */

/* What the verifier may take for granted of a global function's argument. */
#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))
#define __arg_nullable __attribute__((btf_decl_tag("arg:nullable")))
#define __arg_trusted __attribute__((btf_decl_tag("arg:trusted")))
#define __arg_untrusted __attribute__((btf_decl_tag("arg:untrusted")))
#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))

/* Whether this kernel has a symbol that was declared `__weak __ksym`. */
#define bpf_ksym_exists(sym) \
	({ _Static_assert(!__builtin_constant_p(!!sym), #sym " should be declared __weak"); !!sym; })

/* ---- Small tools --------------------------------------------------------------------------------------- */

#ifndef NULL
#define NULL ((void *)0)
#endif

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#ifndef offsetof
#define offsetof(type, member) ((unsigned long)&((type *)0)->member)
#endif

#ifndef container_of
#define container_of(ptr, type, member) \
	({ void *___member = (void *)(ptr); ((type *)(___member - offsetof(type, member))); })
#endif

#ifndef KERNEL_VERSION
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#endif

/* The compiler may not move memory accesses across it. */
#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif

/* The compiler may not assume anything of the variable after it: keeps bounds checks where they stand. */
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif

/* Breaks the build where the compiler finds that it can be reached. */
#ifndef __bpf_unreachable
#define __bpf_unreachable() __builtin_trap()
#endif

#if __clang_major__ >= 8 && defined(__bpf__)
/*
 * A tail call that the kernel can turn into a jump: map and slot are constants. The call is written out so that
 * the optimiser cannot merge it with another one, which would leave the slot in a register.
 */
static __always_inline void
bpf_tail_call_static(void *ctx, const void *map, const unsigned int slot)
{
	if (!__builtin_constant_p(slot))
		__bpf_unreachable();
	asm volatile("r1 = %[ctx]\n\t"
		     "r2 = %[map]\n\t"
		     "r3 = %[slot]\n\t"
		     "call 12"
		     :
		     : [ctx] "r"(ctx), [map] "r"(map), [slot] "i"(slot)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
}
#endif

/* ---- Macros that count their arguments; other headers of BPF programs use them ------------------------- */

#define ___bpf_concat(a, b) a ## b
#define ___bpf_apply(fn, n) ___bpf_concat(fn, n)
#define ___bpf_nth(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _a, _b, _c, N, ...) N
#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)

/*
 * Declares `name`, an array of the values as 64-bit numbers; pointers are welcome. Each is stored on its own: an
 * initialiser made of constants would become one more data section.
 */
#define ___bpf_values(name, args...) \
	_Pragma("GCC diagnostic push") \
	_Pragma("GCC diagnostic ignored \"-Wint-conversion\"") \
	unsigned long long name[___bpf_narg(args)]; \
	___bpf_apply(___bpf_store, ___bpf_narg(args))(name, 0, ##args) \
	_Pragma("GCC diagnostic pop")

#define ___bpf_store0(to, i, none...)
#define ___bpf_store1(to, i, x) to[i] = x;
#define ___bpf_store2(to, i, x, more...) to[i] = x; ___bpf_store1(to, i + 1, more)
#define ___bpf_store3(to, i, x, more...) to[i] = x; ___bpf_store2(to, i + 1, more)
#define ___bpf_store4(to, i, x, more...) to[i] = x; ___bpf_store3(to, i + 1, more)
#define ___bpf_store5(to, i, x, more...) to[i] = x; ___bpf_store4(to, i + 1, more)
#define ___bpf_store6(to, i, x, more...) to[i] = x; ___bpf_store5(to, i + 1, more)
#define ___bpf_store7(to, i, x, more...) to[i] = x; ___bpf_store6(to, i + 1, more)
#define ___bpf_store8(to, i, x, more...) to[i] = x; ___bpf_store7(to, i + 1, more)
#define ___bpf_store9(to, i, x, more...) to[i] = x; ___bpf_store8(to, i + 1, more)
#define ___bpf_store10(to, i, x, more...) to[i] = x; ___bpf_store9(to, i + 1, more)
#define ___bpf_store11(to, i, x, more...) to[i] = x; ___bpf_store10(to, i + 1, more)
#define ___bpf_store12(to, i, x, more...) to[i] = x; ___bpf_store11(to, i + 1, more)

/* ---- Printing ------------------------------------------------------------------------------------------ */

/* A format is a constant of .rodata, or, for kernels before 5.2, lies on the stack. */
#ifdef BPF_NO_GLOBAL_DATA
#define BPF_PRINTK_FMT_MOD
#else
#define BPF_PRINTK_FMT_MOD static const
#endif

#define __bpf_printk(fmt, ...) \
	({ \
		BPF_PRINTK_FMT_MOD char ___fmt[] = fmt; \
		bpf_trace_printk(___fmt, sizeof(___fmt), ##__VA_ARGS__); \
	})

#define __bpf_vprintk(fmt, args...) \
	({ \
		static const char ___fmt[] = fmt; \
		___bpf_values(___param, args) \
		bpf_trace_vprintk(___fmt, sizeof(___fmt), ___param, sizeof(___param)); \
	})

#define ___bpf_pick_printk(...) \
	___bpf_nth(_, ##__VA_ARGS__, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, \
		   __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_printk, __bpf_printk, \
		   __bpf_printk, __bpf_printk)

/* A line for the trace pipe. More than three values need Linux 5.16. */
#define bpf_printk(fmt, args...) ___bpf_pick_printk(args)(fmt, ##args)

/* Formatted text for the file that an iterator is read through: Linux 5.8. */
#define BPF_SEQ_PRINTF(seq, fmt, args...) \
	({ \
		static const char ___fmt[] = fmt; \
		___bpf_values(___param, args) \
		bpf_seq_printf(seq, ___fmt, sizeof(___fmt), ___param, sizeof(___param)); \
	})

/* Formatted text into a buffer: Linux 5.13. */
#define BPF_SNPRINTF(out, out_size, fmt, args...) \
	({ \
		static const char ___fmt[] = fmt; \
		___bpf_values(___param, args) \
		bpf_snprintf(out, out_size, ___fmt, ___param, sizeof(___param)); \
	})

/* Formatted text for one of the streams that the kernel keeps for each program: Linux 6.18. */
extern int bpf_stream_vprintk_impl(int stream_id, const char *fmt__str, const void *args,
				   unsigned int len__sz, void *aux__prog) __weak __ksym;

#define bpf_stream_printk(stream_id, fmt, args...) \
	({ \
		static const char ___fmt[] = fmt; \
		___bpf_values(___param, args) \
		bpf_stream_vprintk_impl(stream_id, ___fmt, ___param, sizeof(___param), NULL); \
	})

/* ---- Loops that the verifier can check without unrolling them: Linux 6.4 ------------------------------- */

struct bpf_iter_num;

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;

/*
 * An iterator that ends itself however the block is left. The second variable only makes room for the call of
 * the constructor inside `for`, and for a mention of the destructor, so that its BTF is kept.
 */
#define ___bpf_iterator(type, args...) \
	struct bpf_iter_##type ___it __attribute__((aligned(8), cleanup(bpf_iter_##type##_destroy))), \
		*___begun __attribute__((unused)) = (bpf_iter_##type##_new(&___it, ##args), \
						     (void)bpf_iter_##type##_destroy, (void *)0)

#ifndef bpf_for_each
/* for (cur in an open-coded iterator): bpf_for_each(task, pos, NULL, BPF_TASK_ITER_ALL_PROCS) { … } */
#define bpf_for_each(type, cur, args...) \
	for (___bpf_iterator(type, ##args); ((cur) = bpf_iter_##type##_next(&___it)); )
#endif

#ifndef bpf_for
/* for (i = start; i < end; i++) */
#define bpf_for(i, start, end) \
	for (___bpf_iterator(num, (start), (end)); \
	     ({ \
		int *___at = bpf_iter_num_next(&___it); \
		/* Said again, so that the verifier knows the bounds of i. */ \
		___at && ((i) = *___at, (i) >= (start) && (i) < (end)); \
	     }); )
#endif

#ifndef bpf_repeat
/* N times */
#define bpf_repeat(N) for (___bpf_iterator(num, 0, (N)); bpf_iter_num_next(&___it); )
#endif

#endif /* __BPF_HELPERS__ */
