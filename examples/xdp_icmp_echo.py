"""Ping answered by XDP, for IPv4 and IPv6, before the network stack sees it."""

import argparse
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")
#: With these set to 1 the kernel answers no ping: what is answered in the lab is answered by the program.
IGNORE = ("/proc/sys/net/ipv4/icmp_echo_ignore_all", "/proc/sys/net/ipv6/icmp/echo_ignore_all")


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["xdp_icmp_echo"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            print(f"{obj.variables['answered']} answered", flush=True)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered():
            for setting in IGNORE:
                Path(setting).write_text("1")
            before = client.ping(server.address, timeout=0.2)
        with (
            client.entered(),
            obj.programs["xdp_receive"].attach("eth0"),  # for veth only: see the C file
            server.entered(),
            obj.programs["xdp_icmp_echo"].attach("eth0"),
        ):
            results = [client.ping(address) for address in (server.address, server.address6)]
    print(f"the kernel answered {before.received} of {before.sent}")
    for version, result in zip(("IPv4", "IPv6"), results, strict=True):
        print(f"XDP answered {result.received} of {result.sent} over {version}")
    print(f"{obj.variables['answered']} answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="answer there until Ctrl-C; without it: in a lab, with pings")
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
