"""Live programs: run, inspect, attach, pin."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ebpf.errors import Error, KernelError
from ebpf.kernel import bpf
from ebpf.kernel.fd import FD
from ebpf.maps.failures import kernel_error
from ebpf.maps.held import Held
from ebpf.uapi import NAME_LENGTH, ProgramType

if TYPE_CHECKING:
    from ebpf.isa.instruction import Instruction
    from ebpf.kernel.bpf import ProgramInfo
    from ebpf.kernel.namespaces import NamespaceRef
    from ebpf.links.xdp import NetlinkXdp, XdpLink, XdpMode
    from ebpf.programs.run import RunResult
    from ebpf.programs.verification import Verification


class Program(Held):
    """A program in the kernel.

    `Program.open` and `Program.from_id` find one; loading a Spec makes them. It owns a descriptor: `close()`
    it, or use `with`. A program without descriptor, link or pin is unloaded by the kernel.
    """

    def __init__(self, fd: FD, type: ProgramType, name: str | None = None, *, log: str = "") -> None:
        super().__init__(fd)
        self._name = name
        self._id: int | None = None
        self.type = type  #: what it may do and what its context is
        self.log = log  #: the verifier's, if loading asked for one

    # --- where programs come from -----------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Program:
        """The program pinned under a path."""
        from ebpf.maps import pins

        number, place = pins.open_pinned(path, "program")
        opened = cls.from_fd(FD(number, f"program {place}"))
        opened._pin = place
        return opened

    @classmethod
    def from_id(cls, id: int) -> Program:
        """The program with this id (4.13; CAP_SYS_ADMIN)."""
        try:
            number = bpf.fd_by_id(bpf.Kind.PROGRAM, id)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise KernelError(f"no program has the id {id}", errno=errno.ENOENT) from None
            from ebpf.kernel.privileges import SYS_ADMIN

            raise kernel_error(error, f"open program {id}", (SYS_ADMIN,)) from None
        return cls.from_fd(FD(number, f"program {id}"))

    @classmethod
    def from_fd(cls, fd: FD) -> Program:
        """The program of a descriptor, which it takes over; Error, and it is closed, if that is none."""
        from ebpf.maps.descriptors import expect

        expect(fd, "program")
        try:
            info = bpf.program_info(fd.fileno())
            type = ProgramType(info.type)
        except (OSError, ValueError) as error:
            fd.close()
            raise Error(f"{fd.what} is no program that this version knows: {error}") from None
        opened = cls(fd, type)
        opened._id = info.id
        return opened

    # --- facts ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its function's whole name; the kernel's 15 bytes of it where there is no BTF."""
        if self._name is None:
            from ebpf.programs.code import full_name

            short = self.info.name
            self._name = full_name(self.fileno(), short) if len(short) >= NAME_LENGTH else short
        return self._name

    @property
    def info(self) -> ProgramInfo:
        """What the kernel says of it now: tag, sizes, load time, memory, run statistics."""
        try:
            return bpf.program_info(self.fileno())
        except OSError as error:
            raise kernel_error(error, f"inspect program {self._name!r}") from None

    @property
    def id(self) -> int:
        """The kernel's number for it."""
        if self._id is None:
            self._id = self.info.id
        return self._id

    @property
    def maps(self) -> tuple[int, ...]:
        """The ids of the maps that it uses."""
        return self.info.map_ids

    @property
    def instructions(self) -> list[Instruction]:
        """Its code after the verifier's rewriting ("xlated"): functions and maps by name, with source lines.

        PrivilegeError where the kernel withholds it.
        """
        from ebpf.programs.code import xlated

        return xlated(self.fileno(), self.name)

    @property
    def verification(self) -> Verification | None:
        """What verifying it cost, if it was loaded with `log_level=4` (5.2); None otherwise."""
        from ebpf.programs.verification import parse_verification

        return parse_verification(self.log)

    # --- what can be done with it -------------------------------------------------------------------------

    def run(
        self,
        data: bytes | bytearray | memoryview | None = None,
        *,
        ctx: bytes | None = None,
        repeat: int = 1,
        flags: int = 0,
        cpu: int = 0,
    ) -> RunResult:
        """Run it once, or `repeat` times, in the kernel on test data (BPF_PROG_TEST_RUN, 4.12).

        `data` is a packet from its Ethernet header on, at least 14 bytes, for the types that see packets;
        `ctx` the context as bytes, such as struct xdp_md (5.15) or the argument of a SYSCALL program. Maps
        are the real ones.
        """
        from ebpf.programs.run import run

        return run(self.fileno(), self.type, self.name, data, ctx=ctx, repeat=repeat, flags=flags, cpu=cpu)

    def attach(
        self,
        interface: str | int,
        *,
        mode: XdpMode | str = "auto",
        replace: bool = False,
        expected: int | None = None,
        netns: NamespaceRef | None = None,
    ) -> XdpLink | NetlinkXdp:
        """Attach an XDP program to an interface; the link detaches at the end of its `with` block.

        The options are those of `ebpf.links.xdp.attach_xdp`. AttachError says who holds the interface. Error
        for a program of another type.
        """
        if self.type is not ProgramType.XDP:
            raise Error(
                f"program {self.name!r} is of type {self.type.label}; this version attaches type xdp only",
                hint="pin it, and attach it with the tool for its type: tc, bpftool prog attach, …",
            )
        from ebpf.links.xdp import attach_xdp

        return attach_xdp(self, interface, mode=mode, replace=replace, expected=expected, netns=netns)

    def _what(self) -> str:
        return f"program {self.name!r}"

    @property
    def fd(self) -> int:
        """Its descriptor; Error once closed."""
        return self.fileno()

    def __repr__(self) -> str:
        return (
            f"<Program {self._name or self._fd.what!r} {self.type.label}{', closed' if self.closed else ''}>"
        )
