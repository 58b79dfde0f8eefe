"""`python -m ebpf`: the command line without its script on PATH."""

from __future__ import annotations

import sys

from ebpf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
