"""A router in XDP: packets go from one interface straight out of another, by the kernel's routes.

Run it on a router, with all the interfaces that it should route between: --iface eth0 --iface eth1.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import if_nametoindex

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def attach(obj: ebpf.Object, interfaces: Sequence[str], stack: ExitStack) -> None:
    # An index means an interface of the network namespace in which the entry is written.
    for index in map(if_nametoindex, interfaces):
        obj.maps["ports"][index] = index
    for interface in interfaces:
        stack.enter_context(obj.programs["xdp_redirect"].attach(interface))


def show(obj: ebpf.Object) -> None:
    redirected, left = (obj.variables[name] for name in ("redirected", "left_to_the_kernel"))
    print(f"{redirected} packets redirected, {left} left to the kernel", flush=True)


def on_interfaces(obj: ebpf.Object, interfaces: Sequence[str]) -> None:
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        attach(obj, interfaces, stack)
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "router", "server") as lab, ExitStack() as stack:
        client, router, server = lab
        for end in (client, server):  # the far ends of the veth pairs: see xdp_receive in the C file
            with end.entered():
                stack.enter_context(obj.programs["xdp_receive"].attach("eth0"))
        with router.entered():
            attach(obj, ("eth0", "eth1"), stack)
        with server.tcp_server(7000):
            for address in (server.address, server.address6):
                pings = client.ping(address, count=5)
                echoed = client.tcp_echo(address, 7000, bytes(100_000))
                answer = f"{len(echoed)} bytes came back over TCP" if echoed else "no TCP connection"
                print(f"{address}: {pings.received} of {pings.sent} pings answered, {answer}")
    show(obj)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--iface", action="append", help="route between these until Ctrl-C; without it: in a lab"
    )
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interfaces(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
