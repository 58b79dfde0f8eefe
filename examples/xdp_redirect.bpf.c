// A router in XDP: packets go from one interface straight out of another, past the network stack.
//
// The kernel keeps the routes and the neighbours, as on any router: `ip route`, ARP and forwarding settings work
// as ever. This program only asks it where a packet goes, and leaves to it whatever is out of the ordinary.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define FLOWINFO_MASK 0x0fffffff /* traffic class and flow label, without the version */

// The interfaces that packets may leave by, filled in by Python; key and value are both the interface's index.
// bpf_redirect() would take any index. A devmap is faster, because it collects frames and hands the driver many at
// once, and it says which interfaces are meant.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

__u64 redirected;
__u64 left_to_the_kernel;

static __always_inline int route(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct bpf_fib_lookup fib = { .ifindex = ctx->ingress_ifindex };
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	long action;

	if ((void *)(eth + 1) > end || eth->h_dest[0] & 1) // broadcast and multicast are not for a fast path
		return XDP_PASS;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		// Options are the kernel's to obey, and a TTL that runs out here is its to report to the sender.
		if (ip->ihl != 5 || ip->ttl <= 1)
			return XDP_PASS;
		fib.family = AF_INET;
		fib.tos = ip->tos;
		fib.l4_protocol = ip->protocol;
		fib.tot_len = bpf_ntohs(ip->tot_len); // compared with the MTU of the way out
		fib.ipv4_src = ip->saddr; // addresses stay in network byte order
		fib.ipv4_dst = ip->daddr;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(ip6 + 1) > end)
			return XDP_PASS;
		if (ip6->hop_limit <= 1)
			return XDP_PASS;
		fib.family = AF_INET6;
		fib.flowinfo = *(__be32 *)ip6 & bpf_htonl(FLOWINFO_MASK);
		fib.l4_protocol = ip6->nexthdr;
		fib.tot_len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		__builtin_memcpy(fib.ipv6_src, &ip6->saddr, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &ip6->daddr, sizeof(fib.ipv6_dst));
	} else {
		return XDP_PASS; // ARP above all: the kernel learns the neighbours from it
	}

	// Not 0: addressed to this machine, no route, forwarding off, neighbour not known yet, too large, … The
	// kernel then does what is right, such as resolving the neighbour, and the next packet finds it known.
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;

	// This only looks the interface up and notes it; the frame leaves after the program has returned. The last
	// argument is the answer if it is not in the map. It comes before any change to the packet: the kernel
	// has to get it as it was.
	action = bpf_redirect_map(&ports, fib.ifindex, XDP_PASS);
	if (action != XDP_REDIRECT)
		return action;

	// A router takes a hop off, and puts its own MAC address and that of the next hop in.
	if (fib.family == AF_INET) {
		// TTL is the upper byte of its word, so the sum loses 0x0100 and its complement, the checksum, gains
		// as much; a carry out of 16 bits comes back in at the bottom (RFC 1624).
		__u32 sum = ip->check + bpf_htons(0x0100);

		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
	} else {
		ip6->hop_limit--; // IPv6 has no checksum of its header
	}
	__builtin_memcpy(eth->h_source, fib.smac, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, fib.dmac, ETH_ALEN);
	return action;
}

SEC("xdp")
int xdp_redirect(struct xdp_md *ctx)
{
	int action = route(ctx);

	__sync_fetch_and_add(action == XDP_REDIRECT ? &redirected : &left_to_the_kernel, 1);
	return action;
}

// For the far ends of veth pairs, as a lab has them. A frame redirected to a veth end comes in at its peer, and the
// peer is ready for it only while it has an XDP program of its own (or, from Linux 5.13 on, since GRO was turned on
// while it was up); otherwise the frame is lost without a word. A network card has no such peer and needs no such
// program, but its driver has to support being redirected to, which some do only while a program is attached.
SEC("xdp")
int xdp_receive(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
