"""RLIMIT_MEMLOCK, against which kernels before 5.11 count maps and programs: they answer EPERM at its end."""

from __future__ import annotations

import os
import re


def kernel_version() -> tuple[int, int, int]:
    """The running kernel's version, such as (6, 18, 44)."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", os.uname().release)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)


def counts_memlock() -> bool:
    """Whether this kernel counts BPF memory against RLIMIT_MEMLOCK, and not against the memory cgroup."""
    return kernel_version() < (5, 11, 0)


def raise_limit() -> bool:
    """Lift the limit where the kernel counts and it is not lifted yet; gives whether it was changed."""
    if not counts_memlock():
        return False
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True
