/* SPDX-License-Identifier: MIT */
/*
 * Reading kernel memory in programs that are compiled once and fit each kernel by BTF (CO-RE): the compiler
 * records which field of which type is meant, and the loader fills in where the running kernel has it.
 */
#ifndef __BPF_CORE_READ_H__
#define __BPF_CORE_READ_H__

#include "bpf_helpers.h"

/* What may be asked of a field: __builtin_preserve_field_info(). */
enum bpf_field_info_kind {
	BPF_FIELD_BYTE_OFFSET = 0,
	BPF_FIELD_BYTE_SIZE = 1,
	BPF_FIELD_EXISTS = 2,
	BPF_FIELD_SIGNED = 3,
	BPF_FIELD_LSHIFT_U64 = 4,
	BPF_FIELD_RSHIFT_U64 = 5,
};

/* What may be asked of a type: __builtin_btf_type_id(), … */
enum bpf_type_id_kind {
	BPF_TYPE_ID_LOCAL = 0, /* its number in the program's BTF */
	BPF_TYPE_ID_TARGET = 1, /* its number in the kernel's */
};

/* … __builtin_preserve_type_info() */
enum bpf_type_info_kind {
	BPF_TYPE_EXISTS = 0,
	BPF_TYPE_SIZE = 1,
	BPF_TYPE_MATCHES = 2,
};

/* What may be asked of an enumerator: __builtin_preserve_enum_value(). */
enum bpf_enum_value_kind {
	BPF_ENUMVAL_EXISTS = 0,
	BPF_ENUMVAL_VALUE = 1,
};

/* ---- Questions about the kernel's types ---------------------------------------------------------------- */

/* A field is given as an expression, `task->pid`, or as type and field: `struct task_struct, pid`. */
#define ___bpf_field1(field) (field)
#define ___bpf_field2(type, field) (((typeof(type) *)0)->field)
#define ___bpf_field(args...) ___bpf_apply(___bpf_field, ___bpf_narg(args))(args)

#define bpf_core_field_exists(field...) __builtin_preserve_field_info(___bpf_field(field), BPF_FIELD_EXISTS)
#define bpf_core_field_size(field...) __builtin_preserve_field_info(___bpf_field(field), BPF_FIELD_BYTE_SIZE)
#define bpf_core_field_offset(field...) __builtin_preserve_field_info(___bpf_field(field), BPF_FIELD_BYTE_OFFSET)

#define bpf_core_type_id_local(type) __builtin_btf_type_id(*(typeof(type) *)0, BPF_TYPE_ID_LOCAL)
#define bpf_core_type_id_kernel(type) __builtin_btf_type_id(*(typeof(type) *)0, BPF_TYPE_ID_TARGET)

#define bpf_core_type_exists(type) __builtin_preserve_type_info(*(typeof(type) *)0, BPF_TYPE_EXISTS)
#define bpf_core_type_size(type) __builtin_preserve_type_info(*(typeof(type) *)0, BPF_TYPE_SIZE)
/* Whether the kernel's type has all that the program's has, in compatible form: clang 15. */
#define bpf_core_type_matches(type) __builtin_preserve_type_info(*(typeof(type) *)0, BPF_TYPE_MATCHES)

#define bpf_core_enum_value_exists(type, value) \
	__builtin_preserve_enum_value(*(typeof(type) *)value, BPF_ENUMVAL_EXISTS)
#define bpf_core_enum_value(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, BPF_ENUMVAL_VALUE)

/* A pointer as one to a kernel type, to be read without helpers: Linux 6.2. */
extern void *bpf_rdonly_cast(const void *obj, unsigned int btf_id) __ksym __weak;
#define bpf_core_cast(ptr, type) ((typeof(type) *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))

/* ---- Bit-fields ---------------------------------------------------------------------------------------- */

#define __CORE_RELO(src, field, info) __builtin_preserve_field_info((src)->field, BPF_FIELD_##info)

/* Shifts the 64 bits that hold a bit-field so that the field alone is left. */
#define ___bpf_cut_bitfield(src, field, bits) \
	({ \
		unsigned long long ___up = (bits) << __CORE_RELO(src, field, LSHIFT_U64); \
		__CORE_RELO(src, field, SIGNED) \
			? (unsigned long long)((long long)___up >> __CORE_RELO(src, field, RSHIFT_U64)) \
			: ___up >> __CORE_RELO(src, field, RSHIFT_U64); \
	})

/* Where bytes must lie inside a 64-bit number to be its low ones. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ___bpf_low_bytes(number, size) ((void *)&(number))
#else
#define ___bpf_low_bytes(number, size) ((void *)&(number) + (8 - (size)))
#endif

/* A bit-field of memory that only a helper may read. */
#define BPF_CORE_READ_BITFIELD_PROBED(s, field) \
	({ \
		unsigned long long ___bits = 0; \
		unsigned int ___size = __CORE_RELO(s, field, BYTE_SIZE); \
		bpf_probe_read_kernel(___bpf_low_bytes(___bits, ___size), ___size, \
				      (const void *)(s) + __CORE_RELO(s, field, BYTE_OFFSET)); \
		___bpf_cut_bitfield(s, field, ___bits); \
	})

/* The address of the bytes that hold a bit-field; the compiler may not look through it. */
#define ___bpf_bitfield_bytes(s, field) \
	({ \
		void *___at = (void *)(s) + __CORE_RELO(s, field, BYTE_OFFSET); \
		barrier_var(___at); \
		___at; \
	})

#define ___bpf_load_bytes(p, size) \
	({ \
		unsigned long long ___loaded = 0; \
		switch (size) { \
		case 1: ___loaded = *(unsigned char *)(p); break; \
		case 2: ___loaded = *(unsigned short *)(p); break; \
		case 4: ___loaded = *(unsigned int *)(p); break; \
		case 8: ___loaded = *(unsigned long long *)(p); break; \
		} \
		___loaded; \
	})

/* A bit-field of memory that the program may read directly. */
#define BPF_CORE_READ_BITFIELD(s, field) \
	({ \
		const void *___bytes = ___bpf_bitfield_bytes(s, field); \
		unsigned long long ___bits = ___bpf_load_bytes(___bytes, __CORE_RELO(s, field, BYTE_SIZE)); \
		___bpf_cut_bitfield(s, field, ___bits); \
	})

/* Sets a bit-field of memory that the program may write directly. */
#define BPF_CORE_WRITE_BITFIELD(s, field, new_val) \
	({ \
		void *___bytes = ___bpf_bitfield_bytes(s, field); \
		unsigned int ___size = __CORE_RELO(s, field, BYTE_SIZE); \
		unsigned int ___left = __CORE_RELO(s, field, LSHIFT_U64); \
		unsigned int ___right = __CORE_RELO(s, field, RSHIFT_U64); \
		unsigned long long ___mask = (~0ULL << ___right) >> ___left; \
		unsigned long long ___new = (unsigned long long)(new_val) << (___right - ___left); \
		unsigned long long ___bits = ___bpf_load_bytes(___bytes, ___size); \
		___bits = (___bits & ~___mask) | (___new & ___mask); \
		switch (___size) { \
		case 1: *(unsigned char *)___bytes = ___bits; break; \
		case 2: *(unsigned short *)___bytes = ___bits; break; \
		case 4: *(unsigned int *)___bytes = ___bits; break; \
		case 8: *(unsigned long long *)___bytes = ___bits; break; \
		} \
	})

/* ---- Single reads -------------------------------------------------------------------------------------- */

#define bpf_core_read(dst, sz, src) \
	bpf_probe_read_kernel(dst, sz, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_str(dst, sz, src) \
	bpf_probe_read_kernel_str(dst, sz, (const void *)__builtin_preserve_access_index(src))
/* Of kernel types in user memory, such as the arguments of a system call. */
#define bpf_core_read_user(dst, sz, src) \
	bpf_probe_read_user(dst, sz, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user_str(dst, sz, src) \
	bpf_probe_read_user_str(dst, sz, (const void *)__builtin_preserve_access_index(src))

/* ---- Reads along a chain of pointers -------------------------------------------------------------------
 *
 *	BPF_CORE_READ(task, mm, exe_file, f_inode, i_ino)
 *
 * stands for task->mm->exe_file->f_inode->i_ino. An accessor may itself go deeper without following a pointer:
 * `f_path.dentry`. There may be nine of them.
 */
#define ___bpf_chain1(s, a) (s)->a
#define ___bpf_chain2(s, a, b) (s)->a->b
#define ___bpf_chain3(s, a, b, c) (s)->a->b->c
#define ___bpf_chain4(s, a, b, c, d) (s)->a->b->c->d
#define ___bpf_chain5(s, a, b, c, d, e) (s)->a->b->c->d->e
#define ___bpf_chain6(s, a, b, c, d, e, f) (s)->a->b->c->d->e->f
#define ___bpf_chain7(s, a, b, c, d, e, f, g) (s)->a->b->c->d->e->f->g
#define ___bpf_chain8(s, a, b, c, d, e, f, g, h) (s)->a->b->c->d->e->f->g->h
#define ___bpf_chain9(s, a, b, c, d, e, f, g, h, i) (s)->a->b->c->d->e->f->g->h->i
#define ___bpf_chain(s, accessors...) ___bpf_apply(___bpf_chain, ___bpf_narg(accessors))(s, accessors)

/* Follows one pointer: ___p becomes what `from`, of the type of `as`, has in a field. */
#define ___bpf_hop(read, as, from, field) \
	read((void *)&___p, sizeof(___p), &((typeof(as))(from))->field)
/* Reads what the last pointer leads to. */
#define ___bpf_end(read, dst, as, from, field) \
	read((void *)(dst), sizeof(*(dst)), &((typeof(as))(from))->field)

#define ___bpf_walk1(end, hop, dst, s, a) ___bpf_end(end, dst, s, s, a)
#define ___bpf_walk2(end, hop, dst, s, a, b) \
	___bpf_hop(hop, s, s, a); \
	___bpf_end(end, dst, ___bpf_chain1(s, a), ___p, b)
#define ___bpf_walk3(end, hop, dst, s, a, b, c) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_end(end, dst, ___bpf_chain2(s, a, b), ___p, c)
#define ___bpf_walk4(end, hop, dst, s, a, b, c, d) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_end(end, dst, ___bpf_chain3(s, a, b, c), ___p, d)
#define ___bpf_walk5(end, hop, dst, s, a, b, c, d, e) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_hop(hop, ___bpf_chain3(s, a, b, c), ___p, d); \
	___bpf_end(end, dst, ___bpf_chain4(s, a, b, c, d), ___p, e)
#define ___bpf_walk6(end, hop, dst, s, a, b, c, d, e, f) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_hop(hop, ___bpf_chain3(s, a, b, c), ___p, d); \
	___bpf_hop(hop, ___bpf_chain4(s, a, b, c, d), ___p, e); \
	___bpf_end(end, dst, ___bpf_chain5(s, a, b, c, d, e), ___p, f)
#define ___bpf_walk7(end, hop, dst, s, a, b, c, d, e, f, g) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_hop(hop, ___bpf_chain3(s, a, b, c), ___p, d); \
	___bpf_hop(hop, ___bpf_chain4(s, a, b, c, d), ___p, e); \
	___bpf_hop(hop, ___bpf_chain5(s, a, b, c, d, e), ___p, f); \
	___bpf_end(end, dst, ___bpf_chain6(s, a, b, c, d, e, f), ___p, g)
#define ___bpf_walk8(end, hop, dst, s, a, b, c, d, e, f, g, h) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_hop(hop, ___bpf_chain3(s, a, b, c), ___p, d); \
	___bpf_hop(hop, ___bpf_chain4(s, a, b, c, d), ___p, e); \
	___bpf_hop(hop, ___bpf_chain5(s, a, b, c, d, e), ___p, f); \
	___bpf_hop(hop, ___bpf_chain6(s, a, b, c, d, e, f), ___p, g); \
	___bpf_end(end, dst, ___bpf_chain7(s, a, b, c, d, e, f, g), ___p, h)
#define ___bpf_walk9(end, hop, dst, s, a, b, c, d, e, f, g, h, i) \
	___bpf_hop(hop, s, s, a); \
	___bpf_hop(hop, ___bpf_chain1(s, a), ___p, b); \
	___bpf_hop(hop, ___bpf_chain2(s, a, b), ___p, c); \
	___bpf_hop(hop, ___bpf_chain3(s, a, b, c), ___p, d); \
	___bpf_hop(hop, ___bpf_chain4(s, a, b, c, d), ___p, e); \
	___bpf_hop(hop, ___bpf_chain5(s, a, b, c, d, e), ___p, f); \
	___bpf_hop(hop, ___bpf_chain6(s, a, b, c, d, e, f), ___p, g); \
	___bpf_hop(hop, ___bpf_chain7(s, a, b, c, d, e, f, g), ___p, h); \
	___bpf_end(end, dst, ___bpf_chain8(s, a, b, c, d, e, f, g, h), ___p, i)

/*
 * `end` reads the value that is wanted, `hop` the pointers on the way; the result is what `end` answers. The start
 * is kept first, so that it may itself be such a read.
 */
#define ___bpf_walk(end, hop, dst, s, accessors...) \
	({ \
		typeof(&*(s)) ___s = (s); \
		const void *___p __attribute__((unused)); \
		___bpf_apply(___bpf_walk, ___bpf_narg(accessors))(end, hop, dst, ___s, accessors); \
	})
/* New compilers refuse to leave a const variable without a value; old ones cannot take the const away. */
#if __clang_major__ >= 19
#define ___bpf_unqualified __typeof_unqual__
#else
#define ___bpf_unqualified typeof
#endif
/* The value itself; zero where a pointer leads nowhere. */
#define ___bpf_walk_value(read, s, accessors...) \
	({ \
		___bpf_unqualified(___bpf_chain(s, accessors)) ___value; \
		___bpf_walk(read, read, &___value, s, accessors); \
		___value; \
	})

/* Kernel memory, kernel types. */
#define BPF_CORE_READ(src, a, ...) ___bpf_walk_value(bpf_core_read, (src), a, ##__VA_ARGS__)
#define BPF_CORE_READ_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_core_read, bpf_core_read, dst, (src), a, ##__VA_ARGS__)
#define BPF_CORE_READ_STR_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_core_read_str, bpf_core_read, dst, (src), a, ##__VA_ARGS__)

/* User memory, kernel types. */
#define BPF_CORE_READ_USER(src, a, ...) ___bpf_walk_value(bpf_core_read_user, (src), a, ##__VA_ARGS__)
#define BPF_CORE_READ_USER_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_core_read_user, bpf_core_read_user, dst, (src), a, ##__VA_ARGS__)
#define BPF_CORE_READ_USER_STR_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_core_read_user_str, bpf_core_read_user, dst, (src), a, ##__VA_ARGS__)

/* Kernel memory, types that are the same everywhere: nothing is fitted to the kernel. */
#define BPF_PROBE_READ(src, a, ...) ___bpf_walk_value(bpf_probe_read_kernel, (src), a, ##__VA_ARGS__)
#define BPF_PROBE_READ_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_probe_read_kernel, bpf_probe_read_kernel, dst, (src), a, ##__VA_ARGS__)
#define BPF_PROBE_READ_STR_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_probe_read_kernel_str, bpf_probe_read_kernel, dst, (src), a, ##__VA_ARGS__)

/* User memory, types of user space. */
#define BPF_PROBE_READ_USER(src, a, ...) ___bpf_walk_value(bpf_probe_read_user, (src), a, ##__VA_ARGS__)
#define BPF_PROBE_READ_USER_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_probe_read_user, bpf_probe_read_user, dst, (src), a, ##__VA_ARGS__)
#define BPF_PROBE_READ_USER_STR_INTO(dst, src, a, ...) \
	___bpf_walk(bpf_probe_read_user_str, bpf_probe_read_user, dst, (src), a, ##__VA_ARGS__)

#endif /* __BPF_CORE_READ_H__ */
