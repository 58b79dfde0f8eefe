"""A port that clients know, another one where the server listens, and XDP on a router that renames both ways.

Run it on a router: --iface is the interface towards the clients, --servers the one towards the servers.
"""

import argparse
import signal
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def on_interfaces(obj: ebpf.Object, clients: str, servers: str) -> None:
    rewrite, restore = obj.programs["rewrite"], obj.programs["restore"]
    with rewrite.attach(clients), restore.attach(servers), suppress(KeyboardInterrupt):
        print(f"rewriting from {clients}, and back from {servers}; Ctrl-C ends it", flush=True)
        signal.pause()
    print(f"{obj.variables['rewritten']} packets rewritten")


def in_lab(obj: ebpf.Object, public: int, server_port: int) -> None:
    with Lab("client", "router", "server") as lab:
        client, router, server = lab
        with (
            router.entered(),
            obj.programs["rewrite"].attach("eth0"),
            obj.programs["restore"].attach("eth1"),
            server.udp_server(server_port) as udp,
            server.tcp_server(server_port),
        ):
            for address in (server.address, server.address6):
                # TCP would not get past its handshake if an answer came from another port than was asked.
                answers = client.udp_echo(address, public, b"udp"), client.tcp_echo(address, public, b"tcp")
                print(f"{address}: sent to port {public}, answered with {answers}")
            print(f"the server on port {server_port} received {len(udp.received)} datagrams")
    print(f"{obj.variables['rewritten']} packets rewritten")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="where the clients are; without it: in a lab of three hosts")
    parser.add_argument("--servers", help="where the servers are")
    parser.add_argument("--public", type=int, default=8080, help="the port that clients use (default: 8080)")
    parser.add_argument("--port", type=int, default=80, help="the port that the server uses (default: 80)")
    args = parser.parse_args()
    if args.iface and not args.servers:
        parser.error("--iface needs --servers: answers come in at another interface")
    spec = ebpf.compile(SOURCE)
    spec.variables["public_port"] = args.public
    spec.variables["server_port"] = args.port
    with spec.load() as obj:
        if args.iface:
            on_interfaces(obj, args.iface, args.servers)
        else:
            in_lab(obj, args.public, args.port)


if __name__ == "__main__":
    main()
