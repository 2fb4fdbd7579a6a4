"""Verify and measure a pruned model against the original, with no more in memory than that takes.

A session wants the weights for itself.  Those of a large original are therefore left in files, masked and not, and the
model that was read is given up: from here on only its nodes, inputs and outputs are needed.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan
from pathlib import Path

import numpy as np

from onnxprune.errors import CheckFailed, spelled
from onnxprune.model import Model
from onnxprune.model.network import Network
from onnxprune.model.tensors import CUTTABLE, is_external, quoted
from onnxprune.pipeline.decision import Decision
from onnxprune.pipeline.measure import Measurements, drop_missed, measurements
from onnxprune.pipeline.run import Run
from onnxprune.report import words
from onnxprune.report.summary import Samples
from onnxprune.runtime.proof import NOT_MASKED, Proof
from onnxprune.runtime.prove import prove
from onnxprune.runtime.source import SPILL_MODEL, Source, Variant, spilled
from onnxprune.runtime.trim import give_back
from onnxprune.surgery.rewrite import masked


@dataclass(frozen=True)
class Findings:
    """What running the pruned network has shown; nothing where that was not asked for."""

    proof: Proof | None = None
    measured: Measurements = field(default_factory=Measurements)


def examine(decision: Decision, written: Network | Path) -> Findings:
    """Verify and measure, before anything is put in place: an error here leaves what was there.

    Raises:
        CheckFailed: the pruned model is not the masked original, or under `lossless` the original.
        UsageError, ModelError: providers, metrics or data do not fit.
    """
    run, compensated = decision.run, decision.compensated
    request, log = run.request, run.log
    measured = request.measure or run.split.test is not None
    dead = compensated.dead(decision.kept)
    found = Findings()
    with originals(decision, dead, measured) as (reference, original):
        if request.verify:
            with log.stage("verify"):
                lossless = request.lossless  # which may rely on what saturates
                box = partial(compensated.deps.box, dead=dead)
                proof = prove(reference, written, run.stimuli(), box=box, loose=lossless)
                required(proof, lossless, "" if proof.passed else _not_finite(run.original.network))
                log.warnings += proof.warnings
                found = Findings(proof)
        if measured:
            with log.stage("measure"):
                found = replace(found, measured=measurements(decision, found.proof, original, written))
            problems = found.measured.problem, drop_missed(request, found.measured.metrics)
            log.warnings += filter(None, problems)
            _require_figures(run, found.measured)
    return found


@contextmanager
def originals(
    decision: Decision, dead: np.ndarray, measured: bool
) -> Iterator[tuple[Source | Variant, Source | Variant]]:
    """The masked original and the original itself; after this, the weights of a large one are no longer in memory."""
    own, compensated, request = decision.run.original.network, decision.compensated, decision.run.request
    whole = own  # a lossless cut has to equal the original itself
    if request.verify and not request.lossless:
        whole = masked(compensated.network, compensated.deps, dead)
    if own.nbytes < SPILL_MODEL:
        yield whole, own
        return
    reference: Source | Variant = Network(own.graph, {})
    original: Source | Variant = file_of(decision.run.file) or reference
    with ExitStack() as stack:
        if request.verify:  # in a network of its own, whose tensors stay where they take no file
            reference = stack.enter_context(spilled(Variant(whole.own())))
        if measured and isinstance(original, Network):
            original = stack.enter_context(spilled(Variant(own.own())))
        del whole
        decision.run.file.release_weights()
        for network in (own, compensated.network):
            network.release_tensors()
        give_back()
        yield reference, original


def _not_finite(network: Network) -> str:
    """The first weight in memory that has NaN or infinity among its elements, in words; empty where none does."""
    for key, header in network.headers.items():
        there = key in network.tensors or not is_external(header)
        if there and header.data_type in CUTTABLE and not np.isfinite(network.array(key)).all():
            return f"; the file has NaN or infinity in {quoted(key)}"
    return ""


def required(proof: Proof, lossless: bool, cause: str = "") -> Proof:
    """The proof, or CheckFailed where the models differ, with the cause behind it."""
    return proof.require("the pruned model does not give what the original gives" if lossless else NOT_MASKED, cause)


def file_of(model: Model) -> Path | None:
    """The file that holds all of a model, if there is one and it is still the same."""
    if model.path is None or model.external is not None or model.status is None:
        return None
    try:
        now = os.stat(model.path)
    except OSError:
        return None
    return model.path if identity(now) == identity(model.status) else None


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """What changes with the content of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _require_figures(run: Run, found: Measurements) -> None:
    """Raise CheckFailed where the pruned network is worse than the request allows."""
    request, counts = run.request, run.split.counts
    if request.min_accuracy is not None:
        row = next(m for m in found.metrics if m.unit == "share")
        _require(row.after, float(request.min_accuracy), row.name, "share", words.on(row, counts), "min_accuracy")
    if request.min_snr is not None:
        value, where, advice = _snr(found, counts)
        _require(value, request.min_snr, "signal to noise", "dB", where, "min_snr", advice)


def _snr(found: Measurements, counts: Samples | None) -> tuple[float, str, str]:
    """The signal to noise that a gate goes by, what it was measured on, and what else might raise it."""
    row = next((m for m in found.metrics if m.name == "snr"), None)
    if row is not None:
        return row.after, words.on(row, counts), ""
    if not (ratios := [r.snr for r in found.drift if not isnan(r.snr)]):
        raise CheckFailed(
            f"{spelled('min_snr')} cannot be checked: {found.problem or 'no output holds finite numbers'}"
        )
    return min(ratios), "on drawn samples", f", or repair on real samples ({spelled('data')})"


def _require(value: float, least: float, name: str, unit: str, where: str, option: str, advice: str = "") -> None:
    if not value >= least:
        raise CheckFailed(
            f"{name} is {words.merit(value, unit)} {where}, and {spelled(option)} wants {words.merit(least, unit)}; "
            f"nothing was written: remove less{advice}"
        )
