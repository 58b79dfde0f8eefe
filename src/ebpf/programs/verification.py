"""What the verifier says of its own work: the statistics at the end of its log (BPF_LOG_STATS, Linux 5.2)."""

from __future__ import annotations

import re
from typing import NamedTuple

#: The log level that asks for statistics and nothing else.
BPF_LOG_STATS = 4

_TIME = re.compile(r"^verification time (\d+) usec", re.MULTILINE)
_STACK = re.compile(r"^stack depth (\d+(?:\+\d+)*)", re.MULTILINE)
_PROCESSED = re.compile(
    r"^processed (\d+) insns \(limit (\d+)\).* total_states (\d+) peak_states (\d+)", re.MULTILINE
)


class Verification(NamedTuple):
    """The cost of verifying a program."""

    time_us: int
    instructions: int  #: processed, each as often as a path came by
    limit: int  #: of instructions processed
    total_states: int
    peak_states: int
    stack: tuple[
        int, ...
    ]  #: bytes per function, the program's own first; empty where the kernel does not say


def parse_verification(log: str) -> Verification | None:
    """The statistics in a verifier log; None if it has none."""
    time, processed, stack = _TIME.search(log), _PROCESSED.search(log), _STACK.search(log)
    if time is None or processed is None:
        return None
    depths = tuple(int(depth) for depth in stack[1].split("+")) if stack else ()
    instructions, limit, total_states, peak_states = (int(number) for number in processed.groups())
    return Verification(int(time[1]), instructions, limit, total_states, peak_states, depths)
