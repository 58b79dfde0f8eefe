"""A firewall by source address: the most specific of the prefixes that match decides."""

import argparse
import time
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def add_rule(obj: ebpf.Object, prefix: str, verdict: str) -> None:
    rules = obj.maps[f"rules{ip_network(prefix).version}"]
    rules[prefix] = {"verdict": verdict}  # "10.0.0.0/8" is a key, and an enumerator's name a value


def show(obj: ebpf.Object) -> None:
    for name in ("rules4", "rules6"):
        for prefix, rule in obj.maps[name].items():
            address = ip_address(bytes(prefix.address))
            print(f"{address}/{prefix.length}: {rule.verdict!r}, {rule.packets} packets", flush=True)


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["lpm_firewall"].attach(interface), suppress(KeyboardInterrupt):
        print(f"filtering on {interface}; Ctrl-C ends it", flush=True)
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab

        def ping(rules: str) -> None:
            result = client.ping(server.address, timeout=0.2)
            print(f"{rules}: {result.received} of {result.sent} pings answered")

        with server.entered(), obj.programs["lpm_firewall"].attach("eth0"):
            ping("no rule")
            add_rule(obj, "10.0.0.0/8", "DENY")
            ping("10.0.0.0/8 denied")
            add_rule(obj, f"{client.address}/32", "ALLOW")
            ping(f"10.0.0.0/8 denied, {client.address}/32 allowed")
        show(obj)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="filter there until Ctrl-C; without it: in a lab, with pings")
    parser.add_argument(
        "--deny", action="append", default=[], metavar="PREFIX", help="10.0.0.0/8, fd00::/8, …"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PREFIX")
    parser.add_argument("--otherwise", choices=("ALLOW", "DENY"), default="ALLOW", help="for all others")
    args = parser.parse_args()
    spec = ebpf.compile(SOURCE)
    spec.variables["otherwise"] = args.otherwise
    with spec.load() as obj:
        for prefix in args.deny:
            add_rule(obj, prefix, "DENY")
        for prefix in args.allow:
            add_rule(obj, prefix, "ALLOW")
        if args.iface:
            on_interface(obj, args.iface)
        else:
            in_lab(obj)


if __name__ == "__main__":
    main()
