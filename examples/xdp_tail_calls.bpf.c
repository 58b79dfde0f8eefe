// A chain of programs: the first parses Ethernet and IP, and jumps to the program for the protocol it finds.
//
// Each program is verified for itself, so each has the verifier's whole budget, and one can be replaced while
// the others run.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_OFFSET 128 /* of the transport header: Ethernet 14, and IPv4 with options at most 60 */

int on_icmp(struct xdp_md *ctx);
int on_tcp(struct xdp_md *ctx);
int on_udp(struct xdp_md *ctx);

// Programs by protocol number. The loader fills in what `.values` names once all programs are loaded; an index that
// is not named stays empty. When the last descriptor and the last pin of the map are gone, the kernel empties it,
// even if programs that use it are still attached: keep the object open, or pin the map.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 256);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} protocols SEC(".maps") = {
	.values = {
		[IPPROTO_ICMP] = (void *)&on_icmp,
		[IPPROTO_TCP] = (void *)&on_tcp,
		[IPPROTO_UDP] = (void *)&on_udp,
		[IPPROTO_ICMPV6] = (void *)&on_icmp,
	},
};

// What one program hands to the next. A tail call keeps nothing but the context: the stack starts empty. An entry
// per CPU is enough, because a chain runs on one CPU from start to end.
struct handover {
	__u32 transport; // offset of the transport header from the start of the packet
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct handover);
} handovers SEC(".maps");

// Counters as global variables: all CPUs share them, so additions are atomic.
__u64 icmp_messages;
__u64 tcp_segments;
__u64 tcp_connections; // SYN without ACK
__u64 udp_datagrams;
__u64 udp_bytes; // of payload
__u64 others; // no program for the protocol, or no IP at all

// The transport header of `size` bytes, found where the first program said; NULL if it is not there whole.
static __always_inline void *transport_header(struct xdp_md *ctx, __u32 size)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 key = 0;
	struct handover *handover = bpf_map_lookup_elem(&handovers, &key);

	// The verifier sees each program alone and knows nothing of what the first one stored: an upper bound has to
	// be stated again before the offset may be added to a pointer into the packet.
	if (!handover || handover->transport > MAX_OFFSET)
		return NULL;
	data += handover->transport;
	return data + size > end ? NULL : data;
}

SEC("xdp")
int on_icmp(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&icmp_messages, 1);
	return XDP_PASS; // the answer of the whole chain: a tail call does not come back
}

SEC("xdp")
int on_tcp(struct xdp_md *ctx)
{
	struct tcphdr *tcp = transport_header(ctx, sizeof(*tcp));

	__sync_fetch_and_add(&tcp_segments, 1);
	if (tcp && tcp->syn && !tcp->ack)
		__sync_fetch_and_add(&tcp_connections, 1);
	return XDP_PASS;
}

SEC("xdp")
int on_udp(struct xdp_md *ctx)
{
	struct udphdr *udp = transport_header(ctx, sizeof(*udp));

	__sync_fetch_and_add(&udp_datagrams, 1);
	// The length counts the header, and is only what the sender claims.
	if (udp && bpf_ntohs(udp->len) >= sizeof(*udp))
		__sync_fetch_and_add(&udp_bytes, bpf_ntohs(udp->len) - sizeof(*udp));
	return XDP_PASS;
}

// The one to attach.
SEC("xdp")
int xdp_tail_calls(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct handover *handover;
	__u32 key = 0, protocol;

	if ((void *)(eth + 1) > end)
		goto other;
	handover = bpf_map_lookup_elem(&handovers, &key);
	if (!handover)
		goto other;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->frag_off & bpf_htons(0x1fff))
			goto other; // a later fragment has no transport header
		protocol = ip->protocol;
		handover->transport = sizeof(*eth) + ip->ihl * 4;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			goto other;
		protocol = ip->nexthdr;
		handover->transport = sizeof(*eth) + sizeof(*ip);
	} else {
		goto other;
	}

	// A jump, not a call: on success nothing below runs. It fails if the slot is empty, or after 33 jumps, and
	// then the program simply goes on.
	bpf_tail_call(ctx, &protocols, protocol);
other:
	__sync_fetch_and_add(&others, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
