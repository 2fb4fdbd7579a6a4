"""A plan once more, on another precision or checkpoint of the same network."""

import os
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.pipeline.calibration import calibrating
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.lossless import repeat_lossless
from onnxprune.pipeline.prepare import prepare
from onnxprune.pipeline.prune import Result, check_output, finish
from onnxprune.pipeline.repair import repair
from onnxprune.pipeline.replay import plan_of, start_again
from onnxprune.pipeline.request import Request, given_budgets
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.signature import takes
from onnxprune.pipeline.tune import finetuned
from onnxprune.progress import Progress, silent
from onnxprune.surgery.plan import Plan


@takes("apply")
def apply(
    source: Any,
    plan: Plan | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
    **options: Any,
) -> Result:
    """Repeat a plan: the same channels of the same groups go.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        plan: what an earlier run gave, or the file that it was saved to.
        output: path to write to; None keeps the outcome in memory.

    Raises:
        UsageError: the plan does not fit this network.
        CheckFailed: as for `prune`; or a lossless plan would change what this network computes.
        ModelError, FileError: as for `prune`.
    """
    if given := given_budgets(options):
        raise UsageError(f"{given[0]} cannot be given together with a plan")
    read, plan = plan, plan_of(plan)
    told = {k: v for k, v in plan.options.items() if k in ("heads", "method", "seed", "compensate", "lossless", "thaw")}
    budget = {} if told.get("lossless") else {"ratio": 0.0}
    request = Request.of(options, "apply", **budget, **told)
    check_output(source, output, request, plan=read)
    with limited(request, source):
        run, _ = start_again(source, request, progress, plan)
        if plan.source.get("sha256") != run.file.sha256:  # before `prepare`: that holds whatever is cut
            run.log.warnings.append("the plan was made for another file; its channels are those of this one by name")
        return finish(_decided(prepare(run, chooses=False), plan), output)


def _decided(run: Run, plan: Plan) -> Decision:
    """What a plan removes, from this network, and what it gives those that stay."""
    if run.request.lossless:
        return repeat_lossless(run, plan)
    choice = Choice(plan.cut, {}, {}, origin="remove what the plan removes", options=plan.options)
    decision = repair(run, choice, calibrating(run.original, run.split.fit, run.log.progress))
    return finetuned(decision) if run.request.finetune else decision
