"""``mmmos --install-completion``: commands, options and choices at the press of Tab."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from mmmos.cli.output import say, shown_path
from mmmos.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import App

Shell = Literal["bash", "zsh", "fish"]
# What bash reads once more, and what the other shells read by themselves when they start.
_RELOAD = {"bash": "source ~/.bashrc", "zsh": "exec zsh", "fish": "exec fish"}


def installer(app: "App") -> Callable[..., int]:
    """The command that installs the completion of an application."""

    def install_completion(*, shell: Shell | None = None) -> int:
        """Complete commands, options and choices with Tab: writes a script and names it in the shell's start-up file.

        Example: mmmos --install-completion --shell bash

        Parameters
        ----------
        shell
            By default the one that this runs in.
        """
        found = shell or _running_shell()
        path = app.install_completion(shell=found)
        path.write_text(script(app, found), encoding="utf-8")
        say(f"Written: {shown_path(path)}")
        say(f"New shells have it; in this one type: {_RELOAD[found]}")
        return 0

    return install_completion


def script(app: "App", shell: Shell) -> str:
    """The completion script of an application. It runs no Python when Tab is pressed."""
    text = app.generate_completion(shell=shell)
    if shell != "bash":
        return text
    # Where bash is given nothing, its own completion of paths steps in, which knows folders and blanks in names.
    text = text.replace('COMPREPLY=( $(compgen -f -- "${cur}") )', "COMPREPLY=()")
    return text.replace("complete -F ", "complete -o bashdefault -o default -F ")


def _running_shell() -> Shell:
    """The shell that this process was started from. Raises ``UsageError`` where it cannot be told or is another."""
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    with suppress(ShellDetectionError):
        name = detect_shell()
        if name != "powershell":
            return name
    raise UsageError("Name your shell, as in: mmmos --install-completion --shell bash (or zsh, fish).")
