"""A table of senders for each watched UDP port: maps in a map, added and exchanged while the program runs."""

import argparse
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def watch(obj: ebpf.Object, port: int) -> None:
    """Put an empty table in for a port, in the place of the one that may be there."""
    with obj.maps["watched"].create_inner() as table:
        obj.maps["watched"][port] = table  # one step: the next packet is counted in the new table


def show(port: int, table: ebpf.Map) -> None:
    for sender, count in table.items():
        print(f"port {port}: {count} packets from {ip_address(sender)}", flush=True)


def on_interface(obj: ebpf.Object, interface: str, ports: list[int]) -> None:
    for port in ports:
        watch(obj, port)
    with obj.programs["hash_of_maps"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            for port in ports:
                with obj.maps["watched"][port] as table:
                    watch(obj, port)
                    show(port, table)  # the last second, and nothing adds to it any more


def in_lab(obj: ebpf.Object, ports: list[int]) -> None:
    for port in ports:
        watch(obj, port)
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered(), obj.programs["hash_of_maps"].attach("eth0"):
            for number, port in enumerate(ports, 1):
                client.udp(server.address, port, count=10 * number)
            client.udp(server.address, 9, count=50)  # not watched, not counted
    for port in ports:
        with obj.maps["watched"][port] as table:
            show(port, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="count there until Ctrl-C; without it: in a lab, with traffic")
    parser.add_argument("--ports", type=int, nargs="+", default=[53, 123], help="of UDP (default: 53 123)")
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interface(obj, args.iface, args.ports)
        else:
            in_lab(obj, args.ports)


if __name__ == "__main__":
    main()
