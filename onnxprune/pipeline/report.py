"""Gathering the report of a run."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.parameters import INTEGERS
from onnxprune.model.write import SavedFile
from onnxprune.operators.registry import Trait, has
from onnxprune.pipeline.budgets import BUDGETS, COSTS
from onnxprune.pipeline.costs import layer_rows, peak_activations
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.examine import Findings
from onnxprune.pipeline.measure import Measurements
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.signature import worded
from onnxprune.report.summary import Figures, FrozenRow, GroupRow, Report, Span
from onnxprune.report.words import noisy
from onnxprune.runtime.doctor import installed_versions
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.plan import Plan

WORTH_THAWING = 0.5  # share of the MACs


def make_report(decision: Decision, found: Findings, plan: Plan, size: int, saved: SavedFile | None) -> Report:
    """Put together what the stages found.

    Args:
        size: of the pruned model, in bytes.
        saved: the file of it, if there is one.
    """
    run, choice, compensated = decision.run, decision.choice, decision.compensated
    deps, request, log = run.original.deps, run.request, run.log
    dead, shapes = deps.dead(choice.kept), run.original.shapes
    approximated = compensated.deps.approximated(compensated.dead(choice.kept))
    before, after = _figures(run, dead, (run.file.size, size), found.measured)
    over = () if choice.stopped_by else missed(request, before, after)
    return Report(
        source=str(run.file.path or "a model from memory"),
        output=str(saved.path) if saved else None,
        options=decision.options,
        asked=_asked(run, choice),
        got=_got(before, after, plan, request),
        before=before,
        after=after,
        groups=_group_rows(choice, plan),
        frozen=frozen_rows(deps),
        **_shown(found),
        samples=run.split.counts,
        input_shapes=shapes,
        warnings=tuple(map(worded, (*log.warnings, *over, *timing(before, after, found.measured.gain)))),
        notes=tuple(map(worded, (*log.notes, *unrounded(request, plan), *untouched(deps, request.lossless)))),
        seconds=dict(log.seconds),
        removed=choice.removed,
        search=choice.search,
        assumed_shapes={name: shapes[name] for name in run.assumed if name in shapes},
        versions=installed_versions(),
        approximated=tuple(compensated.deps.nodes[k].label for k in approximated),
        sha256={"source": run.file.sha256} | ({"output": saved.sha256} if saved else {}),
        layers=layer_rows(deps, dead),
        sensitivity=choice.sensitivity,
        next_commands=_next(run, saved, bool(choice.kept)),
    )


def _figures(run: Run, dead: np.ndarray, sizes: tuple[int, int], found: Measurements) -> list[Figures]:
    """What the network costs, before and after."""
    whole = run.before, run.before.nothing
    cut = (run.original.deps, dead) if dead.any() else whole  # where nothing goes, nothing is rotated
    rows = zip((whole, cut), sizes, found.latency or (None, None), strict=True)
    return [
        Figures(
            deps.params(gone), deps.macs(gone), size, time.median if time else None, peak_activations(deps, gone),
            (time.low, time.high) if time else None,
        )
        for (deps, gone), size, time in rows
    ]  # fmt: skip


def _shown(found: Findings) -> dict[str, Any]:
    """What running both networks has shown."""
    proof, measured = found.proof, found.measured
    return {
        "proof": None if proof is None else str(proof),
        "proof_error": None if proof is None else proof.error,
        "proof_runs": {} if proof is None else proof.ran,
        "drift": measured.drift,
        "metrics": measured.metrics,
        "latency_note": measured.latency_note,
        "latency_gain": measured.gain,
    }


def missed(request: Request, before: Figures, after: Figures) -> tuple[str, ...]:
    """What is left of costs of which more is left than was asked; of latencies the search tells."""
    told = []
    for limit in request.target or ():
        cost = COSTS[limit.cost]
        whole, left = getattr(before, cost.figure), getattr(after, cost.figure)
        if limit.cost != "latency" and left > limit.most(whole):
            what = f"{left / whole:.2%}" if limit.share is not None else cost.shown(left)
            asked = f"{limit.share:.2%}" if limit.share is not None else cost.shown(limit.most(whole))
            told.append(f"{limit.cost} end at {what}, more than the {asked} asked for")
    return tuple(told)


def unrounded(request: Request, plan: Plan) -> tuple[str, ...]:
    """Groups whose counts are not the multiples that the user wants."""
    step = request.round_to or 1
    odd = [g for g in plan.groups if len(g.keep) < g.channels and len(g.keep) % step]
    if not odd:
        return ()
    first = f"{odd[0].name} ({len(odd[0].keep)} of {odd[0].channels})"
    return (f"no multiple of {step} is left of {len(odd)} groups, narrower ones above all, such as {first}",)


def untouched(deps: Dependencies, lossless: bool = False) -> tuple[str, ...]:
    """That `--thaw` would cut more, where statistics over channels keep most of the network whole."""
    share, nodes = deps.macs_frozen_by_statistics()
    if lossless or share < WORTH_THAWING:
        return ()
    what = f"hang on channels that {deps.nodes[nodes[0]]} and its like keep"
    return (f"{share:.0%} of the MACs {what}; --thaw cuts these too, which approximates their statistics",)


def timing(before: Figures, after: Figures, gain: Span | None) -> tuple[str, ...]:
    """What to know of the latencies: that they show no difference, or what to try where fewer MACs take longer."""
    if before.latency is None or after.latency is None or after.macs >= before.macs:
        return ()
    if gain is not None and gain[1] < 1:
        return ("fewer MACs, and slower here: kernels like channel counts in multiples of 16 or 32 (--round-to)",)
    if noisy(before, after, gain):
        shown = "" if gain is None else f": {gain[0]:.2f} to {gain[1]:.2f} times faster"
        return (f"the runs show no difference in latency{shown}; time longer, or on an idle machine",)
    return ()


def _group_rows(choice: Choice, plan: Plan) -> tuple[GroupRow, ...]:
    """A row for each group, in the order of the network."""
    return tuple(
        GroupRow(g.name, g.members, g.channels, len(g.keep), choice.asked.get(g.name), choice.notes.get(g.name, ""))
        for g in plan.groups
        if g.channels > 1  # of a single one none can go
    )


def frozen_rows(deps: Dependencies) -> tuple[FrozenRow, ...]:
    """A row for each layer whose own channels cannot be removed."""
    rows: dict[str, FrozenRow] = {}
    for use, axis, labels in deps.whole_writers():
        label = deps.nodes[use.node].label
        rows.setdefault(label, FrozenRow(label, use.axes[axis].size, deps.reason(labels)))
    for use in deps.uses:
        if use.node in deps.unknown and len(use.axes) > 1 and deps.sources[use.source].dtype not in INTEGERS:
            label = deps.nodes[use.node].label
            rows.setdefault(label, FrozenRow(label, None, deps.unknown[use.node]))
    return tuple(rows.values())


def _asked(run: Run, choice: Choice) -> str:
    request = run.request
    if choice.origin:
        return choice.origin
    if request.lossless:
        return "remove only what cannot change the output"
    others = "".join(f", {100 * ratio:g}% of {pattern}" for pattern, ratio in request.ratio_for.items())
    allocation = f", allocation {request.allocation}" if request.allocation != "uniform" else ""
    return f"{BUDGETS[request.budget].asked(run)}{others}; method {request.method}{allocation}"


def _got(before: Figures, after: Figures, plan: Plan, request: Request) -> str:
    """What is left of that which the budget is about, first of all, and of the usual costs."""
    width = sum(g.channels for g in plan.groups)
    left = {
        "channels": (sum(len(g.keep) for g in plan.groups), width, "of the channels that can be cut"),
        "size": (after.bytes, before.bytes, "of the file"),
        "activations": (after.activations or 0, before.activations or 0, "of the peak activations"),
        "params": (after.params, before.params, "of the parameters"),
        "macs": (after.macs, before.macs, "of the MACs"),
    }
    asked = [limit.cost for limit in request.target or () if limit.cost in left]
    same = request.ratio is not None and not request.variable_rate
    order = dict.fromkeys((*asked, *(["channels"] if same else []), "macs", "params"))
    parts = [f"{a / b:.1%} {what}" if b else f"all {what}" for a, b, what in (left[k] for k in order)]
    return f"{', '.join(parts[:-1])} and {parts[-1]} left"


def _next(run: Run, saved: SavedFile | None, changed: bool) -> tuple[str, ...]:
    """How to go on with TensorRT and polygraphy; nothing where nothing was removed."""
    if saved is None or not changed:
        return ()
    inputs = [s for s in model_inputs(run.original.graph) if not s.closed]
    shapes = run.original.shapes
    sizes = {s.name: [str(d) for d in shapes[s.name]] for s in inputs if s.name in shapes}
    here = saved.path.is_relative_to(Path.cwd())
    path = str(saved.path.relative_to(Path.cwd()) if here else saved.path)
    polygraphy = ["polygraphy", "run", path, "--trt", "--onnxrt"]
    if sizes:
        polygraphy += ["--input-shapes", *(f"{n}:[{','.join(d)}]" for n, d in sizes.items())]
    return *trtexec(path, sizes, run.file.network.graph, tensorrt()), shlex.join(polygraphy)


def trtexec(path: str, sizes: Mapping[str, Sequence[str]], model: onnx.ModelProto, release: int | None) -> list[str]:
    """The commands that build an engine, with the release that each is for where none is installed.

    TensorRT 10 is told the precisions that it may use, `--int8` for those of Q/DQ nodes; 11 takes them from the model,
    and has neither flag.
    """
    command = ["trtexec", f"--onnx={path}"]
    if sizes:
        command.append("--shapes=" + ",".join(f"{n}:{'x'.join(d)}" for n, d in sizes.items()))
    quantized = any(has(node, Trait.DEQUANTIZES) for node in model.graph.node)
    older = shlex.join([*command, "--fp16", *(["--int8"] if quantized else [])])
    newer = shlex.join(command)
    if release is None:
        return [f"{older}  # TensorRT 10", f"{newer}  # TensorRT 11"]
    return [newer if release >= 11 else older]


def tensorrt() -> int | None:
    """The major version of TensorRT that is installed for Python, if one is."""
    with suppress(PackageNotFoundError, ValueError):
        return int(version("tensorrt").partition(".")[0])
    return None
