"""Running the compiler: bounded in time and in output, leaving nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ebpf.errors import CompileError

if TYPE_CHECKING:
    import subprocess

OUTPUT_LIMIT = 1 << 20  #: bytes of messages that are kept


class Result(NamedTuple):
    """How a run ended."""

    status: int  #: exit status; negative for a signal
    output: str  #: what it wrote, standard output and error together


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder that is gone afterwards."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="ebpf-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(command: Sequence[str], *, folder: Path, cwd: Path | None = None, timeout: float) -> Result:
    """Run a command with its own temporary files in `folder`; `cwd` is where it runs.

    Raises CompileError when it takes longer than `timeout` seconds, OSError when it cannot be started.
    """
    import subprocess

    messages = folder / "messages"
    # zig keeps what it builds in a cache of its own, which would stay in the user's home.
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
    with messages.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **caches, "TMPDIR": str(folder), "LC_ALL": "C"},
            process_group=0,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CompileError(f"{command[0]} has not finished after {timeout:.0f} seconds") from None
        finally:
            _end(child)
    with messages.open("rb") as output:
        return Result(status, output.read(OUTPUT_LIMIT).decode("utf-8", "replace"))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the compiler and what it has started, if any of it still runs."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
