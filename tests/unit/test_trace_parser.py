"""Parsing the trace: lines as kernels of different ages print them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpf.events.trace import Parser, TraceLine


def parse(text: str | bytes) -> list[TraceLine]:
    return Parser().feed(text.encode() if isinstance(text, str) else text)


def test_a_line_of_a_current_kernel() -> None:
    assert parse("          python-21043   [000] b..11  3243.478465: bpf_trace_printk: hello world\n") == [
        TraceLine("python", 21043, 0, "b..11", 3243.478465, "bpf_trace_printk", "hello world")
    ]


def test_a_line_of_an_older_kernel() -> None:
    """Flags of four characters; a function's address instead of the event's name (before 5.9)."""
    (line,) = parse("           <...>-1     [127] d.s.    17.000001: 0x00000001: x\n")
    assert line == TraceLine("<...>", 1, 127, "d.s.", 17.000001, "0x00000001", "x")


def test_thread_group_ids() -> None:
    (line,) = parse("         swapper-0       (-------) [001] ..s2.     1.5: bpf_trace_printk: x")
    assert (line.task, line.cpu, line.time) == ("swapper", 1, 1.5)
    (line,) = parse("            bash-1234    (   1234) [001] ..s2.     1.5: bpf_trace_printk: x")
    assert (line.task, line.pid) == ("bash", 1234)


def test_without_flags() -> None:
    """The irq-info option is off."""
    (line,) = parse("            bash-1234    [001]     1.5: bpf_trace_printk: x")
    assert (line.task, line.flags, line.time) == ("bash", "", 1.5)


def test_strange_commands() -> None:
    for task in ("a b-1 [000] x", "kworker/u8:1-ev", "-", "12-34", "a: b: c"):
        (line,) = parse(f"{task:>16}-77      [002] ...11     2.5: bpf_trace_printk: text")
        assert (line.task, line.pid, line.text) == (task, 77, "text")
    (line,) = parse(b"   \xff\xfe           -5       [002] ...11     2.5: f: \xff")
    assert (line.pid, line.text) == (5, "\N{REPLACEMENT CHARACTER}")


def test_text_is_kept_as_it_is() -> None:
    head = "            bash-1234    [001] ...11     1.5: bpf_trace_printk: "
    assert parse(head + "\n")[0].text == ""
    assert parse(head + "  a: b: c  \n")[0].text == "  a: b: c  "
    assert parse(head + "1.0: x-1 [000] ..... 2.0: y: z\n")[0].text == "1.0: x-1 [000] ..... 2.0: y: z"
    assert [line.text for line in parse(head + "one\ntwo\n\n" + head + "three\n")] == ["one\ntwo", "three"]


def test_lost_messages_are_told_with_the_next_line_of_that_cpu() -> None:
    parser = Parser()
    lines = parser.feed(
        b"CPU:1 [LOST 12 EVENTS]\n"
        b"            bash-1234    [000] ...11     1.0: bpf_trace_printk: other cpu\n"
        b"            bash-1234    [001] ...11     1.5: bpf_trace_printk: after\n"
        b"            bash-1234    [001] ...11     1.6: bpf_trace_printk: later\n"
        b"CPU:0 [LOST EVENTS]\n"
    )
    assert [line.lost for line in lines] == [0, 12, 0]
    assert parser.total_lost == 13  # one at least, where the kernel does not say
    (line,) = parser.feed(b"            bash-1234    [000] ...11     1.0: bpf_trace_printk: x\n")
    assert line.lost == 1


def test_the_head_of_a_snapshot_is_no_line() -> None:
    head = "# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
    line = "            bash-1234    [001] ...11     1.5: bpf_trace_printk: x\n"
    assert [one.text for one in parse(head + line + "##### CPU 0 buffer started ####\n" + line)] == ["x", "x"]


@given(st.binary(max_size=200))
def test_anything_is_read_without_error(data: bytes) -> None:
    Parser().feed(data)


@given(st.text(alphabet=st.characters(blacklist_characters="\n", blacklist_categories=("Cs",))))
def test_any_text_comes_through(text: str) -> None:
    (line,) = parse(f"            bash-1234    [001] ...11     1.5: bpf_trace_printk: {text}\n")
    assert line.text == text
