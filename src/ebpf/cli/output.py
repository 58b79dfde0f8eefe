"""Tables for people, JSON for machines.

A table is padded columns. On a terminal it has colours, and columns that do not fit move to a line of their
own below the row; in a pipe it is plain text. Nothing is ever cut.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from ebpf.cli import terminal
from ebpf.cli.terminal import Paint


class Column(NamedTuple):
    """A column and how it looks on a terminal."""

    title: str
    style: str = ""
    right: bool = False  #: aligned to the right, as numbers are
    below: bool = False  #: may move below the row where the terminal is narrow
    optional: bool = False  #: left out where every cell is "-"


class Cell(NamedTuple):
    """A cell with a style of its own."""

    text: str
    style: str


Row = Sequence[str | Cell]


def print_json(value: object) -> None:
    """One document; indented where a person looks."""
    print(dump(value, indent=2 if terminal.is_terminal(sys.stdout) else None))


def print_json_line(value: object) -> None:
    """One line of a stream, written at once."""
    print(dump(value), flush=True)


def dump(value: object, *, indent: int | None = None) -> str:
    """JSON text; for what JSON cannot hold see `plain`."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False)


def plain(value: object) -> object:
    """Nested data that JSON can hold: structures become objects, enums their names, bytes hex digits."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, bool | None | str | float):
        return value
    if isinstance(value, int):
        name = getattr(value, "name", None)
        return name if isinstance(name, str) else int(value)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def print_table(columns: Sequence[Column], rows: Sequence[Row], *, empty: str = "") -> None:
    """A table on stdout; without rows, only the words `empty`, on stderr."""
    if empty and not rows:
        terminal.note(empty)
        return
    width = None
    if terminal.is_terminal(sys.stdout):
        columns, rows = _used(columns, rows)
        width = shutil.get_terminal_size().columns
    for line in table_lines(columns, rows, terminal.painter(sys.stdout), width):
        print(line)


def _used(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[Column], list[Row]]:
    """Without the optional columns that hold nothing."""
    kept = [
        place
        for place, column in enumerate(columns)
        if not column.optional or any(_text(row[place]) != "-" for row in rows)
    ]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def table_lines(
    columns: Sequence[Column], rows: Sequence[Row], paint: Paint, width: int | None = None
) -> Iterator[str]:
    """The lines of a table for a terminal that is `width` wide, or for a pipe, which has no width."""
    widths = [
        max([len(column.title), *(len(_text(row[place])) for row in rows)])
        for place, column in enumerate(columns)
    ]
    beside, below = list(range(len(columns))), list[int]()
    while width is not None and sum(widths[place] + 2 for place in beside) - 2 > width:
        movable = [place for place in beside if columns[place].below]
        if not movable:
            break
        beside.remove(movable[-1])
        below.insert(0, movable[-1])
    yield _line(
        [(columns[place].title, "bold", columns[place].right, widths[place]) for place in beside], paint
    )
    if width is not None:
        yield paint("─" * min(width, sum(widths[place] + 2 for place in beside) - 2), "dim")
    for row in rows:
        yield _line(
            [
                (_text(row[place]), _style(row[place], columns[place]), columns[place].right, widths[place])
                for place in beside
            ],
            paint,
        )
        for place in below:
            if _text(row[place]) != "-":
                yield paint(f"    {columns[place].title}: {_text(row[place])}", "dim")


def _line(cells: Sequence[tuple[str, str, bool, int]], paint: Paint) -> str:
    """Text, style, alignment and width of each cell; no spaces at the end."""
    parts = []
    for text, style, right, width in cells:
        padding = " " * (width - len(text))
        parts.append(padding + paint(text, style) if right else paint(text, style) + padding)
    return "  ".join(parts).rstrip()


def _style(cell: str | Cell, column: Column) -> str:
    return cell.style if isinstance(cell, Cell) else column.style


def print_fields(fields: Iterable[tuple[str, str | Cell]]) -> None:
    """Names and values, one pair per line; empty values are left out."""
    pairs = [(name, value) for name, value in fields if _text(value)]
    width = max((len(name) for name, _ in pairs), default=0)
    paint = terminal.painter(sys.stdout)
    for name, value in pairs:
        text = paint(value.text, value.style) if isinstance(value, Cell) else value
        print(f"{paint(name.ljust(width), 'dim')}  {text}")


def _width(columns: Sequence[Column], rows: Sequence[Row], place: int) -> int:
    return max([len(columns[place].title), *(len(_text(row[place])) for row in rows)])


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell
