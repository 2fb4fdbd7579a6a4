"""Latency of what a sweep has made: one network at a time, when nothing else runs."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.model import load
from onnxprune.pipeline.measure import cpu_name
from onnxprune.report.tradeoff import Row, Timing
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.latency import measure
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.sweeps.store import TIMES, Store

SECONDS = 1.0  # of one measurement, original and pruned network in turns


def timed(store: Store, row: Row, source: Path, providers: Any, threads: int | None, seed: int) -> Timing | None:
    """How fast a result is here, next to its original; what this machine has measured before is taken again.

    None where one of them cannot be run here.
    """
    if row.error or row.model is None:
        return None
    key = _key(row, providers, threads)
    if (stored := store.get(key, TIMES)) is not None:
        return Timing(**stored)
    try:
        model = load(source).proto
        shapes = {name: tuple(shape) for name, shape in (row.input_shapes or {}).items()}
        feed = random_inputs(model_inputs(model), shapes, seed=seed)[0]
        made = {"before": model, "after": load(store.folder / row.model).proto}
        sessions = {
            n: make_session(m, providers=providers, threads=threads, optimize=True, spin=True) for n, m in made.items()
        }
        found = measure(sessions, feed, seconds=SECONDS)
    except OnnxPruneError:
        return None
    before, after = found["before"], found["after"]
    timing = Timing(before.median, after.median, after.low, after.high)
    store.put(key, asdict(timing), TIMES)
    return timing


def _key(row: Row, providers: Any, threads: int | None) -> str:
    """Digest of the result, the machine, and how it is run there."""
    import onnxruntime

    told = [row.key, row.sha256, cpu_name(), repr(providers), threads, onnxruntime.__version__]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
