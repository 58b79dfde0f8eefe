"""What maps and programs share: a descriptor that is theirs, and pins."""

from __future__ import annotations

import os
from typing import Self

from ebpf.errors import Error
from ebpf.kernel.fd import FD


class Held:
    """A kernel object held by a descriptor: close it, or use `with`; pin it to keep it without a process."""

    def __init__(self, fd: FD) -> None:
        self._fd = fd
        self._pin: str | None = None

    def _what(self) -> str:
        """How errors call it."""
        return self._fd.what

    def pin(self, path: str | os.PathLike[str]) -> str:
        """Give it a name in a bpffs, which keeps it in the kernel when this process ends (4.4).

        A relative path is below /sys/fs/bpf. Folders are made; "." becomes "_", as a bpffs takes no dots.
        Gives the path. KernelError if the name is taken, or the path is in no bpffs.
        """
        from ebpf.maps import pins

        self._pin = place = pins.pin(self.fileno(), path, self._what())
        return place

    def unpin(self, path: str | os.PathLike[str] | None = None) -> None:
        """Remove a pin: that path, or the one it was pinned or opened under."""
        from ebpf.maps import pins

        where = path if path is not None else self._pin
        if where is None:
            raise Error(f"{self._what()} was not pinned here: name the path to unpin")
        pins.unpin(where, self._what())
        if path is None or os.fspath(path) == self._pin:
            self._pin = None

    @property
    def pinned(self) -> str | None:
        """The path that it was pinned or opened under by this object, if any."""
        return self._pin

    def fileno(self) -> int:
        """Its descriptor; Error once closed."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd.closed

    def close(self) -> None:
        """Close the descriptor; what else holds it in the kernel (program, link, pin) still does."""
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
