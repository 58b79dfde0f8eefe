"""Descriptors with an owner."""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import Self

from ebpf.errors import Error


class FD:
    """An open descriptor that is closed by `close()` or at the end of a `with` block.

    Never by the garbage collector: an owner that is dropped while open gives a ResourceWarning, and the
    descriptor stays open. `what` names the object in messages: "link 12", "map 'flows'".
    """

    __slots__ = ("_fd", "what")

    def __init__(self, fd: int, what: str = "descriptor") -> None:
        self._fd = fd
        self.what = what

    def fileno(self) -> int:
        """The number; `Error` once closed."""
        if self._fd < 0:
            raise Error(f"{self.what} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether it is closed, or handed on by `detach()`."""
        return self._fd < 0

    def close(self) -> None:
        """Close it; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def detach(self) -> int:
        """Hand the descriptor to the caller, who now owns it."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"{self.what} was never closed", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"FD({'closed' if self.closed else self._fd}, {self.what!r})"
