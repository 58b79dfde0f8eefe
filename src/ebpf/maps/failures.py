"""An errno of the kernel as an error of this package."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ebpf.errors import KernelError

ENOTSUPP = 524  #: the kernel's own, which the C library does not know


def errno_text(code: int) -> str:
    """The errno's name and meaning: "EBUSY, Device or resource busy"."""
    if code == ENOTSUPP:
        return "ENOTSUPP, operation not supported"
    return f"{errno.errorcode.get(code, code)}, {os.strerror(code)}"


def kernel_error(
    error: OSError, operation: str, needs: Sequence[tuple[str, ...]] | None = None
) -> KernelError:
    """The error for an operation, such as "create map 'flows'", that the kernel refused.

    EPERM and EACCES are explained by what this process may do; `needs` are the capabilities that it takes
    (`ebpf.kernel.privileges`), CAP_BPF by default.
    """
    code = error.errno or 0
    if code in (errno.EPERM, errno.EACCES):
        from ebpf.kernel import privileges

        return privileges.explain(operation, (privileges.BPF,) if needs is None else needs, code)
    return KernelError(f"cannot {operation}: {errno_text(code)}", errno=code)
