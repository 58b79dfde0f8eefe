/* SPDX-License-Identifier: MIT */
/*
 * Byte order. Each macro keeps the width of its name, and is a constant expression when its argument is one,
 * so that it may stand in `case` labels and initialisers.
 */
#ifndef __BPF_ENDIAN__
#define __BPF_ENDIAN__

/* Bytes the other way round. */
#define ___bpf_swab16(x) __builtin_bswap16((unsigned short)(x))
#define ___bpf_swab32(x) __builtin_bswap32((unsigned int)(x))
#define ___bpf_swab64(x) __builtin_bswap64((unsigned long long)(x))

/* Bytes in network order, which is big-endian. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
# define ___bpf_order16(x) ___bpf_swab16(x)
# define ___bpf_order32(x) ___bpf_swab32(x)
# define ___bpf_order64(x) ___bpf_swab64(x)
#elif __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
# define ___bpf_order16(x) ((unsigned short)(x))
# define ___bpf_order32(x) ((unsigned int)(x))
# define ___bpf_order64(x) ((unsigned long long)(x))
#else
# error "This compiler does not say which byte order it compiles for."
#endif

/* Host to network, network to host: 16 and 32 bits. */
#define bpf_htons(x) ___bpf_order16(x)
#define bpf_ntohs(x) ___bpf_order16(x)
#define bpf_htonl(x) ___bpf_order32(x)
#define bpf_ntohl(x) ___bpf_order32(x)

/* 64 bits. */
#define bpf_cpu_to_be64(x) ___bpf_order64(x)
#define bpf_be64_to_cpu(x) ___bpf_order64(x)

/* The names of the two cases that libbpf's header tells apart: here they are one. */
#define __bpf_htons(x) bpf_htons(x)
#define __bpf_ntohs(x) bpf_ntohs(x)
#define __bpf_htonl(x) bpf_htonl(x)
#define __bpf_ntohl(x) bpf_ntohl(x)
#define __bpf_cpu_to_be64(x) bpf_cpu_to_be64(x)
#define __bpf_be64_to_cpu(x) bpf_be64_to_cpu(x)
#define __bpf_constant_htons(x) bpf_htons(x)
#define __bpf_constant_ntohs(x) bpf_ntohs(x)
#define __bpf_constant_htonl(x) bpf_htonl(x)
#define __bpf_constant_ntohl(x) bpf_ntohl(x)
#define __bpf_constant_cpu_to_be64(x) bpf_cpu_to_be64(x)
#define __bpf_constant_be64_to_cpu(x) bpf_be64_to_cpu(x)

#endif /* __BPF_ENDIAN__ */
