// Send what comes for one TCP or UDP port to another one, and rename it back in the answers. IPv4 and IPv6.
//
// XDP runs where packets come in and nowhere else, so one direction is one program on one interface: on a
// router, `rewrite` on the interface where the clients are, `restore` on the one where the servers are.
//
//	client :40000 ──▶ :8080  rewrite ─▶ router ─▶ :80  server
//	client :40000 ◀── :8080  router ◀─ restore ◀─ :80  server
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_OFFSET 0x1fff /* the offset in iphdr.frag_off; the bits above it are flags */

// Configuration, in host byte order. `const` puts it into .rodata, which is frozen on load, so the verifier knows
// the values and drops code that they make unreachable; `volatile` keeps the compiler from putting in the
// numbers written here, which Python may still change.
const volatile __u16 public_port = 8080; // what clients know
const volatile __u16 server_port = 80; // where the server listens

__u64 rewritten; // packets changed, in either direction

enum direction { TO_SERVER, TO_CLIENT };

// The checksum of a packet in which one 16-bit word has changed, without reading the rest of it (RFC 1624,
// equation 3). The Internet checksum is a one's complement sum, which comes out right in either byte order as
// long as all of its words are taken in the same (RFC 1071 section 2): here all stay in network byte order.
static __always_inline __sum16 replace(__sum16 sum, __be16 before, __be16 after)
{
	__u32 total = (__u16)~sum + (__u16)~before + after;

	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16); // the first addition may have carried again
	return ~total;
}

// The port, if it is the one to be changed, gets its new number; 1 if so.
static __always_inline int rename(__be16 *port, __sum16 *sum, __be16 before, __be16 after)
{
	if (*port != before)
		return 0;
	*port = after;
	*sum = replace(*sum, before, after);
	return 1;
}

static __always_inline void rewrite_port(struct xdp_md *ctx, enum direction direction)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__be16 public = bpf_htons(public_port), server = bpf_htons(server_port);
	__be16 before = direction == TO_SERVER ? public : server;
	__be16 after = direction == TO_SERVER ? server : public;
	struct ethhdr *eth = data;
	void *transport;
	__u8 protocol;
	int changed = 0;

	if ((void *)(eth + 1) > end)
		return;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->ihl < 5)
			return;
		// Only the first fragment has the ports; the others follow it by address and identification.
		if (ip->frag_off & bpf_htons(IP_OFFSET))
			return;
		protocol = ip->protocol;
		transport = (void *)ip + ip->ihl * 4; // options may follow the fixed header
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return;
		protocol = ip->nexthdr; // no extension headers here: xdp_parse steps over them
		transport = (void *)(ip + 1);
	} else {
		return;
	}

	// The IP header has no checksum over the ports; those of TCP and UDP cover them.
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;

		if ((void *)(tcp + 1) > end)
			return;
		changed = rename(direction == TO_SERVER ? &tcp->dest : &tcp->source, &tcp->check, before, after);
	} else if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = transport;
		__sum16 sum;

		if ((void *)(udp + 1) > end)
			return;
		sum = udp->check;
		changed = rename(direction == TO_SERVER ? &udp->dest : &udp->source, &udp->check, before, after);
		// For UDP, 0 means that the sender made no checksum (RFC 768), so 0 stays 0, and a sum that comes
		// out as 0 is written as its twin in one's complement.
		if (!sum)
			udp->check = 0;
		else if (!udp->check)
			udp->check = 0xffff;
	}
	if (changed)
		__sync_fetch_and_add(&rewritten, 1);
}

SEC("xdp")
int rewrite(struct xdp_md *ctx)
{
	rewrite_port(ctx, TO_SERVER);
	return XDP_PASS;
}

SEC("xdp")
int restore(struct xdp_md *ctx)
{
	rewrite_port(ctx, TO_CLIENT);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
