"""Every block of code in README.md and docs/ runs, in the order in which a reader meets it.

A page gets a folder of its own and the server's side of a lab, whose interface is eth0; the client pings it
all the while. What the blocks mean:

    ```c title="x.bpf.c"   is written to x.bpf.c
    ```python              runs, all blocks of a page in one module
    ```console             each line that starts with "$ " runs in a shell, and must succeed, unless what it
                           prints on the page has a line that starts with "error:"
    any other              is text
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ebpf.lab import Lab

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(text)
    ]


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Each command of a console block, and whether the page shows it failing."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = command[:-1] + more
        yield command, re.search(r"^error:", output, re.MULTILINE) is not None


def pinging(lab: Lab, stop: threading.Event) -> None:
    while not stop.is_set():
        lab["client"].ping(lab["server"].address, count=1, timeout=0.2)
        stop.wait(0.05)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for entry in ("examples", "Makefile"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    module: dict[str, object] = {"__name__": page.stem}
    with Lab() as lab, lab["server"].entered():
        stop = threading.Event()
        traffic = threading.Thread(target=pinging, args=(lab, stop))
        traffic.start()
        try:
            for block in blocks(page):
                run(block, page, module)
        finally:
            stop.set()
            traffic.join()


def run(block: Block, page: Path, module: dict[str, object]) -> None:
    if block.title:
        Path(block.title).write_text(block.text)
    elif block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), module)
    elif block.language == "console":
        for command, fails in commands(block.text):
            if command.startswith(("make ", "sudo make ", "git ", "pip ", "python3 -m venv", "cd ")):
                continue  # the installation itself: what .ci/run does
            result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
            assert (result.returncode != 0) == fails, (
                f"{page.name}: $ {command}\n{result.stdout}{result.stderr}"
            )
            assert "Traceback" not in result.stderr, result.stderr


def test_every_page_has_a_block_that_runs() -> None:
    assert [
        page.name for page in PAGES if not any(b.language in ("python", "console") for b in blocks(page))
    ] == []
