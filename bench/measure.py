"""Whole processes, timed in turn: A B A B …, so that a machine that drifts drifts for both."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GNU_TIME = Path("/usr/bin/time")


@dataclass
class Case:
    """A command to be timed; `reset` runs after each run, outside the clock."""

    name: str
    command: Sequence[str]
    reset: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    peak_kib: int | None = None  #: largest resident set, where GNU time is installed

    @property
    def median(self) -> float:
        """Seconds of wall time."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Fastest and slowest run, in seconds."""
        return min(self.seconds), max(self.seconds)


def measure(cases: Sequence[Case], runs: int, *, warmup: int = 2) -> None:
    """Run every case `warmup` times unmeasured, then `runs` times in turn; a failing command ends it all."""
    for round_ in range(warmup + runs):
        for case in cases:
            started = time.perf_counter()
            _run(case.command)
            elapsed = time.perf_counter() - started
            case.reset()
            if round_ >= warmup:
                case.seconds.append(elapsed)
    for case in cases:
        case.peak_kib = _peak(case.command)
        case.reset()


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"bench: {' '.join(command)} failed:\n{result.stderr}")


def _peak(command: Sequence[str]) -> int | None:
    """The largest resident set in KiB, told by GNU time.

    Asking wait4(2) here would not do: a process's maximum counts what it was before exec, this Python. The
    shell between makes GNU time start from something small.
    """
    if not GNU_TIME.exists():
        return None
    read, write = os.pipe()
    with os.fdopen(read) as answer:
        wrapped = ["/bin/sh", "-c", f'{GNU_TIME} -f %M -o /dev/fd/{write} "$@"; exit $?', "sh", *command]
        try:
            subprocess.run(
                wrapped, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[write], check=True
            )
        finally:
            os.close(write)
        return int(answer.read().split()[-1])
