"""What is written where: colours only for terminals, notes and progress on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
#: Gives a text a style.
Paint = Callable[[str, str], str]

PATIENCE = 1.0  #: seconds before a person is told what is taking so long


def is_terminal(stream: TextIO) -> bool:
    """Whether a person is looking at this stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to colour what goes to this stream (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def painter(stream: TextIO) -> Paint:
    """A function that gives a text its style, such as "red bold", where the stream has colour."""
    if not has_colour(stream):
        return lambda text, style: text

    def paint(text: str, style: str) -> str:
        if not style or not text:
            return text
        return f"\x1b[{';'.join(_CODES[word] for word in style.split())}m{text}\x1b[0m"

    return paint


def wrapped(text: str, stream: TextIO) -> str:
    """Long lines broken between words, for a terminal; what is indented, such as source, is left alone."""
    if not is_terminal(stream):
        return text
    width = shutil.get_terminal_size().columns
    if all(len(line) <= width for line in text.splitlines()):
        return text
    from textwrap import fill

    return "\n".join(
        line
        if len(line) <= width or line.startswith(" ")
        else fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )


def note(text: str) -> None:
    """Tell a person what happened; stdout stays for data."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Tell a person what may be wrong."""
    note(f"{painter(sys.stderr)('warning:', 'yellow bold')} {text}")


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Say what is going on if the block takes over a second; only to a terminal, and gone afterwards."""
    if not is_terminal(sys.stderr):
        yield
        return
    over = threading.Event()
    shown = threading.Event()

    def show() -> None:
        if not over.wait(PATIENCE):
            shown.set()
            sys.stderr.write(f"{text} …")
            sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if shown.is_set():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
