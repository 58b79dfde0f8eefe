// Maps in a map: for each watched UDP port a table of its own, counting packets by sender.
//
// Python decides which ports are watched, by adding tables, and can put an empty table in the place of a full one
// in a single step: no packet is counted twice or lost while it reads the old one.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// What every inner map looks like. The verifier checks the program against this template once, so the kernel lets
// only maps of the same shape in.
struct senders {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __be32); // IPv4 address, in the order it has on the wire
	__type(value, __u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 64);
	__type(key, __u16); // port in host byte order, so that Python writes 53 for 53
	__array(values, struct senders);
} watched SEC(".maps");

SEC("xdp")
int hash_of_maps(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u64 one = 1, *count;
	void *senders;
	__u32 sender;
	__u16 port;

	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP ||
	    ip->frag_off & bpf_htons(0x1fff))
		return XDP_PASS; // no UDP header right after the 20 bytes of an IPv4 header

	port = bpf_ntohs(udp->dest);
	senders = bpf_map_lookup_elem(&watched, &port);
	if (!senders)
		return XDP_PASS; // not watched

	// The value of the outer map is a map, used as any other.
	sender = ip->saddr;
	count = bpf_map_lookup_elem(senders, &sender);
	// BPF_NOEXIST fails if another CPU has just added this sender; then there is an entry to add to.
	if (!count && bpf_map_update_elem(senders, &sender, &one, BPF_NOEXIST))
		count = bpf_map_lookup_elem(senders, &sender);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
