"""Numbers as people read them. JSON has the raw ones, under keys that end in the unit."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from ebpf.cli import terminal

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: int) -> str:
    """Bytes: "96 B", "4.0 KiB"."""
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_BINARY[unit]}"


def duration(nanoseconds: float) -> str:
    """Nanoseconds: "850 ns", "12.5 us", "3.2 ms", "1.5 s", "4 min 10 s", "2 h 5 min", "3 d 4 h"."""
    for limit, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms"), (60e9, 1e9, "s")):
        if nanoseconds < limit * (0.99995 if divisor > 1 else 1):
            return f"{nanoseconds:.0f} {unit}" if divisor == 1 else f"{nanoseconds / divisor:.1f} {unit}"
    seconds = int(nanoseconds // 1e9)
    for large, small, unit, rest in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if seconds >= large:
            return f"{seconds // large} {unit} {seconds % large // small} {rest}"
    return f"{nanoseconds / 1e9:.1f} s"


def rate(per_second: float) -> str:
    """A rate without its unit: "0", "3.5", "1250", "1.25M"; at most about five characters."""
    if per_second >= 999_950:
        for divisor, unit in ((1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E")):
            if per_second < divisor * 999.95:
                return f"{per_second / divisor:.2f}{unit}"
    return f"{per_second:.1f}".removesuffix(".0") if per_second < 100 else f"{per_second:.0f}"


def timestamp(seconds: float) -> str:
    """Seconds since 1970 in local time, ISO 8601 without the zone: for tables."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def moment(seconds: float) -> str:
    """The same, short on a terminal: the time today, the date before."""
    if not terminal.is_terminal(sys.stdout):
        return timestamp(seconds)
    day, clock = timestamp(seconds).split()
    return clock if day == timestamp(time.time()).split()[0] else day


def iso(seconds: float) -> str:
    """Seconds since 1970 in local time, ISO 8601 with the zone: for JSON."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="milliseconds")


def since_boot(nanoseconds: int) -> float:
    """Nanoseconds since boot (what the kernel gives for load times) as seconds since 1970."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + nanoseconds / 1e9


def count(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 map", "2 maps", "no maps"."""
    many = plural or f"{noun}s"
    return f"no {many}" if number == 0 else f"{number} {noun if number == 1 else many}"
