"""One program on its way into the kernel: linked, relocated, loaded."""

from __future__ import annotations

import errno
import os
import struct
import sys
from dataclasses import dataclass
from typing import NamedTuple

from ebpf.errors import KernelError, SpecError, UnsupportedError
from ebpf.isa.encoding import encode
from ebpf.isa.instruction import Instruction
from ebpf.kernel import bpf
from ebpf.loader.btf import KernelBTF
from ebpf.loader.externs import Resolver
from ebpf.loader.names import kernel_name
from ebpf.loader.target import Target
from ebpf.maps.failures import errno_text, kernel_error
from ebpf.spec.link import LinkedProgram, link_program
from ebpf.spec.model import ProgramSpec, Spec
from ebpf.uapi import AttachType, ProgramType

#: Program types that load without an attach type too: it is given where the kernel knows it (libbpf's
#: SEC_ATTACHABLE_OPT).
_ATTACH_TYPE_OPTIONAL = frozenset(
    {
        ProgramType.XDP,
        ProgramType.CGROUP_SKB,
        ProgramType.CGROUP_SOCK,
        ProgramType.CGROUP_DEVICE,
        ProgramType.SOCK_OPS,
        ProgramType.SK_SKB,
        ProgramType.SK_MSG,
        ProgramType.SCHED_CLS,
        ProgramType.SK_REUSEPORT,
        ProgramType.LIRC_MODE2,
        ProgramType.FLOW_DISSECTOR,
        ProgramType.CGROUP_SYSCTL,
    }
)

_LOG_STATS = 4  # BPF_LOG_STATS: reasons and statistics, no states (5.2)
_SHORT_LOG = 1 << 13
_FIRST_LOG = 1 << 18
_LONGEST_LOG = 1 << 24
#: Programs that took the verifier so many instructions are not verified once more with every state printed:
#: that takes many times as long, and gigabytes have been seen.
_STATES_WORTH = 200_000


@dataclass(slots=True)
class Prepared:
    """A linked program with its tables; what is left to resolve depends on the maps."""

    spec: ProgramSpec
    type: ProgramType
    linked: LinkedProgram
    func_info: bytes = b""
    line_info: bytes = b""


class Loaded(NamedTuple):
    """A program in the kernel: its descriptor, and the verifier's log if one was asked for."""

    fd: int
    log: str


def prepare(spec: Spec, program: ProgramSpec, type: ProgramType, btf: KernelBTF | None) -> Prepared:
    """Link a program, and make its func_info and line_info; strings that these need go into `btf`."""
    prepared = Prepared(program, type, link_program(spec, program))
    if btf is not None:
        functions = prepared.linked.functions
        if all(function.type_id for function in functions):
            prepared.func_info = b"".join(
                struct.pack("=II", function.offset, function.type_id) for function in functions
            )
            prepared.line_info = _line_info(prepared.linked, btf)
    return prepared


def _line_info(linked: LinkedProgram, btf: KernelBTF) -> bytes:
    """struct bpf_line_info per change of line; none if a function starts without: that is refused."""
    starts = {function.offset for function in linked.functions}
    records = []
    pack = struct.Struct("=IIII").pack
    string = btf.string
    slot, last = 0, None
    for instruction in linked.instructions:
        source = instruction.source
        if slot in starts:
            last = None
            if source is None:
                return b""
        if source is not None and source is not last:
            position = min(source.line, 0x3FFFFF) << 10 | min(source.column, 0x3FF)
            records.append(pack(slot, string(source.file), string(source.text), position))
            last = source
        slot += 2 if instruction.opcode == 0x18 else 1
    return b"".join(records)


def load_program(
    prepared: Prepared,
    resolver: Resolver,
    *,
    license: str,
    kernel_version: int,
    btf_fd: int,
    target: Target,
    log_level: int = 0,
) -> Loaded:
    """BPF_PROG_LOAD. VerifierError with the reason, or an error that says what else the kernel refused."""
    program = prepared.spec
    instructions = tuple(resolver.resolve(prepared.linked.instructions, program.name))
    attempt = _Attempt(
        prepared,
        encode(instructions, byteorder=sys.byteorder),
        resolver,
        license,
        kernel_version,
        btf_fd,
        target,
    )
    try:
        fd, log = attempt.load_logged(log_level) if log_level else (attempt.load(), "")
    except OSError as error:
        raise _failure(attempt, error, instructions, resolver) from None
    return Loaded(fd, log)


class _Attempt:
    """The arguments of BPF_PROG_LOAD, to be tried with and without what older kernels do not know."""

    def __init__(
        self,
        prepared: Prepared,
        code: bytes,
        resolver: Resolver,
        license: str,
        kernel_version: int,
        btf_fd: int,
        target: Target,
    ) -> None:
        self.prepared = prepared
        self.license = license
        self._code = code
        self._fd_array = resolver.fd_array if len(resolver.fd_array) > 1 else []
        self._kernel_version = kernel_version
        self._btf_fd = btf_fd
        self._target = target
        self._attach_type = int(prepared.spec.attach_type or 0)

    def load(self, log_level: int = 0, log: bytearray | None = None) -> int:
        """The descriptor, or OSError; leaves out an attach type that an old kernel refuses to know."""
        try:
            return self._load(log_level, log)
        except OSError as error:
            optional = self._attach_type and self.prepared.type in _ATTACH_TYPE_OPTIONAL
            if (
                error.errno not in (errno.EINVAL, errno.E2BIG)
                or not optional
                or _known_to_kernel(self._attach_type)
            ):
                raise
        self._attach_type = 0
        return self._load(log_level, log)

    def _load(self, log_level: int, log: bytearray | None) -> int:
        prepared = self.prepared
        return bpf.prog_load(
            prepared.type,
            self._code,
            self.license,
            name=kernel_name(prepared.spec.name),
            attach_type=self._attach_type,
            flags=prepared.spec.flags,
            kernel_version=self._kernel_version,
            btf_fd=self._btf_fd if prepared.func_info or prepared.line_info else 0,
            func_info=prepared.func_info if self._btf_fd else b"",
            line_info=prepared.line_info if self._btf_fd else b"",
            attach_btf_id=self._target.btf_id,
            attach_prog_fd=self._target.program_fd,
            attach_btf_obj_fd=self._target.btf_fd,
            fd_array=self._fd_array,
            log_level=log_level,
            log=log,
        )

    def load_logged(self, log_level: int) -> tuple[int, str]:
        """The descriptor and the whole log, up to 16 MiB of it; a longer one is lost, not the program."""
        size = _FIRST_LOG
        while True:
            log = bytearray(size)
            try:
                return self.load(log_level, log), _text(log)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            if size >= _LONGEST_LOG:
                return self.load(), _text(log)
            size *= 8

    def log(self, log_level: int, size: int, limit: int) -> tuple[str, bool]:
        """The log of a program that is refused, and whether it is cut off."""
        while True:
            log = bytearray(size)
            try:
                fd = self._load(log_level, log)
            except OSError as error:
                text = _text(log)
                # From 6.4 on a full buffer keeps the end of the log, with the reason; before, its start.
                if error.errno != errno.ENOSPC:
                    return text, False
                if size >= limit or "\nprocessed " in text[-4096:]:
                    return text, True
            else:
                os.close(fd)
                return "", False
            size *= 8


def _known_to_kernel(attach_type: int) -> bool:
    """Whether the kernel is new enough for an attach type, so that it was not the reason to refuse."""
    from ebpf.kernel.memlock import kernel_version

    since = tuple(int(part) for part in AttachType(attach_type).since.split("."))
    return kernel_version()[:2] >= since


def _text(log: bytearray) -> str:
    return log[: log.find(b"\0")].decode(errors="replace") if 0 in log else log.decode(errors="replace")


def _failure(
    attempt: _Attempt, error: OSError, instructions: tuple[Instruction, ...], resolver: Resolver
) -> KernelError:
    """Why a program was refused: asks for a short log first, for the states only if they are worth it."""
    from ebpf.loader import verifier

    prepared = attempt.prepared
    code = error.errno or 0
    name = prepared.spec.name
    short, log, truncated = "", "", False
    if code != errno.EPERM:  # EPERM comes before the verifier
        short, _ = attempt.log(_LOG_STATS, _SHORT_LOG, _FIRST_LOG)
        count = verifier.processed(short)
        if count is None or count <= _STATES_WORTH:
            log, truncated = attempt.log(1, _FIRST_LOG, _LONGEST_LOG)
        else:
            truncated = True
    if verifier.has_reason(short or log):
        return verifier.refusal(
            log,
            instructions,
            program=name,
            errno=code,
            short_log=short,
            log_truncated=truncated,
            program_type=prepared.type,
            license=attempt.license,
            missing=resolver.missing,
        )
    return _refused_unverified(prepared, error)


def _refused_unverified(prepared: Prepared, error: OSError) -> KernelError:
    """The kernel refused before its verifier looked at the program."""
    code = error.errno or 0
    program, type = prepared.spec, prepared.type
    operation = f"load program {program.name!r} ({type.label})"
    if code in (errno.EPERM, errno.EACCES):
        from ebpf.kernel.privileges import needs_to_load

        return kernel_error(error, operation, needs_to_load(type))
    message = f"cannot {operation}: {errno_text(code)}, before the verifier looked at it"
    if code == errno.E2BIG:
        return KernelError(
            f"cannot {operation}: it has {len(prepared.linked.instructions)} instructions, too many",
            errno=code,
        )
    if code == errno.EINVAL:
        from ebpf.kernel.features import has_program_type

        if has_program_type(type) is False:
            return UnsupportedError(
                f"cannot {operation}: this kernel does not know the type, which Linux {type.since} brought, "
                "or was built without it",
                errno=code,
            )
        if program.attach_type is not None and not _known_to_kernel(program.attach_type):
            return UnsupportedError(
                f"cannot {operation}: its attach type {program.attach_type.label} came with "
                f"Linux {program.attach_type.since}",
                errno=code,
            )
    if code == 524 or code == errno.EOPNOTSUPP:
        return UnsupportedError(message, errno=code)
    return KernelError(message, errno=code)


def missing_type(program: ProgramSpec) -> SpecError:
    """The error for a program whose section does not say what it is."""
    return SpecError(
        f"program {program.name!r}: its section {program.section!r} does not tell what type of program it is",
        hint=f'say it: spec.programs["{program.name}"].type = ProgramType.XDP, '
        f'load(…, types={{{program.name!r}: "xdp"}}), or ebpf run --type xdp',
    )
