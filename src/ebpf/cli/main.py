"""The entry of the command `ebpf`: runs a command and turns whatever happens into an exit code.

0 is success, 1 a failure, 2 wrong usage; 130 an interrupt and 141 a closed pipe, as the shell counts them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ebpf._version import __version__

FAILED, INTERRUPTED, CLOSED_PIPE = 1, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code of the process."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv in (["--version"], ["-V"]):  # asked for by scripts: without the command-line library
        print(f"ebpf {__version__}")
        return 0
    # Never a crash over a character that the locale does not know.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(argv)
        sys.stdout.flush()  # a closed pipe shows here, not in the interpreter's own last flush
        return code
    except BrokenPipeError:
        # The interpreter flushes once more at its end: let it flush into nothing.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return CLOSED_PIPE
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # behind the ^C of the terminal
        return INTERRUPTED


def _run(argv: list[str]) -> int:
    import click

    from ebpf.cli import failure
    from ebpf.cli.root import Carried, root
    from ebpf.errors import Error

    as_json = "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
    try:
        result = root.main(argv, prog_name="ebpf", standalone_mode=False)
    except Carried as carried:
        raise carried.exception from None
    except click.ClickException as error:
        failure.report_usage(error, as_json=as_json)
        return error.exit_code
    except (Error, OSError) as error:
        failure.report(error, as_json=as_json)
        return FAILED
    except Exception as error:
        failure.report_bug(error, as_json=as_json)
        return FAILED
    return result if isinstance(result, int) else 0
