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
    from rich.table import Table


class Column(NamedTuple):
    """A column: title, style of its cells, whether it holds numbers, and whether it may wrap on a terminal."""

    title: str
    style: str = ""
    right: bool = False
    wrap: bool = False


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
        return str(value)
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
    if terminal.is_terminal(sys.stdout):
        from rich.padding import Padding

        table = rich_table(columns, rows, title=title)
        console().print(Padding(table, (0, 0, 0, indent)) if indent else table)
        return
    if title:
        print(title)
    for line in plain_table(columns, rows):
        print(f"{' ' * indent}{line}")


def print_fields(fields: Iterable[tuple[str, str | Cell]]) -> None:
    """Names and values, one pair per line; empty values are left out."""
    pairs = [(name, value) for name, value in fields if _text(value)]
    width = max((len(name) for name, _ in pairs), default=0)
    paint = terminal.painter(sys.stdout)
    for name, value in pairs:
        text = paint(value.text, value.style) if isinstance(value, Cell) else value
        print(f"{paint(name.ljust(width), 'dim')}  {text}")


def plain_table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """The lines of a table as plain text, two spaces between the columns."""
    lines = [[column.title for column in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def rich_table(columns: Sequence[Column], rows: Sequence[Row], *, title: str = "") -> Table:
    """The same for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="bold",
        title=Text.from_ansi(title) if title else None,
        title_style="",
        title_justify="left",
    )
    for column in columns:
        table.add_column(
            column.title,
            style=column.style or None,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell.text, cell.style) if isinstance(cell, Cell) else Text(cell) for cell in row))
    return table


_console = None


def console():  # type: ignore[no-untyped-def]
    """The terminal, as rich sees it."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(highlight=False, emoji=False, markup=False)
    return _console


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell
