"""Global variables of a program: set before loading, read and changed while it runs."""

import argparse
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def show(obj: ebpf.Object) -> None:
    packets, largest = obj.variables["packets"], obj.variables["largest"]
    print(f"{packets.small} small, {packets.large} large, the largest {largest} bytes", flush=True)


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["variables"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered(), obj.programs["variables"].attach("eth0"):
            client.udp(server.address, 9, count=20, payload=bytes(20))
            client.udp(server.address, 9, count=5, payload=bytes(1000))
            show(obj)
            obj.variables["enabled"] = False  # the program sees it with the next packet
            client.udp(server.address, 9, count=100)
            print("switched off:")
            show(obj)
    try:
        obj.variables["sample_rate"] = 10
    except ebpf.Error as error:
        print(f"too late for a constant: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="count there until Ctrl-C; without it: in a lab, with traffic")
    parser.add_argument("--small", type=int, default=128, help="bytes of a packet that is still small")
    parser.add_argument("--rate", type=int, default=1, help="count one packet in so many")
    args = parser.parse_args()
    spec = ebpf.compile(SOURCE)
    spec.variables["small"] = args.small
    spec.variables["sample_rate"] = args.rate
    with spec.load() as obj:
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
