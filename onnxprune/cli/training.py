"""The command that trains a file which was pruned before."""

from typing import Any

import click

from onnxprune.cli.commands import HELP, check_files, screen_of
from onnxprune.cli.flags import options, request_options
from onnxprune.cli.layout import Sectioned
from onnxprune.errors import FileError, Incomplete, UsageError
from onnxprune.training import require_torch


@click.command("finetune", cls=Sectioned, context_settings=HELP)
@click.argument("source", metavar="ORIGINAL.onnx")
@click.argument("pruned", metavar="PRUNED.onnx")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--plan", metavar="PLAN.json", help="What the pruning wrote with --plan-out; more can be learnt with it.")
@options("finetune")
@click.pass_context
def finetune_command(
    context: click.Context, source: str, pruned: str, output: str | None, plan: str | None, **given: Any
) -> None:
    """Train a pruned network, with the original as the teacher.

    No labels are needed; without --data, samples are drawn.  OUT is PRUNED with other weights and nothing else, never
    worse on held-out samples than it was.  Ctrl-C ends the training, and the best weights so far are written.
    """
    screen = screen_of(context, given)
    check_files(source, output, given, pruned=pruned, plan=plan)
    if given["plan_out"] is not None and plan is None:
        raise UsageError(
            "--plan-out writes a new plan for the trained weights: give the one of the pruning with --plan"
        )
    require_torch()
    from onnxprune.pipeline.finetune import finetune
    from onnxprune.report import files

    with screen.progress() as progress:
        done = finetune(source, pruned, output, plan=plan, progress=progress, **request_options(given))
    if given["plan_out"] is not None and done.plan is not None:
        try:
            files.write(given["plan_out"], files.plan_text(done.plan.to_json()))
        except FileError as error:
            raise Incomplete(f"{done.report.output} was written and is whole; the plan was not: {error}") from None
    screen.give(done.report.to_json())
    screen.show(str(done.report))
