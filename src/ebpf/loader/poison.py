"""Calls that no kernel knows, for what this kernel lacks: refused only if they can be reached."""

from __future__ import annotations

#: For what CO-RE relocation did not find (libbpf's 0xbad2310).
MISSING_CORE = 195896080
#: For a weak kernel function that is not there (libbpf's value).
MISSING_KFUNC = 2002000000
