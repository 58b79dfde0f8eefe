"""Packets and bytes by protocol and port, behind VLAN tags, IPv4 options and IPv6 extension headers."""

import argparse
import socket
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab, packets

SOURCE = Path(__file__).with_suffix(".bpf.c")
PROTOCOLS = {
    socket.IPPROTO_TCP: "TCP port",
    socket.IPPROTO_UDP: "UDP port",
    socket.IPPROTO_ICMP: "ICMP type",
    socket.IPPROTO_ICMPV6: "ICMPv6 type",
}


def show(obj: ebpf.Object) -> None:
    services = sorted(obj.maps["services"].items(), key=lambda item: -item[1].packets)
    for service, traffic in services:
        name = PROTOCOLS.get(service.protocol, f"protocol {service.protocol}")
        print(f"{name:12} {service.port:5} {traffic.packets:8} packets {traffic.bytes:10} bytes")
    print(f"not parsed: {obj.variables['unparsed']} packets", flush=True)


def on_interface(obj: ebpf.Object, interface: str) -> None:
    with obj.programs["xdp_parse"].attach(interface), suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            show(obj)


def in_lab(obj: ebpf.Object) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        with server.entered(), obj.programs["xdp_parse"].attach("eth0"), server.tcp_server(7000):
            client.ping(server.address)
            client.ping(server.address6)
            client.tcp_echo(server.address6, 7000)
            client.udp(server.address, 53, count=10)
            # Frames as no socket would send them: two VLAN tags, and an IPv4 header with 8 bytes of options.
            client.send_frame(packets.udp(port=5001, vlans=(100, 200)), count=4)
            client.send_frame(packets.udp(port=5002, options=bytes([1]) * 8), count=2)
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
