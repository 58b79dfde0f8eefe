// Global variables: configuration before loading, counters and a switch while the program runs.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

// The compiler sorts globals into sections, and each section becomes a map with one entry; Python reads and writes
// them by name.

// .rodata: set before loading, then frozen. The verifier knows the value and removes what it makes unreachable, so a
// feature that is off costs nothing. `volatile` keeps the compiler from fixing the number written here.
const volatile __u32 small = 128; // bytes: packets up to here are "small"
const volatile __u32 sample_rate = 1; // count one packet in so many; 0 counts none

// .data: starts as written here, and changes whenever Python or the program likes.
_Bool enabled = 1;

// .bss: starts as zero.
__u64 seen;
struct {
	__u64 small;
	__u64 large;
} packets;
__u32 largest; // bytes

SEC("xdp")
int variables(struct xdp_md *ctx)
{
	__u32 bytes = ctx->data_end - ctx->data;

	if (!enabled)
		return XDP_PASS;
	// All CPUs share globals: additions are atomic. The old value comes back, and picks every n-th packet. BPF
	// divides by zero without a fault, giving 0 for / and x for x % 0, but a reader should not have to know.
	if (!sample_rate || __sync_fetch_and_add(&seen, 1) % sample_rate)
		return XDP_PASS;
	__sync_fetch_and_add(bytes <= small ? &packets.small : &packets.large, 1);
	if (bytes > largest)
		largest = bytes; // two CPUs at once may lose the larger: good enough for a hint, wrong for a bill
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
