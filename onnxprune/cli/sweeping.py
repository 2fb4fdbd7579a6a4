"""The command `sweep`."""

from typing import Any

import click

from onnxprune.cli.commands import HELP, screen_of
from onnxprune.cli.flags import options, request_options
from onnxprune.cli.layout import Sectioned
from onnxprune.errors import UsageError
from onnxprune.pipeline.declare import options_of
from onnxprune.sweeps.options import Sweeping


@click.command("sweep", cls=Sectioned, context_settings=HELP)
@click.argument("paths", metavar="IN.onnx|FOLDER... DIR", nargs=-1)
@options("sweep")
@click.pass_context
def sweep_command(context: click.Context, paths: tuple[str, ...], **given: Any) -> None:
    """Try many cuts, and see which are worth it.

    Every network to every target with every method, each proven.  DIR gets the models, results.jsonl, and index.html
    with accuracy against MACs, size and latency.  What is there already is not done again.
    """
    screen = screen_of(context, given)
    if len(paths) < 2:
        raise UsageError("say what to prune and where the results go: onnxprune sweep IN.onnx DIR --targets macs=0.5")
    own = {name: given.pop(name) for name in options_of(Sweeping)}
    asked = {name: value for name, value in own.items() if value not in (None, ())}
    if "targets" not in asked:
        raise UsageError("say what to try: --targets macs=0.3:0.9:0.1")
    Sweeping(**asked)
    from onnxprune.report.comparison import comparison
    from onnxprune.sweeps.sweep import sweep

    with screen.progress() as progress:
        found = sweep(paths[:-1], paths[-1], progress=progress, **asked, **request_options(given))
    screen.give(found.to_json())
    screen.show(comparison(found))
    found.require()
