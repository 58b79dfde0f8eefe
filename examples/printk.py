"""Debugging with bpf_printk(): what the program prints, read from the kernel's trace pipe."""

import argparse
from contextlib import suppress
from itertools import islice
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with ebpf.trace() as lines, obj.programs["printk"].attach(interface), suppress(KeyboardInterrupt):
        for line in lines:
            print(f"CPU {line.cpu}, {line.task}: {line.text}", flush=True)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        # Opened before there is anything to read: it gives what is printed from now on, by any program of the
        # machine, and ends here when nothing came for two seconds.
        with ebpf.trace(timeout=2) as lines, server.entered(), obj.programs["printk"].attach("eth0"):
            client.ping(server.address, count=3)
            for line in islice((line for line in lines if line.text.startswith("IPv4")), 3):
                print(f"CPU {line.cpu}, {line.task}: {line.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="trace there until Ctrl-C; without it: in a lab, with pings")
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
