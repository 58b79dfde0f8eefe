"""Watch an XDP program count real packets and drop a port, in a lab of two namespaces: `make demo`."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

import ebpf
from ebpf.kernel import privileges
from ebpf.lab import Host, Lab

SOURCE = Path(__file__).parent / "firewall.bpf.c"
OPEN_PORT, BLOCKED_PORT = 7000, 9999
NEEDS = (*privileges.needs_to_load(ebpf.ProgramType.XDP), privileges.NET_ADMIN, privileges.SYS_ADMIN)

console = Console(highlight=False)


def main() -> None:
    """The whole demo, or without privileges as much of it as can be shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="how long to drive traffic (default: 8)")
    seconds = parser.parse_args().seconds

    console.print(f"[bold]1. Compile[/] {SOURCE.name}")
    started = time.perf_counter()
    spec = ebpf.compile(SOURCE)
    spec.variables["blocked_port"] = BLOCKED_PORT
    (program,) = spec.programs.values()
    console.print(
        f"   {len(program.instructions)} instructions, maps: {', '.join(spec.maps)}"
        f" ({(time.perf_counter() - started) * 1e3:.0f} ms)"
    )

    missing = privileges.missing(NEEDS)
    if missing:
        without_privileges(spec, missing)
        return

    console.print("[bold]2. Lab[/] client ── veth ── server")
    with Lab("client", "server") as lab:
        console.print(f"   client {lab['client'].address}, server {lab['server'].address}")
        with spec.load(log_level=4) as obj, lab["server"].entered():
            console.print(f"[bold]3. Load and attach[/] to {lab['server'].interface.name} of the server")
            with obj.programs["firewall"].attach(lab["server"].interface.name) as link:
                console.print(
                    f"   attached in {link.mode} mode; UDP and TCP to port {BLOCKED_PORT} are dropped"
                )
                console.print("[bold]4. Traffic[/]")
                answers = watch(obj.maps["counters"], lab, seconds)
                facts(obj.programs["firewall"], link, answers)
    console.print("Everything is detached and taken down again.")


def watch(counters: ebpf.Map, lab: Lab, seconds: float) -> dict[str, str]:
    """Show the counters while the client sends; gives what the client saw."""
    traffic = Traffic(lab["client"], lab["server"])
    before: dict[object, int] = {}
    with traffic, Live(console=console, auto_refresh=False) as live:
        last = time.monotonic()
        end = last + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
            now = time.monotonic()
            totals = {key: value.sum() for key, value in counters.items()}
            table = Table("protocol", "action", "packets", "bytes", "packets/s")
            for column in table.columns[2:]:
                column.justify = "right"
            for key, total in sorted(totals.items(), key=lambda item: -item[1].packets):
                rate = (total.packets - before.get(key, 0)) / (now - last)
                action = key.action.name.removeprefix("XDP_")
                table.add_row(
                    key.protocol.name,
                    f"[red]{action}[/]" if action == "DROP" else f"[green]{action}[/]",
                    f"{total.packets:,}",
                    f"{total.bytes:,}",
                    f"{rate:,.0f}",
                )
            live.update(Group(table), refresh=True)
            before, last = {key: total.packets for key, total in totals.items()}, now
    if not console.is_terminal:
        console.print()  # Live ends without a newline there
    return traffic.answers()


class Traffic(threading.Thread):
    """Ping, UDP and TCP from the client, to an open port and to the blocked one, for a `with` block."""

    def __init__(self, client: Host, server: Host) -> None:
        super().__init__(daemon=True)
        self.client, self.server = client, server
        self.stopping = threading.Event()
        self.sent = {"ping": 0, f"UDP {OPEN_PORT}": 0, f"UDP {BLOCKED_PORT}": 0, f"TCP {OPEN_PORT}": 0}
        self.answered = dict.fromkeys(self.sent, 0)

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join()

    def run(self) -> None:
        """Round after round until told to stop."""
        address = self.server.address
        with (
            self.server.udp_server(OPEN_PORT),
            self.server.udp_server(BLOCKED_PORT),
            self.server.tcp_server(OPEN_PORT),
        ):
            while not self.stopping.wait(0.05):
                self.count("ping", self.client.ping(address, count=1).received == 1)
                for port in (OPEN_PORT, BLOCKED_PORT):
                    answer = self.client.udp_echo(address, port, timeout=0.05)
                    self.count(f"UDP {port}", answer is not None)
                self.count(f"TCP {OPEN_PORT}", self.client.tcp_echo(address, OPEN_PORT) is not None)

    def count(self, kind: str, answered: bool) -> None:
        """One more of a kind."""
        self.sent[kind] += 1
        self.answered[kind] += answered

    def answers(self) -> dict[str, str]:
        """What the client saw, by kind."""
        return {kind: f"{self.answered[kind]} of {sent} answered" for kind, sent in self.sent.items()}


def facts(program: ebpf.Program, link: object, answers: dict[str, str]) -> None:
    """What the client saw, and what the kernel says of the program."""
    info = program.info
    table = Table.grid(padding=(0, 2))
    for kind, answer in answers.items():
        table.add_row(f"   client: {kind}", answer)
    table.add_row("   program", f"{program.name}, id {info.id}, tag {info.tag}")
    table.add_row("   instructions", f"{info.xlated_size // 8}, JITed to {info.jited_size} bytes")
    cost = program.verification
    if cost:
        table.add_row("   verified", f"in {cost.time_us} us: {cost.instructions} instructions walked through")
    table.add_row("   mode", f"{link.mode}")
    console.print("[bold]5. Facts[/]")
    console.print(table)


def without_privileges(spec: ebpf.Spec, missing: list[str]) -> None:
    """Say what is missing, and show the program."""
    from ebpf.isa.listing import listing, render

    lacking = ", ".join(dict.fromkeys(missing))
    console.print(f"[yellow]Loading it needs {lacking}, which this process lacks.[/]")
    console.print("What can be shown without: the program as compiled. For the rest: sudo make demo\n")
    for program in spec.programs.values():
        print(render(listing(program.instructions, program.name)))


if __name__ == "__main__":
    try:
        main()
    except ebpf.Error as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
