// A firewall by source address: the most specific matching prefix decides, as in a routing table.
//
// Only untagged IPv4 and IPv6 are looked at; ARP and all else passes.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum verdict { DENY, ALLOW };

struct rule {
	enum verdict verdict;
	__u64 packets; // that it decided
};

// The key of an LPM trie is the length of the prefix in bits, then the address, most significant byte first, as it
// is on the wire: bytes, so that nobody swaps them.
struct prefix4 {
	__u32 length;
	__u8 address[4];
};

struct prefix6 {
	__u32 length;
	__u8 address[16];
};

// A trie allocates its nodes one by one, and the kernel insists that this is said.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, struct rule);
} rules4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 10000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, struct rule);
} rules6 SEC(".maps");

// What happens to an address that no rule matches.
const volatile enum verdict otherwise = ALLOW;

static __always_inline int decide(struct rule *rule)
{
	enum verdict verdict = otherwise;

	if (rule) {
		__sync_fetch_and_add(&rule->packets, 1); // all CPUs share it
		verdict = rule->verdict;
	}
	return verdict == ALLOW ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int lpm_firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;

	// A lookup asks with the full length, 32 or 128 bits, and finds the longest prefix that the address is in.
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		struct prefix4 sender = { .length = 32 };

		if ((void *)(ip + 1) > end)
			return XDP_DROP; // claims to be IPv4 and is not: no rule could judge it
		__builtin_memcpy(sender.address, &ip->saddr, sizeof(sender.address));
		return decide(bpf_map_lookup_elem(&rules4, &sender));
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		struct prefix6 sender = { .length = 128 };

		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		__builtin_memcpy(sender.address, &ip->saddr, sizeof(sender.address));
		return decide(bpf_map_lookup_elem(&rules6, &sender));
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
