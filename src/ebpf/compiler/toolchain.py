"""Finding a C compiler that targets BPF: $CLANG, any clang in the path, the one in the ziglang wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ebpf.compiler import process, storage
from ebpf.errors import CompileError

OLDEST = 14  #: the first clang with the BTF tags that the headers use
_NEWEST = 40  #: clang-NN is looked for downwards from here
_MISSING = (
    "one of: `apt install clang` (Debian, Ubuntu), `dnf install clang` (Fedora), "
    "`pip install 'ebpf[clang]'` (a wheel, anywhere); or set $CLANG to one that is elsewhere"
)

#: What zig does of its own accord, undone: checks at run time, tables for unwinding, NDEBUG, and, for targets
#: without a system, no builtins.
_LIKE_CLANG = (
    "-fno-sanitize=all",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-UNDEBUG",
    "-fhosted",
)


class Toolchain(NamedTuple):
    """A compiler that was found to work."""

    path: str
    version: int  #: of clang: 19
    is_zig: bool
    identity: str  #: changes when the compiler does

    @property
    def command(self) -> tuple[str, ...]:
        """What to run, before any argument."""
        return (self.path, "cc") if self.is_zig else (self.path,)

    @property
    def newest_cpu(self) -> int:
        """The newest version of the instruction set that it knows: -mcpu=v…"""
        return 4 if self.version >= 18 else 3

    def target(self, byteorder: str) -> list[str]:
        """The arguments that choose BPF in a byte order."""
        name = "bpfel" if byteorder == "little" else "bpfeb"
        if not self.is_zig:
            return ["-target", name]
        return ["-target", f"{name}-freestanding", *_LIKE_CLANG]


def find() -> Toolchain:
    """The compiler to use. Raises CompileError where there is none, naming the ways to get one."""
    return _find(os.environ.get("CLANG", ""), os.environ.get("PATH", os.defpath))


@cache
def _find(wanted: str, path: str) -> Toolchain:
    if wanted:
        found = shutil.which(wanted, path=path)
        if found is None:
            raise CompileError(f"$CLANG is {wanted!r}, which is no program", hint="unset it")
        toolchain = _probe(found, is_zig=Path(found).name == "zig")
        if toolchain is None:
            raise CompileError(
                f"$CLANG is {wanted!r}, which is no clang {OLDEST} or later that targets BPF",
                hint="unset it, or set it to one that `--print-targets` lists bpf for",
            )
        return toolchain
    for candidate, is_zig in _candidates(path):
        toolchain = _probe(candidate, is_zig=is_zig)
        if toolchain is not None:
            return toolchain
    raise CompileError(
        f"there is no C compiler for BPF: no clang {OLDEST} or later, no ziglang", hint=_MISSING
    )


def _candidates(path: str) -> Iterator[tuple[str, bool]]:
    names = ["clang", *(f"clang-{version}" for version in range(_NEWEST, OLDEST - 1, -1))]
    for name in names:
        if found := shutil.which(name, path=path):
            yield found, False
    if zig := zig_directory():
        yield str(zig / "zig"), True


@cache
def zig_directory() -> Path | None:
    """Where the ziglang wheel is installed, if it is."""
    from importlib.util import find_spec

    spec = find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    return folder if (folder / "zig").exists() else None


def _probe(path: str, *, is_zig: bool) -> Toolchain | None:
    """Look at a compiler, or recall what was seen: asking one takes longer than a cached compilation."""
    try:
        real = Path(path).resolve()
        status = real.stat()
    except OSError:
        return None
    identity = f"{real}:{status.st_size}:{status.st_mtime_ns}"
    known = _recall()
    if identity not in known:
        known[identity] = _ask(path, is_zig=is_zig)
        _remember(known)
    version = known[identity]
    return Toolchain(path, version, is_zig, identity) if version >= OLDEST else None


def _ask(path: str, *, is_zig: bool) -> int:
    """The major version of a clang with the BPF target; 0 if it is none."""
    command = [path, "cc"] if is_zig else [path]
    try:
        with process.workspace() as folder:
            version = process.run([*command, "--version"], folder=folder, timeout=60).output
            targets = process.run([path, "--print-targets"], folder=folder, timeout=60).output
    except OSError:
        return 0
    match = re.search(r"(?<!Apple )clang version (\d+)\.", version)
    return int(match[1]) if match and (is_zig or re.search(r"\bbpf", targets)) else 0


def _recall() -> dict[str, int]:
    folder = storage.directory()
    data = storage.read(folder / "compilers.json") if folder else None
    try:
        known = json.loads(data or b"{}")
        return {str(identity): int(version) for identity, version in known.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _remember(known: dict[str, int]) -> None:
    if folder := storage.directory():
        newest = dict(list(known.items())[-50:])
        storage.write(folder / "compilers.json", json.dumps(newest).encode())
