"""The smallest pruning whose measured latency is at most the share of the original's that is asked for."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.errors import UsageError
from onnxprune.pipeline.choose import Choice, Chooser
from onnxprune.pipeline.drop import KIND, largest_cut, least_share
from onnxprune.pipeline.run import Run
from onnxprune.report.search import Probe, Search
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.latency import measure
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.rewrite import cut

RESOLUTION = 0.02  # of the share of the MACs, at which the search ends: six measurements
SECONDS = 1.5  # of one measurement


def fast_choice(run: Run, chooser: Chooser) -> Choice:
    """The choice of most MACs that runs as fast as the target says, original and pruned network timed in turns.

    Where even the smallest network is slower, that one is chosen and `stopped_by` says so.  Another machine, or
    another day, gives another outcome; its plan repeats it.

    Raises UsageError for a share that is not above 0 and at most 1.
    """
    target = run.request.target_share()
    assert target is not None
    if not 0 < target[1] <= 1:
        raise UsageError(f"a target is the share to keep, above 0 and at most 1, not {target[1]}")
    found: dict[float, Choice] = {}
    least = least_share(chooser)

    def shortage(gone: float) -> float:
        """How much of the original's time is saved at this place between no cut (at `least`) and all (at 1)."""
        share = 1 + least - gone
        run.progress(f"timing with {share:.1%} of the {KIND}", len(found), 0)
        found[share] = chooser.choose((KIND, share))
        return 1 - _left(run, found[share])

    probes = [replace(p, share=1 + least - p.share) for p in largest_cut(shortage, least, 1 - target[1], RESOLUTION)]
    search = Search(KIND, "latency left", "share", 1.0, target[1], False, _as_left(probes))
    if fast := [p.share for p in probes if p.holds]:
        chosen = found[max(fast)]
        return replace(chosen, search=search, remarks=(*chosen.remarks, told(probes, target[1])))
    smallest = chooser.choose((KIND, least))
    left = _left(run, smallest)
    missed = "" if left <= target[1] else f"latency ends at {left:.1%} of the original: nothing more can be cut"
    return replace(smallest, search=search, stopped_by=missed, remarks=(*smallest.remarks, told(probes, target[1])))


def _as_left(probes: list[Probe]) -> tuple[Probe, ...]:
    """Evaluations by the share of the latency that is left, instead of by what is saved."""
    return tuple(replace(p, figure=1 - p.figure) for p in probes)


def _left(run: Run, choice: Choice) -> float:
    """Latency of the network that keeps these channels, as a share of the original's.

    Lower quartiles are compared: what else runs on the machine disturbs them less than it does the medians.
    """
    model, request = run.model.proto, run.request
    small = cut(model, run.deps, run.deps.dead(choice.kept)) if choice.kept else model
    feed = random_inputs(model_inputs(model), run.shapes, seed=request.seed)[0]
    sessions = {
        name: make_session(m, providers=request.providers, threads=request.threads, optimize=True)
        for name, m in (("before", model), ("after", small))
    }
    times = measure(sessions, feed, seconds=SECONDS)
    return times["after"].low / times["before"].low


def told(probes: list[Probe], share: float) -> str:
    """The search in one line."""
    steps = ", ".join(f"{p.share:.1%} → {1 - p.figure:.0%} {'✓' if p.holds else '✗'}" for p in probes)
    return f"search for the most {KIND} with at most {share:.0%} of the latency on this machine: {steps}"
