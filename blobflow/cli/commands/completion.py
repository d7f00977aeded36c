"""`blobflow completion`: what a shell needs to complete verbs, options and files."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from blobflow.cli.verb import Verb

# click's own: the shell runs `blobflow` with this variable set, and is told what fits.
_VARIABLE = "_BLOBFLOW_COMPLETE"


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def verb(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell: verbs, options, their values and files.

    \b
      blobflow completion bash > ~/.local/share/bash-completion/completions/blobflow
      blobflow completion zsh > "${fpath[1]}/_blobflow"
      blobflow completion fish > ~/.config/fish/completions/blobflow.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has all three"
    # Past bash's own check of its version: that is about the bash on PATH here, which need not be the user's.
    click.echo(ShellComplete.source(kind(context.find_root().command, {}, "blobflow", _VARIABLE)))
