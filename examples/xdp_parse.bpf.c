// Parse headers down to the ports, and count packets and bytes for each protocol and port.
//
// Ethernet, VLAN tags (802.1Q and 802.1ad, stacked), IPv4 with options, IPv6 with extension headers, then TCP,
// UDP, ICMP or ICMPv6. Every step is the same: is the header there as a whole, read it, step over it.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_VLANS 4
#define MAX_EXTENSIONS 8
#define IP_OFFSET 0x1fff /* the offset in iphdr.frag_off; the bits above it are flags */

// The kernel keeps the layouts of these to itself, so they are written out here, from IEEE 802.1Q, RFC 8200
// section 4.5 and RFC 792.
struct vlan_tag {
	__be16 id_and_priority;
	__be16 type; // of what follows, as in struct ethhdr
};

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset; // in units of 8 bytes, in the upper 13 bits
	__be32 identification;
};

struct ports {
	__be16 source;
	__be16 destination;
};

struct icmp {
	__u8 type;
	__u8 code;
	__sum16 checksum;
};

// A key is compared byte by byte, so a gap that the compiler leaves between fields would be part of it: the
// padding is named, and zeroed with the rest.
struct service {
	__u16 port; // destination port in host byte order; the type for ICMP and ICMPv6; 0 for all others
	__u8 protocol; // IPPROTO_…
	__u8 padding;
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

// "LRU": when it is full, the service not seen for longest makes room, so a port scan cannot fill it for good.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct service);
	__type(value, struct traffic);
} services SEC(".maps");

// Packets that ended in the middle of a header, are not IP, or nest deeper than the limits above.
__u64 unparsed;

// Where the parser stands. `end` is the end of the packet and never moves.
struct cursor {
	void *at;
	void *end;
};

// The next header of `size` bytes, and a step over it; NULL if the packet ends before. The comparison with `end`
// is what the verifier looks for: on the branch where it holds, it allows reads of `size` bytes at `at`.
static __always_inline void *take(struct cursor *cursor, __u32 size)
{
	void *header = cursor->at;

	if (header + size > cursor->end)
		return NULL;
	cursor->at = header + size;
	return header;
}

// Step over Ethernet and its VLAN tags: the EtherType of what follows in network byte order, 0 if it ends early.
static __always_inline __be16 parse_ethernet(struct cursor *cursor)
{
	struct ethhdr *eth = take(cursor, sizeof(*eth));
	__be16 type;

	if (!eth)
		return 0;
	type = eth->h_proto;
	// A loop is fine if it has a constant bound that the verifier can count to.
	for (int i = 0; i < MAX_VLANS; i++) {
		struct vlan_tag *tag;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		tag = take(cursor, sizeof(*tag));
		if (!tag)
			return 0;
		type = tag->type;
	}
	return type; // a fifth tag's type is no protocol that the caller knows
}

// Step over IPv4: the protocol, or -1. `fragment`: whether this is a later fragment, where no header follows.
static __always_inline int parse_ipv4(struct cursor *cursor, int *fragment)
{
	struct iphdr *ip = take(cursor, sizeof(*ip));
	__u32 options;

	// ihl counts 32-bit words. Less than 5 is not IPv4; believing it would move the cursor backwards.
	if (!ip || ip->ihl < 5)
		return -1;
	options = ip->ihl * 4 - sizeof(*ip); // 0 to 40 bytes: the verifier works that out from ihl's four bits
	if (!take(cursor, options))
		return -1;
	*fragment = (ip->frag_off & bpf_htons(IP_OFFSET)) != 0;
	return ip->protocol;
}

// Step over IPv6 and its extension headers (RFC 8200 section 4): the protocol, or -1.
static __always_inline int parse_ipv6(struct cursor *cursor, int *fragment)
{
	struct ipv6hdr *ip = take(cursor, sizeof(*ip));
	__u8 next;

	if (!ip)
		return -1;
	next = ip->nexthdr;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct ipv6_opt_hdr *extension = cursor->at;
		struct ipv6_fragment *piece;
		__u32 length;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
			if ((void *)(extension + 1) > cursor->end)
				return -1;
			length = (extension->hdrlen + 1) * 8; // in units of 8 bytes, the first not counted
			break;
		case IPPROTO_AH:
			if ((void *)(extension + 1) > cursor->end)
				return -1;
			length = (extension->hdrlen + 2) * 4; // RFC 4302 section 2.2 counts otherwise
			break;
		case IPPROTO_FRAGMENT:
			piece = cursor->at;
			if ((void *)(piece + 1) > cursor->end)
				return -1;
			if (piece->offset & bpf_htons(0xfff8)) {
				*fragment = 1;
				return piece->next;
			}
			length = sizeof(*piece);
			break;
		default:
			return next; // no extension: this is the protocol
		}
		next = extension->nexthdr; // each of them begins with it
		if (!take(cursor, length))
			return -1;
	}
	return -1;
}

static __always_inline int parse(struct cursor *cursor, struct service *service)
{
	struct ports *ports;
	struct icmp *icmp;
	int fragment = 0, protocol = -1;

	// Constants are swapped by the compiler: comparing in network byte order costs nothing.
	switch (parse_ethernet(cursor)) {
	case bpf_htons(ETH_P_IP):
		protocol = parse_ipv4(cursor, &fragment);
		break;
	case bpf_htons(ETH_P_IPV6):
		protocol = parse_ipv6(cursor, &fragment);
		break;
	}
	if (protocol < 0)
		return -1;
	service->protocol = protocol;
	if (fragment)
		return 0;

	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP: // both begin with the ports
		ports = take(cursor, sizeof(*ports));
		if (!ports)
			return -1;
		service->port = bpf_ntohs(ports->destination);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		icmp = take(cursor, sizeof(*icmp));
		if (!icmp)
			return -1;
		service->port = icmp->type;
		break;
	}
	return 0;
}

SEC("xdp")
int xdp_parse(struct xdp_md *ctx)
{
	struct cursor cursor = { (void *)(long)ctx->data, (void *)(long)ctx->data_end };
	__u64 bytes = cursor.end - cursor.at;
	struct traffic first = { .packets = 1, .bytes = bytes }, *traffic;
	struct service service = {}; // padding included: the verifier refuses a key that is not all initialised

	if (parse(&cursor, &service)) {
		__sync_fetch_and_add(&unparsed, 1);
		return XDP_PASS;
	}
	traffic = bpf_map_lookup_elem(&services, &service);
	// BPF_NOEXIST: if another CPU has just added the same service, this fails, and the packet is added to that.
	if (!traffic && bpf_map_update_elem(&services, &service, &first, BPF_NOEXIST))
		traffic = bpf_map_lookup_elem(&services, &service);
	if (traffic) {
		// All CPUs share the entry: the additions are atomic. xdp_counters has the other way.
		__sync_fetch_and_add(&traffic->packets, 1);
		__sync_fetch_and_add(&traffic->bytes, bytes);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
