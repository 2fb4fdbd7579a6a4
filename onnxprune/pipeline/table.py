"""Every option, once.

A row gives its name, type, default, help, range, section and commands; the command line, the signatures and docstrings
of Python, the options in a plan and the words of errors follow from it.  The classes are the parts that travel alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.pipeline.declare import option
from onnxprune.pipeline.kinds import Amount, Drop, Number, OptionKind, Share, Switch, Targets, Whole
from onnxprune.pipeline.names import ALLOCATIONS, COMPENSATIONS, METHODS
from onnxprune.pipeline.targets import Limit
from onnxprune.pipeline.texts import Function, Metrics, Names, Pairs, Shapes, Word, Words
from onnxprune.training.recipe import BATCH, EPOCHS

BUDGET, WHICH, DATA = "How much to remove", "Which channels", "Data and accuracy"
TRAINING = "Training (needs onnxprune[train])"
RUNNING, OUTPUT = "Verifying and measuring", "Files"

PRUNES = frozenset({"prune"})
ONCE = PRUNES | {"apply"}  # what makes one model
CHOOSES = PRUNES | {"sweep"}
CUTS = ONCE | CHOOSES
PICKS = CHOOSES | {"sensitivity"}
TRAINS = frozenset({"finetune"})
MAKES = ONCE | TRAINS
TRIED = CUTS | TRAINS
RUNS = TRIED | PICKS | {"verify"}
COUPLES = PICKS | {"inspect", "explain"}
ALL = RUNS | COUPLES

RATIO, ONE = Share(below=True), Whole(1)


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """How much to remove: exactly one of the first five is given, or none of them with `ratio_for`."""

    ratio: float | None = option(
        None,
        "Share of each group's channels to remove, below 1; 0.5 and 50% are the same.  Where groups lose different "
        "shares ({allocation}), they come to the MACs that are left when each loses this one.",
        RATIO, BUDGET, PRUNES, metavar="R", plan=True,
    )  # fmt: skip
    target: Sequence[Limit] | None = option(
        None,
        "What to keep of a cost, as a share or an amount: macs=0.5, macs=50M, params=1M, size=250KB, activations=64KiB "
        "(the peak), latency=5ms (measured here).  With several, all hold.",
        Targets(), BUDGET, PRUNES, metavar="COST=LEFT", plan=True,
    )  # fmt: skip
    threshold: float | None = option(
        None,
        "Remove only what is at least this similar to something that stays, from -1 to 1.",
        Share(-1), BUDGET, PRUNES, metavar="T", plan=True,
    )  # fmt: skip
    max_drop: float | None = option(
        None,
        "Search for the largest cut that lowers the first metric by at most this: 1% or 0.01 is one point.  Needs "
        "{data} or {test_data}.",
        Drop(), BUDGET, PRUNES, metavar="D", plan=True,
    )  # fmt: skip
    lossless: bool = option(
        False,
        "Remove only what cannot change the output: channels that are constant, that nobody reads, or copies and "
        "multiples of others.",
        Switch(), BUDGET, PRUNES, plan=True,
    )  # fmt: skip
    allocation: str = option(
        "auto",
        f"How groups share the budget: {', '.join(ALLOCATIONS)}; auto: by sensitivity with obs; uniform with "
        "other methods, for a {ratio} in {steps}, and where {compensate} is none without {max_drop} or {finetune}.",
        Word(("auto", *ALLOCATIONS)), BUDGET, CHOOSES, metavar="NAME", plan=True,
    )  # fmt: skip
    ratio_for: Mapping[str, float] = option(
        {},
        "Another ratio for some layers, by a pattern (*, ?, [..]) of node or weight names.",
        Pairs("GLOB=R, like 'layer1*=0.25'", RATIO), BUDGET, CHOOSES, metavar="GLOB=R", plan=True,
    )  # fmt: skip
    max_ratio: float = option(
        1.0, "No group loses more than this share.", Share(), BUDGET, CHOOSES, metavar="R", plan=True
    )
    round_to: int | None = option(
        None,
        "Keep multiples of N channels; without it 8 in groups of 64 and more, 4 in those of 32 and more.",
        ONE, BUDGET, CHOOSES, metavar="N", plan=True,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChannelOptions:
    """Which channels go, and what becomes of those that stay."""

    method: str = option(
        "auto",
        "How channels are compared: `onnxprune methods`; auto: obs, which runs the network, on drawn samples where "
        "there are no others; ncc for {threshold}, and for {ratio} with {compensate} none.",
        Word(("auto", *METHODS)), WHICH, PRUNES | {"sensitivity"}, metavar="NAME", plan=True,
    )  # fmt: skip
    method_options: Mapping[str, Any] = option(
        {},
        "A hyper-parameter of the method: `onnxprune methods -v`.",
        Pairs("NAME=VALUE, like 'linkage=average'"),
        WHICH, PICKS, metavar="NAME=VALUE", flag="method_option", plan=True,
    )  # fmt: skip
    compensate: str = option(
        "auto",
        f"How those that stay take over: {', '.join(COMPENSATIONS)}; auto: lstsq; none is the cut alone.",
        Word(("auto", *COMPENSATIONS)), WHICH, CUTS, metavar="NAME", plan=True,
    )  # fmt: skip
    exclude: Sequence[str] = option((), "Leave these layers whole.", Words(), WHICH, PICKS, metavar="GLOB", plan=True)
    include: Sequence[str] = option((), "Cut these layers only.", Words(), WHICH, PICKS, metavar="GLOB", plan=True)
    heads: str = option(
        "auto",
        "Attention loses whole heads, or the same dimensions of every head; auto: dims where attention can be rotated "
        "before a repair, else whole.  Where one would leave weights whole, the other is done.",
        Word(("auto", "whole", "dims")), WHICH, COUPLES, metavar="auto|whole|dims", plan=True,
    )  # fmt: skip
    thaw: bool = option(
        False,
        "Also cut channels that norms over channels (LayerNormalization and its kin) or other statistics read, and "
        "that cannot be rotated before a repair.  These are then taken over the channels that stay: an approximation, "
        "and the report names the nodes.  Experts go only where {ratio_for} names them.",
        Switch(), WHICH, COUPLES, plan=True,
    )  # fmt: skip
    seed: int = option(0, "Of everything that is drawn.", Whole(0), WHICH, RUNS, metavar="N", plan=True)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How samples are read."""

    mean: Any = option(None, "Of pixels, per channel: 0.485,0.456,0.406.", OptionKind(), DATA, RUNS, metavar="M")
    std: Any = option(None, "Of pixels, per channel: 0.229,0.224,0.225.", OptionKind(), DATA, RUNS, metavar="S")
    resize: Any = option(None, "Images, to 256 (shorter side) or 224x224.", OptionKind(), DATA, RUNS, metavar="SIZE")
    layout: str | None = option(
        None, "nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).", Word(), DATA, RUNS, metavar="NAME"
    )
    limit: int | None = option(None, "At most N samples of each, spread evenly.", ONE, DATA, RUNS, metavar="N")


@dataclass(frozen=True, kw_only=True)
class JudgingOptions:
    """Samples, and what is asked of the pruned model on them."""

    data: Any = option(
        None,
        "Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder per class), "
        "input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted on, a quarter is held out.",
        OptionKind(), DATA, RUNS, metavar="PATH",
    )  # fmt: skip
    test_data: Any = option(
        None,
        "Other samples, for the figures and the search of {max_drop}; without them, a part of {data} is held out.",
        OptionKind(), DATA, TRIED, metavar="PATH",
    )  # fmt: skip
    metric: Sequence[str | Callable[..., Any]] = option(
        (),
        "top1, top5, agreement (with the original), cosine, snr, or a function (script.py:name); else what fits the "
        "outputs.",
        Metrics(), DATA, TRIED, metavar="NAME",
    )  # fmt: skip
    min_accuracy: float | None = option(
        None,
        "Write nothing, and fail, where top1 (or agreement) on the data is below this.",
        Share(), DATA, ONCE, metavar="SHARE",
    )  # fmt: skip
    min_snr: float | None = option(
        None,
        "Write nothing, and fail, where an output's signal to noise is below this: on the data, else on drawn samples.",
        Number(), DATA, ONCE, metavar="DB",
    )  # fmt: skip
    retrain: Callable[[Any], Any] | None = option(
        None,
        "From a pruned model to the same with trained weights; method 'msvfp' calls it whenever enough has gone.",
        Function(), DATA, PRUNES,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How the pruned network is trained towards the original."""

    finetune: int | None = option(
        None, "Train the pruned network for N epochs, with the original as the teacher.", ONE, TRAINING, CUTS,
        metavar="N", plan=True,
    )  # fmt: skip
    epochs: int = option(
        EPOCHS, "Passes over the samples; few samples are gone through several times.", ONE, TRAINING, TRAINS,
        metavar="N",
    )  # fmt: skip
    steps: int | None = option(
        None, "Cut to the budget in N cuts, with half of the training between them.", ONE, TRAINING, PRUNES,
        metavar="N", plan=True,
    )  # fmt: skip
    minutes: float | None = option(
        None, "Train no longer than this; the rate falls to zero by then.", Number(0), TRAINING, TRIED, metavar="M"
    )
    lr: float | None = option(
        None, "Largest step of a weight, as a share of the size of its tensor; else by what there is to learn.",
        Number(0), TRAINING, TRIED, metavar="R",
    )  # fmt: skip
    batch_size: int = option(BATCH, "Samples a step.", ONE, TRAINING, TRIED, metavar="N")
    device: str = option("cpu", "Of torch: cpu, cuda, cuda:1.", Word(), TRAINING, TRIED, metavar="NAME")
    train_data: Any = option(
        None, "Samples to train on, read like those of {data}, of which they take the place.", OptionKind(), TRAINING,
        TRIED, metavar="PATH",
    )  # fmt: skip
    resume: str | None = option(
        None, "Keep the state of the training in this file, and go on from it where it is there.", Word(), TRAINING,
        MAKES, metavar="FILE",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """How models are run."""

    input_shapes: Sequence[str] = option(
        (),
        "Sizes that the model leaves open, for running it: image:1x3x224x224.",
        Shapes(), RUNNING, ALL, metavar="NAME:DIMS",
    )  # fmt: skip
    verify: bool = option(True, "Prove that the pruned model is the masked original.", Switch(), RUNNING, CUTS)
    measure: bool = option(True, "Measure latency and drift.", Switch(), RUNNING, CUTS)
    strict: bool = option(False, "Fail when nothing can be cut or a target is missed.", Switch(), RUNNING, PRUNES)
    providers: str | Sequence[str] = option(
        "auto", "Of onnxruntime, for measuring: cuda,cpu.", Names(), RUNNING, TRIED | {"sensitivity"}, metavar="NAMES"
    )
    threads: int | None = option(
        None, "Of onnxruntime for measuring, and of training.", ONE, RUNNING, TRIED, metavar="N"
    )
    isolate: bool = option(
        False,
        "Run onnxruntime in a process of its own: a crash or a hang there is a failed check.",
        Switch(), RUNNING, ALL,
    )  # fmt: skip
    max_memory: int | None = option(
        None, "Refuse what would take more memory than this: 4GiB.", Amount(), RUNNING, ALL, metavar="SIZE"
    )


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How the outcome is written."""

    dry_run: bool = option(False, "Do everything but write the model.", Switch(), OUTPUT, MAKES)
    force: bool = option(False, "Replace the input, a link or a write-protected file.", Switch(), OUTPUT, MAKES)
    save_as_external_data: bool = option(False, "Put the weights into a file of their own.", Switch(), OUTPUT, CUTS)
