"""A program's attachment: what every kind of link has in common."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ebpf.errors import AttachError, KernelError
from ebpf.kernel import bpf, mounts
from ebpf.kernel.bpf import Kind, LinkInfo
from ebpf.kernel.fd import FD


class HasFileno(Protocol):
    """An open program."""

    def fileno(self) -> int:
        """Its descriptor."""


#: A program: an open one, or its descriptor.
ProgramRef = int | HasFileno


def program_fd(program: ProgramRef) -> int:
    """The descriptor of a program."""
    return program if isinstance(program, int) else program.fileno()


class Link:
    """A bpf_link: holds a program where it is attached (5.7).

    As a context manager, it detaches at the end of its block, unless it was pinned: then only the descriptor
    is closed, and the attachment stays with the pin. A forked child that leaves the block detaches nothing.
    """

    def __init__(self, fd: int, *, pinned: Path | None = None) -> None:
        self.id = bpf.link_info(fd).id
        self.pinned = pinned  #: the path of its pin, if this object made it or was opened from it
        self._fd = FD(fd, f"link {self.id}")
        self._owner = os.getpid()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The link that is pinned at a path; OSError if there is none. It survives the end of a block."""
        fd = bpf.obj_get(path)
        try:
            return cls(fd, pinned=Path(path))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def from_id(cls, id: int) -> Self:
        """The link with an id; OSError ENOENT if there is none."""
        fd = bpf.fd_by_id(Kind.LINK, id)
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The descriptor; `Error` once closed."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._fd.closed

    @property
    def info(self) -> LinkInfo:
        """What the kernel says of it now."""
        return bpf.link_info(self.fileno())

    @property
    def program_id(self) -> int:
        """The id of the program behind it now."""
        return self.info.program_id

    def update(self, program: ProgramRef, *, expected: ProgramRef | None = None) -> None:
        """Put another program of the same type in its place, atomically: no packet or event goes without one.

        AttachError if it was detached, or if the program there is not the `expected` one.
        """
        old = None if expected is None else program_fd(expected)
        try:
            bpf.link_update(self.fileno(), program_fd(program), old_prog_fd=old)
        except OSError as error:
            raise AttachError(
                f"cannot update {self._fd.what}: {_UPDATE_FAILURES.get(error.errno or 0, error.strerror)}",
                errno=error.errno or 0,
            ) from None

    def pin(self, path: str | os.PathLike[str]) -> Path:
        """Keep it attached beyond this process, by a path on a BPF file system; gives the path as pinned.

        A relative path is below /sys/fs/bpf. Error if the path is not on a bpffs, KernelError if it is taken.
        """
        place = mounts.pin_path(path)
        try:
            bpf.obj_pin(self.fileno(), place)
        except OSError as error:
            reason = "something is pinned there" if error.errno == errno.EEXIST else error.strerror
            raise KernelError(
                f"cannot pin {self._fd.what} at {place}: {reason}", errno=error.errno or 0
            ) from None
        self.pinned = place
        return place

    def unpin(self) -> None:
        """Remove the pin; the attachment is then this object's again."""
        if self.pinned is not None:
            self.pinned.unlink(missing_ok=True)
            self.pinned = None

    def detach(self) -> None:
        """Take the program off, whoever else holds the link, and see that it is off; else AttachError."""
        try:
            bpf.link_detach(self.fileno())
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise AttachError(
                    f"cannot detach {self._fd.what}: {error.strerror}", errno=error.errno or 0
                ) from None
            self._detach_by_closing(error)
            return
        self._check_detached()

    def close(self) -> None:
        """Let go of it; a second time does nothing. The kernel detaches it with its last holder or pin."""
        self._fd.close()

    def _check_detached(self) -> None:
        """What the kernel says afterwards, for a kind of link that tells."""

    def _detach_by_closing(self, error: OSError) -> None:
        """Kinds without BPF_LINK_DETACH (tracing, perf events, …) go with their last holder."""
        from ebpf.kernel.owners import find_pins, owners_of

        pins = find_pins().get((Kind.LINK, self.id), [])
        others = [owner for owner in owners_of(Kind.LINK, self.id) if owner.pid != os.getpid()]
        if pins or others:
            holders = ", ".join([*pins, *map(str, others)])
            raise AttachError(
                f"cannot detach {self._fd.what}: a link of this kind stays until its last holder lets go, "
                f"and it is held by {holders}",
                errno=error.errno or 0,
            )
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.closed:
            return
        try:
            if self.pinned is None and os.getpid() == self._owner:
                self.detach()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"pinned={str(self.pinned)!r}" if self.pinned else "open"
        return f"<{type(self).__name__} {self.id} {state}>"


_UPDATE_FAILURES = {
    errno.ENOLINK: "it was detached",
    errno.EPERM: "another program is there than the one expected",
    errno.EINVAL: "the program is of another type than the one there",
}
