"""An errno of the kernel as an error of this package."""

from __future__ import annotations

import errno
import os

from ebpf.errors import KernelError


def errno_text(code: int) -> str:
    """The errno's name and meaning: "EBUSY, Device or resource busy"."""
    if code == 524:  # the kernel's own ENOTSUPP, which the C library does not know
        return "ENOTSUPP, operation not supported"
    return f"{errno.errorcode.get(code, code)}, {os.strerror(code)}"


def kernel_error(error: OSError, message: str) -> KernelError:
    """The error for a refused call; EPERM and EACCES are explained by what this process may do."""
    code = error.errno or 0
    if code in (errno.EPERM, errno.EACCES):
        from ebpf.kernel.privileges import explain

        return explain(message, code)
    return KernelError(f"{message}: {errno_text(code)}", errno=code)
