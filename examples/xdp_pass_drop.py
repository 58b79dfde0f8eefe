"""Two programs in one object, chosen by name: one lets every packet pass, the other drops every packet."""

import argparse
import signal
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def on_interface(obj: ebpf.Object, name: str, interface: str) -> None:
    with obj.programs[name].attach(interface) as link, suppress(KeyboardInterrupt):
        print(f"{name} is on {interface} in {link.mode} mode; Ctrl-C takes it off", flush=True)
        signal.pause()


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        for name in ("xdp_pass", "xdp_drop"):
            with server.entered(), obj.programs[name].attach("eth0"):
                result = client.ping(server.address, timeout=0.2)
            print(f"{name}: {result.received} of {result.sent} pings answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="attach there until Ctrl-C; without it: both in a lab, in turn")
    parser.add_argument("--program", default="xdp_pass", help="xdp_pass (the default) or xdp_drop")
    args = parser.parse_args()
    with ebpf.compile(SOURCE).load() as obj:
        if args.iface:
            on_interface(obj, args.program, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
