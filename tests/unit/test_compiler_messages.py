"""Reading the compiler's messages, and the hints for them."""

from __future__ import annotations

import pytest

from ebpf.compiler.diagnostics import parse
from ebpf.compiler.hints import hint_for
from ebpf.compiler.remedies import Remedies
from ebpf.errors import Diagnostic

OUTPUT = """\
In file included from a.bpf.c:1:
b.h:7:6: warning: unused variable 'x' [-Wunused-variable]
    7 |         int x;
      |             ^
a.bpf.c:9:9: error: use of undeclared identifier 'y'
        return y;
               ^
a.bpf.c:3:1: note: declared here
fatal error: too many errors emitted, stopping now [-ferror-limit=]
clang: error: no such file or directory: 'z'
1 warning and 2 errors generated.
"""


def test_messages_are_taken_apart() -> None:
    warning, error, note, limit, driver = parse(OUTPUT)
    assert warning[:5] == ("warning", "b.h", 7, 6, "unused variable 'x' [-Wunused-variable]")
    assert warning.excerpt.splitlines()[1].endswith("^")
    assert error[:4] == ("error", "a.bpf.c", 9, 9)
    assert error.excerpt == "        return y;\n               ^"
    assert note[:4] == ("note", "a.bpf.c", 3, 1) and note.excerpt == ""
    assert (limit.severity, limit.line) == ("error", 0)
    assert driver[:5] == ("error", "", 0, 0, "no such file or directory: 'z'")


def test_nothing_said_nothing_read() -> None:
    assert parse("") == ()
    assert parse("what is this\n") == ()


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("'asm/types.h' file not found", "apt install linux-libc-dev"),
        ("'linux/bpf.h' file not found", "pip install ziglang"),
        ("'bpf/usdt.bpf.h' file not found", "libbpf-dev"),
        ("'xdp/xdp_helpers.h' file not found", "libxdp-dev"),
        ("'gnu/stubs-32.h' file not found", "libc6-dev"),
        ("'mine.h' file not found", "include="),
        ("call to undeclared function 'bpf_map_lookup'; ISO C99 …", "did you mean bpf_map_lookup_elem"),
        ("implicit declaration of function 'bpf_redirect'", "<bpf/bpf_helpers.h>"),
        ("call to undeclared function 'bpf_cpumask_create'; ISO", "__ksym"),
        ("call to undeclared function 'bpf_htons'; ISO C99 …", "<bpf/bpf_endian.h>"),
        ("call to undeclared function 'BPF_CORE_READ'; ISO C99 …", "<bpf/bpf_core_read.h>"),
        ("call to undeclared function 'printf'; ISO C99 …", "bpf_printk"),
        ("use of undeclared identifier 'XDP_PASS'", "<linux/bpf.h>"),
        ("use of undeclared identifier 'TC_ACT_OK'", "<linux/pkt_cls.h>"),
        ("use of undeclared identifier 'ETH_P_IP'", "#define ETH_P_IP"),
        ("unknown type name '__u64'", "vmlinux.h"),
        ("unknown type name 'u32'", "__u32"),
        ("Looks like the BPF stack limit is exceeded. Please move …", "512 bytes"),
        ("A call to built-in function 'memcpy' is not supported.", "constant"),
        ("stack arguments are not supported", "five arguments"),
        ("unsupported signed division, please convert to unsigned div/mod.", "v4"),
        ("redefinition of 'xdp_md'", "not both"),
    ],
)
def test_hints(message: str, advice: str) -> None:
    hint = hint_for(Diagnostic("error", "a.c", 1, 1, message, ""))
    assert hint is not None and advice in hint


def test_sec_without_its_header() -> None:
    error = Diagnostic("error", "a.c", 1, 5, "expected parameter declarator", '    1 | SEC("xdp")\n')
    hint = hint_for(error)
    assert hint is not None and "bpf_helpers.h" in hint


def test_no_hint_is_made_up() -> None:
    assert hint_for(Diagnostic("error", "a.c", 1, 1, "expected ';' after expression", "")) is None


def test_each_remedy_is_tried_once(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "zig").touch()
    monkeypatch.setattr("ebpf.compiler.remedies.zig_directory", lambda: tmp_path)
    remedies = Remedies(tmp_path)
    missing = [Diagnostic("error", "a.c", 1, 1, "'linux/bpf.h' file not found", "")]
    assert remedies.find(missing)
    assert any("any-linux-any" in argument for argument in remedies.arguments)
    assert not remedies.find(missing)
    assert not remedies.find([missing[0]._replace(message="'other.h' file not found")])
    assert not remedies.find([missing[0]._replace(severity="warning")])
