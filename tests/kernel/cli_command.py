"""The real command in subprocesses: what the tests of the command line share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ebpf.lab import Lab

EBPF = [sys.executable, "-m", "ebpf"]
#: Nobody, but able to read the interpreter wherever it is installed.
NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
]

COUNTER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow { __u32 saddr; __u16 dport; };
struct stat { __u64 packets; __u64 bytes; };
struct prefix { __u32 length; __u8 address[4]; };
enum level { LOW, HIGH };

struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, struct flow); __type(value, struct stat);
         __uint(max_entries, 16); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u64);
         __uint(max_entries, 4); } counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __type(key, struct prefix); __type(value, enum level);
         __uint(max_entries, 16); __uint(map_flags, BPF_F_NO_PREALLOC); } routes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __type(key, __u32); __type(value, __u32);
         __uint(max_entries, 2); } tails SEC(".maps");

const volatile __u32 step = 1;
__u64 seen;

SEC("xdp")
int cli_counter(struct xdp_md *ctx)
{
    __u32 key = XDP_PASS;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    if (count)
        *count += step;
    seen += 1;
    bpf_map_lookup_elem(&flows, &key);
    bpf_map_lookup_elem(&routes, &key);
    bpf_tail_call(ctx, &tails, 1);
    bpf_printk("cli %d", ctx->data_end - ctx->data);
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""
REFUSED = COUNTER.replace("seen += 1;", "seen += *(char *)(long)ctx->data;")


class Outcome:
    """What a command gave."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Cli:
    """The command in the network namespace of the lab's server, with the lab's own bpffs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.environment = {
            **os.environ,
            "EBPF_BPFFS": str(lab.bpffs),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "PYTHONWARNINGS": "error::ResourceWarning",
        }

    def __call__(
        self, *arguments: str | Path, code: int = 0, host: str = "server", before: Sequence[str] = ()
    ) -> Outcome:
        with self.lab[host].entered():
            outcome = Outcome(
                subprocess.run(
                    [*before, *EBPF, *map(str, arguments)],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    env=self.environment,
                    cwd=self.folder,
                )
            )
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.err
        assert "\x1b" not in outcome.out + outcome.err, "colour in a pipe"
        return outcome

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        with self.lab["server"].entered():
            process = subprocess.Popen(
                [*EBPF, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment,
                cwd=self.folder,
            )
        try:
            with process:
                yield process
        finally:
            process.kill()

    def attached(self) -> list[dict[str, Any]]:
        """What is on the server's interfaces."""
        found = self("xdp", "status", "--json").json
        return [each for each in found if each["namespace"]["is_current"]]

    def ping(self, count: int = 3) -> None:
        assert self.lab["client"].ping(self.lab["server"].address, count=count).received == count


def events(text: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, text.splitlines()) if event["event"] == kind]


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"the command ended: {process.stderr and process.stderr.read()}")


def write_sources(folder: Path) -> Path:
    """The C files of these tests."""
    (folder / "counter.bpf.c").write_text(COUNTER)
    (folder / "refused.bpf.c").write_text(REFUSED)
    (folder / "bad.bpf.c").write_text(COUNTER.replace("return XDP_PASS;", "return XDP_PASSED;"))
    as_socket = COUNTER.replace('SEC("xdp")', 'SEC("socket")').replace("xdp_md", "__sk_buff")
    (folder / "socket.bpf.c").write_text(as_socket)
    return folder
