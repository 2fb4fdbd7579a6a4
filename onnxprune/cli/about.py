"""Commands about the tool itself: methods, doctor, help, completion; and with them all commands."""

from dataclasses import asdict
from typing import Any

import click

from onnxprune.cli.commands import HELP, cli, screen_of
from onnxprune.cli.flags import options
from onnxprune.cli.layout import COMPLETE, Sectioned, shown
from onnxprune.cli.sweeping import sweep_command
from onnxprune.errors import UsageError

__all__ = ["cli"]

cli.add_command(sweep_command)


@cli.command("methods", cls=Sectioned, context_settings=HELP)
@options("methods")
@click.pass_context
def methods_command(context: click.Context, **given: Any) -> None:
    """List the methods, their needs and sources; with -v what can be set for each."""
    screen = screen_of(context, given)
    from onnxprune.criteria.methods import METHODS
    from onnxprune.report import lists

    screen.give(
        {
            m.name: {
                "summary": m.summary,
                "needs": m.needs,
                "source": m.source,
                "options": [asdict(o) for o in m.options],
            }
            for m in METHODS.values()
        }
    )
    screen.show(lists.methods(screen.verbose))


@cli.command("doctor", cls=Sectioned, context_settings=HELP)
@options("doctor")
@click.pass_context
def doctor_command(context: click.Context, **given: Any) -> int:
    """Show what is installed and what of it works.

    Versions, execution providers that really load, and clashes of onnxruntime wheels.  Exit code 1 where there is a
    problem.
    """
    screen = screen_of(context, given)
    from onnxprune.report import lists
    from onnxprune.runtime.doctor import diagnose

    found = diagnose()
    screen.give([asdict(f) for f in found])
    screen.show(lists.findings(found))
    return int(any(f.level == "problem" for f in found))


@cli.command("help", cls=Sectioned, context_settings=HELP)
@click.argument("command", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show all options, of the main job or of a command."""
    assert context.parent is not None
    if command is not None and command not in cli.commands:
        raise UsageError(f"there is no command {command!r}; there are {', '.join(shown(cli))}")
    found = cli.commands[command] if command else cli
    named = click.Context(found, info_name=command, parent=context.parent) if command else context.parent
    click.echo(found.get_help(named))


@cli.command("completion", cls=Sectioned, context_settings=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print a script that completes commands and options in bash, zsh or fish.

    Have the shell read it when it starts: eval "$(onnxprune completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "onnxprune", COMPLETE).source())
