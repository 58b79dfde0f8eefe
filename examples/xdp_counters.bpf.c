// Count packets and bytes for each XDP action, without atomics: every CPU has counters of its own.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct counter {
	__u64 packets;
	__u64 bytes;
};

// An array's key is the index, here the action. In a per-CPU array each index has one value per CPU: a program
// sees that of the CPU it runs on, user space reads all of them and adds them up. No two CPUs ever write to the
// same cache line, so counting stays cheap on many queues.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XDP_REDIRECT + 1); // XDP_ABORTED is 0, XDP_REDIRECT the last
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

// Set before the program is loaded, constant from then on.
const volatile __u16 dropped_port = 9;

// What to do with a packet: UDP over IPv4 to one port is dropped, everything else passes.
static __always_inline __u32 decide(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	// The verifier lets a program read a packet only up to where it has compared with the end. One check for
	// the three headers is enough, as long as they have fixed sizes.
	if ((void *)(udp + 1) > end)
		return XDP_PASS; // too short to be UDP
	// Fields of headers are in network byte order; bpf_htons() of a constant costs nothing at run time.
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	// An IPv4 header with options is longer than struct iphdr, and a later fragment (offset not 0) has no UDP
	// header at all: for both, what `udp` points at are no ports.
	if (ip->ihl != 5 || ip->frag_off & bpf_htons(0x1fff))
		return XDP_PASS;
	return udp->dest == bpf_htons(dropped_port) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int xdp_counters(struct xdp_md *ctx)
{
	// The context holds the addresses as 32-bit numbers; the kernel makes pointers of them on load.
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 action = decide(data, end);
	struct counter *counter = bpf_map_lookup_elem(&counters, &action);

	// Any lookup may fail as far as the verifier knows, even that of an index that is always there.
	if (counter) {
		counter->packets += 1; // plain additions: nobody else writes to this CPU's value
		counter->bytes += end - data;
	}
	return action;
}

char LICENSE[] SEC("license") = "GPL";
