"""How long a choice takes, before it is written."""

from __future__ import annotations

from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.run import Run
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.latency import Latency, measure
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs

SECONDS = 1.5  # of one measurement


def timed(run: Run, choice: Choice) -> tuple[Latency, Latency]:
    """Latency of the original and of the network that keeps these channels, timed in turns.

    Shares are best taken of lower quartiles: what else runs on the machine disturbs them less than it does the medians.
    Another machine, or another day, gives another outcome; its plan repeats it.
    """
    own, request = run.original, run.request
    small = own.pruned(choice.kept) if choice.kept else own.network
    feed = random_inputs(model_inputs(own.graph), own.shapes, seed=request.seed)[0]
    sessions = {
        name: make_session(m, providers=request.providers, threads=request.threads, optimize=True, spin=True)
        for name, m in (("before", own.network), ("after", small))
    }
    times = measure(sessions, feed, seconds=SECONDS)
    return times["before"], times["after"]
