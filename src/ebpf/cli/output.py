"""Tables for people, JSON for machines.

On a terminal a table is drawn by rich. Piped, it is plain text: columns padded, nothing cut, nothing wrapped,
no colour, and rich is not even imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ebpf.cli import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Column(NamedTuple):
    """A column and how it looks on a terminal."""

    title: str
    style: str = ""
    right: bool = False  #: aligned to the right, as numbers are
    wrap: bool = False  #: may be folded where the terminal is narrow
    optional: bool = False  #: left out on a terminal where every cell is "-"


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


def print_table(
    columns: Sequence[Column], rows: Sequence[Row], *, title: str = "", indent: int = 0, empty: str = ""
) -> None:
    """A table on stdout, under its title; without rows, only the words `empty`, on stderr."""
    if empty and not rows:
        terminal.note(empty)
        return
    if title:
        print(title)
    if terminal.is_terminal(sys.stdout):
        columns, rows = _used(columns, rows)
        if _narrowest(columns, rows) + indent <= console().width:
            from rich.padding import Padding

            console().print(Padding(rich_table(columns, rows), (0, 0, 0, indent)))
            return
    for line in plain_table(columns, rows):
        print(f"{' ' * indent}{line}")


_FOLDED = 16  #: no column is folded to less


def _used(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[Column], list[Row]]:
    """Without the optional columns that hold nothing."""
    kept = [
        place
        for place, column in enumerate(columns)
        if not column.optional or any(_text(row[place]) != "-" for row in rows)
    ]
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _narrowest(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """The width below which rich would cut something: then the terminal had better wrap whole lines."""
    total = 2 * (len(columns) - 1)
    for place, column in enumerate(columns):
        width = _width(columns, rows, place)
        total += min(width, _FOLDED) if column.wrap else width
    return total


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


def plain_table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """The lines of a table as plain text, two spaces between the columns."""
    lines = [[column.title for column in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [_width(columns, rows, place) for place in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def rich_table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """The same for a terminal."""
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
    for place, column in enumerate(columns):
        table.add_column(
            column.title,
            style=column.style or None,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold",
            min_width=min(_FOLDED, _width(columns, rows, place)) if column.wrap else None,
        )
    for row in rows:
        table.add_row(
            *(Text(cell.text, cell.style) if isinstance(cell, Cell) else Text(cell) for cell in row)
        )
    return table


_console: Console | None = None


def console() -> Console:
    """The terminal, as rich sees it."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(highlight=False, emoji=False, markup=False)
    return _console


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell
