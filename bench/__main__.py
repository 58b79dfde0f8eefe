"""Print every table; `python -m bench start load` prints some."""

from __future__ import annotations

import os
import platform
import sys

from rich.console import Console
from rich.table import Table

from bench import load, start
from bench.measure import GNU_TIME, Case

SUITES = {"start": start.suite, "load": load.suite}


def table(title: str, note: str, cases: list[Case]) -> Table:
    """Medians, spread and ratio to the first case, the peer."""
    result = Table(title=title, caption=note, title_justify="left", caption_justify="left")
    for column in ("command", "median", "fastest", "slowest", "ratio", "peak memory"):
        result.add_column(column, justify="left" if column == "command" else "right")
    peer = cases[0]
    for case in cases:
        fastest, slowest = case.spread
        result.add_row(
            case.name,
            f"{case.median * 1e3:.1f} ms",
            f"{fastest * 1e3:.1f} ms",
            f"{slowest * 1e3:.1f} ms",
            "1" if case is peer else f"{case.median / peer.median:.2f}",
            f"{case.peak_kib / 1024:.1f} MiB" if case.peak_kib else "-",
        )
    return result


def main() -> None:
    """Run the suites named on the command line, or all."""
    names = sys.argv[1:] or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise SystemExit(f"no suite named {', '.join(unknown)}; there is: {', '.join(SUITES)}")
    console = Console(width=110 if not sys.stdout.isatty() else None)
    console.print(
        f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}",
        highlight=False,
    )
    if not GNU_TIME.exists():
        console.print("peak memory is not measured: GNU time is not installed (Debian: apt install time)")
    for name in names:
        for title, note, cases in SUITES[name]():
            console.print()
            console.print(table(title, note, cases))


if __name__ == "__main__":
    main()
