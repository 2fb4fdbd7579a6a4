"""The commands: each reads its options, calls the function of the same name in Python, and shows what came out.

Each imports what it needs when it is called: onnx, onnxruntime and scipy take a second, which nobody should wait for
to be told of a typing error.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import onnxprune
from onnxprune.cli.flags import options, request_options
from onnxprune.cli.layout import Main, MainJob, Sectioned
from onnxprune.cli.screen import Screen
from onnxprune.errors import FileError, Incomplete, UsageError
from onnxprune.pipeline.request import Request

if TYPE_CHECKING:
    from onnxprune.pipeline.finetune import TrainingReport
    from onnxprune.report import Report
    from onnxprune.surgery import Plan

HELP = {"help_option_names": ["--help"]}
Given = dict[str, Any]


@click.group(cls=Main, context_settings=HELP)
@click.version_option(onnxprune.__version__, "-V", "--version", message="onnxprune %(version)s")
def cli() -> None:
    """Remove whole channels from an ONNX model, and prove that nothing else changed.

    No data and no training code are needed.  The output is the input with fewer channels: the same inputs, outputs
    and names.  It is compared with the masked original in onnxruntime before it is put in place.
    """


def command(name: str, cls: type[Sectioned] = Sectioned, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that makes a command of a function: it gets the screen, and the options that the table says."""

    def decorate(function: Callable[..., Any]) -> Any:
        @click.pass_context
        @wraps(function)
        def called(context: click.Context, **given: Any) -> Any:
            screen = context.obj
            screen.json, screen.quiet, screen.verbose = (bool(given.get(n)) for n in ("json", "quiet", "verbose"))
            return function(screen, **given)

        return cli.command(name, cls=cls, context_settings=HELP, params=options(name), **settings)(called)

    return decorate


@command("prune", MainJob, hidden=True)
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx", required=False)
def prune_command(screen: Screen, source: str, output: str | None, **given: Any) -> None:
    """The main job."""
    _mistaken_command(source)
    asked = request_options(given)
    Request.of(asked)  # before onnx is loaded: what makes no sense is said at once
    check_files(source, output, given)
    from onnxprune.pipeline.prune import prune

    with screen.progress() as progress:
        result = prune(source, output, progress=progress, **asked)
    deliver(screen, replace(result.report, command=screen.command), result.plan, given)


@command("apply")
@click.argument("source", metavar="IN.onnx")
@click.argument("output", metavar="OUT.onnx", required=False)
@click.option("--plan", required=True, metavar="PLAN.json", help="What an earlier run wrote with --plan-out.")
def apply_command(screen: Screen, source: str, output: str | None, plan: str, **given: Any) -> None:
    """Repeat a plan on another version of the network.

    Another precision or checkpoint will do, as long as its groups have the same names and widths.
    """
    check_files(source, output, given, plan=plan)
    from onnxprune.pipeline.apply import apply

    with screen.progress() as progress:
        result = apply(source, plan, output, progress=progress, **request_options(given))
    deliver(screen, replace(result.report, command=screen.command), result.plan, given)


@command("verify")
@click.argument("source", metavar="IN.onnx")
@click.argument("pruned", metavar="OUT.onnx")
@click.option("--plan", required=True, metavar="PLAN.json", help="What the run wrote with --plan-out.")
def verify_command(screen: Screen, source: str, pruned: str, plan: str, **given: Any) -> None:
    """Prove an earlier result again.

    Is OUT the original without the channels that the plan removes?  Shows the surgery (what it computes), its weights
    (those of the original, or those that the plan has digests of), and how far it is from the original.
    """
    _must_be_there(source, pruned, plan)
    from onnxprune.pipeline.verify import verify

    with screen.progress() as progress:
        found = verify(source, pruned, plan, progress=progress, **request_options(given))
    surgery, rest = asdict(found.surgery), asdict(found)
    del rest["surgery"]
    screen.give({"verified": found.passed, "result": str(found), **surgery, **rest})
    screen.show(str(found))


@command("inspect")
@click.argument("source", metavar="IN.onnx")
def inspect_command(screen: Screen, source: str, **given: Any) -> None:
    """Show what can be cut and what cannot.

    Groups of channels that go together, their share of the MACs, what is frozen and why.
    """
    _must_be_there(source)
    from onnxprune.pipeline.inspect import inspect
    from onnxprune.pipeline.paths import check_paths
    from onnxprune.report import files, lists

    if given["report"] is not None:
        files.check_target(given["report"], files.ENDINGS, "--report")
        check_paths(source, {"--report": given["report"]}, {}, force=False)
    with screen.progress() as progress:
        found = inspect(source, progress=progress, **request_options(given))
    if given["report"] is not None:
        files.write_report(given["report"], found)
    screen.give(found.to_json())
    screen.show(lists.inspection(found, details=screen.verbose))


@command("explain")
@click.argument("source", metavar="IN.onnx")
@click.argument("node")
@click.argument("other", metavar="[NODE]", required=False)
def explain_command(screen: Screen, source: str, node: str, other: str | None, **given: Any) -> None:
    """Show what freezes or couples layers.

    NODE is the name of a node, of one of its outputs, or of a weight that it uses.  With two of them, why they are
    coupled.
    """
    _must_be_there(source)
    from onnxprune.channels.explain import explain
    from onnxprune.pipeline.inspect import analysed
    from onnxprune.pipeline.rotate import outlook
    from onnxprune.report import lists

    with screen.progress() as progress:
        run = analysed(source, "explain", request_options(given), progress)
    cut = outlook(run)
    found = explain(cut.knowing(node, *([other] if other else []), otherwise=run.original.deps), node, other)
    screen.give(asdict(found))
    screen.show(lists.explanation(found))
    for line in cut.notes:
        screen.show(f"note: {line}")


@command("sensitivity")
@click.argument("source", metavar="IN.onnx")
def sensitivity_command(screen: Screen, source: str, **given: Any) -> None:
    """Show what the channels of each group are worth.

    The loss of the network by how many channels of one group are gone: measured on --data, else modelled from the
    weights.
    """
    _must_be_there(source)
    from onnxprune.pipeline.inspect import sensitivity
    from onnxprune.report.terminal import sensitivity_table

    with screen.progress() as progress:
        found = sensitivity(source, progress=progress, **request_options(given))
    screen.give(found.to_json())
    screen.show(sensitivity_table(found))


def _mistaken_command(source: str) -> None:
    """Raise UsageError where a first word that is no file looks like a command with a typing error."""
    from difflib import get_close_matches

    near = get_close_matches(source, cli.commands, 1, 0.7)
    if near and not Path(source).exists():
        raise UsageError(f"there is no command and no file {source!r}; did you mean `onnxprune {near[0]}`?")


def check_files(source: str, output: str | None, given: Given, **others: str | None) -> None:
    """Before any work: is there an output, can all files be written, and is none of them one that is read?

    Args:
        others: models and plans that are read besides, by what they are called.
    """
    if output is None and not given["dry_run"]:
        what, last = ("trained", "PRUNED.onnx") if "pruned" in others else ("pruned", "IN.onnx")
        raise UsageError(f"say where to write the {what} model: OUT.onnx after {last}, or --dry-run")
    _must_be_there(source, *others.values())
    from onnxprune.pipeline.paths import check_paths, out
    from onnxprune.report import files

    written = {"--" + name.replace("_", "-"): given.get(name) for name in ("plan_out", "report", "resume")}
    written = {out(): output, **written}
    for name, path in written.items():
        if path is not None:
            files.check_target(path, files.ENDINGS if name == "--report" else None, name)
    read = {"--" + name.replace("_", "-"): given[name] for name in ("data", "test_data", "train_data", "metric")}
    named = {"PRUNED.onnx" if name == "pruned" else f"--{name}": path for name, path in others.items()}
    check_paths(source, written, {**read, **named}, force=given["force"])


def _must_be_there(*paths: str | None) -> None:
    """Raise FileError for a file that does not exist; of everything else, reading says what is wrong with it."""
    for path in filter(None, paths):
        try:
            os.stat(path)
        except FileNotFoundError as error:
            raise FileError(f"there is no file {path!r}") from error
        except (OSError, ValueError):
            continue


def deliver(screen: Screen, report: "Report | TrainingReport", plan: "Plan | None", given: Given) -> None:
    """Write the files besides the model, and show the report: all that can be, whatever the others do.

    Raises Incomplete where something cannot, and the model is in place.
    """
    from onnxprune.model.tensors import quoted
    from onnxprune.report import files
    from onnxprune.report.summary import Report

    jobs: dict[str, Callable[[], None]] = {}
    if given["plan_out"] is not None and plan is not None:
        jobs["the plan"] = partial(files.write, given["plan_out"], plan.text)
    if isinstance(report, Report) and given["report"] is not None:
        jobs["the report"] = partial(files.write_report, given["report"], report)
    jobs["the report on the screen"] = partial(_show, screen, report)
    failed: dict[str, FileError] = {}
    for what, job in jobs.items():
        try:
            job()
        except FileError as error:
            failed[what] = error
    if failed and report.output is None:
        raise next(iter(failed.values()))
    if failed:
        reasons = "; ".join(f"{what} was not: {error}" for what, error in failed.items())
        raise Incomplete(f"{quoted(report.output)} was written and is whole; {reasons}")


def _show(screen: Screen, report: "Report | TrainingReport") -> None:
    from onnxprune.report.summary import Report
    from onnxprune.report.terminal import rendered

    screen.give(report.to_json())
    screen.show(rendered(report, details=screen.verbose) if isinstance(report, Report) else str(report))
