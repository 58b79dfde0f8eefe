"""Ending a command that watches, when a signal asks for it: in order, and at a place of its own choosing."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType
from typing import Any, Protocol, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HasFileno(Protocol):
    """What can be waited for."""

    def fileno(self) -> int:
        """Its descriptor."""


class Stopping:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP set `requested` and end `wait`, and nothing else."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def wait(self, seconds: float | None, *sources: HasFileno) -> None:
        """Until that time is over, something can be read from a source, or a signal came."""
        if self.requested or (seconds is not None and seconds <= 0):
            return
        poll = select.poll()
        for source in (self._wake, *sources):
            poll.register(source.fileno(), select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __enter__(self) -> Self:
        self._wake, self._write = socket.socketpair()
        self._wake.setblocking(False)
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *failure: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._wake.close()
        self._write.close()
