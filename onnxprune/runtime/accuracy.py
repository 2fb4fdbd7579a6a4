"""Metrics over a data set, for several models in one pass: accuracy with labels, likeness to the original without."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.classes import as_scores, label_problem, numbers
from onnxprune.runtime.scales import Scales
from onnxprune.runtime.script import blaming, load_function
from onnxprune.runtime.session import Session
from onnxprune.runtime.specs import Feed, describe

Labels = np.ndarray | None


@dataclass(frozen=True)
class Metric:
    """A figure of merit, the higher the better.

    `terms(outputs, reference, labels)` gives one row of sums per batch (any number of columns), and `total(sums)` the
    figure from the sums over all batches. `unit` is `share` (0 to 1), `dB` or empty.
    """

    name: str
    terms: Callable[[Feed, Feed | None, Labels], np.ndarray]
    total: Callable[[np.ndarray], float]
    needs_labels: bool = False
    needs_reference: bool = False
    unit: str = "share"
    ranks: bool = False  # looks at class scores only
    compares: bool = False  # weighs all numbers of an output: the figure is that of the output furthest off

    def of(self, output: str) -> "Metric":
        """The same figure of one output alone."""

        def terms(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
            old = None if reference is None else {output: reference[output]}
            return self.terms({output: outputs[output]}, old, labels)

        return replace(self, terms=terms)

    def by_scale(self, scales: Scales) -> "Metric":
        """The same figure with numbers of two scales in one output as two outputs."""

        def terms(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
            return self.terms(scales.parts(outputs), scales.parts(reference or {}), labels)

        return replace(self, terms=terms)


def scores(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The class scores (samples, classes) or (samples, classes, ...) among a model's outputs: the first that can be.

    Axes of length 1 are dropped.  Raises `UsageError` when no output has more than one class.
    """
    for array in outputs.values():
        if (given := as_scores(array)) is not None:
            return given
    shapes = ", ".join(f"'{n}' {describe(a.shape)}" for n, a in outputs.items())
    raise UsageError(f"no output looks like class scores ({shapes}); use --metric cosine, snr or script.py:fn")


def _hits(outputs: Feed, labels: np.ndarray, k: int) -> np.ndarray:
    given = scores(outputs)
    if problem := label_problem(labels, given):
        raise UsageError(problem)
    truth = np.asarray(labels).reshape(-1) if given.ndim == 2 else np.asarray(labels)
    # How many classes score higher, and of the equal ones how many stand before: ties count as argmax has them.
    own = np.take_along_axis(given, truth.astype(np.int64)[:, None], axis=1)
    order = np.arange(given.shape[1]).reshape(1, -1, *[1] * (given.ndim - 2))
    before = (given > own) | ((given == own) & (order < truth[:, None]))
    hit = (before.sum(axis=1) < k) & ~np.isnan(own[:, 0].astype(np.float64))
    return np.array([hit.mean() * len(hit), len(hit)])


def _top(k: int) -> Callable[[Feed, Feed | None, Labels], np.ndarray]:
    def terms(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
        if labels is None:
            raise UsageError(f"top{k} needs labels, which the data does not have; use --metric agreement")
        return _hits(outputs, labels, k)

    return terms


def _agreement(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
    return _hits(outputs, scores(reference or {}).argmax(axis=1), 1)


def _pairs(outputs: Feed, reference: Feed | None) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Original and new numbers of each output, (samples, numbers) of float64; one row without the samples' axis.

    NaN for both where shapes differ, as those of what a threshold lets through.  Raises UsageError without any output.
    """
    if not outputs:
        raise UsageError("no output is a tensor of numbers, so that nothing can be compared")
    samples = _samples(outputs)
    for name, new in outputs.items():
        old = (reference or {})[name]
        if old.shape != new.shape:
            yield np.full((1, 1), np.nan), np.full((1, 1), np.nan)
            continue
        rows = samples if new.ndim and len(new) == samples else 1
        yield old.reshape(rows, -1).astype(np.float64), new.reshape(rows, -1).astype(np.float64)


def _cosine(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
    return np.array([_cosines(a, b) for a, b in _pairs(outputs, reference)])


def _cosines(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Sum and number of the cosines between rows; two rows of zeros agree."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = np.einsum("ij,ij->i", a, b)
    same = (a == b).all(axis=1)
    return np.minimum(np.where(lengths != 0, dots / np.where(lengths != 0, lengths, 1), same), 1.0).sum(), len(a)


def _snr(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
    return np.array([(np.vdot(a, a), np.vdot(a - b, a - b)) for a, b in _pairs(outputs, reference)])


def _decibels(sums: np.ndarray) -> float:
    signal, noise = sums
    return math.inf if not noise else 10 * math.log10(ratio) if (ratio := signal / noise) else -math.inf


def _least(figure: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    """The figure of the output that is furthest off; NaN where one of them is."""
    return lambda sums: float(np.min([figure(row) for row in sums]))


def _mean(sums: np.ndarray) -> float:
    """A sum over samples by their number, which is that of the outputs: a batch may be one sample with its state."""
    return float(sums[0] / sums[1])


def _samples(outputs: Mapping[str, np.ndarray]) -> int:
    return next((len(a) for a in outputs.values() if a.ndim), 1)


METRICS = {
    m.name: m
    for m in (
        Metric("top1", _top(1), _mean, needs_labels=True, ranks=True),
        Metric("top5", _top(5), _mean, needs_labels=True, ranks=True),
        Metric("agreement", _agreement, _mean, needs_reference=True, ranks=True),
        Metric("cosine", _cosine, _least(_mean), needs_reference=True, unit="", compares=True),
        Metric("snr", _snr, _least(_decibels), needs_reference=True, unit="dB", compares=True),
    )
}


def find_metric(given: str | Callable[..., Any]) -> Metric:
    """The metric of that name, or a function `fn(outputs, labels)`, itself or as `script.py:fn`.

    The function gets the outputs by name and the labels (None without) of one batch, and as a third argument,
    if it takes one, the original's outputs; it returns one number per sample, or their mean. The figure is the
    mean over all samples. Naming a script runs it. Raises `UsageError`.
    """
    if not isinstance(given, str):
        return _of_function(given, getattr(given, "__name__", type(given).__name__))
    if given in METRICS:
        return METRICS[given]
    if ".py" not in given:
        raise UsageError(f"no metric is called '{given}'; there are {', '.join(METRICS)}, or script.py:fn")
    return _of_function(load_function(given, default="metric"), given)


def _of_function(function: Callable[..., Any], name: str) -> Metric:
    with blaming(name):
        count = len(inspect.signature(function).parameters)

    def terms(outputs: Feed, reference: Feed | None, labels: Labels) -> np.ndarray:
        with blaming(name):
            given = np.asarray(function(*(outputs, labels, reference)[:count]), np.float64)
        return np.array([given.mean() * _samples(outputs), _samples(outputs)])

    return Metric(name, terms, _mean, needs_reference=count > 2, unit="")


@np.errstate(over="ignore", invalid="ignore")  # of outputs that are not finite comes NaN, which no gate lets through
def evaluate(
    sessions: Mapping[str, Session], dataset: Dataset, metrics: Sequence[str | Metric], *, reference: str | None = None
) -> dict[str, dict[str, float]]:
    """`{session: {metric: figure}}`, every batch run once through every session.

    `reference` is the name of the session that agreement, cosine and snr compare with. Raises `UsageError` for metrics
    that need labels or a reference that is not there.
    """
    chosen = [find_metric(m) if isinstance(m, str) else m for m in metrics]
    for metric in chosen:
        if metric.needs_labels and not dataset.has_labels:
            raise UsageError(f"{metric.name} needs labels, which the data does not have; use --metric agreement")
        if metric.needs_reference and reference is None:
            raise UsageError(f"{metric.name} compares with the original, which is not given")
    sums: dict[tuple[str, str], np.ndarray] = {}
    for batch in dataset:
        outputs = {name: numbers(session.run(batch.feeds)) for name, session in sessions.items()}
        base = None if reference is None else outputs[reference]
        for name, given in outputs.items():
            for metric in chosen:
                key = name, metric.name
                sums[key] = sums.get(key, np.zeros(1)) + metric.terms(given, base, batch.labels)
    if not sums:
        raise UsageError("the data is empty")
    return {n: {m.name: m.total(sums[n, m.name]) for m in chosen} for n in sessions}
