"""The kernel's types and symbols, looked up while an object is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from ebpf.btf.btf import BTF
from ebpf.btf.types import Type
from ebpf.errors import Error, RelocationError
from ebpf.kernel import bpf
from ebpf.kernel.bpf import Kind
from ebpf.kernel.fd import FD

T = TypeVar("T", bound=Type)

_KALLSYMS = "/proc/kallsyms"


class Found(NamedTuple):
    """A type of the kernel: its id, and the descriptor of the module's BTF that has it; 0 for vmlinux."""

    id: int
    btf_fd: int


class KernelTypes:
    """vmlinux and its modules, opened when asked for; `close()` closes the modules' descriptors."""

    def __init__(self, target: BTF | str | os.PathLike[str] | None = None) -> None:
        self._target = target
        self._open = ExitStack()
        self._modules: list[tuple[BTF, int]] | None = None

    def close(self) -> None:
        """Close what was opened."""
        self._open.close()

    @property
    def vmlinux(self) -> BTF:
        """The running kernel's types."""
        from ebpf.kernel.btf import vmlinux

        return vmlinux()

    @property
    def core_target(self) -> BTF:
        """What CO-RE relocates against: the running kernel, or the BTF that the caller gave."""
        if self._target is None:
            return self.vmlinux
        if not isinstance(self._target, BTF):
            # What libbpf and pahole write is raw BTF; an ELF file is not taken.
            with open(self._target, "rb") as file:
                self._target = BTF.from_bytes(file.read())
        return self._target

    def core_modules(self) -> Iterator[BTF]:
        """The modules' types, for what vmlinux does not have; none if the caller gave the target."""
        from ebpf.kernel import btf as kernel_btf

        if self._target is None:
            yield from map(kernel_btf.module, kernel_btf.modules())

    def find(self, name: str, kind: type[T]) -> Found | None:
        """A type of vmlinux or, failing that, of a module."""
        found = self.vmlinux.get(name, kind)
        if found is not None:
            return Found(found.id, 0)
        for btf, fd in self.modules():
            found = btf.get(name, kind)
            if found is not None:
                return Found(found.id, fd)
        return None

    def modules(self) -> list[tuple[BTF, int]]:
        """The modules' types with descriptors (5.11), which the kernel asks for with ids of theirs."""
        from ebpf.kernel import btf as kernel_btf

        if self._modules is None:
            self._modules = []
            if kernel_btf.modules():
                for id in bpf.ids(Kind.BTF):
                    fd = self._open.enter_context(FD(bpf.fd_by_id(Kind.BTF, id), f"BTF {id}"))
                    info = bpf.btf_info(fd.fileno())
                    if info.kernel_btf and info.name != "vmlinux":
                        self._modules.append((kernel_btf.module(info.name), fd.fileno()))
        return self._modules


def symbol_address(name: str) -> int | None:
    """The address of a kernel symbol, from /proc/kallsyms; None if there is none.

    RelocationError for a name that stands for several addresses, and where the kernel hides addresses.
    """
    import re

    with open(_KALLSYMS, "rb") as file:
        text = file.read()
    pattern = re.compile(rb"^([0-9a-f]+) \w " + re.escape(name.encode()) + rb"(?:\t\[.*\])?$", re.MULTILINE)
    addresses = {int(match[1], 16) for match in pattern.finditer(text)}
    if not addresses:
        return None
    if len(addresses) > 1:
        raise RelocationError(f"kernel symbol {name!r} is ambiguous: it has {len(addresses)} addresses")
    address = addresses.pop()
    if not address:
        raise RelocationError(
            f"the address of kernel symbol {name!r} is hidden from this process",
            hint="it takes CAP_SYSLOG and sysctl kernel.kptr_restrict at 0 or 1",
        )
    return address


def program_types(fd: int, what: str) -> BTF:
    """The BTF of a loaded program: what an extension or fentry of it is looked up in."""
    btf_id = bpf.program_info(fd).btf_id
    if not btf_id:
        raise Error(f"{what} has no BTF, so that nothing can be attached to its functions")
    with FD(bpf.fd_by_id(Kind.BTF, btf_id), f"BTF {btf_id}") as btf:
        return BTF.from_bytes(bpf.btf_data(btf.fileno()))
