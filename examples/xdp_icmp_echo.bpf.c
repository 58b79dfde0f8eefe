// Answer ping before the kernel sees it: turn the request into the reply, and send it back with XDP_TX.
//
// It answers for every address that is pinged through the interface, whoever has it; on a router that is
// more than its own.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HOPS 64 /* what a fresh packet starts with */

// The first half of an echo message, the same in RFC 792 and RFC 4443 but for the numbers of the types.
// <linux/icmp.h> would need the C library's headers, which BPF programs do without.
struct icmp {
	__u8 type;
	__u8 code;
	__sum16 checksum;
};

enum { ECHO_REPLY = 0, ECHO_REQUEST = 8, ECHO6_REQUEST = 128, ECHO6_REPLY = 129 };

__u64 answered;

// The checksum after one 16-bit word has changed (RFC 1624, equation 3); all in network byte order.
static __always_inline __sum16 replace(__sum16 sum, __be16 before, __be16 after)
{
	__u32 total = (__u16)~sum + (__u16)~before + after;

	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return ~total;
}

// A request becomes a reply; 0 if it is no request. The checksum covers the type, the upper byte of the first word.
static __always_inline int reply(struct icmp *icmp, __u8 from, __u8 to)
{
	if (icmp->type != from || icmp->code != 0)
		return 0;
	icmp->checksum = replace(icmp->checksum, bpf_htons(from << 8), bpf_htons(to << 8));
	icmp->type = to;
	return 1;
}

static __always_inline int answer4(struct iphdr *ip, void *end)
{
	struct icmp *icmp = (void *)(ip + 1);
	__be32 asked;

	if ((void *)(icmp + 1) > end)
		return 0;
	// With options or in fragments the kernel may answer: 5 words are a header without options, the low 14
	// bits are the offset and "more fragments".
	if (ip->ihl != 5 || ip->protocol != IPPROTO_ICMP || ip->frag_off & bpf_htons(0x3fff))
		return 0;
	if (!reply(icmp, ECHO_REQUEST, ECHO_REPLY))
		return 0;
	asked = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = asked;
	// Swapped addresses add up to the same sum. A new TTL does not: its word is TTL and protocol.
	ip->check = replace(ip->check, bpf_htons(ip->ttl << 8 | IPPROTO_ICMP), bpf_htons(HOPS << 8 | IPPROTO_ICMP));
	ip->ttl = HOPS;
	return 1;
}

static __always_inline int answer6(struct ipv6hdr *ip, void *end)
{
	struct icmp *icmp = (void *)(ip + 1);
	struct in6_addr asked;

	if ((void *)(icmp + 1) > end)
		return 0;
	if (ip->nexthdr != IPPROTO_ICMPV6 || !reply(icmp, ECHO6_REQUEST, ECHO6_REPLY))
		return 0;
	// ICMPv6's checksum covers the addresses, too, but swapping them leaves the sum as it is. IPv6 itself has
	// no checksum.
	asked = ip->daddr;
	ip->daddr = ip->saddr;
	ip->saddr = asked;
	ip->hop_limit = HOPS;
	return 1;
}

SEC("xdp")
int xdp_icmp_echo(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 asked[ETH_ALEN];
	int answered_it = 0;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	// The lowest bit of the first byte marks broadcast and multicast: no address to answer from.
	if (eth->h_dest[0] & 1)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP) && data + sizeof(*eth) + sizeof(struct iphdr) <= end)
		answered_it = answer4((void *)(eth + 1), end);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && data + sizeof(*eth) + sizeof(struct ipv6hdr) <= end)
		answered_it = answer6((void *)(eth + 1), end);
	if (!answered_it)
		return XDP_PASS;

	// There is no memcpy() to call; the compiler puts in its own for a size it knows.
	__builtin_memcpy(asked, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, asked, ETH_ALEN);
	__sync_fetch_and_add(&answered, 1);
	return XDP_TX; // out of the interface it came from, from this very buffer
}

// For the far end of a veth pair, as a lab has them: it takes what is sent with XDP_TX only while it has an XDP
// program of its own. Otherwise frames are lost or, if GRO is on there, wait until something else wakes it. A network
// card needs nothing of the kind.
SEC("xdp")
int xdp_receive(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
