"""Proving an earlier result again: is the pruned file the original without what the plan removed?"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.walk import CUTTABLE
from onnxprune.model import load
from onnxprune.pipeline.choose import Progress, silent
from onnxprune.pipeline.examine import masked_original, required
from onnxprune.pipeline.filters import tensors_of
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run, analysis_of, start
from onnxprune.runtime.source import Source, Variant
from onnxprune.runtime.verify import Proof, prove
from onnxprune.surgery.plan import Plan, check_plan
from onnxprune.surgery.recovery.values import with_biases, with_values
from onnxprune.surgery.tensors import read_tensor, versions


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
    told = {name: plan.options[name] for name in ("heads", "thaw") if name in plan.options}
    request = Request.of({"ratio": 0.0, **told, **options})
    with limited(request, source):
        run = start(source, request, progress, plan.alignment)
        check_plan(run.deps, plan)
        progress("verify", 0, 0)
        masked, lossless = _masked(run, plan, model.proto), bool(plan.options.get("lossless"))
        box = partial(run.deps.box, dead=run.deps.dead(plan.kept))
        return required(prove(masked, model.proto, run.stimuli(), box=box, loose=lossless), lossless)


def _masked(run: Run, plan: Plan, pruned: onnx.ModelProto) -> Source | Variant:
    """The masked original; under a plan with compensation, with the weights that the pruned model has.

    Under a lossless plan it is the original itself.

    What compensation made of the weights cannot be told from the original, so that this proves the surgery alone.
    """
    if plan.options.get("lossless"):
        return run.model.proto
    dead = run.deps.dead(plan.kept)
    if plan.options.get("compensate", "none") == "none" or not dead.any():
        return masked_original(run.model.proto, run.deps, dead)
    base = with_biases(run.model.proto, run.deps, dead)
    deps = analysis_of(run.model, run.request, run.shapes, base)
    dead = deps.dead(plan.kept)
    return masked_original(with_values(base, _spread(deps, dead, pruned)), deps, dead)


def _spread(deps: Dependencies, dead: np.ndarray, pruned: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The pruned model's weights in the layout of the original, zero where it has none."""
    small = tensors_of(pruned)
    live = {key: tuple(np.ones(n, bool) for n in source.shape) for key, source in deps.sources.items()}
    live |= {v.source.key: v.live for v in versions(deps, dead) if not v.copied}
    values = {}
    for key, source in deps.sources.items():
        if key in small and source.dtype in CUTTABLE | {onnx.TensorProto.INT32}:  # which biases are, behind integers
            array = read_tensor(small[key])
            values[key] = np.zeros(source.shape, array.dtype)
            values[key][np.ix_(*live[key])] = array
    return values
