"""What programs print with `bpf_printk` (bpf_trace_printk): the trace, line by line.

The kernel's trace_pipe gives each line to one reader only. From 5.9 on, the helper fires a tracepoint, so
that each reader here has a trace instance of its own (Documentation/trace/ftrace.rst, "Instances"), and takes
no line from anybody else.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import select
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ebpf.errors import Error, KernelError, PrivilegeError
from ebpf.kernel import mounts
from ebpf.kernel.fd import FD

_EVENT = "events/bpf_trace/bpf_trace_printk"
_PREFIX = "ebpf-"
_UNKNOWN = "<...>"
_READ_SIZE = 1 << 16
_READS = 64  # at most so many at a time: programs can print faster than anybody reads
_numbers = itertools.count(1)


class TraceLine(NamedTuple):
    """One message."""

    task: str  #: command of the thread that was running, at most 15 bytes; "<...>" if it is not known
    pid: int  #: its thread id
    cpu: int
    flags: str
    """As the kernel prints them: interrupts off, need to reschedule, in an interrupt, depth of disabled
    preemption and, since 5.11, of disabled migration. "." is none.
    """
    time: float  #: seconds since boot, to the microsecond
    function: str  #: "bpf_trace_printk"
    text: str
    lost: int = 0  #: messages that this CPU dropped just before, because nobody read in time


def trace(
    *,
    task: str | None = None,
    pid: int | None = None,
    follow: bool = True,
    timeout: float | None = None,
    buffer_kib: int = 512,
) -> Trace:
    """What programs print from now on; with `follow=False`, what the kernel still holds, which it keeps.

    Only of threads with that command or id, if given; a line does not say which program printed it.
    Iteration ends when nothing came for `timeout` seconds. `buffer_kib` is for each CPU.

    PrivilegeError without access to tracefs, which is root's; UnsupportedError without tracing.
    """
    return Trace(task=task, pid=pid, follow=follow, timeout=timeout, buffer_kib=buffer_kib)


class Trace(Iterator[TraceLine]):
    """The messages of `trace()`: an iterator and a context manager, which selectors can wait for."""

    def __init__(
        self,
        *,
        task: str | None = None,
        pid: int | None = None,
        follow: bool = True,
        timeout: float | None = None,
        buffer_kib: int = 512,
    ) -> None:
        self._task, self._pid, self._timeout = task, pid, timeout
        self._lines: deque[TraceLine] = deque()
        self._parser = Parser()
        self._instance: Path | None = None
        self.note: str | None = (
            None  #: what is not as it should be: a shared trace, from which lines are taken
        )
        try:
            folder = mounts.tracefs()
            remove_stale_instances(folder)
            source = self._prepare(folder, buffer_kib) if follow else folder / "trace"
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = FD(os.open(source, flags), "trace")
        except BaseException as error:
            self._remove_instance()
            if isinstance(error, OSError):
                raise _failure(error) from None
            raise
        self._follow = follow

    def _prepare(self, folder: Path, buffer_kib: int) -> Path:
        """Make an instance of our own, or fall back to the trace that everybody shares."""
        if not (folder / _EVENT).is_dir():
            return self._share(folder, "before 5.9 the kernel has one trace for all")
        instance = folder / "instances" / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        try:
            instance.mkdir()
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise
            return self._share(folder, f"no trace instance can be made: {error.strerror}")
        self._instance = instance
        for name, value in (
            ("buffer_size_kb", str(buffer_kib)),
            ("trace_clock", "boot"),
            ("buffer_percent", "0"),  # wake the reader at the first line (5.0)
        ):
            with suppress(OSError):  # an older kernel: its defaults do
                (instance / name).write_text(value)
        (instance / _EVENT / "enable").write_text("1")
        return instance / "trace_pipe"

    def _share(self, folder: Path, reason: str) -> Path:
        import logging

        self.note = f"{reason}; each line read here is taken from other readers of trace_pipe"
        logging.getLogger("ebpf").warning("trace: %s", self.note)
        return folder / "trace_pipe"

    @property
    def lost(self) -> int:
        """How many messages were dropped so far, by all CPUs."""
        return self._parser.total_lost

    def fileno(self) -> int:
        """The descriptor, readable when there are lines; `Error` once closed."""
        return self._fd.fileno()

    def read(self) -> list[TraceLine]:
        """The lines that are there now, without waiting."""
        self._fill()
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def _fill(self) -> bool:
        """Take in what there is; gives whether the source can still give more."""
        for _ in range(_READS):
            try:
                data = os.read(self._fd.fileno(), _READ_SIZE)
            except BlockingIOError:
                return True
            if not data:
                return self._follow
            # The kernel gives whole messages, so that a chunk starts and ends with one.
            self._lines.extend(line for line in map(_named, self._parser.feed(data)) if self._is_wanted(line))
        return True

    def _is_wanted(self, line: TraceLine) -> bool:
        return self._task in (None, line.task) and self._pid in (None, line.pid)

    def __next__(self) -> TraceLine:
        if self._fd.closed:
            raise StopIteration
        try:
            if self._lines or self._wait():
                return self._lines.popleft()
        except BaseException:  # an interrupt among them
            self.close()
            raise
        self.close()
        raise StopIteration

    def _wait(self) -> bool:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            more = self._fill()
            if self._lines or not more:
                return bool(self._lines)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            poll.poll(None if left is None else left * 1000)

    def close(self) -> None:
        """Stop, and remove the instance; a second time does nothing."""
        self._fd.close()
        self._remove_instance()

    def _remove_instance(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            with suppress(OSError):  # held by a forked child: the next trace removes it
                instance.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_stale_instances(folder: Path) -> list[str]:
    """Remove the instances whose process is gone; gives their names. One that is in use stays (EBUSY)."""
    removed = []
    with suppress(OSError):
        for instance in (folder / "instances").glob(f"{_PREFIX}*-*"):
            owner = instance.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                with suppress(OSError):
                    instance.rmdir()
                    removed.append(instance.name)
    return removed


class Parser:
    """Turns what trace and trace_pipe give into lines (kernel/trace/trace_output.c, trace_print_context)."""

    # The command is right-aligned in 16 columns, and holds at most 15 bytes, of any kind. With the
    # record-tgid option, the process id follows the thread's in parentheses.
    _MESSAGE = re.compile(
        rb"(?P<task>.{16})-(?P<pid>\d+) +(?:\( *[\d-]+\) +)?\[(?P<cpu>\d+)\] "
        rb"(?:(?P<flags>[^\s\d][^\s]{3,5}) )? *(?P<time>\d+\.\d+): (?P<function>[^:\n]*): (?P<text>.*)",
        re.DOTALL,
    )
    _LOST = re.compile(rb"CPU:(?P<cpu>\d+) \[LOST (?:(?P<count>\d+) )?EVENTS\]")

    def __init__(self) -> None:
        self.total_lost = 0
        self._lost_on: dict[int, int] = {}

    def feed(self, data: bytes) -> list[TraceLine]:
        """The lines in a chunk of whole messages; what starts none belongs to the text of the one before."""
        found: list[TraceLine] = []
        for line in data.removesuffix(b"\n").split(b"\n"):
            if message := self._MESSAGE.match(line):
                found.append(self._line(message))
            elif lost := self._LOST.match(line):
                # The kernel does not always know how many: then it was one at least.
                cpu, count = int(lost["cpu"]), int(lost["count"] or 1)
                self._lost_on[cpu] = self._lost_on.get(cpu, 0) + count
                self.total_lost += count
            elif found and not line.startswith(b"##### CPU"):
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{_text(line)}")
        # A newline at the end of a program's format string makes an empty line.
        return [line._replace(text=line.text.rstrip("\n")) for line in found]

    def _line(self, message: re.Match[bytes]) -> TraceLine:
        cpu = int(message["cpu"])
        return TraceLine(
            task=_text(message["task"]).lstrip(" "),
            pid=int(message["pid"]),
            cpu=cpu,
            flags=_text(message["flags"] or b""),
            time=float(message["time"]),
            function=_text(message["function"]),
            text=_text(message["text"]),
            lost=self._lost_on.pop(cpu, 0),
        )


def _named(line: TraceLine) -> TraceLine:
    """The kernel learns a command at the thread's next switch, and prints "<...>" before: ask the thread."""
    if line.task == _UNKNOWN:
        with suppress(OSError):
            return line._replace(task=Path(f"/proc/{line.pid}/comm").read_text(errors="replace").rstrip("\n"))
    return line


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _failure(error: OSError) -> Error:
    code = error.errno or errno.EIO
    if code in (errno.EACCES, errno.EPERM):
        return PrivilegeError(
            f"cannot read the trace: {error.filename or 'tracefs'} is for root only",
            errno=code,
            hint="use sudo",
        )
    if code == errno.EBUSY:
        return KernelError("cannot read the trace: another process reads trace_pipe", errno=code)
    return KernelError(f"cannot read the trace: {error.strerror} ({error.filename})", errno=code)
