"""Every error that a user can meet.

Each names what failed and why, in one line, and what to do about it in `hint` where that is known.
`str(error)` is the whole message as a person should read it.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: What Python names otherwise, or not: ENOTSUPP is the kernel's own and no errno of the C library.
_ERRNO_NAMES = {_errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"}


class Error(Exception):
    """Base of all errors of this package."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InstructionError(Error):
    """Bytes that are no BPF instruction, or an instruction that cannot be encoded."""


class AssemblyError(Error):
    """Assembly text that cannot be assembled; `line` counts from 1."""

    def __init__(self, message: str, *, line: int, text: str, hint: str | None = None) -> None:
        super().__init__(f"line {line}: {message}\n    {text.strip()}", hint=hint)
        self.line = line
        self.text = text


class BTFError(Error):
    """BTF that is malformed, or a type that is not there."""


class ValueRangeError(Error, ValueError):
    """A Python value that does not fit the BTF type it is written to; names the field and the range."""


class ObjectError(Error):
    """An ELF object that is malformed or holds what no BPF object may hold."""


class SpecError(Error):
    """A specification that cannot be loaded as it stands: an unknown program type, a name not in it, …"""


class UnknownNameError(SpecError, KeyError):
    """A program, map or variable asked for by a name that the object does not have."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        from difflib import get_close_matches

        known = sorted(known)
        close = get_close_matches(name, known, n=1)
        have = ", ".join(known) if known else "none"
        super().__init__(
            f"no {kind} named {name!r} here; there is: {have}",
            hint=f"did you mean {close[0]!r}?" if close else None,
        )

    def __str__(self) -> str:  # KeyError would print the repr
        return Error.__str__(self)


class RelocationError(SpecError):
    """A reference (symbol, CO-RE field, extern) that this kernel's types or this object cannot satisfy."""


class Diagnostic(NamedTuple):
    """One message of the C compiler."""

    severity: str  #: "error", "warning" or "note"
    file: str
    line: int  #: from 1; 0 where the compiler names no line
    column: int  #: from 1; 0 where the compiler names no column
    message: str
    excerpt: str  #: the source line and caret as the compiler printed them; may be empty

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        excerpt = f"\n{self.excerpt}" if self.excerpt else ""
        return f"{place}{self.severity}: {self.message}{excerpt}"


class CompileError(Error):
    """C that does not compile, or no compiler to compile it."""

    def __init__(
        self, message: str, *, diagnostics: Sequence[Diagnostic] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.diagnostics = tuple(diagnostics)


class KernelError(Error):
    """The kernel refused an operation; `errno` is its answer."""

    def __init__(self, message: str, *, errno: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno

    @property
    def errno_name(self) -> str:
        """The symbolic name, such as "EPERM"."""
        return _ERRNO_NAMES.get(self.errno) or _errno.errorcode.get(self.errno, str(self.errno))


class PrivilegeError(KernelError):
    """EPERM or EACCES; the message says which privilege or policy it was."""


class UnsupportedError(KernelError):
    """This kernel lacks a feature; the message names the version that brought it."""


class AttachError(KernelError):
    """A program that could not be attached, or detached; names who holds the place where somebody does."""


class VerifierError(KernelError):
    """The verifier refused a program.

    `str()` is short: program, reason, source line with caret, hint. `log` is the verifier's whole log, or
    its end where `log_truncated` says so.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int,
        program: str,
        reason: str,
        source: str | None = None,
        log: str = "",
        log_truncated: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, hint=hint)
        self.program = program
        self.reason = reason  #: the verifier's own line
        self.source = source  #: "file:line" and the source line, where BTF names one
        self.log = log
        self.log_truncated = log_truncated
