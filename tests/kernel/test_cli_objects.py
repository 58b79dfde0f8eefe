"""The command line: xdp, load, prog, link and map, on real interfaces of a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ebpf.lab import Lab

pytestmark = pytest.mark.kernel

EBPF = [sys.executable, "-m", "ebpf"]

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
    __u64 none = 0;
    __u64 *count = bpf_map_lookup_elem(&counts, &key);

    if (count)
        *count += step;
    seen += 1;
    bpf_map_lookup_elem(&flows, &none);
    bpf_map_lookup_elem(&routes, &none);
    bpf_tail_call(ctx, &tails, 1);
    bpf_printk("cli %d", ctx->data_end - ctx->data);
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""


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

    def attached(self) -> list[dict[str, Any]]:
        """What is on the server's interfaces."""
        found = self("xdp", "status", "--json").json
        return [each for each in found if each["namespace"]["is_current"]]

    def ping(self, count: int = 3) -> None:
        assert self.lab["client"].ping(self.lab["server"].address, count=count).received == count


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("client", "server") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "counter.bpf.c").write_text(COUNTER)
    return path


@pytest.fixture
def cli(lab: Lab, folder: Path) -> Cli:
    return Cli(lab, folder)


@pytest.fixture(scope="module")
def compiled(lab: Lab, folder: Path) -> Path:
    Cli(lab, folder)("compile", "counter.bpf.c", "-o", "counter.o")
    return folder / "counter.o"


@pytest.fixture
def loaded(cli: Cli, lab: Lab, compiled: Path) -> Iterator[Path]:
    """The object, pinned in a folder."""
    path = lab.bpffs / "counter"
    cli("load", compiled, path)
    yield path
    if path.exists():
        cli("unload", path)


# --- xdp --------------------------------------------------------------------------------------------


def test_attach_survives_and_detach_removes(cli: Cli, compiled: Path) -> None:
    (made,) = cli("xdp", "attach", compiled, "-i", "eth0", "--json").json
    assert set(made) == {"interface", "ifindex", "mode", "fallback", "program_id", "link_id", "pinned"}
    pin = Path(made["pinned"])
    inode = os.stat(f"/run/netns/{cli.lab['server'].namespace}").st_ino
    assert pin.parent == cli.lab.bpffs / "ebpf/xdp"
    assert pin.name == f"eth0-{inode}"
    (there,) = cli.attached()
    assert set(there) == {
        *("namespace", "interface", "ifindex", "mode", "program", "link_id", "held_by", "pinned")
    }
    assert there["pinned"] == [str(pin)]
    assert there["held_by"] == []
    cli.ping(2)
    # From another namespace it is seen with the name of its own.
    elsewhere = cli("xdp", "status", host="client").out
    assert cli.lab["server"].namespace in elsewhere
    assert "cli_counter" in elsewhere
    used = cli("prog", "show", str(made["program_id"]), "--json").json["maps"]
    (counts,) = [str(each["id"]) for each in used if each["name"] == "counts"]
    assert cli("map", "dump", counts, "--json").json[2]["value"] >= 2

    taken = cli("xdp", "detach", "eth0", "--json").json
    assert taken[0]["link_id"] == made["link_id"]
    assert cli.attached() == []
    assert not pin.exists()
    outcome = cli("xdp", "detach", "eth0", code=1)
    assert "no XDP program is attached there" in outcome.err


def test_attach_twice_names_who_is_there_and_replace_takes_over(cli: Cli, compiled: Path) -> None:
    cli("xdp", "attach", compiled, "-i", "eth0")
    before = cli.attached()[0]
    outcome = cli("xdp", "attach", compiled, "-i", "eth0", code=1)
    assert "'cli_counter'" in outcome.err
    assert "--replace" in outcome.err
    assert "ebpf xdp detach eth0" in outcome.err
    cli("xdp", "attach", compiled, "-i", "eth0", "--replace")
    after = cli.attached()[0]
    assert after["program"]["id"] != before["program"]["id"]
    told = cli("xdp", "detach", "--all").err
    assert "eth0: detached 'cli_counter'" in told
    assert cli.attached() == []


def test_a_pinned_program_can_be_attached(cli: Cli, loaded: Path) -> None:
    cli("xdp", "attach", loaded / "cli_counter", "-i", "eth0", "--mode", "generic")
    assert cli.attached()[0]["mode"] == "generic"
    outcome = cli("unload", loaded)
    assert "program " in outcome.err
    assert "is still in use" in outcome.err
    cli("xdp", "detach", "eth0", "--mode", "generic")


def test_what_ip_attached_is_detached(cli: Cli, compiled: Path, loaded: Path) -> None:
    cli.lab["server"].run(
        ["ip", "link", "set", "dev", "eth0", "xdpgeneric", "pinned", str(loaded / "cli_counter")], check=True
    )
    (there,) = cli.attached()
    assert (there["mode"], there["link_id"]) == ("generic", None)
    assert "generic" in cli("xdp", "detach", "eth0").err
    assert cli.attached() == []


def test_a_pin_whose_interface_is_gone_makes_room(cli: Cli, compiled: Path) -> None:
    host = cli.lab["server"]
    host.run(["ip", "link", "add", "tmp0", "type", "veth"], check=True)
    (made,) = cli("xdp", "attach", compiled, "-i", "tmp0", "--json").json
    host.run(["ip", "link", "del", "tmp0"], check=True)
    assert Path(made["pinned"]).exists()
    host.run(["ip", "link", "add", "tmp0", "type", "veth"], check=True)
    try:
        cli("xdp", "attach", compiled, "-i", "tmp0")
        cli("xdp", "detach", "tmp0")
    finally:
        host.run(["ip", "link", "del", "tmp0"], check=True)
    assert not list((cli.lab.bpffs / "ebpf/xdp").iterdir())


def test_a_fallback_to_generic_is_a_warning(cli: Cli, compiled: Path) -> None:
    outcome = cli("xdp", "attach", compiled, "-i", "lo")
    assert "warning: lo: generic mode, which is slower" in outcome.err
    outcome = cli("xdp", "attach", compiled, "-i", "lo", "--replace", "--mode", "native", code=1)
    assert "native" in outcome.err
    cli("xdp", "detach", "lo")


def test_usage_of_xdp_detach(cli: Cli) -> None:
    assert "name the interfaces, or give --all" in cli("xdp", "detach", code=2).err
    assert cli("xdp", "detach", "--all").err.startswith("no XDP program is attached")
    assert cli("xdp", "detach", "--all", "--json").json == []


# --- load, unload -----------------------------------------------------------------------------------


def test_load_pins_everything_and_unload_removes_it(cli: Cli, lab: Lab, compiled: Path) -> None:
    path = lab.bpffs / "deep/er"
    told = cli("load", compiled, path, "--json").json
    assert [each["name"] for each in told["programs"]] == ["cli_counter"]
    assert {Path(each["pinned"]).name for each in told["maps"]} >= {"flows", "counts", "counter_rodata"}
    assert all(Path(each["pinned"]).parent == path for each in told["programs"] + told["maps"])
    outcome = cli("load", compiled, path, code=1)
    assert "something is pinned" in outcome.err
    removed = cli("unload", path, "--json").json
    assert len(removed) == len(told["programs"]) + len(told["maps"])
    assert not any(each["in_kernel"] for each in removed)
    assert not path.exists()
    path.parent.rmdir()


def test_unload_touches_only_pins(cli: Cli, lab: Lab, folder: Path) -> None:
    assert "nothing is pinned" in cli("unload", lab.bpffs / "nothing", code=1).err
    assert "not in a BPF file system" in cli("unload", folder, code=1).err
    assert "the whole BPF file system" in cli("unload", lab.bpffs, code=1).err
    assert folder.is_dir()


def test_load_outside_of_a_bpffs_fails(cli: Cli, compiled: Path, folder: Path) -> None:
    assert "BPF file system" in cli("load", compiled, folder / "pins", code=1).err
    assert not (folder / "pins").exists()


# --- prog, link -------------------------------------------------------------------------------------

PROGRAM_KEYS = {
    *("id", "type", "name", "tag", "gpl_compatible", "loaded_at", "load_time_ns", "uid", "xlated_bytes"),
    *("jited_bytes", "memory_bytes", "verified_instructions", "map_ids", "link_ids", "btf_id", "ifindex"),
    *("run_time_ns", "run_count", "recursion_misses", "pinned"),
}


def test_prog_list_and_show(cli: Cli, loaded: Path) -> None:
    (listed,) = [
        each for each in cli("prog", "list", "--json").json if str(loaded / "cli_counter") in each["pinned"]
    ]
    assert set(listed) == PROGRAM_KEYS
    assert listed["type"] == "xdp"
    text = cli("prog", "list", "--type", "xdp").out
    assert text.splitlines()[0].split() == [
        "id",
        "type",
        "name",
        "maps",
        "links",
        "memory",
        "loaded",
        "pinned",
    ]
    assert f" {loaded / 'cli_counter'}\n" in text
    shown = [
        cli("prog", "show", name, "--json").json
        for name in (str(listed["id"]), listed["tag"], str(loaded / "cli_counter"))
    ]
    assert shown[0] == shown[1] == shown[2]
    assert set(shown[0]) == PROGRAM_KEYS | {"maps", "links", "held_by"}
    assert {"counts", "flows"} <= {each["name"] for each in shown[0]["maps"]}
    assert f"id        {listed['id']}\n" in cli("prog", "show", str(listed["id"])).out


def test_prog_that_is_not_there(cli: Cli, loaded: Path) -> None:
    assert "no program has the id 4294967295" in cli("prog", "show", "4294967295", code=1).err
    outcome = cli("prog", "show", "cli_countr", code=1)
    assert outcome.err.endswith("hint: did you mean 'cli_counter'?\n")
    assert "is a pinned map, not a program" in cli("prog", "show", loaded / "counts", code=1).err
    assert "nothing is pinned as" in cli("prog", "show", loaded / "nothing", code=1).err


def test_several_of_one_name_are_told_apart_by_id(cli: Cli, lab: Lab, loaded: Path, compiled: Path) -> None:
    other = lab.bpffs / "other"
    cli("load", compiled, other)
    try:
        outcome = cli("prog", "show", "cli_counter", code=1)
        assert "programs in the kernel are named 'cli_counter'" in outcome.err
        assert "say which one by its id: " in outcome.err
    finally:
        cli("unload", other)


def test_prog_disasm_shows_what_the_kernel_runs(cli: Cli, loaded: Path) -> None:
    told = cli("prog", "disasm", loaded / "cli_counter", "--json").json
    assert set(told) == {"id", "name", "type", "lines"}
    text = cli("prog", "disasm", loaded / "cli_counter").out
    assert "seen += 1;" in text
    assert text.rstrip().endswith("exit")


def test_prog_run(cli: Cli, loaded: Path) -> None:
    told = cli("prog", "run", loaded / "cli_counter", "--packet", "udp6", "--repeat", "5", "--json").json
    assert set(told) == {"name", "value", "action", "duration_ns", "repeat", "data"}
    assert (told["value"], told["action"]) == (2, "XDP_PASS")
    assert cli("map", "get", loaded / "counts", "2", "--json").json["value"] == 5
    assert "XDP_PASS (2)" in cli("prog", "run", loaded / "cli_counter", "--data", "00" * 14).out
    assert "14 are the least" in cli("prog", "run", loaded / "cli_counter", code=1).err
    assert "--data takes" in cli("prog", "run", loaded / "cli_counter", "--data", "0", code=1).err


def test_link_list(cli: Cli, compiled: Path) -> None:
    (made,) = cli("xdp", "attach", compiled, "-i", "eth0", "--json").json
    (listed,) = [each for each in cli("link", "list", "--json").json if each["id"] == made["link_id"]]
    assert set(listed) == {
        *("id", "type", "attach_type", "program", "ifindex", "interface", "namespace", "target", "details"),
        *("pinned", "held_by"),
    }
    assert (listed["type"], listed["interface"], listed["pinned"]) == ("xdp", "eth0", [made["pinned"]])
    assert "eth0, native" in cli("link", "list").out
    cli("xdp", "detach", "eth0")


# --- map --------------------------------------------------------------------------------------------


def test_map_list_and_show(cli: Cli, loaded: Path) -> None:
    (listed,) = [
        each for each in cli("map", "list", "--json").json if str(loaded / "flows") in each["pinned"]
    ]
    keys = {
        *("id", "type", "name", "key_bytes", "value_bytes", "max_entries", "flags", "frozen", "memory_bytes"),
        *("btf_id", "ifindex", "program_ids", "pinned"),
    }
    assert set(listed) == keys
    assert (listed["type"], listed["key_bytes"], listed["value_bytes"]) == ("hash", 8, 16)
    shown = cli("map", "show", str(listed["id"]), "--json").json
    assert set(shown) == keys | {"key_type", "value_type", "held_by"}
    text = cli("map", "show", loaded / "flows").out
    assert "key: struct flow {\n    __u32 saddr;\n    __u16 dport;\n};" in text
    assert f"{loaded / 'flows'}" in cli("map", "list").out


def test_map_entries_are_typed_both_ways(cli: Cli, loaded: Path) -> None:
    flows = loaded / "flows"
    assert cli("map", "dump", flows).err == "map flows is empty\n"
    told = cli("map", "set", flows, "saddr=10.0.0.1", "dport=be:80", "--", "packets=5", "--json", code=1)
    assert "--json" in told.err  # behind -- there are values only
    told = cli("map", "set", flows, "--json", "saddr=10.0.0.1", "dport=be:80", "--", "packets=5").json
    assert told == {
        "key": {"saddr": 0x0100000A, "dport": 0x5000},
        "value": {"packets": 5, "bytes": 0},
    }
    assert cli("map", "get", flows, "saddr=10.0.0.1", "dport=be:80", "--json").json == told
    cli("map", "set", flows, "1,2", "--", "3,4")
    assert cli("map", "dump", flows, "--json").json == [
        {"key": {"saddr": 1, "dport": 2}, "value": {"packets": 3, "bytes": 4}},
        told,
    ]
    assert [line.split() for line in cli("map", "dump", flows).out.splitlines()][:2] == [
        ["saddr", "dport", "packets", "bytes"],
        ["1", "2", "3", "4"],
    ]
    assert "is there already" in cli("map", "set", flows, "--only-new", "1,2", "--", "3,4", code=1).err
    cli("map", "set", flows, "--only-existing", "1,2", "--", "3,5")
    cli("map", "delete", flows, "saddr=1", "dport=2")
    assert (
        "map 'flows' has no entry saddr=1 dport=2"
        in cli("map", "delete", flows, "saddr=1", "dport=2", code=1).err
    )
    assert "has no entry" in cli("map", "get", flows, "1,2", code=1).err
    assert "has no entry" in cli("map", "set", flows, "--only-existing", "1,2", "--", "3,5", code=1).err


def test_map_values_that_do_not_fit_are_refused(cli: Cli, loaded: Path) -> None:
    flows = loaded / "flows"
    assert "saddr" in cli("map", "set", flows, "sadr=1", "--", "packets=1", code=1).err
    assert "65535" in cli("map", "set", flows, "dport=65536", "--", "packets=1", code=1).err
    assert "there is no value" in cli("map", "set", flows, "1,2", "--", code=2).err
    assert "Write -- before it" in cli("map", "set", flows, "saddr=1", "dport=2", "packets=1", code=2).err
    assert cli("map", "dump", flows, "--json").json == []


def test_per_cpu_maps_are_summed(cli: Cli, loaded: Path) -> None:
    counts = loaded / "counts"
    assert "CPUs" in cli("map", "set", counts, "1", "7").err
    found = cli("map", "dump", counts, "--json").json
    assert len(found) == 4
    assert set(found[1]) == {"key", "value", "per_cpu"}
    assert found[1]["value"] == sum(found[1]["per_cpu"]) == 7 * len(found[1]["per_cpu"])
    lines = cli("map", "dump", counts, "--per-cpu").out.splitlines()
    assert lines[0].split() == ["key", "cpu", "value"]
    assert len(lines) == 1 + 4 * len(found[1]["per_cpu"])
    assert "cannot be removed" in cli("map", "delete", counts, "1", code=1).err


def test_prefixes_and_enums(cli: Cli, loaded: Path) -> None:
    routes = loaded / "routes"
    cli("map", "set", routes, "10.1.0.0/16", "HIGH")
    found = cli("map", "get", routes, "10.1.2.3", "--json").json
    assert found["value"] == "HIGH"
    assert cli("map", "dump", routes, "--json").json == [
        {"key": {"length": 16, "address": [10, 1, 0, 0]}, "value": "HIGH"}
    ]
    assert cli("map", "dump", routes).out.split() == ["key", "value", "10.1.0.0/16", "HIGH"]
    assert "did you mean" in cli("map", "set", routes, "10.2.0.0/16", "HIHG", code=1).err


def test_program_arrays_take_programs(cli: Cli, loaded: Path) -> None:
    program = cli("prog", "show", loaded / "cli_counter", "--json").json["id"]
    cli("map", "set", loaded / "tails", "1", str(loaded / "cli_counter"))
    assert cli("map", "dump", loaded / "tails", "--json").json == [{"key": 1, "value": program}]
    cli("map", "delete", loaded / "tails", "1")


def test_variables_are_a_map_of_their_own(cli: Cli, loaded: Path) -> None:
    (entry,) = cli("map", "dump", loaded / "counter_rodata", "--json").json
    assert entry["value"]["step"] == 1
    assert "frozen" in cli("map", "set", loaded / "counter_rodata", "0", "--", "step=2", code=1).err


# --- pipes ------------------------------------------------------------------------------------------


def test_a_closed_pipe_ends_quietly(cli: Cli, loaded: Path) -> None:
    command = " ".join([*EBPF, "map", "dump", str(loaded / "counts"), "--per-cpu"])
    result = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout.strip() in ("0", "141")
    assert result.stderr == ""
