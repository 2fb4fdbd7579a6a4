"""Every option of the command line, once: its name is the one in Python with hyphens, its default that of `Request`."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

import click

from onnxprune.cli.values import Number, Pair, Target, Whole
from onnxprune.pipeline.choices import ALLOCATIONS, COMPENSATIONS, METHODS, TARGETS
from onnxprune.pipeline.request import Request

BUDGET, WHICH, DATA = "How much to remove", "Which channels", "Data and accuracy"
RUNNING, OUTPUT, TALK = "Verifying and measuring", "Files", "What is shown"

PRUNE, APPLY, VERIFY, LOOK, SENSE = "prune", "apply", "verify", "look", "sensitivity"
CUTS = frozenset({PRUNE, APPLY})
RUNS = CUTS | {VERIFY, SENSE}
PICKS = frozenset({PRUNE, SENSE})
ALL = RUNS | {LOOK}


@dataclass(frozen=True)
class Flag:
    """One option.

    name: in Python; that of a field of `Request`, or `no_` and one that it turns off.
    kind: type of the value; None for a switch without one.
    commands: where it is offered; `LOOK` stands for the commands that only look at a model.
    """

    name: str
    section: str
    help: str
    kind: click.ParamType | None = None
    metavar: str | None = None
    commands: frozenset[str] = ALL
    many: bool = False
    short: str | None = None

    @property
    def spelling(self) -> str:
        return "--" + self.name.replace("_", "-")

    def text(self) -> str:
        """The help with the default of `Request`, where that says something."""
        default = _defaults().get(self.name)
        telling = default not in (None, False, (), "", "auto") and isinstance(default, (str, int, float))
        return f"{self.help}  [default: {default}]" if telling else self.help

    def decorate(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Add the option to a command; what is not given stays None, False or empty."""
        names = [self.spelling, self.name] + ([self.short] if self.short else [])
        if self.kind is None:
            return click.option(*names, is_flag=True, help=self.text())(function)
        return click.option(
            *names, type=self.kind, metavar=self.metavar, multiple=self.many, default=None, help=self.text()
        )(function)


def _defaults() -> dict[str, Any]:
    return {f.name: f.default for f in fields(Request) if f.default is not MISSING}


_RATIO, _SHARE = Number(0, 1, below=True, share=True), Number(0, 1, share=True)
_COUNT, _SEED = Whole(1), Whole(0)

FLAGS: tuple[Flag, ...] = (
    Flag(
        "ratio",
        BUDGET,
        "Share of each group's channels to remove; 0.5 and 50% are the same.",
        _RATIO,
        "R",
        frozenset({PRUNE}),
    ),
    Flag(
        "target",
        BUDGET,
        f"Share of a cost to keep: {', '.join(f'{k}=0.5' for k in TARGETS)}; latency is measured here.",
        Target(TARGETS),
        "COST=SHARE",
        frozenset({PRUNE}),
    ),
    Flag(
        "threshold",
        BUDGET,
        "Remove only what is at least this similar to something that stays, from -1 to 1.",
        Number(-1, 1, share=True),
        "T",
        frozenset({PRUNE}),
    ),
    Flag(
        "max_drop",
        BUDGET,
        "Search for the largest cut that lowers the metric by at most this: 1% or 0.01 is one point.  Needs "
        "--data or --test-data.",
        Number(0, share=True),
        "D",
        frozenset({PRUNE}),
    ),
    Flag(
        "lossless",
        BUDGET,
        "Remove only what cannot change the output: channels that are constant, that nobody reads, or copies and "
        "multiples of others.",
        commands=frozenset({PRUNE}),
    ),
    Flag(
        "allocation",
        BUDGET,
        f"How groups share the budget: {', '.join(ALLOCATIONS)}; auto: by sensitivity under --target and --max-drop.",
        click.Choice(["auto", *ALLOCATIONS]),
        "NAME",
        frozenset({PRUNE}),
    ),
    Flag(
        "ratio_for",
        BUDGET,
        "Another ratio for some layers, by a pattern (*, ?, [..]) of node or weight names.  Repeatable.",
        Pair("GLOB=R, like 'layer1*=0.25'", _RATIO),
        "GLOB=R",
        frozenset({PRUNE}),
        many=True,
    ),
    Flag("max_ratio", BUDGET, "No group loses more than this share.", _SHARE, "R", frozenset({PRUNE})),
    Flag(
        "round_to",
        BUDGET,
        "Keep multiples of N channels; without it 8 in groups of 64 and more, 4 in those of 32 and more.",
        _COUNT,
        "N",
        frozenset({PRUNE}),
    ),
    Flag(
        "method",
        WHICH,
        "How channels are compared: `onnxprune methods`; auto: obs; ncc for --threshold and --compensate none.",
        click.Choice(["auto", *METHODS]),
        "NAME",
        PICKS,
    ),
    Flag(
        "method_option",
        WHICH,
        "A hyper-parameter of the method: `onnxprune methods -v`.  Repeatable.",
        Pair("NAME=VALUE, like 'linkage=average'"),
        "NAME=VALUE",
        PICKS,
        many=True,
    ),
    Flag(
        "compensate",
        WHICH,
        f"How those that stay take over: {', '.join(COMPENSATIONS)}; auto: lstsq; none is the cut alone.",
        click.Choice(["auto", *COMPENSATIONS]),
        "NAME",
        CUTS,
    ),
    Flag("exclude", WHICH, "Leave these layers whole.  Repeatable.", click.STRING, "GLOB", PICKS, many=True),
    Flag("include", WHICH, "Cut these layers only.  Repeatable.", click.STRING, "GLOB", PICKS, many=True),
    Flag(
        "heads",
        WHICH,
        "Attention loses whole heads, or the same dimensions of every head; auto: what repairs better.",
        click.Choice(["auto", "whole", "dims"]),
        "auto|whole|dims",
        frozenset({PRUNE, SENSE, LOOK}),
    ),
    Flag(
        "thaw",
        WHICH,
        "Also cut channels that norms over channels (LayerNormalization and its kin) or other statistics read.  These "
        "are then taken over the channels that stay: an approximation, and the report names the nodes.",
        commands=frozenset({PRUNE, SENSE, LOOK}),
    ),
    Flag("seed", WHICH, "Of everything that is drawn.", _SEED, "N", RUNS),
    Flag(
        "data",
        DATA,
        "Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder per class), "
        "input_*.pb, polygraphy JSON, or script.py[:load_data].",
        click.STRING,
        "PATH",
        RUNS,
    ),
    Flag(
        "test_data",
        DATA,
        "Other samples, for the figures and the search of --max-drop; without them, a part of --data is held out.",
        click.STRING,
        "PATH",
        CUTS,
    ),
    Flag(
        "metric",
        DATA,
        "top1, top5, agreement (with the original), cosine, snr, or script.py:function; else what fits the outputs.  "
        "Repeatable.",
        click.STRING,
        "NAME",
        CUTS,
        many=True,
    ),
    Flag(
        "min_accuracy",
        DATA,
        "Write nothing, and exit with 1, where top1 (or agreement) on the data is below this.",
        _SHARE,
        "SHARE",
        CUTS,
    ),
    Flag(
        "min_snr",
        DATA,
        "Write nothing, and exit with 1, where the outputs' signal to noise is below this: on the data, else on drawn "
        "samples.",
        Number(-1000, 1000),
        "DB",
        CUTS,
    ),
    Flag("mean", DATA, "Of pixels, per channel: 0.485,0.456,0.406.", click.STRING, "M", RUNS),
    Flag("std", DATA, "Of pixels, per channel: 0.229,0.224,0.225.", click.STRING, "S", RUNS),
    Flag("resize", DATA, "Images, to 256 (shorter side) or 224x224.", click.STRING, "SIZE", RUNS),
    Flag("layout", DATA, "nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).", click.STRING, "NAME", RUNS),
    Flag("limit", DATA, "At most N samples of each, spread evenly.", _COUNT, "N", RUNS),
    Flag(
        "input_shapes",
        RUNNING,
        "Sizes that the model leaves open, for running it: image:1x3x224x224.  Repeatable.",
        click.STRING,
        "NAME:DIMS",
        many=True,
    ),
    Flag("no_verify", RUNNING, "Do not prove that the pruned model is the masked original.", commands=CUTS),
    Flag("no_measure", RUNNING, "Do not measure latency and drift.", commands=CUTS),
    Flag("strict", RUNNING, "Fail when nothing can be cut or a target is missed.", commands=frozenset({PRUNE})),
    Flag("providers", RUNNING, "Of onnxruntime, for measuring: cuda,cpu.", click.STRING, "NAMES", CUTS),
    Flag("threads", RUNNING, "Of onnxruntime, for measuring.", _COUNT, "N", CUTS),
    Flag("isolate", RUNNING, "Run onnxruntime in a process of its own: a crash or a hang there is a failed check."),
    Flag("max_memory", RUNNING, "Refuse what would take more memory than this: 4GiB.", click.STRING, "SIZE"),
    Flag("dry_run", OUTPUT, "Do everything but write the model.", commands=CUTS),
    Flag("plan_out", OUTPUT, "Write which channels stay, as JSON.", click.STRING, "F.json", CUTS),
    Flag("report", OUTPUT, "Write the report, as JSON or HTML by its ending.", click.STRING, "F.html|F.json", CUTS),
    Flag("force", OUTPUT, "Replace the input, a link or a write-protected file.", commands=CUTS),
    Flag("save_as_external_data", OUTPUT, "Put the weights into a file of their own.", commands=CUTS),
    Flag("json", TALK, "Print JSON, and nothing else, on standard output."),
    Flag("quiet", TALK, "Print nothing but errors.", short="-q"),
    Flag("verbose", TALK, "Print every group, every reason, and the trace of unexpected errors.", short="-v"),
)

OWN = frozenset({"plan_out", "report", "json", "quiet", "verbose"})  # of the command line, not of `Request`
RENAMED = {"method_option": "method_options"}


def flags_of(command: str) -> tuple[Flag, ...]:
    """The options of a command, in the order of the help."""
    return tuple(f for f in FLAGS if command in f.commands)


def options(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that gives a command its options."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for flag in reversed(flags_of(command)):
            function = flag.decorate(function)
        return function

    return decorate


def request_options(given: dict[str, Any]) -> dict[str, Any]:
    """Keyword options of `Request` from what click parsed: only those that were given."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in OWN or value is None or value is False or value == ():
            continue
        if name.startswith("no_"):
            found[name.removeprefix("no_")] = False
        elif value and isinstance(value, tuple) and isinstance(value[0], tuple):
            found[RENAMED.get(name, name)] = dict(value)
        else:
            found[RENAMED.get(name, name)] = value
    return found
