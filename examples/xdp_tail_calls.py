"""A chain of programs: one parses, and jumps by tail call to the one for the protocol."""

import argparse
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")
COUNTERS = ("icmp_messages", "tcp_segments", "tcp_connections", "udp_datagrams", "udp_bytes", "others")


def show(obj: ebpf.Object) -> None:
    print(", ".join(f"{name} {obj.variables[name]}" for name in COUNTERS), flush=True)


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["xdp_tail_calls"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered(), obj.programs["xdp_tail_calls"].attach("eth0"), server.tcp_server(7000):
            client.udp(server.address, 9, count=10, payload=b"ten bytes!")
            client.tcp_echo(server.address6, 7000)
            client.ping(server.address)
            show(obj)
            # A program taken out of the chain, while it runs: its packets fall back to the first one.
            del obj.maps["protocols"][17]
            client.udp(server.address, 9, count=10, payload=b"ten bytes!")
            print("without the program for UDP:")
            show(obj)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="count there until Ctrl-C; without it: in a lab, with traffic")
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
