// Two programs in one object, chosen by name: one lets every packet pass, the other drops every packet.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The section says what kind of program it is; the name of the function is the name of the program. Both are
// in the section "xdp", and the kernel gets each as a program of its own.
SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS; // go on to the network stack, as if there were no program
}

// A packet dropped here costs least: XDP runs in the driver, before the kernel has allocated anything for it.
SEC("xdp")
int xdp_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

// Some helpers are only for programs under a licence that is compatible with the GPL. These two call none, but
// a licence forgotten is a common cause of puzzling refusals, so every example says its own.
char LICENSE[] SEC("license") = "GPL";
