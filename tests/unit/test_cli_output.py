"""Numbers for people, tables, JSON of values, rows of entries."""

from __future__ import annotations

import json
import struct
import sys
from datetime import datetime

import pytest

from ebpf.btf.builder import BTFBuilder, MemberSpec
from ebpf.btf.structvalue import enum_class, make_struct, struct_class
from ebpf.btf.values import codec
from ebpf.cli import entries, human, output, terminal, typed
from ebpf.cli.entries import Entry
from ebpf.cli.output import Cell, Column
from ebpf.maps.percpu import PerCpu


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1500, "1.5 us"),
        (999_999, "1.0 ms"),
        (12_345_678, "12.3 ms"),
        (59.9e9, "59.9 s"),
        (60e9, "1 min 0 s"),
        (3725e9, "1 h 2 min"),
        (90000e9, "1 d 1 h"),
    ],
)
def test_durations(nanoseconds: float, text: str) -> None:
    assert human.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0, "0"), (0.5, "0.5"), (99.95, "100"), (1234.4, "1234"), (1e6, "1.00M"), (2.5e9, "2.50G")],
)
def test_rates(per_second: float, text: str) -> None:
    assert human.rate(per_second) == text


def test_times_are_local_and_iso() -> None:
    assert datetime.fromisoformat(human.iso(1.5)).timestamp() == 1.5
    assert human.timestamp(86400 * 365) == datetime.fromtimestamp(86400 * 365).isoformat(sep=" ")


def test_counts() -> None:
    assert [human.count(n, "map") for n in (0, 1, 2)] == ["no maps", "1 map", "2 maps"]
    assert human.count(2, "entry", "entries") == "2 entries"


def test_plain_tables_keep_all_data(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        Column("id", right=True),
        Column("name", optional=True, below=True),
        Column("x", optional=True),
    ]
    output.print_table(columns, [("1", "x" * 300, "-"), ("1000", Cell("y", "bold"), "-")])
    assert (
        capsys.readouterr().out == f"  id  name{' ' * 296}  x\n   1  {'x' * 300}  -\n1000  y{' ' * 299}  -\n"
    )


def mark(text: str, style: str) -> str:
    return f"<{style}>{text}</>" if style else text


def test_what_does_not_fit_moves_below_its_row() -> None:
    columns = [Column("id", "cyan", right=True), Column("name"), Column("pinned", below=True)]
    rows = [("1", "a", "/sys/fs/bpf/a"), ("10", "b", "-")]
    assert list(output.table_lines(columns, rows, mark, 25)) == [
        "<bold>id</>  <bold>name</>  <bold>pinned</>",
        "<dim>───────────────────────</>",
        " <cyan>1</>  a     /sys/fs/bpf/a",
        "<cyan>10</>  b     -",
    ]
    assert list(output.table_lines(columns, rows, mark, 20)) == [
        "<bold>id</>  <bold>name</>",
        "<dim>────────</>",
        " <cyan>1</>  a",
        "<dim>    pinned: /sys/fs/bpf/a</>",
        "<cyan>10</>  b",
    ]
    # What cannot move is not cut either: the terminal wraps the line.
    assert " <cyan>1</>  a" in output.table_lines(columns, rows, mark, 5)


def test_optional_columns_vanish_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebpf.cli.terminal.is_terminal", lambda stream: True)
    monkeypatch.setenv("NO_COLOR", "1")
    output.print_table([Column("id"), Column("links", optional=True)], [("1", "-")])
    assert capsys.readouterr().out == "id\n──\n1\n"


def test_an_empty_table_is_a_note_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([Column("id")], [], empty="no maps")
    assert capsys.readouterr() == ("", "no maps\n")


def test_fields_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields([("id", "1"), ("nothing", ""), ("longer", Cell("x", "bold"))])
    assert capsys.readouterr().out == "id      1\nlonger  x\n"


Protocol = enum_class("protocol", ((3, "TCP"), (4, "UDP")))
FLOW = struct_class("flow", ("protocol", "port"))
COUNTER = struct_class("counter", ("packets", "port"))


def flow(protocol: int, port: int) -> object:
    return make_struct(FLOW, (Protocol(protocol), port))


def counter(packets: int) -> object:
    return make_struct(COUNTER, (packets, 1))


def test_a_column_for_each_field() -> None:
    found = [Entry(flow(4, 53), counter(7)), Entry(flow(9, 80), counter(8))]
    columns, rows = entries.columns_and_rows(found)
    assert [(column.title, column.right) for column in columns] == [
        ("protocol", False),
        ("port", True),
        ("packets", True),
        ("value.port", True),
    ]
    assert rows == [["UDP", "53", "7", "1"], ["9", "80", "8", "1"]]


def test_entries_per_cpu() -> None:
    entry = entries.make_entry(flow(3, 1), PerCpu([counter(2), counter(3)]))
    assert entry.value["packets"] == 5
    columns, rows = entries.columns_and_rows([entry], each_cpu=True)
    assert [column.title for column in columns] == ["protocol", "port", "cpu", "packets", "value.port"]
    assert rows == [["TCP", "1", "0", "2", "1"], ["TCP", "1", "1", "3", "1"]]
    assert json.loads(output.dump(entries.entry_json(entry))) == {
        "key": {"protocol": "TCP", "port": 1},
        "value": {"packets": 5, "port": 2},
        "per_cpu": [{"packets": 2, "port": 1}, {"packets": 3, "port": 1}],
    }


def test_what_has_no_sum_is_shown_per_cpu() -> None:
    entry = entries.make_entry(1, PerCpu(["a", "b"]))
    assert entry.value is None
    assert entries.columns_and_rows([entry])[1] == [["1", "0", "a"], ["1", "1", "b"]]
    assert entries.entry_json(entry) == {"key": 1, "value": None, "per_cpu": ["a", "b"]}


def test_values_without_parts() -> None:
    columns, rows = entries.columns_and_rows([Entry(1, True), Entry(2, False)])
    assert [column.title for column in columns] == ["key", "value"]
    assert rows == [["1", "true"], ["2", "false"]]


def test_nested_values_have_paths() -> None:
    inner = make_struct(struct_class("inner", ("a",)), (1,))
    outer = make_struct(struct_class("outer", ("x", "y")), (inner, (1, 2)))
    assert entries.flatten(outer, "value") == {"x.a": 1, "y": (1, 2)}
    assert entries.text((1, 2)) == "[1 2]"
    assert entries.text(tuple(range(20))).endswith(" … 4 more]")
    assert entries.text(b"\x0a\x0b") == "0a 0b"


def test_long_messages_are_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "error: a message that is long\n    source(line, that, is, long, too);"
    assert terminal.wrapped(text, sys.stderr) == text
    monkeypatch.setattr("ebpf.cli.terminal.is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "20")
    assert terminal.wrapped(text, sys.stderr) == (
        "error: a message\n  that is long\n    source(line, that, is, long, too);"
    )


def test_a_terminal_obeys_nothing_that_comes_from_a_program() -> None:
    assert entries.text("ä\x1b[2J\n") == r"ä\x1b[2J\n"


def test_what_reads_better_than_its_number() -> None:
    builder = BTFBuilder()
    u8 = builder.add_int("unsigned char", 1)
    u16, u32 = builder.add_int("unsigned short", 2), builder.add_int("unsigned int", 4)
    be16, be32 = builder.add_typedef("__be16", u16), builder.add_typedef("__be32", u32)
    mac = builder.add_array(u8, 6, u32)
    both = [MemberSpec("saddr", be32, 0), MemberSpec("daddr", builder.add_qualifier("const", be32), 32)]
    inner = builder.add_struct("ends", 8, both)
    anonymous = builder.add_struct("", 8, both)
    rest = [MemberSpec("port", be16, 128), MemberSpec("mac", mac, 144), MemberSpec("n", u32, 192)]
    members = [MemberSpec("ends", inner, 0), MemberSpec("", anonymous, 64), *rest]
    outer = builder.add_struct("flow", 28, members)
    type = builder.build().type(outer)
    data = bytes([10, 0, 0, 1, 10, 0, 0, 2] * 2 + [0, 80, 2, 0, 0, 0, 0, 1]) + struct.pack("=I", 7)
    value = codec(type).decode(data)
    assert entries.flatten(value, "key", typed.formats(type, "key")) == {
        "ends.saddr": "10.0.0.1",
        "ends.daddr": "10.0.0.2",
        "saddr": "10.0.0.1",
        "daddr": "10.0.0.2",
        "port": 80,
        "mac": "02:00:00:00:00:01",
        "n": 7,
    }
    assert typed.declaration(type) == (
        "struct flow {\n    struct ends ends;\n"
        "    struct {\n        __be32 saddr;\n        const __be32 daddr;\n    };\n"
        "    __be16 port;\n    unsigned char mac[6];\n    unsigned int n;\n};"
    )
    (form,) = typed.formats(builder.build().type(be32), "value").values()
    assert form(0x7F000001) == "127.0.0.1"
