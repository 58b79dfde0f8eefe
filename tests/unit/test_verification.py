from __future__ import annotations

from ebpf.programs.verification import Verification, parse_verification

LOG = """verification time 211 usec
stack depth 64+8
processed 240 insns (limit 1000000) max_states_per_insn 1 total_states 20 peak_states 18 mark_read 5
"""


def test_statistics_of_a_log() -> None:
    assert parse_verification(LOG) == Verification(211, 240, 1_000_000, 20, 18, (64, 8))


def test_a_log_without_statistics_has_none() -> None:
    assert parse_verification("") is None
    assert parse_verification("0: (b7) r0 = 2\n1: (95) exit\n") is None
