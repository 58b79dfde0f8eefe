"""Where the command line keeps its pins: /sys/fs/bpf, or the BPF file system that $EBPF_BPFFS names."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EBPF_BPFFS"
DEFAULT = "/sys/fs/bpf"


def chosen() -> Path | None:
    """The BPF file system that the environment names."""
    text = os.environ.get(VARIABLE)
    return Path(text) if text else None


def pin_folder(path: str) -> Path:
    """A folder of pins: a relative path counts from here inside of a BPF file system, else from its root."""
    from ebpf.kernel import mounts

    place = Path(path)
    if place.is_absolute():
        return place
    near = place.absolute().parent
    if near.is_dir() and mounts.filesystem_of(near) == "bpf":
        return place.absolute()
    return (chosen() or mounts.BPFFS) / place
