"""One combination, wherever it runs: pruned, proven, and kept under its key."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import COMMAND_LINE, OnnxPruneError
from onnxprune.model.references import data_files
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.prune import Result, prune_run
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import start
from onnxprune.progress import silent
from onnxprune.report.files import write
from onnxprune.report.summary import Report
from onnxprune.report.tradeoff import EXACT
from onnxprune.report.verdict import telling
from onnxprune.report.words import worst
from onnxprune.sweeps.store import MODELS, Store, digest

THREADS = 1  # of onnxruntime for the figures: sums depend on the number, and results shall not on that of workers


@dataclass(frozen=True)
class Job:
    """A network, the options that it is cut with, and where the result goes; it travels to a worker.

    stem: name of the files of the model and its plan, without their endings.
    typed: whether errors name options as the command line has them.
    """

    key: str
    source: str
    network: str
    stem: str
    options: Mapping[str, Any]
    folder: str
    typed: bool = False


def work(job: Job) -> str:
    """Do a job, unless its result is there; gives its key.  What goes wrong is a result too, and ends nothing else."""
    store = Store(Path(job.folder))
    if store.whole(job.key):
        return job.key
    token = COMMAND_LINE.set(job.typed)
    row: dict[str, Any] = {"key": job.key, "network": job.network}
    row |= {name: job.options[name] for name in ("target", "method")}
    try:
        row |= _done(job)
    except OnnxPruneError as error:
        row |= {"error": str(error), "exit_code": error.exit_code}
    except MemoryError:
        row |= {"error": "there is not enough memory: run fewer jobs at once", "exit_code": 1}
    except Exception as error:  # a bug, or a script of the user's
        row |= {"error": f"{type(error).__name__}: {error}", "exit_code": 1}
    finally:
        COMMAND_LINE.reset(token)
    store.put(job.key, row)
    return job.key


def _done(job: Job) -> dict[str, Any]:
    folder = Path(job.folder)
    model, plan = (f"{MODELS}/{job.stem}{ending}" for ending in (".onnx", ".plan.json"))
    request = Request.of({"threads": THREADS, **job.options})
    with limited(request, job.source):
        run = replace(start(job.source, request, silent), timed=False)  # a worker is never alone
        result = prune_run(run, folder / model)
    write(str(folder / plan), result.plan.text)
    data = {path.name: digest(path) for path in data_files(folder / model)}
    return {"model": model, "plan": plan, "data_sha256": data, **_told(result)}


def _told(result: Result) -> dict[str, Any]:
    report = result.report
    costs = ("params", "macs", "bytes", "activations")
    found: dict[str, Any] = {name: getattr(report.after, name) for name in costs}
    found |= {f"{name}_before": getattr(report.before, name) for name in costs}
    verdict = report.verdict
    found |= {"verdict": verdict.text, "level": verdict.level, "proof": report.proof}
    found |= {"warnings": list(report.warnings), "sha256": report.sha256["output"]}
    found["input_shapes"] = {name: list(shape) for name, shape in report.input_shapes.items()}
    return {**found, **_figure(report)}


def _figure(report: Report) -> dict[str, Any]:
    """The figure that says most: on the user's samples, else the signal to noise on drawn ones."""
    if report.metrics:
        row = telling(report.metrics)
        before = None if row.unit == "dB" else row.before
        values = {"before": before, "after": _finite(row.after), "samples": row.samples}
        return {"figure": row.name, "unit": row.unit, **values}
    if report.drift:
        drift = worst(report.drift)
        snr = None if drift.problem else _finite(drift.snr)
        return {"figure": "snr", "unit": "dB", "after": snr}
    return {}


def _finite(value: float) -> float | None:
    """A number that JSON has a word for."""
    return None if math.isnan(value) else min(max(value, -EXACT), EXACT)
