"""Lossless pruning: only what cannot change the output goes."""

from onnxprune.errors import CheckFailed
from onnxprune.lossless import KINDS, Redundancy, redundancy
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.repair import one_thread
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.whole_groups import check_patterns, excluded
from onnxprune.surgery.plan import Plan

WORDS = {"dead": "dead (the same number for every input)", "ignored": "ignored by all that read them"}
WORDS["duplicate"] = "copies or multiples of others"


def choose_lossless(run: Run) -> Decision:
    """Channels without which the network computes the same, and the weights that go with it."""
    deps = run.original.deps
    check_patterns(deps, run.request)
    notes = excluded(deps, run.request)
    stays = {g.name: range(len(g)) for g in deps.groups if g.name in notes}
    with run.log.stage("choose channels"):
        found = _search(run, stays, run.request.round_to or 1, run.request.max_ratio)
    why = {name: ", ".join(f"{n} {kind}" for kind, n in counts.items()) for name, counts in found.removed.items()}
    return _decided(run, found, Choice(found.kept, {}, {**notes, **why}, removed=_counts(found), remarks=_told(found)))


def repeat_lossless(run: Run, plan: Plan) -> Decision:
    """The channels that a plan removes, where this network can do without them as well.

    Raises CheckFailed where it cannot.
    """
    stays = {g.name: g.keep for g in plan.groups}
    with run.log.stage("choose channels"):
        found = _search(run, stays, 1, 1.0)
    for group in plan.groups:
        needed = len(found.kept.get(group.name, range(group.channels))) - len(group.keep)
        if needed:
            raise CheckFailed(
                f"the plan is lossless, and this network needs {needed} of the channels that it removes from "
                f"{group.name!r}; run --lossless on this network instead"
            )
    origin = "remove what the plan removes, losslessly"
    return _decided(run, found, Choice(found.kept, {}, {}, origin=origin, removed=_counts(found)))


def _search(run: Run, stays: dict, multiple: int, share: float) -> Redundancy:
    own = run.original
    stays = {g.name: range(len(g)) for g in own.deps.groups if own.deps.combines(g)} | stays
    with one_thread():
        return redundancy(
            own.network, own.deps, analyse=own.analyse, stays=stays, multiple=multiple, share=share,
            progress=run.log.progress,
        )  # fmt: skip


def _decided(run: Run, found: Redundancy, choice: Choice) -> Decision:
    compensated = run.original.with_network(found.model, found.deps) if found.kept else run.original
    return Decision(run, choice, compensated)


def _counts(found: Redundancy) -> dict[str, int]:
    return {kind: count for kind in KINDS if (count := found.count(kind))}


def _told(found: Redundancy) -> tuple[str, ...]:
    parts = [f"{count:,} {WORDS[kind]}" for kind, count in _counts(found).items()]
    total = sum(_counts(found).values())
    return (f"removed {total:,} channel{'s' * (total != 1)}: {'; '.join(parts)}",) if parts else ()
