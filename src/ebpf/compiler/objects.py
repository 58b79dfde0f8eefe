"""The cache of compiled objects.

An entry is found by what went into the compiler's command line, and holds good while every file that the
compiler read is as it was, and while no file has appeared that it would have read instead.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ebpf.compiler import storage
from ebpf.errors import Diagnostic

LIMIT = 256 << 20  #: bytes of objects that are kept
_FORMAT = 1  #: to be raised when entries change their meaning
#: Nanoseconds: a file system may tell the time as coarsely as this, …
_COARSE = 2_000_000_000
#: … and the kernel's clock for files lags behind as much as this.
_LAG = 20_000_000


class Input(NamedTuple):
    """A file that the compiler read."""

    path: str
    size: int
    modified: int  #: nanoseconds
    digest: str
    settled: bool  #: whether size and time of modification are enough to tell that it is unchanged


class Cached(NamedTuple):
    """What is kept of a compilation."""

    data: bytes
    diagnostics: tuple[Diagnostic, ...]


def key(parts: Iterable[str | bytes]) -> str:
    """A name for a compilation, from all that it depends on except the files that it reads."""
    digest = hashlib.sha256(b"%d" % _FORMAT)
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()


def find(name: str, *, kernel: str) -> Cached | None:
    """The object of an earlier compilation, if it would come out the same today.

    `kernel` is the identity of the kernel's types, which counts where the program includes vmlinux.h.
    """
    folder = _folder()
    raw = storage.read(folder / name) if folder else None
    if raw is None:
        return None
    head, _, data = raw.partition(b"\n")
    try:
        entry: dict[str, Any] = json.loads(head)
        if entry["kernel"] not in ("", kernel) or entry["sha256"] != hashlib.sha256(data).hexdigest():
            return None
        if not all(_unchanged(Input(*values)) for values in entry["inputs"]):
            return None
        if any(os.path.lexists(path) for path in entry["absent"]):
            return None
        diagnostics = tuple(Diagnostic(*values) for values in entry["diagnostics"])
    except (ValueError, TypeError, KeyError):
        return None
    assert folder is not None
    with suppress(OSError):
        os.utime(folder / name)  # the least recently used go first
    return Cached(data, diagnostics)


def store(
    name: str,
    cached: Cached,
    *,
    inputs: Sequence[Path],
    generated: Sequence[Path],
    search: Sequence[Path],
    kernel: str,
    started: int,
) -> None:
    """Keep an object. `search` are the include directories in order, `started` the time of the start in ns.

    `generated` are those of the inputs that `kernel` stands for. Nothing is kept if a file was written to
    while the compiler ran: it is not known what it read.
    """
    folder = _folder()
    if folder is None:
        return
    seen = []
    for path in inputs:
        if path in generated:
            continue
        entry = _examine(path, started)
        if entry is None:
            return
        seen.append(entry)
    head = {
        "kernel": kernel,
        "sha256": hashlib.sha256(cached.data).hexdigest(),
        "inputs": seen,
        "absent": sorted(_shadows(inputs, search)),
        "diagnostics": cached.diagnostics,
    }
    if storage.write(folder / name, json.dumps(head).encode() + b"\n" + cached.data):
        storage.prune(folder, LIMIT)


def _folder() -> Path | None:
    cache = storage.directory()
    return cache / "objects" if cache else None


def _examine(path: Path, started: int) -> Input | None:
    try:
        status = path.stat()
        data = path.read_bytes()
    except OSError:
        return None
    if max(status.st_mtime_ns, status.st_ctime_ns) >= started - _LAG:
        return None
    settled = status.st_mtime_ns < started - _COARSE
    return Input(str(path), status.st_size, status.st_mtime_ns, hashlib.sha256(data).hexdigest(), settled)


def _unchanged(seen: Input) -> bool:
    path = Path(seen.path)
    try:
        status = path.stat()
        if status.st_size != seen.size:
            return False
        if seen.settled and status.st_mtime_ns == seen.modified:
            return True
        return hashlib.sha256(path.read_bytes()).hexdigest() == seen.digest
    except OSError:
        return False


def _shadows(inputs: Sequence[Path], search: Sequence[Path]) -> set[str]:
    """Files that would be read instead of one of the inputs, if they were there."""
    shadows: set[str] = set()
    for path in inputs:
        for index, folder in enumerate(search):
            if path.is_relative_to(folder):
                relative = path.relative_to(folder)
                shadows.update(str(earlier / relative) for earlier in search[:index])
    return {path for path in shadows if not os.path.lexists(path)}
