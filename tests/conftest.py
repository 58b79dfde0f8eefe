"""What all tests share: the skip that says what it needs, and the check that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

NETNS_DIR = Path("/run/netns")


def kernel_obstacle() -> str | None:
    """Why kernel tests cannot run here; None if they can."""
    if os.uname().sysname != "Linux":
        return "kernel tests need Linux"
    if os.geteuid() != 0:
        return "kernel tests need root"
    from ebpf.kernel import bpf

    try:
        next(bpf.ids(bpf.Kind.PROGRAM), None)
    except OSError as error:
        return f"kernel tests need bpf(2): {error.strerror}"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    obstacle = kernel_obstacle()
    if obstacle is None:
        return
    skip = pytest.mark.skip(reason=obstacle)
    skipped = 0
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(skip)
            skipped += 1
    config.stash[_SKIPPED] = f"{skipped} tests skipped: {obstacle}"


_SKIPPED = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    message = config.stash.get(_SKIPPED, None)
    if message:
        terminalreporter.section("NOT RUN", sep="=", yellow=True, bold=True)
        terminalreporter.write_line(message)


class State:
    """What a test could leave behind: descriptors, programs, maps, links, namespaces, interfaces, mounts."""

    def __init__(self) -> None:
        from ebpf.kernel import bpf

        self.descriptors = {
            f"descriptor {fd}": os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")  # not the descriptor of this listing itself
        }
        self.objects = {
            f"{kind.name.lower()} {number}"
            for kind in (bpf.Kind.PROGRAM, bpf.Kind.MAP, bpf.Kind.LINK)
            for number in bpf.ids(kind)
        }
        self.namespaces = (
            {f"namespace {name}" for name in os.listdir(NETNS_DIR)} if NETNS_DIR.is_dir() else set()
        )
        self.interfaces = {f"interface {name}" for name in os.listdir("/sys/class/net")}
        self.mounts = {
            f"bpffs on {fields[1]}"
            for fields in map(str.split, Path("/proc/mounts").read_text().splitlines())
            if fields[2] == "bpf"
        }

    def left_over_since(self, before: State) -> list[str]:
        """What is here now and was not before; what other processes hold is theirs."""
        from ebpf.kernel import owners
        from ebpf.lab import state

        theirs = {
            f"{kind.name.lower()} {number}"
            for (kind, number), holders in owners.find_owners().items()
            if all(holder.pid != os.getpid() for holder in holders)
        }
        self.objects -= theirs
        labs = tuple(name for name in state.names() if state.owner(name) not in (None, os.getpid()))
        if labs:  # of another test run on this machine
            self.namespaces = {item for item in self.namespaces if not item.split()[1].startswith(labs)}
            self.mounts = {item for item in self.mounts if not any(f"/{lab}/" in item for lab in labs)}
        descriptors = [
            f"{name} ({target})"
            for name, target in self.descriptors.items()
            if before.descriptors.get(name) != target and not target.startswith(("pipe:", "/dev/null"))
        ]
        sets = ("objects", "namespaces", "interfaces", "mounts")
        return descriptors + [
            item for kind in sets for item in sorted(getattr(self, kind) - getattr(before, kind))
        ]


@pytest.fixture(scope="session", autouse=True)
def bpffs_as_on_a_distribution() -> Iterator[None]:
    """/sys/fs/bpf is a bpffs on every distribution; where it is none yet, it is one for the run."""
    from ebpf.kernel import mounts

    if kernel_obstacle() is not None or mounts.filesystem_of(mounts.BPFFS) == "bpf":
        yield
        return
    mounts.bpffs()
    yield
    mounts.unmount(mounts.BPFFS)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A kernel test that leaves anything behind fails."""
    if not request.node.get_closest_marker("kernel"):
        yield
        return
    import gc
    import time

    before = State()
    yield
    gc.collect()
    deadline = time.monotonic() + 2  # the kernel frees programs and interfaces a little after their last user
    while (left := State().left_over_since(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"left behind: {', '.join(left)}"
