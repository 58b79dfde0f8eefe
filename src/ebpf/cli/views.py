"""How `ebpf run` shows what it watches: live tables, lines of text, or lines of JSON."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ebpf.cli import entries, human, output, terminal
from ebpf.cli.output import Column
from ebpf.cli.terminal import Paint
from ebpf.cli.watch import VARIABLES, Row, Sample

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ebpf.events.trace import TraceLine

_TRACE_LINES = 12  #: kept on the screen
_ROWS = 40  #: of a table, at most; fewer on a small screen


class View(Protocol):
    """Where samples and trace lines go."""

    streams: bool  #: whether trace lines are written as they come, and not with the next sample

    def start(self, title: str) -> None:
        """Everything is attached."""

    def show(self, samples: Sequence[Sample], lines: Sequence[TraceLine]) -> None:
        """What was seen since the last time."""

    def stop(self) -> None:
        """Nothing more will come."""


def choose(*, as_json: bool) -> View:
    """The view for this stdout."""
    if as_json:
        return JsonView()
    return LiveView() if terminal.is_terminal(sys.stdout) else TextView()


class JsonView:
    """One JSON object per line, for each entry that changed and each line of the trace."""

    streams = True

    def start(self, title: str) -> None:
        """Said by the caller, in more detail."""

    def show(self, samples: Sequence[Sample], lines: Sequence[TraceLine]) -> None:
        """Entries that changed since the last time, then the trace."""
        now = human.iso(time.time())
        for sample in samples:
            for row in sample.rows:
                if row.changed:
                    output.print_json_line(
                        {"event": "entry", "time": now, "map": sample.name}
                        | entries.entry_json(row.entry)
                        | {"rates_per_second": {path: round(rate, 3) for path, rate in row.rates.items()}}
                    )
            for row in sample.gone:
                key = entries.entry_json(row.entry)["key"]
                output.print_json_line({"event": "deleted", "time": now, "map": sample.name, "key": key})
        for line in lines:
            output.print_json_line({"event": "trace"} | trace_json(line))

    def stop(self) -> None:
        """Nothing is held back."""


class TextView:
    """A line for each entry that changed and each line of the trace: for logs and pipes."""

    streams = True

    def start(self, title: str) -> None:
        """Said by the caller."""

    def show(self, samples: Sequence[Sample], lines: Sequence[TraceLine]) -> None:
        """Entries that changed since the last time, then the trace."""
        now = time.strftime("%H:%M:%S")
        for sample in samples:
            for row in sample.rows:
                if row.changed:
                    print(f"{now} {_where(sample, row.key)} {_value(row)}")
            for row in sample.gone:
                print(f"{now} {_where(sample, row.key)} deleted")
        for line in lines:
            print(f"{now} trace {line.task}-{line.pid} [{line.cpu:03}] {entries.printable(line.text)}")
        sys.stdout.flush()

    def stop(self) -> None:
        """Nothing is held back."""


def _where(sample: Sample, key: dict[str, Any]) -> str:
    if sample.name == VARIABLES:
        return entries.text(key["key"])
    if set(key) == {"key"}:
        return f"{sample.name}[{entries.text(key['key'])}]"
    return f"{sample.name}[{' '.join(f'{path}={entries.text(part)}' for path, part in key.items())}]"


def _value(row: Row) -> str:
    parts = []
    for path, part in row.value.items():
        rate = f" (+{human.rate(row.rates[path])}/s)" if path in row.rates else ""
        name = "" if set(row.value) == {"value"} else f"{path}="
        parts.append(f"{name}{entries.text(part)}{rate}")
    return " ".join(parts)


class LiveView:
    """Tables that are redrawn in place, and the last lines of the trace."""

    streams = False

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, emoji=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._lines: deque[TraceLine] = deque(maxlen=_TRACE_LINES)
        self._title = ""
        self._started = time.monotonic()
        self._rated: dict[str, dict[str, None]] = {}  #: parts that were seen to count, by map

    def start(self, title: str) -> None:
        """Draw for the first time."""
        self._title = title
        self._started = time.monotonic()
        self._live.start()
        self._live.update(self._render([]), refresh=True)

    def show(self, samples: Sequence[Sample], lines: Sequence[TraceLine]) -> None:
        """Draw anew."""
        self._lines.extend(lines)
        self._live.update(self._render(samples), refresh=True)

    def stop(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()

    def _render(self, samples: Sequence[Sample]) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        elapsed = int(time.monotonic() - self._started)
        head = Text.assemble(
            (self._title, "bold"), (f"  {elapsed // 60}:{elapsed % 60:02}  Ctrl-C detaches", "dim")
        )
        parts: list[RenderableType] = [head]
        room = max(
            3, self._console.size.height - 3 - 4 * len(samples) - (len(self._lines) + 2 if self._lines else 0)
        )
        for sample in samples:
            parts += [Text(), *self._table(sample, min(_ROWS, max(3, room // len(samples))))]
        if self._lines:
            parts += [Text(), Text("trace", "bold magenta")]
            parts += [_trace_markup(line) for line in self._lines]
        return Group(*parts)

    def _table(self, sample: Sample, limit: int) -> list[RenderableType]:
        from rich.text import Text

        shown = sample.rows[:limit]
        more = len(sample.rows) - len(shown)
        facts = f"  {sample.type}, {_count(sample)}" if sample.name != VARIABLES else ""
        if any(row.entry.per_cpu is not None and row.entry.value is not None for row in shown):
            facts += ", summed over the CPUs"
        title = Text.assemble((sample.name, "bold magenta"), (facts, "dim"))
        if not shown:
            return [title]
        rated = self._rated.setdefault(sample.name, {})
        for row in sample.rows:
            rated |= dict.fromkeys(row.rates)
        keys = list(dict.fromkeys(path for row in shown for path in row.key))
        values = list(dict.fromkeys(path for row in shown for path in row.value))
        columns = [
            Column(
                "name" if sample.name == VARIABLES else path,
                "cyan",
                right=entries.is_number(shown[0].key.get(path)),
            )
            for path in keys
        ]
        for path in values:
            columns.append(Column(path, right=entries.is_number(shown[0].value.get(path))))
            if path in rated:
                columns.append(Column(f"{path}/s", "green", right=True))
        rows = []
        for row in shown:
            cells = [entries.text(row.key.get(path)) for path in keys]
            for path in values:
                cells.append(entries.text(row.value.get(path)))
                if path in rated:
                    cells.append(human.rate(row.rates[path]) if path in row.rates else "")
            rows.append(cells)
        parts: list[RenderableType] = [title, _table(columns, rows)]
        if more > 0:
            parts.append(Text(f"… {more} more", "dim"))
        return parts


def _count(sample: Sample) -> str:
    if sample.size is not None:
        return f"{len(sample.rows)} of {human.count(sample.size, 'entry', 'entries')} not 0"
    if sample.is_cut:
        return f"more than {len(sample.rows)} entries"
    return human.count(len(sample.rows), "entry", "entries")


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        border_style="dim",
    )
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(Text(column.title), style=column.style, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def trace_text(line: TraceLine, paint: Paint | None = None) -> str:
    """A line of the trace: when (local time), who, on which CPU, what."""
    when, who, cpu = _clock(line), f"{entries.printable(line.task)}-{line.pid}", f"[{line.cpu:03}]"
    if paint is not None:
        when, who, cpu = paint(when, "dim"), paint(who, "cyan"), paint(cpu, "dim")
    return f"{when} {who} {cpu} {entries.printable(line.text)}"


def _clock(line: TraceLine) -> str:
    seconds = human.since_boot(int(line.time * 1e9))
    return f"{human.timestamp(seconds)[11:]}.{int(seconds % 1 * 1e6):06}"


def _trace_markup(line: TraceLine) -> RenderableType:
    from rich.text import Text

    who = (f"{entries.printable(line.task)}-{line.pid}", "cyan")
    return Text.assemble(
        (f"{_clock(line)} ", "dim"), who, (f" [{line.cpu:03}] ", "dim"), entries.printable(line.text)
    )


def trace_json(line: TraceLine) -> dict[str, Any]:
    """A line of the trace, for JSON."""
    return {
        "time": human.iso(human.since_boot(int(line.time * 1e9))),
        "boot_time_ns": round(line.time * 1e9),
        "task": line.task,
        "pid": line.pid,
        "cpu": line.cpu,
        "text": line.text,
        "lost": line.lost,
    }
