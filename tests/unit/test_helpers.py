"""The helper table: consistent in itself, and with the headers that are installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from ebpf.isa.helpers import HELPERS, by_id, by_name
from ebpf.uapi import ProgramType

LIBBPF = Path("/usr/include/bpf/bpf_helper_defs.h")
#: Lengths and offsets grew from 32 to 64 bits after they were first declared.
WIDENED = {"dynptr_from_mem", "dynptr_read", "dynptr_write", "dynptr_data"}


def release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def test_the_table_is_closed_at_211() -> None:
    assert [helper.id for helper in HELPERS] == list(range(1, 212))
    assert len({helper.name for helper in HELPERS}) == 211


def test_lookups() -> None:
    assert by_id(1) is by_name("map_lookup_elem") is by_name("bpf_map_lookup_elem") is HELPERS[0]
    assert by_id(0) is None
    assert by_id(212) is None
    assert by_id(-1) is None
    assert by_name("map_lookup_elm") is None


@pytest.mark.parametrize(
    ("name", "prototype"),
    [
        ("ktime_get_ns", "__u64 bpf_ktime_get_ns(void)"),
        ("map_lookup_elem", "void *bpf_map_lookup_elem(void *map, const void *key)"),
        ("trace_printk", "long bpf_trace_printk(const char *fmt, __u32 fmt_size, ...)"),
        ("skc_to_tcp_sock", "struct tcp_sock *bpf_skc_to_tcp_sock(void *sk)"),
    ],
)
def test_prototype(name: str, prototype: str) -> None:
    helper = by_name(name)
    assert helper is not None
    assert helper.prototype == prototype


def test_parameters_are_taken_apart() -> None:
    helper = by_name("strtoul")
    assert helper is not None
    assert helper.returns == "long"
    assert helper.parameters == (
        ("const char *", "buf"),
        ("unsigned long", "buf_len"),
        ("__u64", "flags"),
        ("unsigned long *", "res"),
    )


def test_program_types_are_known_and_never_empty() -> None:
    known = {type.name for type in ProgramType}
    for helper in HELPERS:
        assert helper.program_types, helper.name
        assert helper.program_types <= known, helper.name


def test_releases_follow_the_numbers() -> None:
    # Numbers are given out as patches are merged, so that they hardly ever go back.
    releases = [release(helper.since) for helper in HELPERS]
    assert releases == sorted(releases)


def test_a_helper_is_no_older_than_a_type_that_has_it_alone() -> None:
    for helper in HELPERS:
        if len(helper.program_types) == 1:
            (type,) = helper.program_types
            assert release(helper.since) >= release(ProgramType[type].since), helper.name


def test_summaries_are_one_line() -> None:
    for helper in HELPERS:
        assert helper.summary.endswith("."), helper.name
        assert "\n" not in helper.summary and len(helper.summary) <= 110, helper.name


def _plain(ctype: str) -> str:
    """A type without `const`, which newer headers add here and there."""
    return re.sub(r"\bconst ", "", ctype).replace(" *", "*")


@pytest.mark.skipif(not LIBBPF.exists(), reason="SKIPPED: needs libbpf's headers at /usr/include/bpf")
def test_prototypes_agree_with_libbpf() -> None:
    text = LIBBPF.read_text()
    pattern = r"^static ([^(]+)\(\*(?: const )?bpf_(\w+)\)\((.*)\) = \(void \*\) (\d+);"
    declared = re.findall(pattern, text, flags=re.MULTILINE)
    assert len(declared) > 200
    for returns, name, parameters, number in declared:
        helper = by_id(int(number))
        assert helper is not None and helper.name == name
        assert _plain(helper.returns) == _plain(returns.strip())
        ours = [_plain(ctype) for ctype, _ in helper.parameters]
        theirs = [] if parameters == "void" else parameters.split(", ")
        theirs = [_plain(re.sub(r"\w+$", "", each).strip()) for each in theirs]
        if name in WIDENED:
            theirs = [ctype.replace("__u32", "__u64") for ctype in theirs]
        assert ours == theirs, name


@pytest.mark.skipif(find_spec("ziglang") is None, reason="SKIPPED: needs the ziglang wheel, for linux/bpf.h")
def test_names_agree_with_the_uapi_header() -> None:
    spec = find_spec("ziglang")
    assert spec is not None and spec.submodule_search_locations
    header = Path(spec.submodule_search_locations[0]) / "lib/libc/include/any-linux-any/linux/bpf.h"
    found = re.findall(r"\tFN\((\w+), (\d+), ##ctx\)", header.read_text())
    assert [(int(number), name) for name, number in found][1:] == [(each.id, each.name) for each in HELPERS]
