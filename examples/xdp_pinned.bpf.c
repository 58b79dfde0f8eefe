// A counter that outlives the program: its map is pinned by name in a BPF file system.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// A map lives as long as something refers to it: a descriptor, a program, or a pin, which is a file in a bpffs.
// LIBBPF_PIN_BY_NAME asks the loader to look for the file "packet_count" first. If it is there, and is a map of
// the same type, sizes and flags, that map is used; if not, one is made and pinned.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} packet_count SEC(".maps");

SEC("xdp")
int xdp_pinned(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&packet_count, &key);

	// This array is shared by all CPUs, so the addition has to be atomic.
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
