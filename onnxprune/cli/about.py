"""Commands beyond one cut: many of them, training, and those about the tool itself; and with them all commands."""

from dataclasses import asdict
from typing import Any

import click

from onnxprune.cli.commands import check_files, cli, command, deliver
from onnxprune.cli.flags import request_options
from onnxprune.cli.layout import COMPLETE, shown
from onnxprune.cli.screen import Screen
from onnxprune.errors import UsageError
from onnxprune.pipeline.declare import options_of, read_values
from onnxprune.sweeps.options import Sweeping
from onnxprune.training import require_torch


@command("sweep")
@click.argument("paths", metavar="IN.onnx|FOLDER... DIR", nargs=-1)
def sweep_command(screen: Screen, paths: tuple[str, ...], **given: Any) -> None:
    """Try many cuts, and see which are worth it.

    Every network to every target with every method, each proven.  DIR gets the models, results.jsonl, and index.html
    with accuracy against MACs, size and latency.  What is there already is not done again.
    """
    if len(paths) < 2:
        raise UsageError("say what to prune and where the results go: onnxprune sweep IN.onnx DIR --targets macs=0.5")
    own = {name: given.pop(name) for name in options_of(Sweeping)}
    asked = {name: value for name, value in own.items() if value not in (None, ())}
    if "targets" not in asked:
        raise UsageError("say what to try: --targets macs=0.3:0.9:0.1")
    read_values(Sweeping, asked)
    from onnxprune.report.comparison import comparison
    from onnxprune.sweeps.sweep import sweep

    with screen.progress() as progress:
        found = sweep(paths[:-1], paths[-1], progress=progress, **asked, **request_options(given))
    screen.give(found.to_json())
    screen.show(comparison(found))
    found.require()


@command("finetune")
@click.argument("source", metavar="ORIGINAL.onnx")
@click.argument("pruned", metavar="PRUNED.onnx")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--plan", metavar="PLAN.json", help="What the pruning wrote with --plan-out; more can be learnt with it.")
def finetune_command(
    screen: Screen, source: str, pruned: str, output: str | None, plan: str | None, **given: Any
) -> None:
    """Train a pruned network, with the original as the teacher.

    No labels are needed; without --data, samples are drawn.  OUT is PRUNED with other weights and nothing else, never
    worse on held-out samples than it was.  Ctrl-C ends the training, and the best weights so far are written.
    """
    check_files(source, output, given, pruned=pruned, plan=plan)
    if given["plan_out"] is not None and plan is None:
        raise UsageError(
            "--plan-out writes a new plan for the trained weights: give the one of the pruning with --plan"
        )
    require_torch()
    from onnxprune.pipeline.finetune import finetune

    with screen.progress() as progress:
        done = finetune(source, pruned, output, plan=plan, progress=progress, **request_options(given))
    deliver(screen, done.report, done.plan, given)


@command("methods")
def methods_command(screen: Screen, **given: Any) -> None:
    """List the methods, their needs and sources; with -v what can be set for each."""
    from onnxprune.criteria.methods import METHODS
    from onnxprune.report import lists

    said = ("summary", "needs", "source")
    screen.give(
        {n: {k: getattr(m, k) for k in said} | {"options": list(map(asdict, m.options))} for n, m in METHODS.items()}
    )
    screen.show(lists.methods(screen.verbose))


@command("doctor")
def doctor_command(screen: Screen, **given: Any) -> int:
    """Show what is installed and what of it works.

    Versions, execution providers that really load, and clashes of onnxruntime wheels.  Exit code 1 where there is a
    problem.
    """
    from onnxprune.report import lists
    from onnxprune.runtime.doctor import diagnose

    found = diagnose()
    screen.give([asdict(f) for f in found])
    screen.show(lists.findings(found))
    return int(any(f.level == "problem" for f in found))


@command("help")
@click.argument("name", metavar="[COMMAND]", required=False)
def help_command(screen: Screen, name: str | None) -> None:
    """Show all options, of the main job or of a command."""
    main = click.get_current_context().parent
    assert main is not None
    if name is not None and name not in cli.commands:
        raise UsageError(f"there is no command {name!r}; there are {', '.join(shown(cli))}")
    found = cli.commands[name] if name else cli
    named = click.Context(found, info_name=name, parent=main) if name else main
    click.echo(found.get_help(named))


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(screen: Screen, shell: str) -> None:
    """Print a script that completes commands and options in bash, zsh or fish.

    Have the shell read it when it starts: eval "$(onnxprune completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "onnxprune", COMPLETE).source())
