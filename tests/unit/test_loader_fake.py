"""The loader without a kernel: names, types made ready, and what it makes of errnos."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.errors import (
    KernelError,
    PrivilegeError,
    RelocationError,
    SpecError,
    UnsupportedError,
    VerifierError,
)
from ebpf.isa.instruction import Instruction, Reference, ReferenceKind, SourceLine
from ebpf.kernel import system
from ebpf.loader import kconfig
from ebpf.loader.btf import KernelBTF
from ebpf.loader.load import load
from ebpf.loader.names import kernel_name, map_name
from ebpf.spec.model import ExternSpec, FunctionSpec, MapSpec, ProgramSpec, Spec, VariableSpec
from ebpf.uapi import AttachType, Command, MapFlags, MapType, ProgramType

# Offsets of fields of union bpf_attr in BPF_PROG_LOAD (linux/bpf.h).
LOG_LEVEL, LOG_SIZE, LOG_BUF, ATTACH_TYPE = 24, 28, 32, 68


class FakeKernel:
    """Answers bpf(2) from a table; gives real descriptors, so that leaks can be seen."""

    def __init__(self, **refusals: object) -> None:
        self.refusals = refusals
        self.calls: list[tuple[Command, bytes]] = []

    def bpf(self, command: int, attr: bytearray) -> int:
        known = Command(command)
        self.calls.append((known, bytes(attr)))
        refusal = self.refusals.get(known.name)
        if callable(refusal):
            refusal = refusal(attr)
        if isinstance(refusal, int):
            raise OSError(refusal, os.strerror(refusal))
        made = known in (Command.MAP_CREATE, Command.BTF_LOAD, Command.PROG_LOAD)
        return os.open(os.devnull, os.O_RDONLY) if made else 0

    def count(self, command: Command) -> int:
        return sum(known is command for known, _ in self.calls)

    def _none(self, *args: object, **options: object) -> int:
        raise AssertionError("the loader has no business here")

    perf_event_open = mount = umount = setns = unshare = _none  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


def field(attr: bytes, offset: int, code: str = "I") -> int:
    return int(struct.unpack_from(f"={code}", attr, offset)[0])


def simple(**changes: object) -> Spec:
    program = ProgramSpec(
        "prog",
        "xdp",
        [
            Instruction(0x18, 1, 1, symbol="prog", reference=Reference(ReferenceKind.MAP, "numbers")),
            Instruction(0xB7, 0, 0, 0, 2, source=SourceLine("a.c", 3, 1, "return XDP_PASS;")),
            Instruction(0x95),
        ],
        type=ProgramType.XDP,
        attach_type=AttachType.XDP,
    )
    for name, value in changes.items():
        setattr(program, name, value)
    maps = {"numbers": MapSpec("numbers", MapType.ARRAY, 4, 8, 4)}
    return Spec("sample", programs={"prog": program}, maps=maps, license="GPL")


# --- whole loads ----------------------------------------------------------------------------------------


def test_one_call_per_map_and_program() -> None:
    """No probes, and no log: the common path costs what the kernel costs."""
    with system.use(FakeKernel()) as kernel, load(simple()) as obj:
        assert [command for command, _ in kernel.calls] == [Command.MAP_CREATE, Command.PROG_LOAD]
        assert field(kernel.calls[1][1], LOG_LEVEL) == 0
        assert list(obj.programs) == ["prog"] and obj.notes == ()


def test_refused_map_names_it() -> None:
    with system.use(FakeKernel(MAP_CREATE=errno.ENOMEM)), pytest.raises(KernelError, match="'numbers'"):
        load(simple())


def test_privilege_is_explained() -> None:
    with system.use(FakeKernel(PROG_LOAD=errno.EPERM)) as kernel:
        with pytest.raises(PrivilegeError, match=r"cannot load program 'prog' \(xdp\)"):
            load(simple())
        assert kernel.count(Command.PROG_LOAD) == 1  # it would be refused again


def log_of(attr: bytearray, text: str, *, keeps_end: bool = True) -> int:
    """What the verifier writes, and its errno, for a program that it refuses."""
    size, level = field(attr, LOG_SIZE), field(attr, LOG_LEVEL)
    if not level:
        return errno.EACCES
    data = text.encode()
    cut = data if len(data) < size else data[1 - size :] if keeps_end else data[: size - 1]
    system.write_memory(field(attr, LOG_BUF, "Q"), cut + b"\0")
    return errno.EACCES if len(data) < size else errno.ENOSPC


REASON = "R0 !read_ok\n"
END = "processed 2 insns (limit 1000000)\n"


def test_refusal_asks_for_the_reason_then_for_the_states() -> None:
    def refuse(attr: bytearray) -> int:
        return log_of(
            attr, REASON + END if field(attr, LOG_LEVEL) == 4 else "2: (b7) r0 = 2\n" + REASON + END
        )

    with system.use(FakeKernel(PROG_LOAD=refuse)) as kernel, pytest.raises(VerifierError) as caught:
        load(simple())
    levels = [field(attr, LOG_LEVEL) for command, attr in kernel.calls if command is Command.PROG_LOAD]
    assert levels == [0, 4, 1]
    error = caught.value
    assert error.reason == "R0 !read_ok" and error.errno == errno.EACCES and not error.log_truncated
    assert error.source == "a.c:3: return XDP_PASS;"


def test_states_of_a_huge_program_are_not_asked_for() -> None:
    def refuse(attr: bytearray) -> int:
        return log_of(
            attr, "BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit\n"
        )

    with system.use(FakeKernel(PROG_LOAD=refuse)) as kernel, pytest.raises(VerifierError) as caught:
        load(simple())
    assert kernel.count(Command.PROG_LOAD) == 2
    assert caught.value.log_truncated


@pytest.mark.parametrize("keeps_end", [True, False], ids=["6.4", "before"])
def test_log_that_does_not_fit(keeps_end: bool) -> None:
    """A newer kernel keeps the end of the log, an older one its start: then it takes a larger buffer."""
    states = "1: (b7) r0 = 2\n" * 40_000  # 600 kB

    def refuse(attr: bytearray) -> int:
        if field(attr, LOG_LEVEL) == 4:
            return errno.EINVAL  # before 5.2
        return log_of(attr, states + REASON + END, keeps_end=keeps_end)

    with system.use(FakeKernel(PROG_LOAD=refuse)), pytest.raises(VerifierError) as caught:
        load(simple())
    assert caught.value.reason == "R0 !read_ok"
    assert caught.value.log_truncated is keeps_end
    assert caught.value.log.endswith(END)


def test_attach_type_that_an_old_kernel_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebpf.kernel.memlock.kernel_version", lambda: (5, 4, 0))

    def refuse(attr: bytearray) -> int | None:
        return errno.EINVAL if field(attr, ATTACH_TYPE) else None

    with system.use(FakeKernel(PROG_LOAD=refuse)) as kernel:
        load(simple()).close()
        assert kernel.count(Command.PROG_LOAD) == 2


def test_flags_that_an_old_kernel_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebpf.loader.maps.kernel_version", lambda: (5, 4, 0))
    spec = Spec("sample")
    flags = MapFlags.MMAPABLE | MapFlags.RDONLY_PROG
    spec.maps[".rodata"] = MapSpec(".rodata", MapType.ARRAY, 4, 8, 1, flags, data=bytearray(8))
    with system.use(FakeKernel()) as kernel, load(spec):
        assert field(kernel.calls[0][1], 16) == MapFlags.RDONLY_PROG


def test_program_type_that_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from ebpf.kernel.features import has_program_type

    has_program_type.cache_clear()
    lacks = pytest.raises(UnsupportedError, match=r"does not know the type, which Linux 6\.4 brought")
    with system.use(FakeKernel(PROG_LOAD=errno.EINVAL)), lacks:
        load(simple(type=ProgramType.NETFILTER, attach_type=None))
    has_program_type.cache_clear()


def test_what_cannot_be_loaded_as_it_stands() -> None:
    with system.use(FakeKernel()) as kernel:
        with pytest.raises(SpecError, match="does not tell what type"):
            load(simple(type=None))
        foreign = simple()
        foreign.byteorder = "big"
        with pytest.raises(SpecError, match="big-endian"):
            load(foreign)
        lost = simple()
        del lost.maps["numbers"]
        with pytest.raises(RelocationError, match="uses map 'numbers'"):
            load(lost)
        assert kernel.count(Command.PROG_LOAD) == 0


def test_types_that_the_kernel_refuses_are_left_out_and_said_so() -> None:
    spec = simple()
    spec.btf = BTF.from_bytes(blob())
    with system.use(FakeKernel(BTF_LOAD=errno.EINVAL)) as kernel, load(spec) as obj:
        assert kernel.count(Command.BTF_LOAD) == 2  # as it is, then without the linkage of functions
        assert len(obj.notes) == 1 and "refused the object's types (EINVAL" in obj.notes[0]

    def old(attr: bytearray) -> int | None:
        data = BTF.from_bytes(system.read_memory(field(attr, 0, "Q"), field(attr, 16)))
        return errno.EINVAL if data.find("entry", t.Function).linkage else None

    with system.use(FakeKernel(BTF_LOAD=old)), load(spec) as obj:
        assert "no global functions" in obj.notes[0]


# --- names ------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert kernel_name("a-name longer than fifteen") == "a_name_longer_t"
    data = {"key_size": 4, "value_size": 4, "max_entries": 1, "data": bytearray(4)}
    for section, expected in (
        (".bss", "firewall.bss"),
        (".rodata", "firewall.rodata"),
        (".data.config", ".data.config"),
        (".kconfig", "firewal.kconfig"),
    ):
        assert map_name(MapSpec(section, MapType.ARRAY, **data), "firewall.bpf") == expected  # type: ignore[arg-type]
    assert map_name(MapSpec("my.map", MapType.HASH), "x") == "my.map"


# --- types --------------------------------------------------------------------------------------------------


def blob() -> bytes:
    """BTF as compilers leave it: sizes and offsets of sections are 0, externs are externs."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        place = len(strings)
        strings.extend(text.encode() + b"\0")
        return place

    def kind(number: int, vlen: int = 0) -> int:
        return number << 24 | vlen

    words = [
        *(name("int"), kind(1), 4, 1 << 24 | 32),  # 1
        *(name("a"), kind(14), 1, 1),  # 2: VAR a
        *(name("b"), kind(14), 1, 1),  # 3: VAR b
        *(name(".bss"), kind(15, 2), 0, 2, 0, 4, 3, 0, 4),  # 4: b comes first in memory
        *(0, kind(13, 1), 1, 0, 1),  # 5: int (int), the parameter without a name
        *(name("entry"), kind(12, 1), 5),  # 6: FUNC, global
        *(name("hidden"), kind(12, 1), 5),  # 7: FUNC, global to the compiler
        *(name("kfunc"), kind(12, 2), 5),  # 8: FUNC, extern
        *(name("ksym"), kind(14), 0, 2),  # 9: VAR, extern, of void
        *(name(".ksyms"), kind(15, 2), 0, 8, 0, 0, 9, 0, 0),  # 10
        *(name("CONFIG_A"), kind(14), 1, 2),  # 11: VAR, extern
        *(name(".kconfig"), kind(15, 1), 0, 11, 0, 4),  # 12
        *(name("LICENSE"), kind(14), 1, 1),  # 13
        *(name("license"), kind(15, 1), 0, 13, 0, 4),  # 14
    ]
    types = struct.pack(f"={len(words)}I", *words)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + bytes(strings)


def spec_with_types() -> Spec:
    btf = BTF.from_bytes(blob())
    return Spec(
        "sample",
        functions={"hidden": FunctionSpec("hidden", ".text", [], is_global=False, type_id=7)},
        maps={".bss": MapSpec(".bss", MapType.ARRAY, 4, 8, 1, data=bytearray(8))},
        variables={"a": VariableSpec("a", ".bss", 4, 4), "b": VariableSpec("b", ".bss", 0, 4)},
        externs={"CONFIG_A": ExternSpec("CONFIG_A", ".kconfig", btf.type(1), offset=4, size=4)},
        btf=btf,
    )


def test_btf_is_made_ready() -> None:
    made = KernelBTF.of(spec_with_types())
    assert made is not None
    added = made.string("a line of source")
    assert made.string("int") == 1 and made.string("a line of source") == added
    btf = BTF.from_bytes(made.to_bytes())
    assert btf.string(added) == "a line of source"

    bss = btf.find(".bss", t.DataSection)
    assert bss.size == 8
    assert [(entry.type.name, entry.offset, entry.size) for entry in bss.entries] == [
        ("b", 0, 4),
        ("a", 4, 4),
    ]
    assert btf.find("entry", t.Function).linkage is t.Linkage.GLOBAL
    assert btf.find("hidden", t.Function).linkage is t.Linkage.STATIC

    ksyms = btf.find(".ksyms", t.DataSection)
    assert ksyms.size == 8
    assert [(entry.type.name, entry.offset, entry.size) for entry in ksyms.entries] == [
        ("dummy_ksym", 0, 4),
        ("ksym", 4, 4),
    ]
    for entry in ksyms.entries:
        variable = t.expect(entry.type, t.Variable)
        assert variable.linkage is t.Linkage.GLOBAL and variable.target.name == "int"
    kfunc = btf.find("kfunc", t.Function)
    assert kfunc.linkage is t.Linkage.GLOBAL
    assert [parameter.name for parameter in kfunc.proto.parameters] == ["dummy_ksym"]

    config = btf.find(".kconfig", t.DataSection)
    assert config.size == 8 and config.entries[0].offset == 4
    assert btf.find("CONFIG_A", t.Variable).linkage is t.Linkage.GLOBAL
    assert btf.find("license", t.DataSection).size == 4
    # Ids stay: instructions and maps refer to them.
    assert all(old.name == new.name for old, new in zip(BTF.from_bytes(blob()), btf, strict=False))


# --- the kernel's configuration -----------------------------------------------------------------------------


def extern(name: str, type: t.Type, size: int, *, weak: bool = False) -> ExternSpec:
    return ExternSpec(name, ".kconfig", type, is_weak=weak, size=size)


def test_kconfig_values(monkeypatch: pytest.MonkeyPatch) -> None:
    number = BTF.from_bytes(blob()).type(1)
    monkeypatch.setattr(
        kconfig, "read_config", lambda: {"CONFIG_HZ": "250", "CONFIG_B": "y", "CONFIG_S": '"x"'}
    )
    assert kconfig.fill([extern("CONFIG_HZ", number, 4)], 4) == (250).to_bytes(4, "little")
    assert kconfig.fill([extern("CONFIG_NONE", number, 4, weak=True)], 4) == bytes(4)
    for name, message in (
        ("CONFIG_NONE", "has no value on this kernel"),
        ("CONFIG_B", "is 'y', which int cannot hold"),
        ("CONFIG_S", 'is "x", which int cannot hold'),
        ("LINUX_UNKNOWN", "has no value"),
    ):
        with pytest.raises(RelocationError, match=message):
            kconfig.fill([extern(name, number, 4)], 4)
