"""Proving an earlier result again: is the pruned file the original without what the plan removed?"""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from onnxprune.errors import CheckFailed
from onnxprune.model import load
from onnxprune.model.network import Network
from onnxprune.model.tensors import CUTTABLE, quoted
from onnxprune.pipeline.examine import required
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.measure import drift, sessions_of
from onnxprune.pipeline.replay import coupling, plan_of, start_again
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.signature import takes
from onnxprune.pipeline.study import Study
from onnxprune.progress import Progress, silent
from onnxprune.report.summary import DriftRow
from onnxprune.runtime.proof import Proof
from onnxprune.runtime.prove import prove
from onnxprune.surgery.binding import BoundWeights, added_operators, bind, check_weights, content
from onnxprune.surgery.plan import Plan
from onnxprune.surgery.recovery.replaced import spread, with_biases
from onnxprune.surgery.rewrite import masked

SEVERAL = 5  # operators that are named


@dataclass(frozen=True, repr=False)
class Verdict:
    """What has been shown of a pruned file, and what has not.

    surgery: the file computes what the original computes without the removed channels; where weights were repaired,
        with the weights of the file put in place of the original's.
    weights: which of them are those of the original, or those that the plan has the digests of.
    same: whether the file is the one that the plan was made with, but for its metadata; None where the plan does not
        say, since it is of version 1.
    drift: how far its outputs are from those of the original, on random input or on data.
    rotation: that the original computes the same in the bases of the plan, where the plan rotates.
    strange: operators of a file that was changed, of which the cut makes fewer nodes; they may do anything on input
        that was not run.
    """

    surgery: Proof
    weights: BoundWeights
    same: bool | None
    drift: tuple[DriftRow, ...]
    rotation: Proof | None = None
    strange: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the surgery is right and the weights are those that were planned."""
        return self.surgery.passed and not self.weights.wrong

    @property
    def figures(self) -> str:
        """The drift in words."""
        return ", ".join(f"'{row.output}' {row.problem or f'{row.snr:.1f} dB'}" for row in self.drift)

    def __repr__(self) -> str:
        return f"<Verdict: {'passed' if self.passed else 'failed'}; surgery {self.surgery}; weights {self.weights}>"

    def __str__(self) -> str:
        file = "the one that the plan was made with" if self.same else "changed since the plan was made"
        if self.strange:
            file += f", with nodes that the cut does not make ({', '.join(self.strange[:SEVERAL])}): run, and not bound"
        parts = {"rotation": f"the original and the rotated network are {self.rotation}"} if self.rotation else {}
        parts |= {
            "surgery": f"masked original and pruned model are {self.surgery}",
            "weights": str(self.weights),
            "file": file if self.same is not None else "not known to the plan, which is of an older version",
            "drift from the original": f"{self.figures}; says nothing about accuracy",
        }
        return "\n".join(f"{name}: {said}" for name, said in parts.items())


@takes("verify")
def verify(
    source: Any, pruned: Any, plan: Plan | str | os.PathLike[str], *, progress: Progress = silent, **options: Any
) -> Verdict:
    """Compare a pruned model with the masked original, and its weights with those that the plan says.

    Args:
        source: the original.
        pruned: the model to be proven.
        plan: what was removed.

    Raises:
        CheckFailed: they differ; or weights were repaired, and the plan does not say to what.
        UsageError: the plan does not fit the original.
        ModelError, FileError: one of the models cannot be read or run.
    """
    plan = plan_of(plan)
    model = load(pruned)
    request = Request.of(options, "verify", ratio=0.0, compensate="none", **coupling(plan))
    with limited(request, source):
        run, rotation = start_again(source, request, progress, plan)
        if plan.alignment and not run.alignment:  # or weights in another order would pass for the original's
            raise CheckFailed("the original with its channels in the order of the plan is not the original")
        whole = run.original
        progress("verify", 0, 0)
        own, made, lossless = run.file.network, model.network, bool(plan.options.get("lossless"))
        weights = check_weights(_with_digests(whole, plan, own), own, made)
        reference = _reference(whole, plan, made, weights)
        box = partial(whole.deps.box, dead=whole.dead(plan.kept))
        other = "" if plan.source.get("sha256") == run.file.sha256 else "; the plan was made for another file"
        proof = prove(reference, made, run.stimuli(), box=box, loose=lossless)
        surgery = required(proof, lossless, other)
        _require(weights, other, lossless)
        same = None if plan.content is None else content(made) == plan.content
        far = drift(sessions_of(own, made, request), run.made())
        added = added_operators(made.graph, whole.pruned(plan.kept).graph) if same is False else ()
    return Verdict(surgery, weights, same, far, rotation, added)


def _repaired(plan: Plan) -> bool:
    """Whether weights were to be changed besides being cut."""
    return plan.options.get("compensate", "none") != "none" or bool(plan.options.get("lossless"))


def _with_digests(whole: Study, plan: Plan, own: Network) -> Plan:
    """A plan of version 1 with the digests of what the cut makes now, where it was the cut alone."""
    if plan.digests is not None or _repaired(plan):
        return plan
    return replace(bind(plan, own, whole.pruned(plan.kept)), content=None)


def _require(weights: BoundWeights, other: str, lossless: bool) -> None:
    """Raise CheckFailed where the surgery is right, but the weights are not, or may be any."""
    if weights.wrong:
        raise CheckFailed(f"the surgery is right, but the weights are {weights}{other}")
    if weights.unbound and not lossless:
        raise CheckFailed(
            f"the surgery alone is right: {len(weights.unbound)} tensors, such as {quoted(weights.unbound[0])}, were "
            "repaired, and this plan of version 1 does not say to what, so that any weights would pass; prune again, "
            "for a plan with digests"
        )


def _reference(whole: Study, plan: Plan, pruned: Network, weights: BoundWeights) -> Network:
    """The masked original, with the weights of the pruned model where they were repaired.

    Under a lossless plan it is the original itself.
    """
    if plan.options.get("lossless"):
        return whole.network
    sources, dead = whole.deps.sources, whole.dead(plan.kept)
    changed = {*weights.planned, *weights.wrong, *weights.unbound} & sources.keys()
    changed = {key for key in changed - plan.computed.keys() if sources[key].dtype in CUTTABLE}
    if not (changed or _repaired(plan)) or not dead.any():
        return masked(whole.network, whole.deps, dead)
    full = whole.reanalysed(with_biases(whole.network, whole.deps, dead))
    dead = full.dead(plan.kept)
    return masked(full.network.with_tensors(spread(full.deps, dead, pruned)), full.deps, dead)
