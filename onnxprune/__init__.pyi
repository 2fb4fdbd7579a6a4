"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

# Written by tests/stubs.py from the table of options (onnxprune/pipeline/table.py).

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxprune.channels import Dependencies as Dependencies
from onnxprune.channels import analyse as analyse
from onnxprune.errors import CheckFailed as CheckFailed
from onnxprune.errors import FileError as FileError
from onnxprune.errors import ModelError as ModelError
from onnxprune.errors import OnnxPruneError as OnnxPruneError
from onnxprune.errors import UsageError as UsageError
from onnxprune.pipeline.finetune import Trained as Trained
from onnxprune.pipeline.group_losses import Sensitivity as Sensitivity
from onnxprune.pipeline.prune import Result as Result
from onnxprune.pipeline.request import Request as Request
from onnxprune.pipeline.verify import Verdict as Verdict
from onnxprune.report import Report as Report
from onnxprune.report.inspection import Inspection as Inspection
from onnxprune.report.tradeoff import Sweep as Sweep
from onnxprune.surgery import Plan as Plan

__version__: str

def apply(
    source: Any,
    plan: Plan | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    compensate: str = "auto",
    seed: int = 0,
    data: Any = None,
    test_data: Any = None,
    metric: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
    min_accuracy: float | str | None = None,
    min_snr: float | None = None,
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    finetune: int | None = None,
    minutes: float | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    train_data: Any = None,
    resume: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    verify: bool = True,
    measure: bool = True,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    isolate: bool = False,
    max_memory: int | str | None = None,
    dry_run: bool = False,
    force: bool = False,
    save_as_external_data: bool = False,
    progress: Callable[[str, int, int], None] = ...,
) -> Result:
    """Repeat a plan: the same channels of the same groups go.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        plan: what an earlier run gave, or the file that it was saved to.
        output: path to write to; None keeps the outcome in memory.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        compensate: How those that stay take over: none, merge, mean, ridge, fold, lstsq; auto: lstsq;
            none is the cut alone.
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        test_data: Other samples, for the figures and the search of max_drop; without them, a part of
            data is held out.
        metric: top1, top5, agreement (with the original), cosine, snr, or a function (script.py:name);
            else what fits the outputs.
        min_accuracy: Write nothing, and fail, where top1 (or agreement) on the data is below this.
        min_snr: Write nothing, and fail, where an output's signal to noise is below this: on the data,
            else on drawn samples.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        finetune: Train the pruned network for N epochs, with the original as the teacher.
        minutes: Train no longer than this; the rate falls to zero by then.
        lr: Largest step of a weight, as a share of the size of its tensor; else by what there is to
            learn.
        batch_size: Samples a step.
        device: Of torch: cpu, cuda, cuda:1.
        train_data: Samples to train on, read like those of data, of which they take the place.
        resume: Keep the state of the training in this file, and go on from it where it is there.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        verify: Prove that the pruned model is the masked original.
        measure: Measure latency and drift.
        providers: Of onnxruntime, for measuring: cuda,cpu.
        threads: Of onnxruntime for measuring, and of training.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.
        dry_run: Do everything but write the model.
        force: Replace the input, a link or a write-protected file.
        save_as_external_data: Put the weights into a file of their own.

    Raises:
        UsageError: the plan does not fit this network.
        CheckFailed: as for `prune`; or a lossless plan would change what this network computes.
        ModelError, FileError: as for `prune`.
    """

def finetune(
    source: Any,
    pruned: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    data: Any = None,
    test_data: Any = None,
    metric: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    epochs: int = 20,
    minutes: float | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    train_data: Any = None,
    resume: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    isolate: bool = False,
    max_memory: int | str | None = None,
    dry_run: bool = False,
    force: bool = False,
    plan: Plan | str | os.PathLike[str] | None = None,
    progress: Callable[[str, int, int], None] = ...,
) -> Trained:
    """Train a pruned network towards the original that it was made from, and write the same graph with other weights.

    Args:
        source: the original: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        pruned: the network to be trained, likewise; its inputs and outputs have the same names.
        output: path to write to; None keeps the outcome in memory.
        plan: what the pruning gave; with it inner maps of fewer channels are learnt too, and a new plan is made, with
            which `verify` proves the outcome.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        test_data: Other samples, for the figures and the search of max_drop; without them, a part of
            data is held out.
        metric: top1, top5, agreement (with the original), cosine, snr, or a function (script.py:name);
            else what fits the outputs.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        epochs: Passes over the samples; few samples are gone through several times.
        minutes: Train no longer than this; the rate falls to zero by then.
        lr: Largest step of a weight, as a share of the size of its tensor; else by what there is to
            learn.
        batch_size: Samples a step.
        device: Of torch: cpu, cuda, cuda:1.
        train_data: Samples to train on, read like those of data, of which they take the place.
        resume: Keep the state of the training in this file, and go on from it where it is there.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        providers: Of onnxruntime, for measuring: cuda,cpu.
        threads: Of onnxruntime for measuring, and of training.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.
        dry_run: Do everything but write the model.
        force: Replace the input, a link or a write-protected file.

    Raises:
        UsageError: torch is missing; the networks or the plan do not belong together; options that make no sense.
        ModelError: a model is invalid, or cannot be trained, and why.
        CheckFailed: more than weights would change; nothing is written.
        FileError: the file system refused.
    """

def inspect(
    source: Any,
    *,
    heads: str = "auto",
    thaw: bool = False,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    isolate: bool = False,
    max_memory: int | str | None = None,
    progress: Callable[[str, int, int], None] = ...,
) -> Inspection:
    """What can be removed from a network, and what cannot.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        heads: Attention loses whole heads, or the same dimensions of every head; auto: dims where
            attention can be rotated before a repair, else whole.  Where one would leave weights whole,
            the other is done.
        thaw: Also cut channels that norms over channels (LayerNormalization and its kin) or other
            statistics read, and that cannot be rotated before a repair.  These are then taken over the
            channels that stay: an approximation, and the report names the nodes.  Experts go only where
            ratio_for names them.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.

    Raises:
        ModelError: the model is invalid.
        UsageError: input shapes that do not fit.
        FileError: the file cannot be read.
    """

def prune(
    source: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    ratio: float | str | None = None,
    target: str | Sequence[str] | None = None,
    threshold: float | str | None = None,
    max_drop: float | str | None = None,
    lossless: bool = False,
    allocation: str = "auto",
    ratio_for: Mapping[str, float | str] = ...,
    max_ratio: float | str = 1.0,
    round_to: int | None = None,
    method: str = "auto",
    method_options: Mapping[str, Any] = ...,
    compensate: str = "auto",
    exclude: str | Sequence[str] = (),
    include: str | Sequence[str] = (),
    heads: str = "auto",
    thaw: bool = False,
    seed: int = 0,
    data: Any = None,
    test_data: Any = None,
    metric: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
    min_accuracy: float | str | None = None,
    min_snr: float | None = None,
    retrain: Callable[..., Any] | None = None,
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    finetune: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    train_data: Any = None,
    resume: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    verify: bool = True,
    measure: bool = True,
    strict: bool = False,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    isolate: bool = False,
    max_memory: int | str | None = None,
    dry_run: bool = False,
    force: bool = False,
    save_as_external_data: bool = False,
    progress: Callable[[str, int, int], None] = ...,
) -> Result:
    """Remove channels from a network, prove that the surgery is exact, and write the outcome.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        output: path to write to; None keeps the outcome in memory.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        ratio: Share of each group's channels to remove, below 1; 0.5 and 50% are the same.  Where
            groups lose different shares (allocation), they come to the MACs that are left when each
            loses this one.
        target: What to keep of a cost, as a share or an amount: macs=0.5, macs=50M, params=1M,
            size=250KB, activations=64KiB (the peak), latency=5ms (measured here).  With several, all
            hold.
        threshold: Remove only what is at least this similar to something that stays, from -1 to 1.
        max_drop: Search for the largest cut that lowers the first metric by at most this: 1% or 0.01 is
            one point.  Needs data or test_data.
        lossless: Remove only what cannot change the output: channels that are constant, that nobody
            reads, or copies and multiples of others.
        allocation: How groups share the budget: uniform, global, sensitivity; auto: by sensitivity with
            obs; uniform with other methods, for a ratio in steps, and where compensate is none without
            max_drop or finetune.
        ratio_for: Another ratio for some layers, by a pattern (*, ?, [..]) of node or weight names.
        max_ratio: No group loses more than this share.
        round_to: Keep multiples of N channels; without it 8 in groups of 64 and more, 4 in those of 32
            and more.
        method: How channels are compared: `onnxprune methods`; auto: obs, which runs the network, on
            drawn samples where there are no others; ncc for threshold, and for ratio with compensate
            none.
        method_options: A hyper-parameter of the method: `onnxprune methods -v`.
        compensate: How those that stay take over: none, merge, mean, ridge, fold, lstsq; auto: lstsq;
            none is the cut alone.
        exclude: Leave these layers whole.
        include: Cut these layers only.
        heads: Attention loses whole heads, or the same dimensions of every head; auto: dims where
            attention can be rotated before a repair, else whole.  Where one would leave weights whole,
            the other is done.
        thaw: Also cut channels that norms over channels (LayerNormalization and its kin) or other
            statistics read, and that cannot be rotated before a repair.  These are then taken over the
            channels that stay: an approximation, and the report names the nodes.  Experts go only where
            ratio_for names them.
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        test_data: Other samples, for the figures and the search of max_drop; without them, a part of
            data is held out.
        metric: top1, top5, agreement (with the original), cosine, snr, or a function (script.py:name);
            else what fits the outputs.
        min_accuracy: Write nothing, and fail, where top1 (or agreement) on the data is below this.
        min_snr: Write nothing, and fail, where an output's signal to noise is below this: on the data,
            else on drawn samples.
        retrain: From a pruned model to the same with trained weights; method 'msvfp' calls it whenever
            enough has gone.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        finetune: Train the pruned network for N epochs, with the original as the teacher.
        steps: Cut to the budget in N cuts, with half of the training between them.
        minutes: Train no longer than this; the rate falls to zero by then.
        lr: Largest step of a weight, as a share of the size of its tensor; else by what there is to
            learn.
        batch_size: Samples a step.
        device: Of torch: cpu, cuda, cuda:1.
        train_data: Samples to train on, read like those of data, of which they take the place.
        resume: Keep the state of the training in this file, and go on from it where it is there.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        verify: Prove that the pruned model is the masked original.
        measure: Measure latency and drift.
        strict: Fail when nothing can be cut or a target is missed.
        providers: Of onnxruntime, for measuring: cuda,cpu.
        threads: Of onnxruntime for measuring, and of training.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.
        dry_run: Do everything but write the model.
        force: Replace the input, a link or a write-protected file.
        save_as_external_data: Put the weights into a file of their own.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError: the model is invalid, or onnxruntime cannot run it.
        CheckFailed: the pruned model is not the masked original, or a strict budget was missed; nothing is written.
        FileError: the file system refused.
    """

def sensitivity(
    source: Any,
    *,
    method: str = "auto",
    method_options: Mapping[str, Any] = ...,
    exclude: str | Sequence[str] = (),
    include: str | Sequence[str] = (),
    heads: str = "auto",
    thaw: bool = False,
    seed: int = 0,
    data: Any = None,
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    providers: str | Sequence[str] = "auto",
    isolate: bool = False,
    max_memory: int | str | None = None,
    progress: Callable[[str, int, int], None] = ...,
) -> Sensitivity:
    """The loss of each group as a function of how many of its channels are gone.

    With data, one group at a time is masked and the outputs are compared with the original's; without, the loss is
    modelled from the weights: what the removed channels hold that no other expresses, as their readers weigh it.
    With the method obs it is that of the repair, on the data or on drawn samples: layers that read the group are solved
    again.  Widths that `prune` cuts in another basis are looked at in that basis, which is measured on the data or on
    drawn samples.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        method: How channels are compared: `onnxprune methods`; auto: obs, which runs the network, on
            drawn samples where there are no others; ncc for threshold, and for ratio with compensate
            none.
        method_options: A hyper-parameter of the method: `onnxprune methods -v`.
        exclude: Leave these layers whole.
        include: Cut these layers only.
        heads: Attention loses whole heads, or the same dimensions of every head; auto: dims where
            attention can be rotated before a repair, else whole.  Where one would leave weights whole,
            the other is done.
        thaw: Also cut channels that norms over channels (LayerNormalization and its kin) or other
            statistics read, and that cannot be rotated before a repair.  These are then taken over the
            channels that stay: an approximation, and the report names the nodes.  Experts go only where
            ratio_for names them.
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        providers: Of onnxruntime, for measuring: cuda,cpu.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError, FileError: the model cannot be read or run.
    """

def sweep(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    allocation: str = "auto",
    ratio_for: Mapping[str, float | str] = ...,
    max_ratio: float | str = 1.0,
    round_to: int | None = None,
    method_options: Mapping[str, Any] = ...,
    compensate: str = "auto",
    exclude: str | Sequence[str] = (),
    include: str | Sequence[str] = (),
    heads: str = "auto",
    thaw: bool = False,
    seed: int = 0,
    data: Any = None,
    test_data: Any = None,
    metric: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    finetune: int | None = None,
    minutes: float | None = None,
    lr: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    train_data: Any = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    verify: bool = True,
    measure: bool = True,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    isolate: bool = False,
    max_memory: int | str | None = None,
    save_as_external_data: bool = False,
    targets: str | Sequence[str],
    methods: str | Sequence[str] = "auto",
    jobs: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    min_accuracy: float | str | None = None,
    min_snr: float | None = None,
    latency: float | str | None = None,
    progress: Callable[[str, int, int], None] = ...,
) -> Sweep:
    """Prune networks to every target with every method, prove each outcome, and see which are worth their cost.

    What an earlier call has left whole in the folder is not done again (`sweeps.store`).  An error in one combination
    is told in its row.

    Args:
        sources: model files, and folders of them.
        folder: for models, plans, `results.jsonl` and `index.html`; workers elsewhere see it under the same path.
        targets: "macs=0.3:0.9:0.1" (first, last, step), "params=0.5,0.7", or several of them.
        methods: names of `onnxprune.criteria`, as "ncc,obs" or one by one.
        jobs, backend, scheduler: how many run at once on this machine (None: one for each core); or "dask" or "ray",
            and its address.
        min_accuracy, min_snr, latency: what the recommended cut of a network has to hold: the share of its first
            figure, dB, seconds (or "5ms").
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        allocation: How groups share the budget: uniform, global, sensitivity; auto: by sensitivity with
            obs; uniform with other methods, for a ratio in steps, and where compensate is none without
            max_drop or finetune.
        ratio_for: Another ratio for some layers, by a pattern (*, ?, [..]) of node or weight names.
        max_ratio: No group loses more than this share.
        round_to: Keep multiples of N channels; without it 8 in groups of 64 and more, 4 in those of 32
            and more.
        method_options: A hyper-parameter of the method: `onnxprune methods -v`.
        compensate: How those that stay take over: none, merge, mean, ridge, fold, lstsq; auto: lstsq;
            none is the cut alone.
        exclude: Leave these layers whole.
        include: Cut these layers only.
        heads: Attention loses whole heads, or the same dimensions of every head; auto: dims where
            attention can be rotated before a repair, else whole.  Where one would leave weights whole,
            the other is done.
        thaw: Also cut channels that norms over channels (LayerNormalization and its kin) or other
            statistics read, and that cannot be rotated before a repair.  These are then taken over the
            channels that stay: an approximation, and the report names the nodes.  Experts go only where
            ratio_for names them.
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        test_data: Other samples, for the figures and the search of max_drop; without them, a part of
            data is held out.
        metric: top1, top5, agreement (with the original), cosine, snr, or a function (script.py:name);
            else what fits the outputs.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        finetune: Train the pruned network for N epochs, with the original as the teacher.
        minutes: Train no longer than this; the rate falls to zero by then.
        lr: Largest step of a weight, as a share of the size of its tensor; else by what there is to
            learn.
        batch_size: Samples a step.
        device: Of torch: cpu, cuda, cuda:1.
        train_data: Samples to train on, read like those of data, of which they take the place.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        verify: Prove that the pruned model is the masked original.
        measure: Measure latency and drift.
        providers: Of onnxruntime, for measuring: cuda,cpu.
        threads: Of onnxruntime for measuring, and of training.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.
        save_as_external_data: Put the weights into a file of their own.

    Raises:
        UsageError: options that make no sense, or a backend that is not installed.
        FileError: a network cannot be read, the folder cannot be written, or no scheduler answers.
        CheckFailed: workers die; what is done is kept.
    """

def verify(
    source: Any,
    pruned: Any,
    plan: Plan | str | os.PathLike[str],
    *,
    seed: int = 0,
    data: Any = None,
    mean: Any = None,
    std: Any = None,
    resize: Any = None,
    layout: str | None = None,
    limit: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | str | Sequence[str] = (),
    isolate: bool = False,
    max_memory: int | str | None = None,
    progress: Callable[[str, int, int], None] = ...,
) -> Verdict:
    """Compare a pruned model with the masked original, and its weights with those that the plan says.

    Args:
        source: the original.
        pruned: the model to be proven.
        plan: what was removed.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        seed: Of everything that is drawn.
        data: Samples, with labels or without: .npz, .npy, a folder of .npz or of images (a sub-folder
            per class), input_*.pb, polygraphy JSON, or script.py[:load_data].  Where they are fitted
            on, a quarter is held out.
        mean: Of pixels, per channel: 0.485,0.456,0.406.
        std: Of pixels, per channel: 0.229,0.224,0.225.
        resize: Images, to 256 (shorter side) or 224x224.
        layout: nchw or nhwc; may go on with ,bgr or ,raw (pixels 0 to 255).
        limit: At most N samples of each, spread evenly.
        input_shapes: Sizes that the model leaves open, for running it: image:1x3x224x224.
        isolate: Run onnxruntime in a process of its own: a crash or a hang there is a failed check.
        max_memory: Refuse what would take more memory than this: 4GiB.

    Raises:
        CheckFailed: they differ; or weights were repaired, and the plan does not say to what.
        UsageError: the plan does not fit the original.
        ModelError, FileError: one of the models cannot be read or run.
    """
