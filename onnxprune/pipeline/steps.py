"""Cutting to the target in several cuts, with training between them: iterative pruning.

Each cut is chosen and repaired on the network as training has left it.  The original is the teacher all along, also of
the training of msvfp inside a cut.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from glob import escape

import numpy as np

from onnxprune.budget import Budget
from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import ModelError, UsageError, spelled
from onnxprune.model.network import Network
from onnxprune.pipeline.choose import method_of
from onnxprune.pipeline.costs import costs_of
from onnxprune.pipeline.decision import Decision
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Log, Run, start
from onnxprune.pipeline.study import Kept, Study
from onnxprune.pipeline.targets import Limit
from onnxprune.pipeline.tune import BETWEEN, Teacher, recipe_of, tune
from onnxprune.pipeline.whole_groups import ratios_of, whole_groups
from onnxprune.surgery.align import Alignment
from onnxprune.surgery.recovery.replaced import spread, with_biases

Cut = Callable[[Run], Decision]  # chooses and repairs


def in_steps(run: Run, cut_once: Cut) -> Decision:
    """The channels that stay after all cuts, and the weights of the last one.

    Args:
        run: of the original.
        cut_once: one cut of a run: its channels, and the repair.

    Raises UsageError where groups of the network change their names or sizes once some channels are gone.
    """
    number, request, own = run.request.steps or 1, run.request, run.original
    kept: dict[str, np.ndarray] = {}
    inner = run
    for k in range(number):
        wanted = replace(step_request(request, k, own, kept), strict=False)
        done = cut_once(replace(inner, request=wanted))
        kept = composed(own.deps, kept, done.kept)
        pruned = done.cut.materialized()
        if inner is not run:
            run.log.add(inner.log)
        if k == number - 1:
            break
        recipe = replace(recipe_of(request, share=BETWEEN / (number - 1)), resume=None)
        pruned = tune(run, Teacher(own, kept), pruned, recipe, (), run.training_data)
        inner = replace(_started(run, pruned), teacher=own)
    return Decision(run, replace(done.choice, kept=kept), _compensated(own, kept, pruned), done.held_out)


def step_request(request: Request, k: int, own: Study, kept: Kept) -> Request:
    """What the k-th cut is asked for: of the original, an equal factor more each time, and in the end the target.

    Args:
        own: the original.
        kept: what earlier cuts have left of its groups.
    """
    done = (k + 1) / (request.steps or 1)
    if request.ratio is not None and request.variable_rate:
        request = _as_target(request, own)
    request = replace(request, ratio_for={name: _part(share, done) for name, share in request.ratio_for.items()})
    if request.ratio is not None:
        return replace(request, ratio=_part(request.ratio, done))
    return replace(request, target=tuple(_part_of(limit, done, own.deps, kept) for limit in request.target or ()))


def _part(ratio: float, done: float) -> float:
    """A share to remove a part of the way, as powers go; at its end exactly the share."""
    return ratio if done == 1 else 1 - (1 - ratio) ** done


def _as_target(request: Request, own: Study) -> Request:
    """The request with the MACs that its ratio leaves instead, which groups share out; those without any lose it.

    What cannot be ranked by its weights stays whole, as it does in a single cut.
    """
    deps = own.deps
    whole = whole_groups(Weights(own.network, deps), method_of(request), request)
    fixed = {**ratios_of(deps, request), **dict.fromkeys(whole, 0.0)}
    budget = Budget(request.ratio, None, fixed, request.max_ratio, request.round_to).as_target(costs_of(deps, 0))
    assert budget.target is not None
    kind, share = budget.target
    idle = {escape(g): ratio for g, ratio in budget.ratio_for.items() if g not in fixed}
    limit = Limit(kind, share, None, f"{kind}={share:.6g}")
    return replace(request, ratio=None, target=(limit,), ratio_for={**idle, **request.ratio_for})


def _part_of(limit: Limit, done: float, deps: Dependencies, kept: Mapping[str, np.ndarray]) -> Limit:
    """A limit on what is left now that goes a part of the way, as powers go, to one on the original."""
    cost = {"macs": deps.macs, "params": deps.params}[limit.cost]
    total = max(1, cost())
    share = min(1.0, (limit.most(total) / total) ** done / (cost(deps.dead(kept)) / total))
    return Limit(limit.cost, share, None, f"{limit.cost}={share:.6g}")


def composed(
    deps: Dependencies, before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Kept channels in numbers of the original, from those of the network that was cut before."""
    widths = {g.name: len(g) for g in deps.groups}
    found = dict(before)
    for name, channels in now.items():
        if name not in widths or (len(channels) and channels.max() >= len(before.get(name, range(widths[name])))):
            raise UsageError(f"{spelled('steps')} cannot be used here: group {name!r} changes once channels are gone")
        found[name] = np.asarray(before[name])[channels] if name in before else channels
    return found


def _started(run: Run, pruned: Network) -> Run:
    """A run of the network as it is now, on the same samples."""
    request, log = run.request, run.log
    inner = start(
        pruned.proto(), replace(request, data=None, test_data=None, train_data=None), log.progress, Alignment()
    )
    inner.log.notes.clear()
    log.seconds.update({name: log.seconds.get(name, 0.0) + s for name, s in inner.log.seconds.items()})
    told = Log(log.progress, log.seconds, inner.log.warnings, inner.log.notes, log.interrupted)
    return replace(inner, request=request, log=told, split=run.split, train=run.train, metrics=run.metrics)


def _compensated(own: Study, kept: Kept, pruned: Network) -> Study:
    """The original with the weights of the pruned network in their places.

    Raises ModelError where they have none there.
    """
    full = own.reanalysed(with_biases(own.network, own.deps, own.dead(kept)))
    compensated = full.with_network(full.network.with_tensors(spread(full.deps, full.dead(kept), pruned)))
    again = compensated.pruned(kept)
    for key in pruned.headers:
        if key not in again or not np.array_equal(again.array(key), pruned.array(key)):
            raise ModelError(
                f"cuts in steps have no place for tensor {key!r} in the original; leave {spelled('steps')} out"
            )
    return compensated
