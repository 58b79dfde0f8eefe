"""What the commands are made of: groups that import a command when it is run, and shared options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Lazy(NamedTuple):
    """A command that is imported when it is run: where it is, and its line in the help of its group."""

    place: str  #: "module:name" in ebpf.cli
    help: str
    section: str = "Commands"


class LazyGroup(click.Group):
    """A group whose help is a table, so that showing it imports no command."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(*args, **options)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.place.partition(":")
        command = getattr(import_module(f"ebpf.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of that name."""
        name = args[0]
        if name in self.lazy or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        close = get_close_matches(name, self.lazy, n=1) or [
            command for command in self.lazy if command.startswith(name)
        ]
        suggestion = f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(self.lazy)}"
        raise click.UsageError(f"no command {name!r}{suggestion}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, by sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.lazy.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        width = max(map(len, self.lazy))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), help) for name, help in rows])


def json_option(function: F) -> F:
    """--json, as every command has it."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
