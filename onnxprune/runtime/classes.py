"""Which output of a network holds class scores, and what shows it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from onnxprune.runtime.specs import describe

SURE = 1e-3  # how far sums of probabilities may be from one
OUTSTANDING = 2.0  # how many times as far as among numbers drawn at random the largest score stands out
TELLING = re.compile(r"logit|score|prob|softmax|class|cls", re.IGNORECASE)


@dataclass(frozen=True)
class Scores:
    """An output of class scores (samples, classes, ...), and what shows that it is one."""

    output: str
    why: str
    classes: int


def numbers(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs that are tensors of numbers; sequences, maps and texts have no figure of merit."""
    return {n: a for n, a in outputs.items() if isinstance(a, np.ndarray) and _numeric(a.dtype)}


def _numeric(dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" or "float" in dtype.name  # numpy knows bfloat16 by its name only


def as_scores(array: np.ndarray) -> np.ndarray | None:
    """An output as (samples, classes) or (samples, classes, ...) without axes of length one; None where it is none."""
    if array.ndim < 2 or array.dtype.kind not in "fiu" or not array.size:
        return None
    long = [n for n in array.shape[1:] if n > 1]
    if len(long) == 1:
        return array.reshape(len(array), *long)
    return array.reshape(len(array), *long) if long and array.shape[1] > 1 else None


def label_problem(labels: np.ndarray, given: np.ndarray) -> str | None:
    """Why these labels are no class numbers for scores (samples, classes, ...); None where they are."""
    truth = np.asarray(labels).reshape(-1) if given.ndim == 2 else np.asarray(labels)
    want = (given.shape[0], *given.shape[2:])
    if truth.shape != want or truth.dtype.kind not in "iu":
        return f"labels are {describe(np.shape(labels))} {truth.dtype}; class numbers {describe(want)} are needed"
    if truth.size and (truth.min() < 0 or truth.max() >= given.shape[1]):
        return f"labels go from {truth.min()} to {truth.max()}; the model has {given.shape[1]} classes"
    return None


def class_scores(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None = None) -> Scores | None:
    """The output that holds class scores, if one does.

    Args:
        outputs: of some samples, those with the samples on their first axis.
        labels: of the same samples.

    Labels that are class numbers of an output say so, and so do probabilities or their logarithms.  A network with
    one row of numbers per sample also tells by the name of the output, or by a largest number that stands out: an
    embedding, coordinates or a regression look alike but for that, and are taken for none where nothing speaks.
    """
    given = {n: s for n, a in outputs.items() if (s := as_scores(a)) is not None}
    shown = {n: why for n, s in given.items() if (why := _shows(n, s, len(outputs) == 1))}
    if labels is not None:
        fit = [n for n, s in given.items() if label_problem(labels, s) is None]
        if fit:
            best = next((n for n in fit if n in shown), fit[0])
            return Scores(best, "the labels are class numbers of it", given[best].shape[1])
    return next((Scores(n, why, given[n].shape[1]) for n, why in shown.items()), None)


def _shows(name: str, given: np.ndarray, only: bool) -> str | None:
    """What shows from an output alone that it holds class scores."""
    if is_probable(given):
        return "its numbers add up to one over the classes"
    if given.dtype.kind == "f" and given.max() <= 0 and is_probable(np.exp(given.astype(np.float64))):
        return "its numbers are logarithms of probabilities"
    if not only or given.ndim != 2 or _of_equal_length(given):
        return None
    if TELLING.search(name):
        return "its name says so"
    return "its largest number stands out" if _stands_out(given) else None


def is_probable(given: np.ndarray) -> bool:
    """Whether scores (samples, classes, ...) are probabilities."""
    return bool((given >= 0).all() and np.allclose(given.sum(axis=1, dtype=np.float64), 1, atol=SURE))


def _of_equal_length(given: np.ndarray) -> bool:
    """Whether all rows are vectors of length one, as those of a normalised embedding."""
    return bool(np.allclose(np.linalg.norm(given.astype(np.float64), axis=1), 1, atol=SURE))


def _stands_out(given: np.ndarray) -> bool:
    """Whether the largest number of a row stands out from the next one, and not always in the same place."""
    winners = given.argmax(axis=1)
    return len(set(winners.tolist())) > 1 and _lead(given) >= OUTSTANDING * _chance_lead(given.shape[1])


def _lead(given: np.ndarray) -> float:
    """How far the largest number of a row is from the second, in standard deviations of the row: the mean."""
    rows = given.astype(np.float64)
    top = np.partition(rows, -2, axis=1)[:, -2:]
    spread = rows.std(axis=1)
    return float(np.divide(top[:, 1] - top[:, 0], spread, out=np.zeros(len(rows)), where=spread > 0).mean())


@cache
def _chance_lead(classes: int) -> float:
    return _lead(np.random.default_rng(0).standard_normal((512, classes)))
