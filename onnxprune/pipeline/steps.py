"""Cutting to the target in several cuts, with training between them: iterative pruning.

Each cut is chosen and repaired on the network as training has left it.  The original is the teacher of what is trained
between the cuts; the training of msvfp inside a cut learns from the network as that cut found it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import ModelError, UsageError, spelled
from onnxprune.pipeline.choose import Choice
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run, analysis_of, start
from onnxprune.pipeline.targets import Limit
from onnxprune.pipeline.tune import BETWEEN, Original, recipe_of, tune
from onnxprune.surgery.align import Alignment
from onnxprune.surgery.copying import tensors_of
from onnxprune.surgery.recovery.replaced import spread, with_biases, with_values
from onnxprune.surgery.rewrite import cut
from onnxprune.surgery.versions import read_tensor

Cut = Callable[[Run], Choice]  # chooses and repairs


def in_steps(run: Run, cut_once: Cut) -> Choice:
    """The channels that stay after all cuts; the weights of the run are then those of the last one.

    Args:
        run: of the original.
        cut_once: one cut of a run: its channels, and the repair.

    Raises UsageError where groups of the network change their names or sizes once some channels are gone.
    """
    number, request = run.request.steps or 1, run.request
    kept: dict[str, np.ndarray] = {}
    inner, choice = run, Choice({}, {}, {})
    for k in range(number):
        inner.request = step_request(request, k, run.deps, kept).changed(strict=False)
        choice = cut_once(inner)
        kept = composed(run, kept, choice.kept)
        model = inner.base or inner.model.proto
        deps = inner.full or inner.deps
        pruned = cut(model, deps, deps.dead(choice.kept))
        if inner is not run:
            run.notes += [n for n in inner.notes if n not in run.notes]
            run.warnings += [w for w in inner.warnings if w not in run.warnings]
        run.request = request
        if k == number - 1:
            break
        recipe = replace(recipe_of(request, share=BETWEEN / (number - 1)), resume=None)
        pruned = tune(run, Original(run.model.proto, run.deps, kept), pruned, recipe, (), run.training_data())
        inner = _started(run, pruned)
    _take(run, kept, pruned)
    return replace(choice, kept=kept)


def step_request(request: Request, k: int, deps: Dependencies, kept: Mapping[str, np.ndarray]) -> Request:
    """What the k-th cut is asked for: an equal factor of what is left each time, and in the end the target.

    Args:
        deps: of the original.
        kept: what earlier cuts have left of its groups.
    """
    each, done = 1 / (request.steps or 1), (k + 1) / (request.steps or 1)
    request = request.changed(
        ratio_for={name: 1 - (1 - share) ** each for name, share in request.ratio_for.items()},
        max_ratio=1 - (1 - request.max_ratio) ** each,
    )
    if request.ratio is not None:
        return request.changed(ratio=max(0.0, 1 - (1 - request.ratio) ** done / _width_left(deps, kept)))
    return request.changed(target=tuple(_part_of(limit, done, deps, kept) for limit in request.target or ()))


def _part_of(limit: Limit, done: float, deps: Dependencies, kept: Mapping[str, np.ndarray]) -> Limit:
    """A limit on what is left now that goes a part of the way, as powers go, to one on the original."""
    cost = {"macs": deps.macs, "params": deps.params}[limit.cost]
    total = max(1, cost())
    share = min(1.0, (limit.most(total) / total) ** done / (cost(deps.dead(kept)) / total))
    return Limit(limit.cost, share, None, f"{limit.cost}={share:.6g}")


def composed(run: Run, before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kept channels in numbers of the original, from those of the network that was cut before."""
    widths = {g.name: len(g) for g in run.deps.groups}
    found = dict(before)
    for name, channels in now.items():
        if name not in widths or (len(channels) and channels.max() >= len(before.get(name, range(widths[name])))):
            raise UsageError(f"{spelled('steps')} cannot be used here: group {name!r} changes once channels are gone")
        found[name] = np.asarray(before[name])[channels] if name in before else channels
    return found


def _width_left(deps: Dependencies, kept: Mapping[str, np.ndarray]) -> float:
    """Share of the channels that is left of the groups that were cut."""
    groups = [g for g in deps.groups if g.name in kept]
    width = sum(map(len, groups))
    return sum(len(kept[g.name]) for g in groups) / width if width else 1.0


def _started(run: Run, pruned: onnx.ModelProto) -> Run:
    """A run of the network as it is now, on the same samples."""
    inner = start(pruned, run.request.changed(data=None, test_data=None, train_data=None), run.progress, Alignment())
    inner.request = run.request
    inner.data, inner.search, inner.test, inner.metrics = run.data, run.search, run.test, run.metrics
    inner.train, inner.trainings, inner.seconds = run.train, run.trainings, run.seconds
    inner.notes.clear()
    return inner


def _take(run: Run, kept: Mapping[str, np.ndarray], pruned: onnx.ModelProto) -> None:
    """Put the weights of the pruned network in the places of the original's.

    Raises ModelError where they have none there.
    """
    base = with_biases(run.model.proto, run.deps, run.deps.dead(kept))
    full = analysis_of(run.model, run.request, run.shapes, base)
    dead = full.dead(kept)
    run.base, run.full = with_values(base, spread(full, dead, pruned)), full
    again, wanted = tensors_of(cut(run.base, full, dead)), tensors_of(pruned)
    for key, tensor in wanted.items():
        if key not in again or not np.array_equal(read_tensor(again[key]), read_tensor(tensor)):
            raise ModelError(
                f"cuts in steps have no place for tensor {key!r} in the original; leave {spelled('steps')} out"
            )
