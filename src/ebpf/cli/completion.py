"""`ebpf completion`: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(ebpf completion bash)                                # this shell
      ebpf completion bash > /etc/bash_completion.d/ebpf            # all shells
      ebpf completion zsh > ~/.zfunc/_ebpf
      ebpf completion fish > ~/.config/fish/completions/ebpf.fish
    """
    from click.shell_completion import get_completion_class

    from ebpf.cli.root import root

    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    click.echo(kind(root, {}, "ebpf", "_EBPF_COMPLETE").source())
