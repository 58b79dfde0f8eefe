"""BTF of the running kernel against bpftool, compilers, and the kernel's own verifier."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ebpf.btf import types as t
from ebpf.btf.btf import BTF
from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.btf.c import to_c
from ebpf.btf.cnames import Names, identifier
from ebpf.btf.index import TypeIndex
from ebpf.btf.layout import bit_field, fields, size_of
from ebpf.btf.types import Linkage
from ebpf.btf.values import codec
from ebpf.kernel import bpf

pytestmark = pytest.mark.kernel

VMLINUX = Path("/sys/kernel/btf/vmlinux")
CLANG = next(filter(None, map(shutil.which, ["clang", *(f"clang-{n}" for n in range(25, 11, -1))])), None)
BPFTOOL = shutil.which("bpftool") or shutil.which("/usr/sbin/bpftool")
needs_bpftool = pytest.mark.skipif(BPFTOOL is None, reason="needs bpftool, to compare with")


@pytest.fixture(scope="module")
def vmlinux() -> BTF:
    if not VMLINUX.exists():
        pytest.skip("needs a kernel with CONFIG_DEBUG_INFO_BTF")
    return BTF.from_bytes(VMLINUX.read_bytes())


@pytest.fixture(scope="module")
def dump(vmlinux: BTF) -> list[dict[str, Any]]:
    """What bpftool says of every type."""
    assert BPFTOOL is not None
    done = subprocess.run(
        [BPFTOOL, "-j", "btf", "dump", "file", str(VMLINUX)], capture_output=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["types"]
    return found


@needs_bpftool
def test_every_type_is_the_same(vmlinux: BTF, dump: list[dict[str, Any]]) -> None:
    assert len(dump) == len(vmlinux)
    assert Counter(entry["kind"] for entry in dump) == Counter(
        vmlinux.kind(id).name for id in range(1, vmlinux.end_id)
    )
    chosen = random.Random(1).sample(dump, 15_000)
    for entry in chosen:
        compare(vmlinux.type(entry["id"]), entry)


def compare(type: t.Type, entry: dict[str, Any]) -> None:
    name = entry["name"]
    assert type.name == ("" if name == "(anon)" else name)
    match type:
        case t.Int():
            assert (type.size, type.bits, type.bit_offset) == (
                entry["size"],
                entry["nr_bits"],
                entry["bits_offset"],
            )
            assert type.signed == (entry["encoding"] == "SIGNED")
            assert type.is_bool == (entry["encoding"] == "BOOL")
        case t.Array():
            assert (type.element_id, type.index_id, type.length) == (
                entry["type_id"],
                entry["index_type_id"],
                entry["nr_elems"],
            )
        case t.Composite():
            assert type.size == entry["size"]
            assert [(m.name, m.type_id, m.bit_offset, m.bit_size) for m in type.members] == [
                (
                    "" if m["name"] == "(anon)" else m["name"],
                    m["type_id"],
                    m["bits_offset"],
                    m.get("bitfield_size", 0),
                )
                for m in entry.get("members", [])
            ]
        case t.Enum():
            assert type.size == entry["size"]
            # bpftool's JSON extends the sign of unsigned 32-bit values.
            bits = (1 << 64 if type.is_wide or type.signed else 1 << 32) - 1
            assert [(m.name, m.value & bits) for m in type.members] == [
                (m["name"], m["val"] & bits) for m in entry["values"]
            ]
        case t.FunctionProto():
            given = [(p.name or "(anon)", p.type_id) for p in type.parameters]
            if type.is_variadic:
                given.append(("(anon)", 0))
            assert given == [(p["name"], p["type_id"]) for p in entry["params"]]
            assert type.return_id == entry["ret_type_id"]
        case t.Forward():
            assert type.is_union == (entry["fwd_kind"] == "union")
        case t.DeclTag():
            assert (type.target_id, type.component) == (entry["type_id"], entry["component_idx"])
        case t.DataSection():
            assert [(e.type_id, e.offset, e.size) for e in type.entries] == [
                (v["type_id"], v["offset"], v["size"]) for v in entry["vars"]
            ]
        case t.Float():
            assert type.size == entry["size"]
        case t.Function() | t.Variable():
            assert type.target_id == entry["type_id"]
            assert type.linkage.name.lower() == entry["linkage"]
        case t.Reference():
            assert type.target_id == entry["type_id"]


def test_lookup(vmlinux: BTF, tmp_path: Path) -> None:
    fresh = BTF.from_bytes(vmlinux.to_bytes())
    names = ["task_struct", "sk_buff", "list_head", "key", "__u32", "xdp_md"]
    searched = [[type.id for type in fresh.find_all(name)] for name in names]
    fresh.name_index.save(tmp_path / "index", b"vmlinux")
    indexed = BTF.from_bytes(vmlinux.to_bytes(), index=TypeIndex.load(tmp_path / "index", b"vmlinux"))
    assert [[type.id for type in indexed.find_all(name)] for name in names] == searched
    assert all(searched)
    by_name = Counter(type.name for type in vmlinux.of_kind(t.Struct) if type.name)
    for name, count in random.Random(2).sample(sorted(by_name.items()), 300):
        assert len(indexed.find_all(name, t.Struct)) == count


def test_every_type_has_a_name_and_a_codec(vmlinux: BTF) -> None:
    failed = []
    for type in random.Random(3).sample(list(vmlinux.of_kind(t.Struct, t.Union)), 1500):
        assert str(type)
        how = codec(type)
        assert how.size == size_of(type)
        if how.size < 4096:
            data = random.Random(type.id).randbytes(how.size)
            if how.encode(how.decode(data)) != data:
                failed.append(str(type))
    assert not failed


@pytest.mark.skipif(CLANG is None, reason="needs clang, to compile vmlinux.h")
def test_vmlinux_h_has_the_layout_of_the_kernel(vmlinux: BTF, tmp_path: Path) -> None:
    """Every member of every named struct is where BTF says, for clang's BPF target and for gcc."""
    header = to_c(vmlinux)
    names, lines = Names(vmlinux), ['#include "vmlinux.h"']
    for type in vmlinux.of_kind(t.Struct, t.Union):
        if not type.name:
            continue
        name = f"{'union' if isinstance(type, t.Union) else 'struct'} {names.of(type)}"
        lines.append(f'_Static_assert(sizeof({name}) == {type.size}, "{name}");')
        lines += [
            f'_Static_assert(__builtin_offsetof({name}, {identifier(field)}) == {bit // 8}, "{name}");'
            for field, member, bit in fields(type)
            if bit_field(member) is None
        ]
    assert len(lines) > 10_000
    (tmp_path / "vmlinux.h").write_text(header)
    (tmp_path / "x.c").write_text("\n".join(lines) + "\n")
    assert CLANG is not None
    compilers = [[CLANG, "-target", "bpf", "-Werror"]]
    if gcc := shutil.which("gcc"):
        compilers.append([gcc, "-w"])
    for compiler in compilers:
        done = subprocess.run(
            [*compiler, "-fsyntax-only", "x.c"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[:3000]


@needs_bpftool
@pytest.mark.parametrize("name", ["task_struct", "xdp_md", "bpf_iter_num"])
def test_members_as_bpftool_writes_them(vmlinux: BTF, name: str) -> None:
    assert BPFTOOL is not None
    command = [BPFTOOL, "btf", "dump", "file", str(VMLINUX), "format", "c"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def members(text: str) -> list[str]:
        part = text.split(f"\nstruct {name} {{\n", 1)[1].split("\n}", 1)[0]
        return [line.strip() for line in part.splitlines() if line.strip()]

    def words(lines: list[str]) -> list[str]:
        # Padding and the space before bit-fields are matters of taste.
        kept = (
            line.replace(": ", ":")
            for line in lines
            if not line.startswith(("long:", "int:", "short:", "char:"))
        )
        return [line for line in kept if not line.startswith(("long :", "int :"))]

    assert words(members(to_c(vmlinux, root=name))) == words(members(text))


def load(data: bytes) -> None:
    log = bytearray(1 << 16)
    try:
        fd = bpf.btf_load(data, log_level=1, log=log)
    except OSError:
        pytest.fail(log.rstrip(b"\0").decode())
    os.close(fd)


def test_kernel_takes_what_is_built() -> None:
    b = BTFBuilder()
    integer = b.add_int("int", 4, signed=True)
    b.add_struct("flow", 16, [MemberSpec("a", integer, 0, 3), MemberSpec("next", 3, 64)])
    pointer = b.add_pointer(2)
    b.add_union("either", 4, [MemberSpec("number", integer, 0)])
    b.add_enum("color", {"RED": -1, "GREEN": 2})
    b.add_enum("mask", {"ALL": (1 << 64) - 1}, size=8)
    b.add_forward("opaque")
    typedef = b.add_typedef("flow_t", 2)
    b.add_float("double", 8)
    proto = b.add_function_proto(integer, [("flow", pointer)])
    function = b.add_function("run", proto)
    b.add_decl_tag("hot", function, component=0)
    b.add_decl_tag("cold", typedef)
    b.add_pointer(b.add_type_tag("rcu", b.add_qualifier("const", integer)))
    array = b.add_array(integer, 4, integer)
    variable = b.add_variable("counters", array, linkage=Linkage.STATIC)
    section = b.add_section(".bss", 0, [(variable, 0, 0)])
    b.patch_section(section, 16, {variable: (0, 16)})
    load(b.to_bytes())


def test_kernel_takes_what_is_copied(vmlinux: BTF) -> None:
    b = BTFBuilder()
    ids = b.copy([vmlinux.find("xdp_md", t.Struct), vmlinux.find("list_head", t.Struct)])
    data = b.to_bytes()
    load(data)
    made = BTF.from_bytes(data)
    assert [m.name for m in made.find("xdp_md", t.Struct).members][:2] == ["data", "data_end"]
    assert made.type(ids[vmlinux.find("list_head", t.Struct).id]).name == "list_head"
