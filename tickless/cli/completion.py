"""tickless completion."""

from __future__ import annotations

import click

from tickless.cli.command import Command
from tickless.errors import UserError

_VARIABLE = "_TICKLESS_COMPLETE"  # what click looks at in `cli.main`


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completions of SHELL, to be put where it looks for them.

    \b
    bash   tickless completion bash > ~/.local/share/bash-completion/completions/tickless
    zsh    tickless completion zsh > "${fpath[1]}/_tickless"
    fish   tickless completion fish > ~/.config/fish/completions/tickless.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise UserError(f"there are no completions for {shell}")
    root = ctx.find_root().command
    print(found(root, {}, "tickless", _VARIABLE).source())
