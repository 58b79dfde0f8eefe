"""Attach XDP programs to network interfaces, take them off, and know that it is so.

A program is attached through a bpf_link (5.9) or, on older kernels and in place of a program that was
attached so, through netlink. The mode that is reported was read back from the kernel.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ebpf.errors import AttachError, Error, KernelError
from ebpf.kernel import bpf, namespaces, netlink
from ebpf.kernel.bpf import Kind
from ebpf.kernel.fd import FD
from ebpf.kernel.namespaces import NamespaceRef
from ebpf.kernel.privileges import SYS_ADMIN, explain
from ebpf.kernel.rtnetlink import NetlinkError
from ebpf.links.link import Link, ProgramRef, program_fd
from ebpf.links.xdp_errors import attach_failure, no_interface, not_detached, occupied
from ebpf.links.xdp_state import XdpAttachment, XdpMode, attachments_of, xdp_links, xdp_status
from ebpf.uapi import AttachType, XdpFlags

__all__ = [
    "NetlinkXdp",
    "XdpAttachment",
    "XdpLink",
    "XdpMode",
    "attach_xdp",
    "detach_xdp",
    "xdp_status",
]

#: Failures that have nothing to do with the mode: no use in trying another one.
_NOT_THE_MODE = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EEXIST,
        errno.EBUSY,
        errno.ENODEV,
        errno.EBADF,
        errno.EMFILE,
        errno.ENFILE,
    }
)


class XdpLink(Link):
    """An XDP program on an interface, through a bpf_link."""

    persists = False  #: it is detached with its last descriptor, unless it is pinned

    def __init__(
        self,
        fd: int,
        *,
        interface: str = "",
        mode: XdpMode | None = None,
        fallback: str | None = None,
        pinned: Path | None = None,
    ) -> None:
        super().__init__(fd, pinned=pinned)
        self.interface = interface  #: its name when it was attached; "" for a link opened from a pin or by id
        self.mode = mode  #: as the kernel reported it; None for a link opened from a pin or by id
        self.fallback = fallback  #: why it is not in native mode, where AUTO asked for the best

    @property
    def ifindex(self) -> int:
        """The interface's index now; 0 once it is detached or the interface is gone."""
        return self.info.ifindex

    def _check_detached(self) -> None:
        if self.ifindex:
            raise not_detached(self.interface or f"interface {self.ifindex}", self.mode, self.program_id)


class NetlinkXdp:
    """An XDP program on an interface, attached through netlink: the same shape as `XdpLink`.

    The kernel keeps it attached until it is detached, whatever becomes of this process. As a context manager,
    it detaches at the end of its block. Holds the network namespace open.
    """

    persists = True
    pinned: Path | None = None
    id: int | None = None  #: there is no link

    def __init__(
        self, program: int, interface: str, ifindex: int, mode: XdpMode, *, fallback: str | None = None
    ) -> None:
        what = f"XDP attachment to {interface}"
        self._program = FD(os.dup(program), what)
        self._namespace = FD(namespaces.open_current(), what)
        self._owner = os.getpid()
        self._ifindex = ifindex
        self.interface = interface
        self.mode = mode
        self.fallback = fallback

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._program.closed

    @property
    def ifindex(self) -> int:
        """The interface's index; 0 once the program is detached or the interface is gone."""
        return self._ifindex if self._attached_id() == self.program_id else 0

    @property
    def program_id(self) -> int:
        """The id of the program that was attached."""
        return bpf.program_info(self._program.fileno()).id

    def update(self, program: ProgramRef, *, expected: ProgramRef | None = None) -> None:
        """Put another program in its place, atomically (5.7).

        AttachError if the one there is not `expected`, by default the one that this object attached.
        """
        old = self._program.fileno() if expected is None else program_fd(expected)
        with namespaces.entered(self._namespace.fileno()):
            try:
                _swap(self._ifindex, program_fd(program), self.mode, old)
            except OSError as error:
                raise attach_failure(
                    self.interface, self.mode, error, doing="update the program of"
                ) from None
        fresh = FD(os.dup(program_fd(program)), self._program.what)
        self._program.close()
        self._program = fresh

    def pin(self, path: str | os.PathLike[str]) -> Path:
        """Refused: there is no link to pin, and none is needed."""
        raise Error(
            f"the program on {self.interface} was attached through netlink, which has nothing to pin",
            hint="it stays attached by itself: close() leaves it there",
        )

    def unpin(self) -> None:
        """Nothing to do: it cannot be pinned."""

    def detach(self) -> None:
        """Take the program off, and see that it is off; AttachError if it is not, or another one is there."""
        with namespaces.entered(self._namespace.fileno()):
            try:
                _swap(self._ifindex, -1, self.mode, self._program.fileno())
            except OSError as error:
                if error.errno == errno.ENODEV:  # the interface is gone, and the attachment with it
                    return
                raise attach_failure(self.interface, self.mode, error, doing="detach from") from None
        if self._attached_id() == self.program_id:
            raise not_detached(self.interface, self.mode, self.program_id)

    def close(self) -> None:
        """Let go of it; the program stays attached. A second time does nothing."""
        self._program.close()
        self._namespace.close()

    def _attached_id(self) -> int | None:
        with namespaces.entered(self._namespace.fileno()), suppress(NetlinkError):
            return netlink.link(self._ifindex).xdp.get(self.mode.flag)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.closed:
            return
        try:
            if os.getpid() == self._owner:
                self.detach()
        finally:
            self.close()

    def __repr__(self) -> str:
        return f"<NetlinkXdp {self.interface} {self.mode}{' closed' if self.closed else ''}>"


# --- attach ---------------------------------------------------------------------------------------------


def attach_xdp(
    program: ProgramRef,
    interface: str | int,
    *,
    mode: XdpMode | str = XdpMode.AUTO,
    replace: bool = False,
    expected: int | None = None,
    netns: NamespaceRef | None = None,
) -> XdpLink | NetlinkXdp:
    """Attach an XDP program to an interface.

    AUTO is native mode or, if the driver refuses, generic; the result's `mode` says which one it became and
    `fallback` why. `replace` puts the program in the place of the one that is there, without a gap, in that
    one's mode; `expected`, a program id, does so only if that program is there. Whoever attached the replaced
    one keeps a link or pin of it, and it is their link that then holds the new program.

    AttachError, which names the program that is there and its owner, if there is one and `replace` is not
    set, if the mode is not possible, or if there is no such interface; PrivilegeError without CAP_NET_ADMIN.
    """
    mode, fd = XdpMode(mode), program_fd(program)
    with namespaces.entered(netns):
        link = _interface(interface)
        if expected is not None and expected not in link.xdp.values():
            raise occupied(link, f"replace program {expected} on", hint=None)
        if link.xdp and not replace and expected is None:
            raise occupied(link, "attach to")
        return _replace(fd, link, mode, expected) if link.xdp else _attach(fd, link, mode)


def _interface(interface: str | int) -> netlink.Link:
    try:
        return netlink.link(interface)
    except NetlinkError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
            raise KernelError(
                f"cannot look up {interface}: {error.strerror}", errno=error.errno or 0
            ) from None
        raise no_interface(interface) from None


def _attach(fd: int, link: netlink.Link, mode: XdpMode) -> XdpLink | NetlinkXdp:
    if mode is not XdpMode.AUTO:
        return _attach_in(fd, link, mode, None)
    try:
        return _attach_in(fd, link, XdpMode.NATIVE, None)
    except KernelError as error:
        if error.errno in _NOT_THE_MODE:
            raise
        return _attach_in(fd, link, XdpMode.GENERIC, error.message)


def _attach_in(fd: int, link: netlink.Link, mode: XdpMode, fallback: str | None) -> XdpLink | NetlinkXdp:
    """Through a link. If the kernel refuses, then through netlink: older kernels have nothing else, and newer
    ones refuse again, but say why, which for a link they do not."""
    try:
        try:
            link_fd = bpf.link_create(fd, link.index, AttachType.XDP, flags=mode.flag)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EBADF, errno.EMFILE, errno.ENFILE):
                raise
            netlink.set_xdp(link.index, fd, flags=mode.flag | XdpFlags.UPDATE_IF_NOEXIST)
            return NetlinkXdp(fd, link.name, link.index, _active_mode(fd, link), fallback=fallback)
    except OSError as error:
        raise attach_failure(link.name, mode, error) from None
    try:
        return XdpLink(link_fd, interface=link.name, mode=_active_mode(fd, link), fallback=fallback)
    except BaseException:
        os.close(link_fd)
        raise


def _active_mode(fd: int, link: netlink.Link) -> XdpMode:
    """In which mode the kernel says that the program is attached."""
    program_id = bpf.program_info(fd).id
    for flag, id in netlink.link(link.index).xdp.items():
        if id == program_id:
            return XdpMode.from_flag(flag)
    raise AttachError(
        f"the kernel reported success, but program {program_id} is not attached to {link.name}",
        errno=errno.EIO,
    )


def _replace(fd: int, link: netlink.Link, mode: XdpMode, expected: int | None) -> XdpLink | NetlinkXdp:
    modes = {XdpMode.from_flag(flag): id for flag, id in link.xdp.items()}
    if expected is not None:
        modes = {mode: id for mode, id in modes.items() if id == expected}
    if mode is XdpMode.AUTO and len(modes) == 1:
        (mode,) = modes
    if mode not in modes:
        hint = "first take off what is there: `ebpf xdp detach {}`"
        raise occupied(link, f"replace a program in {mode} mode on", hint=hint)
    try:
        with _open_program(modes[mode]) as old:
            try:
                _swap(link.index, fd, mode, old.fileno())
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return NetlinkXdp(fd, link.name, link.index, _active_mode(fd, link))
            with _link_on(link, modes[mode]) as held:
                bpf.link_update(held.fileno(), fd, old_prog_fd=old.fileno())
                taken = XdpLink(held.fileno(), interface=link.name, mode=_active_mode(fd, link))
                held.detach()  # the descriptor is the link's now
                return taken
    except OSError as error:
        raise attach_failure(link.name, mode, error, doing="replace the program on") from None


def _swap(ifindex: int, new: int, mode: XdpMode, old: int) -> None:
    """Put program `new` (-1 for none) where `old` is. Before 5.7 the kernel cannot check the latter."""
    try:
        netlink.set_xdp(ifindex, new, flags=mode.flag, expected_fd=old)
    except NetlinkError as error:
        if error.errno != errno.EINVAL or error.reason:
            raise
        if netlink.link(ifindex).xdp.get(mode.flag) != bpf.program_info(old).id:
            raise NetlinkError(errno.EEXIST, "Active program does not match expected") from None
        netlink.set_xdp(ifindex, new, flags=mode.flag)


def _open_program(id: int) -> FD:
    try:
        return FD(bpf.fd_by_id(Kind.PROGRAM, id), f"program {id}")
    except PermissionError as error:
        raise explain(f"open program {id}", (SYS_ADMIN,), error.errno or errno.EPERM) from None


def _link_on(link: netlink.Link, program_id: int) -> FD:
    """The bpf_link that holds a program on an interface; AttachError if it cannot be told which one it is."""
    found = [id for id, ifindex, program in xdp_links() if (ifindex, program) == (link.index, program_id)]
    if len(found) == 1:
        return FD(bpf.fd_by_id(Kind.LINK, found[0]), f"link {found[0]}")
    if not found:
        message = f"program {program_id} on {link.name} is held by a bpf_link that cannot be found from here"
        raise AttachError(message, errno=errno.EBUSY, hint="listing links needs CAP_SYS_ADMIN")
    raise AttachError(
        f"program {program_id} is attached to interface {link.index} in several network namespaces,"
        f" and the kernel does not say which of the links {', '.join(map(str, found))} is on {link.name}",
        errno=errno.EBUSY,
        hint="detach by the link's id or pin, or stop the process that holds it",
    )


# --- detach ---------------------------------------------------------------------------------------------


def detach_xdp(
    interface: str | int,
    *,
    mode: XdpMode | str | None = None,
    program_id: int | None = None,
    netns: NamespaceRef | None = None,
) -> list[XdpAttachment]:
    """Take off what is attached to an interface, whoever attached it and however; gives what was taken off.

    All programs, or the one in `mode` or with `program_id`. AttachError if there is none, or if it is still
    there afterwards.
    """
    with namespaces.entered(netns):
        link = _interface(interface)
        wanted = [
            one
            for one in (attachments_of(link) if link.xdp else [])
            if (mode is None or one.mode is XdpMode(mode)) and program_id in (None, one.program_id)
        ]
        if not wanted:
            asked = f" in {XdpMode(mode)} mode" if mode is not None else ""
            asked += f" with id {program_id}" if program_id is not None else ""
            raise occupied(link, f"detach an XDP program{asked} from", hint=None)
        for one in wanted:
            _detach(link, one)
        return wanted


def _detach(link: netlink.Link, one: XdpAttachment) -> None:
    try:
        with _open_program(one.program_id) as program:
            try:
                _swap(link.index, -1, one.mode, program.fileno())
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                with _link_on(link, one.program_id) as held:
                    bpf.link_detach(held.fileno())
    except OSError as error:
        raise attach_failure(link.name, one.mode, error, doing="detach from") from None
    if netlink.link(link.index).xdp.get(one.mode.flag) == one.program_id:
        raise not_detached(link.name, one.mode, one.program_id)
