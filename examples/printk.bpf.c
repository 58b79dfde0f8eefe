// Debug with bpf_printk(): a line in the kernel's trace pipe for each packet of one kind.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int printk(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;

	// Formatting takes longer than all of the rest: good for debugging, too slow for each packet of a busy
	// link. %pI4 takes a pointer to an address in network byte order (Linux 5.13). Up to three values work
	// on any kernel, more from 5.16 on. No "\n" at the end: the kernel adds it.
	bpf_printk("IPv4 %pI4 protocol %d, %d bytes", &ip->saddr, ip->protocol, bpf_ntohs(ip->tot_len));
	return XDP_PASS;
}

// bpf_trace_printk(), which bpf_printk() calls, is one of the helpers that need a licence compatible with the GPL.
char LICENSE[] SEC("license") = "GPL";
