"""How much a network loses by what is tried on it: mean losses over samples."""

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.pipeline.trials import Loss, Trials
from onnxprune.runtime.accuracy import scores
from onnxprune.runtime.classes import as_scores, class_scores, is_probable, label_problem
from onnxprune.runtime.specs import Feed


def task_loss(trials: Trials) -> tuple[Loss, str]:
    """The loss that tells how well a network does its task, and what it is.

    Cross-entropy with the labels; without labels, with what the original itself predicts; where no output looks like
    class scores, the squared error of all outputs relative to the original's.  Raises UsageError for labels that do
    not fit the outputs.
    """
    run, batch = trials.runner({}), next(iter(trials.batches))
    outputs = run(batch.feeds)
    found = class_scores(outputs, batch.labels) if trials.has_labels else None
    if found is None:
        return likeness(outputs)
    given = as_scores(outputs[found.output])
    if given is not None and batch.labels is not None and (problem := label_problem(batch.labels, given)):
        raise UsageError(problem)
    return _with_labels(found.output, probable(outputs, found.output)), "cross-entropy with the labels"


def likeness(outputs: Feed) -> tuple[Loss, str]:
    """A loss that compares with the original network, from its outputs, and what it is."""
    found = class_scores(outputs)
    if found is None:
        return _relative_error, "squared error relative to the original's outputs"
    name = found.output
    return _with_predictions(name, probable(outputs, name)), "cross-entropy with the original's own predictions"


def probable(outputs: Feed, name: str) -> bool:
    """Whether the class scores in an output are probabilities."""
    return is_probable(scores({name: outputs[name]}))


def log_probabilities(outputs: Feed, name: str, probabilities: bool) -> np.ndarray:
    """Logarithms of the class probabilities (samples, classes, ...) in an output."""
    given = scores({name: outputs[name]}).astype(np.float64)
    if probabilities:
        return np.log(np.maximum(given, 1e-12))
    shifted = given - given.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _with_labels(name: str, probabilities: bool) -> Loss:
    def loss(outputs: Feed, reference: Feed, labels: np.ndarray | None) -> tuple[float, int]:
        given = log_probabilities(outputs, name, probabilities)
        truth = np.asarray(labels).reshape(given.shape[0], *given.shape[2:]).astype(np.int64)
        own = np.take_along_axis(given, truth[:, None], axis=1)
        return -float(own.sum()), own.size

    return loss


def _with_predictions(name: str, probabilities: bool) -> Loss:
    def loss(outputs: Feed, reference: Feed, labels: np.ndarray | None) -> tuple[float, int]:
        given, target = (log_probabilities(x, name, probabilities) for x in (outputs, reference))
        return -float((np.exp(target) * given).sum()), given.size // given.shape[1]

    return loss


def _relative_error(outputs: Feed, reference: Feed, labels: np.ndarray | None) -> tuple[float, int]:
    error = energy = 0.0
    for name, value in reference.items():
        if value.dtype.kind == "f" and value.shape == outputs[name].shape:
            old, new = value.astype(np.float64), outputs[name].astype(np.float64)
            error, energy = error + float(np.sum((new - old) ** 2)), energy + float(np.sum(old**2))
    return error / energy if energy else error, 1
