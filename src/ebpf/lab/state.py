"""What is written down of each lab, under /run, to find it again and clean up after a crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ebpf.errors import Error

LABS = Path("/run/ebpf/labs")


def folder(name: str) -> Path:
    """Where a lab keeps its state and its BPF file system."""
    return LABS / name


def create(name: str, hosts: list[str], owner: int | None) -> None:
    """Write a new lab down before anything of it is made; raises Error if the name is taken."""
    try:
        folder(name).mkdir(parents=True)
    except FileExistsError:
        raise Error(
            f"a lab named {name!r} is up already", hint=f"take it down: ebpf lab down {name}"
        ) from None
    record = {"hosts": hosts, "owner": owner, "owner_start": _start_time(owner) if owner else None}
    (folder(name) / "lab.json").write_text(json.dumps(record))


def hosts(name: str) -> list[str] | None:
    """The hosts of a lab in order; None if there is no such lab."""
    record = _read(name)
    return None if record is None else [str(host) for host in record["hosts"]]  # type: ignore[attr-defined]


def owner(name: str) -> int | None:
    """The process whose end is the lab's end; None if there is none, or no such lab."""
    record = _read(name)
    return None if record is None or not isinstance(record["owner"], int) else record["owner"]


def remove(name: str) -> None:
    """Forget a lab."""
    shutil.rmtree(folder(name), ignore_errors=True)


def names() -> list[str]:
    """All labs written down."""
    return sorted(entry.name for entry in LABS.iterdir() if entry.is_dir()) if LABS.is_dir() else []


def stale() -> list[str]:
    """The labs whose owning process is gone."""
    return [name for name in names() if (record := _read(name)) is not None and _is_stale(record)]


def _is_stale(record: dict[str, object]) -> bool:
    owner = record["owner"]
    return isinstance(owner, int) and _start_time(owner) != record["owner_start"]


def _read(name: str) -> dict[str, object] | None:
    try:
        record: dict[str, object] = json.loads((folder(name) / "lab.json").read_text())
    except (OSError, ValueError):
        return None
    return record


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)): with the pid it names a process for good; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
