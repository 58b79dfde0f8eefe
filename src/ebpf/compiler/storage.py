"""The user's cache: where it lies, and files in it that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path


def directory() -> Path | None:
    """The cache directory, made if need be; None where there is no safe place for one.

    That is $XDG_CACHE_HOME/ebpf, ~/.cache/ebpf, or, for root in somebody else's home (as sudo leaves it),
    /var/cache/ebpf. A directory that another user could write to is never used: what is in it gets loaded
    into the kernel.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return _directory(base if Path(base).is_absolute() else os.path.expanduser("~/.cache"))


@cache
def _directory(base: str) -> Path | None:
    places = [Path(base, "ebpf")] if Path(base).is_absolute() else []  # "~" is left where there is no home
    if os.geteuid() == 0:
        places.append(Path("/var/cache/ebpf"))
    return next(filter(_usable, places), None)


def _usable(place: Path) -> bool:
    try:
        existing = next(path for path in (place, *place.parents) if path.exists())
        if existing.stat().st_uid != os.geteuid():
            return False
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = place.stat()
    except OSError:
        return False
    private = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return private and status.st_uid == os.geteuid() and os.access(place, os.W_OK | os.X_OK)


def write(path: Path, data: bytes) -> bool:
    """Put a file in place atomically, with its directory; False where that is not possible."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        return False
    return True


def read(path: Path) -> bytes | None:
    """The file's content; None where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def prune(folder: Path, limit: int) -> None:
    """Remove the files that were used least recently until the rest holds at most `limit` bytes."""
    files = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):  # somebody else may be pruning, too
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        total -= size
        with suppress(OSError):
            path.unlink()
