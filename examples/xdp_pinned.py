"""A counter that goes on when its program is loaded again, because its map is pinned by name."""

import argparse
import time
from contextlib import suppress
from pathlib import Path

import ebpf
from ebpf.lab import Lab

SOURCE = Path(__file__).with_suffix(".bpf.c")


def on_interface(spec: ebpf.Spec, interface: str, pins: Path) -> None:
    with (
        spec.load(pin_path=pins) as obj,
        obj.programs["xdp_pinned"].attach(interface),
        suppress(KeyboardInterrupt),
    ):
        count = obj.maps["packet_count"]
        print(f"{count.pinned} stands at {count[0]} packets", flush=True)
        while True:
            time.sleep(1)
            print(f"{count[0]} packets", flush=True)


def in_lab(spec: ebpf.Spec) -> None:
    with Lab("client", "server") as lab:
        client, server = lab
        for run in ("first", "second"):
            # At the end of this block link, program and descriptors are gone; the pin keeps the map.
            with spec.load(pin_path=lab.bpffs) as obj:
                count = obj.maps["packet_count"]
                before = count[0]
                with server.entered(), obj.programs["xdp_pinned"].attach("eth0"):
                    client.ping(server.address, count=5)
                print(f"{run} run: from {before} to {count[0]} packets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iface", help="count there until Ctrl-C; without it: twice in a lab, with pings")
    parser.add_argument("--pins", type=Path, default="/sys/fs/bpf", help="a folder on a BPF file system")
    parser.add_argument("--unpin", action="store_true", help="only forget the counter of earlier runs")
    args = parser.parse_args()
    spec = ebpf.compile(SOURCE)
    if args.unpin:
        (args.pins / "packet_count").unlink(missing_ok=True)
    elif args.iface:
        on_interface(spec, args.iface, args.pins)
    else:
        in_lab(spec)


if __name__ == "__main__":
    main()
