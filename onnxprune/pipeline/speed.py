"""How long a choice takes, before it is written."""

from __future__ import annotations

from onnxprune.pipeline.choose import Choice
from onnxprune.pipeline.run import Run
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.latency import Latency, measure
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.rewrite import cut

SECONDS = 1.5  # of one measurement


def timed(run: Run, choice: Choice) -> tuple[Latency, Latency]:
    """Latency of the original and of the network that keeps these channels, timed in turns.

    Shares are best taken of lower quartiles: what else runs on the machine disturbs them less than it does the medians.
    Another machine, or another day, gives another outcome; its plan repeats it.
    """
    model, request = run.model.proto, run.request
    small = cut(model, run.deps, run.deps.dead(choice.kept)) if choice.kept else model
    feed = random_inputs(model_inputs(model), run.shapes, seed=request.seed)[0]
    sessions = {
        name: make_session(m, providers=request.providers, threads=request.threads, optimize=True)
        for name, m in (("before", model), ("after", small))
    }
    times = measure(sessions, feed, seconds=SECONDS)
    return times["before"], times["after"]
