// Count packets by protocol and action, and drop UDP and TCP to one port.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Set before loading; the verifier then knows the value and the JIT compiles it in.
const volatile __u16 blocked_port = 9999;

enum protocol { OTHER, ARP, ICMP, TCP, UDP };

struct traffic {
	enum protocol protocol;
	enum xdp_action action;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

// Per CPU: each CPU counts on its own, without atomics; the reader adds them up.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct traffic);
	__type(value, struct counter);
	__uint(max_entries, 64);
} counters SEC(".maps");

static __always_inline enum protocol protocol_of(__u8 number)
{
	switch (number) {
	case IPPROTO_TCP:
		return TCP;
	case IPPROTO_UDP:
		return UDP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return ICMP;
	}
	return OTHER;
}

static __always_inline int count(struct traffic key, __u64 bytes)
{
	struct counter first = { .packets = 1, .bytes = bytes };
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter) {
		counter->packets += 1;
		counter->bytes += bytes;
	} else {
		bpf_map_update_elem(&counters, &key, &first, BPF_NOEXIST);
	}
	return key.action;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct traffic key = { .protocol = OTHER, .action = XDP_PASS };
	__u64 bytes = end - data;
	struct ethhdr *eth = data;
	struct udphdr *ports;

	// The verifier wants a bounds check before each header is read.
	if ((void *)(eth + 1) > end)
		return count(key, bytes);

	if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		key.protocol = ARP;
		return count(key, bytes);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return count(key, bytes);
		key.protocol = protocol_of(ip->protocol);
		ports = (void *)ip + ip->ihl * 4; // options may follow the fixed header
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return count(key, bytes);
		key.protocol = protocol_of(ip->nexthdr);
		ports = (void *)(ip + 1);
	} else {
		return count(key, bytes);
	}

	// The ports are the first four bytes of TCP and of UDP.
	if ((key.protocol == TCP || key.protocol == UDP) && (void *)ports + 4 <= end &&
	    ports->dest == bpf_htons(blocked_port))
		key.action = XDP_DROP;
	return count(key, bytes);
}

char LICENSE[] SEC("license") = "GPL";
