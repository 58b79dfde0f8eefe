"""`ebpf prog run`: a program in the kernel, once, on a packet of yours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpf.cli import human, output
from ebpf.cli.command import json_option
from ebpf.cli.prog import complete_programs
from ebpf.errors import Error

if TYPE_CHECKING:
    from ebpf.programs.program import Program

_PACKETS = ("udp", "tcp", "icmp", "udp6", "tcp6", "icmp6")


@click.command("run")
@click.argument("program", shell_complete=complete_programs)
@click.option("--packet", type=click.Choice(_PACKETS), help="A packet of this kind, between two hosts.")
@click.option("--port", type=click.IntRange(0, 65535), default=9, help="Its destination port.  [default: 9]")
@click.option("--data", metavar="HEX", help="The packet in hexadecimal, from its Ethernet header on.")
@click.option(
    "--data-file", type=click.Path(dir_okay=False, readable=False), help="A file that holds the packet."
)
@click.option("--repeat", type=click.IntRange(1), default=1, help="How often.  [default: 1]")
@json_option
def run_program(
    program: str,
    packet: str | None,
    port: int,
    data: str | None,
    data_file: str | None,
    repeat: int,
    as_json: bool,
) -> None:
    """Run PROGRAM once, or --repeat times, on a packet, attached to nothing (BPF_PROG_TEST_RUN).

    It reads and changes its maps as it does on real packets.

    \b
    Examples:
      ebpf prog run firewall --packet udp --port 9999
      ebpf prog run firewall --data-file packet.bin --repeat 1000000
    """
    from ebpf.cli import objects
    from ebpf.programs.program import Program

    if sum(each is not None for each in (packet, data, data_file)) > 1:
        raise click.UsageError("one packet: --packet, --data or --data-file")
    given = _given(packet, port, data, data_file)
    with objects.open_program(program) as fd, Program.from_fd(fd) as live:
        result = live.run(given, repeat=repeat)
        name, verdict = live.name, _verdict(live, result.value)
    if as_json:
        output.print_json(
            {
                "name": name,
                "value": result.value,
                "action": verdict,
                "duration_ns": result.duration,
                "repeat": repeat,
                "data": result.data.hex() if result.data is not None else None,
            }
        )
        return
    changed = result.data is not None and result.data != given
    fate = f"changed, now {human.size(len(result.data or b''))}" if changed else "unchanged"
    output.print_fields(
        [
            ("returned", f"{verdict} ({result.value})" if verdict else str(result.value)),
            ("duration", f"{human.duration(result.duration)} per run" if result.duration else ""),
            ("packet", fate if given else ""),
        ]
    )
    if changed and result.data is not None:
        _print_hex(result.data)


def _given(packet: str | None, port: int, data: str | None, data_file: str | None) -> bytes | None:
    if packet is not None:
        return _make(packet, port)
    if data_file is not None:
        return Path(data_file).read_bytes()
    if data is None:
        return None
    try:
        return bytes.fromhex(data.removeprefix("hex:"))
    except ValueError as error:
        raise Error(f"--data takes two hexadecimal digits for each byte: {error}") from None


def _make(kind: str, port: int) -> bytes:
    from ebpf.lab import packets

    source, destination = ("fd00::1", "fd00::2") if kind.endswith("6") else ("10.0.0.1", "10.0.0.2")
    makers: dict[str, Callable[[], bytes]] = {
        "udp": lambda: packets.udp(b"ebpf", port=port, source=source, destination=destination),
        "tcp": lambda: packets.tcp(port=port, source=source, destination=destination),
        "icmp": lambda: packets.echo_request(source=source, destination=destination),
    }
    return makers[kind.removesuffix("6")]()


def _verdict(live: Program, value: int) -> str | None:
    """The name of what an XDP program returned."""
    from ebpf.uapi import ProgramType, XdpAction

    if live.type is not ProgramType.XDP:
        return None
    return f"XDP_{XdpAction(value).name}" if value in set(XdpAction) else None


def _print_hex(data: bytes) -> None:
    for start in range(0, len(data), 16):
        print(f"{start:04x}  {data[start : start + 16].hex(' ')}")
