"""What to do about the compile errors that people meet most."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from ebpf.errors import Diagnostic
from ebpf.isa.helpers import HELPERS, by_name

LINUX_HEADERS = (
    "the kernel's UAPI headers are missing: `apt install linux-libc-dev` (Debian, Ubuntu), "
    "`dnf install kernel-headers` (Fedora), or `pip install ziglang`, which brings them along"
)
_LIBC_HEADERS = (
    "that header is of the C library: `apt install libc6-dev` or `dnf install glibc-devel`; "
    "programs in the kernel rarely need it, and linux/types.h gives the integer types"
)
_TYPES = 'write `#include <linux/bpf.h>` or `#include "vmlinux.h"` above the first <bpf/…> header'
_STACK = (
    "a BPF program has 512 bytes of stack: keep large variables in a per-CPU array map with one entry, "
    "or in a global variable"
)
_ARGUMENTS = "BPF functions take at most five arguments: pass a pointer to a struct"

#: Names, by a pattern, and the header that they come from.
_HOMES = (
    (r"bpf_(hton|ntoh)[sl]|bpf_cpu_to_be64|bpf_be64_to_cpu", "bpf/bpf_endian.h"),
    (r"(BPF_CORE_|BPF_PROBE_|bpf_core_)\w+", "bpf/bpf_core_read.h"),
    (r"PT_REGS_\w+|BPF_[KU](RET)?PROBE|BPF_KSYSCALL|BPF_KPROBE_SYSCALL|BPF_PROG2?", "bpf/bpf_tracing.h"),
    (r"SEC|bpf_printk|bpf_for|bpf_for_each|bpf_repeat|__uint|__type|__ulong", "bpf/bpf_helpers.h"),
    (r"BPF_SNPRINTF|BPF_SEQ_PRINTF|bpf_tail_call_static", "bpf/bpf_helpers.h"),
    (r"TC_ACT_\w+", "linux/pkt_cls.h"),
    (r"XDP_\w+|BPF_\w+|__sk_buff|xdp_md", "linux/bpf.h"),
)
_MACRO = (
    "vmlinux.h holds types but no macros: write `#define {0} …` in your program, "
    "or include the header that has it"
)


def hint_for(error: Diagnostic) -> str | None:
    """What to do about an error, where that is known."""
    for pattern, advise in _RULES:
        if match := re.search(pattern, error.message):
            advice = advise(match) if callable(advise) else advise
            if advice:
                return advice
    if re.search(r"^\s*(\d+ \|)?\s*SEC\(", error.excerpt):
        return "SEC() is defined in <bpf/bpf_helpers.h>: include it"
    return None


def _missing_header(match: re.Match[str]) -> str | None:
    name = match[1]
    if name.startswith(("linux/", "asm/", "asm-generic/")):
        return LINUX_HEADERS
    if name == "bpf/usdt.bpf.h":
        return "usdt.bpf.h comes with libbpf: `apt install libbpf-dev` or `dnf install libbpf-devel`"
    if name.startswith("bpf/"):
        return "the headers here are bpf_helpers.h, bpf_endian.h, bpf_tracing.h, bpf_core_read.h"
    if name.startswith("xdp/"):
        return "that header comes with libxdp: `apt install libxdp-dev` or `dnf install libxdp-devel`"
    if name.startswith("bits/") or name in ("gnu/stubs-32.h", "stdint.h", "stdio.h", "stdlib.h", "string.h"):
        return _LIBC_HEADERS
    return f"tell where {name!r} lies, with include=[…] or -I"


def _undeclared(match: re.Match[str]) -> str | None:
    name = match[1]
    for pattern, header in _HOMES:
        if re.fullmatch(pattern, name):
            return f"{name} is defined in <{header}>: include it"
    if name == "printf" or name == "printk":
        return "there is no C library inside the kernel: bpf_printk() writes to the trace pipe"
    if not name.startswith("bpf_"):
        return None
    if by_name(name):
        return f"{name} is declared in <bpf/bpf_helpers.h>: include it"
    close = get_close_matches(name, [f"bpf_{helper.name}" for helper in HELPERS], n=1, cutoff=0.75)
    if close:
        return f"there is no helper {name}; did you mean {close[0]}?"
    return f"{name} is no helper; a kernel function (kfunc) is declared as `extern … {name}(…) __ksym;`"


def _unknown_type(match: re.Match[str]) -> str | None:
    name = match[1]
    if re.fullmatch(r"__(u|s|be|le)\d+|__wsum", name):
        return _TYPES
    if re.fullmatch(r"[us](8|16|32|64)", name):
        return f"{name} comes with vmlinux.h; with the UAPI headers, write __{name}"
    return _undeclared(match)


def _undeclared_macro(match: re.Match[str]) -> str | None:
    name = match[1]
    advice = _undeclared(match)
    if advice is None and name.isupper():
        return _MACRO.format(name)
    return advice


def _libcall(match: re.Match[str]) -> str:
    name = match[1]
    if name in ("memcpy", "memset", "memmove", "memcmp"):
        return (
            f"there is no {name} inside the kernel: its size must be a constant, and small enough to unroll"
        )
    return f"there is no {name} inside the kernel: BPF has no such instruction, and nothing to call instead"


_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str | None]], ...] = (
    (r"'([^']+)' file not found", _missing_header),
    (r"[Cc]all to undeclared function '(\w+)'", _undeclared),
    (r"implicit declaration of function '(\w+)'", _undeclared),
    (r"unknown type name '(\w+)'", _unknown_type),
    (r"use of undeclared identifier '(\w+)'", _undeclared_macro),
    (r"incomplete (?:definition of )?type 'struct (\w+)'", _undeclared),
    (r"[Cc]all to built-in function '(\w+)'", _libcall),
    (r"BPF stack limit|stack frame size .* exceeds", _STACK),
    (r"stack arguments are not supported|too many arg|exceeds? .*5 arg", _ARGUMENTS),
    (
        r"unsupported signed division",
        'signed division needs BPF v4 (Linux 6.6): divide unsigned numbers, or compile with cpu="v4"',
    ),
    (
        r"redefinition of|redeclared as|previous definition",
        "vmlinux.h holds all of the kernel's types: include either it or the linux/*.h headers, not both",
    ),
)
