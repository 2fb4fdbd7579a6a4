"""Proving an earlier result again: is the pruned file the original without what the plan removed?"""

import os
from pathlib import Path
from typing import Any

from onnxprune.model import load
from onnxprune.pipeline.choose import Progress, silent
from onnxprune.pipeline.examine import masked_original
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.prune import start
from onnxprune.pipeline.request import Request
from onnxprune.runtime.verify import Proof, prove
from onnxprune.surgery.plan import Plan, check_plan


def verify(
    source: Any, pruned: Any, plan: Plan | str | os.PathLike[str], *, progress: Progress = silent, **options: Any
) -> Proof:
    """Compare a pruned model with the masked original on random inputs, and on `data` where that is given.

    Args:
        source: the original.
        pruned: the model to be proven.
        plan: what was removed.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        options: fields of `Request` about inputs and data.

    Raises:
        CheckFailed: they differ.
        UsageError: the plan does not fit the original.
        ModelError, FileError: one of the models cannot be read or run.
    """
    plan = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    model = load(pruned)
    heads = {"heads": plan.options["heads"]} if "heads" in plan.options else {}
    request = Request.of({"ratio": 0.0, **heads, **options})
    with limited(request, source):
        run = start(source, request, progress)
        check_plan(run.deps, plan)
        progress("verify", 0, 0)
        masked = masked_original(run.model.proto, run.deps, run.deps.dead(plan.kept))
        return prove(masked, model.proto, run.feeds()).require()
