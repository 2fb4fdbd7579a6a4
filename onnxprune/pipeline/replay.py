"""An earlier plan taken up again: it is read, and its network brought into the order and the bases in which it cuts."""

import os
from dataclasses import replace
from typing import Any

from onnxprune.pipeline.paths import as_path
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.rotate import NOT_EQUAL, rotatable
from onnxprune.pipeline.run import Run, start
from onnxprune.progress import Progress
from onnxprune.runtime.proof import Proof
from onnxprune.runtime.prove import prove
from onnxprune.surgery.plan import Plan, check_plan


def plan_of(given: Plan | str | os.PathLike[str]) -> Plan:
    """A plan, or the one in a file.  Raises UsageError and FileError where that has none."""
    return given if isinstance(given, Plan) else Plan.load(as_path(given, "plan"))


def coupling(plan: Plan | None) -> dict[str, Any]:
    """The options that a network is analysed with to have the groups of a plan."""
    told = plan.options if plan else {}
    return {name: told[name] for name in ("heads", "thaw") if name in told}


def start_again(source: Any, request: Request, progress: Progress, plan: Plan | None) -> tuple[Run, Proof | None]:
    """Load and analyse a network for a plan; the proof that its bases change nothing, where it was asked for.

    Raises:
        UsageError: the plan does not fit the network.
        CheckFailed: the rotated network is not the original.
    """
    run, proof = start(source, request, progress, plan.alignment if plan else None), None
    if plan is None:
        return run, None
    if plan.rotation:
        model = rotatable(run).rotated(plan.rotation)
        if request.verify:
            proof = prove(run.original.network, model, run.stimuli()).require(NOT_EQUAL)
        run = replace(run, original=run.original.reanalysed(model), rotation=plan.rotation, unrotated=run.original)
    check_plan(run.original.deps, plan)
    return run, proof
