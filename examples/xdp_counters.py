"""Packets and bytes for each XDP action, counted by every CPU on its own and added up here."""

import argparse
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def show(obj: ebpf.Object) -> None:
    for action, counters in obj.maps["counters"].items():
        total = counters.sum()  # over all CPUs, field by field
        if total.packets:
            by_cpu = [counter.packets for counter in counters]
            name = ebpf.XdpAction(action).name
            print(f"{name:8} {total.packets:8} packets {total.bytes:10} bytes   by CPU: {by_cpu}", flush=True)


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["xdp_counters"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object, port: int) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered(), obj.programs["xdp_counters"].attach("eth0"):
            client.udp(server.address, port, count=10)
            client.ping(server.address, count=5)
        show(obj)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="count there until Ctrl-C; without it: in a lab, with traffic")
    parser.add_argument("--port", type=int, default=9, help="the UDP port to drop (default: 9, discard)")
    args = parser.parse_args()
    spec = ebpf.compile(SOURCE)
    spec.variables["dropped_port"] = args.port
    with spec.load() as obj:
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj, args.port)


if __name__ == "__main__":
    main()
