"""`ebpf trace`: what programs print with bpf_printk."""

from __future__ import annotations

import sys
import time

import click

from ebpf.cli import output, terminal
from ebpf.cli.command import json_option
from ebpf.cli.stopping import Stopping
from ebpf.cli.views import trace_json, trace_text


@click.command()
@click.option("--filter", "wanted", metavar="TEXT", help="Only lines that contain TEXT.")
@click.option("--pid", type=int, metavar="PID", help="Only of this thread id.")
@click.option("--task", metavar="NAME", help="Only of threads with this command.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N lines.")
@click.option("--duration", type=click.FloatRange(0), metavar="SECONDS", help="End after that time.")
@json_option
def trace(
    wanted: str | None,
    pid: int | None,
    task: str | None,
    count: int | None,
    duration: float | None,
    as_json: bool,
) -> None:
    """Follow what programs print with bpf_printk, of all programs, until Ctrl-C.

    Other readers of the trace lose nothing. With --json each line is an object.

    \b
    Examples:
      ebpf trace
      ebpf trace --task ping --filter dropped
      ebpf trace --json --count 10
    """
    from ebpf.events.trace import trace as open_trace

    paint = terminal.painter(sys.stdout)
    with Stopping() as stopping, open_trace(task=task, pid=pid) as lines:
        end = None if duration is None else time.monotonic() + duration
        if terminal.is_terminal(sys.stderr) and not as_json:
            terminal.note("waiting for bpf_printk; Ctrl-C ends")
        shown = 0
        while not stopping.requested and (end is None or time.monotonic() < end):
            for line in lines.read():
                if line.lost:
                    terminal.warn(f"{line.lost} lines of CPU {line.cpu} were lost before the next one")
                if wanted is not None and wanted not in line.text:
                    continue
                if as_json:
                    output.print_json_line(trace_json(line))
                else:
                    print(trace_text(line, paint), flush=True)
                shown += 1
                if shown == count:
                    return
            stopping.wait(None if end is None else end - time.monotonic(), lines)
