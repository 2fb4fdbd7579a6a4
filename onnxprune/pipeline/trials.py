"""What a network would give without some channels, tried out by masking in one session, and what it loses by that.

The weights that masking changes are inputs of the session, so a trial sets numbers and builds no model.  The masked
network gives what the pruned one would give.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import helper

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.errors import ModelError, UsageError
from onnxprune.model.graphs import remove
from onnxprune.model.network import Network
from onnxprune.operators.labels import is_fixed
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.study import Kept, Study
from onnxprune.runtime.accuracy import Metric, scores
from onnxprune.runtime.batches import Batch, Dataset
from onnxprune.runtime.capture import THREADS
from onnxprune.runtime.classes import as_scores, class_scores, is_probable, label_problem, numbers
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.specs import Feed
from onnxprune.surgery.rewrite import masked, zero_points
from onnxprune.surgery.tidy import references
from onnxprune.surgery.versions import masked_array

HELD = 256 << 20  # bytes of samples, and of outputs to compare with, that stay in memory between trials

Loss = Callable[[Feed, Feed, np.ndarray | None], tuple[float, int]]  # of (outputs, original's, labels): sum and number


def held(dataset: Dataset) -> Iterable[Batch]:
    """The batches in memory, or the data set itself where they do not fit."""
    batches, size = [], 0
    for batch in dataset:
        batches.append(batch)
        size += sum(a.nbytes for a in batch.feeds.values())
        if size > HELD:
            return dataset
    return batches


@dataclass(frozen=True)
class Fed:
    """A weight of a node that is fed anew for every trial."""

    name: str  # of the session's input
    use: Use
    full: np.ndarray
    zero: np.ndarray | int


class Trials:
    """Runs of the masked original on a fixed set of samples.

    Where a weight that masking changes cannot be fed (it belongs to a body of its own, or an operator wants it
    constant), every trial makes a session of the masked model instead.

    Raises ModelError where the model cannot be run on the samples, and UsageError for samples that do not fit.
    """

    def __init__(self, study: Study, samples: Dataset, before: "Trials | None" = None) -> None:
        self.study, self.has_labels = study, samples.has_labels
        self.batches: Iterable[Batch] = before.batches if before else held(samples)
        self._samples, self._before = samples, before
        self._fed = fed_weights(study)
        self._arrays: dict[str, tuple[tuple[bytes, ...], np.ndarray]] = {}
        if self._fed is not None:
            try:
                self.runner({})(next(iter(self.batches)).feeds)
            except ModelError:
                self._fed = None

    def with_network(self, network: Network) -> "Trials":
        """The same of a network with other weights; what the original gives is still what trials compare with."""
        return Trials(self.study.with_network(network), self._samples, self._before or self)

    @cached_property
    def _session(self) -> Session:
        return self._load(with_inputs(self.study, self._fed or ()))

    def _load(self, model: Network) -> Session:
        return make_session(model, providers=self.study.request.providers, threads=THREADS, optimize=True)

    def runner(self, kept: Kept) -> Callable[[Feed], Feed]:
        """What gives the outputs for a feed when the groups keep these channels; groups not named keep all."""
        network, deps, dead = self.study.network, self.study.deps, self.study.dead(kept)
        if self._fed is None:
            session = self._load(masked(network, deps, dead))
            return lambda feed: numbers(session.run(feed))
        values = {f.name: self._masked(f, dead) for f in self._fed}
        return lambda feed: numbers(self._session.run({**feed, **values}))

    def _masked(self, fed: Fed, dead: np.ndarray) -> np.ndarray:
        deps = self.study.deps
        live = tuple(np.broadcast_to(deps.live(x, dead) | ~zeroed(deps, x), x.shape) for x in fed.use.axes)
        key = tuple(m.tobytes() for m in live)
        if fed.name not in self._arrays or self._arrays[fed.name][0] != key:
            changed = not all(m.all() for m in live)
            self._arrays[fed.name] = key, masked_array(fed.full, live, fed.zero) if changed else fed.full
        return self._arrays[fed.name][1]

    @cached_property
    def _recorded(self) -> list[Feed] | None:
        """The original's outputs for each batch; None where they do not fit into memory."""
        run, found, size = self.runner({}), [], 0
        for batch in self.batches:
            found.append(run(batch.feeds))
            size += sum(a.nbytes for a in found[-1].values())
            if size > HELD:
                return None
        return found

    def references(self) -> Iterator[Feed]:
        """The original's outputs, batch by batch."""
        if self._before is not None:
            yield from self._before.references()
            return
        if self._recorded is not None:
            yield from self._recorded
            return
        run = self.runner({})
        for batch in self.batches:
            yield run(batch.feeds)

    def mean(self, kept: Kept, loss: Loss) -> float:
        """The mean of a loss over the samples when the groups keep these channels."""
        run, total, number = self.runner(kept), 0.0, 0
        for batch, reference in zip(self.batches, self.references(), strict=True):
            value, count = loss(run(batch.feeds), reference, batch.labels)
            total, number = total + value, number + count
        return total / max(number, 1)

    def figure(self, kept: Kept, metric: Metric) -> float:
        """A figure of merit over the samples when the groups keep these channels."""
        run, sums = self.runner(kept), np.zeros(1)
        for batch, reference in zip(self.batches, self.references(), strict=True):
            sums = sums + metric.terms(run(batch.feeds), reference, batch.labels)
        return metric.total(sums)


def zeroed(deps: Dependencies, labels: np.ndarray) -> np.ndarray:
    """Which positions of an axis masking sets to zero where they are dead."""
    return np.broadcast_to(np.False_, labels.shape) if is_fixed(labels) else deps.zeroed[labels]


def fed_weights(study: Study) -> list[Fed] | None:
    """The weights that masking changes, use by use; None where one of them cannot be an input of the graph."""
    network, deps = study.network, study.deps
    if deps.thawed:  # their statistics need nodes of their own
        return None
    zeros, arrays, found = zero_points(network, deps), dict[str, np.ndarray](), []
    removable = deps.owners >= 0
    for k, use in enumerate(deps.uses):
        if not any((removable[deps.component[x]] & zeroed(deps, x)).any() for x in use.axes if not is_fixed(x)):
            continue
        if use.input < 0 or deps.nodes[use.node].path:
            return None
        if use.source not in arrays:
            arrays[use.source] = Weights(network, deps).raw(use.source)
        found.append(Fed(f"onnxprune.{k}.{use.source}", use, arrays[use.source], zeros.get(use.source, 0)))
    return found


def with_inputs(study: Study, fed: Iterable[Fed]) -> Network:
    """The network, which takes these weights as inputs; without those that nobody else uses."""
    network, deps = study.network.own(), study.deps
    out = network.graph
    nodes = {tuple(node.output): node for node in out.graph.node}
    sources = set()
    for f in fed:
        nodes[tuple(deps.nodes[f.use.node].proto.output)].input[f.use.input] = f.name
        element = helper.np_dtype_to_tensor_dtype(f.full.dtype)
        out.graph.input.append(helper.make_tensor_value_info(f.name, element, f.full.shape))
        sources.add(f.use.source)
    idle = sources - references(out.graph).keys()
    remove(out.graph.initializer, idle)
    remove(out.graph.input, idle)
    return network


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
