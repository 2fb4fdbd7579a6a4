"""What a pruned network is trained towards: the outputs of the original, its inner maps, and labels.

Class scores: the divergence of the softened distributions, Hinton, Vinyals, Dean 2015, Distilling the knowledge in a
neural network, arXiv 1503.02531.  Inner maps: the squared distance at the places that both networks have, Romero et
al. 2015, FitNets, arXiv 1412.6550, without their regressor, since the plan says which channel of one is which of the
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.errors import UsageError
from onnxprune.runtime.classes import as_scores, class_scores, is_probable, label_problem
from onnxprune.training.places import FeaturePlace

TEMPERATURE = 4.0
FEATURES = 4.0  # weight of the inner maps beside the outputs
LABELS = 0.3  # weight of the cross-entropy beside the divergence from the original
LEAST = 1e-6  # probability, or share of the largest variance, below which there is nothing to learn
WIDE = 512  # positions of an axis up to which an output may be scaled one by one along it

Given = Mapping[str, Tensor]


@dataclass(frozen=True)
class Mixed:
    """Samples that are mixtures: the partner of each, and the share of its own that is left."""

    partner: Tensor  # (samples,) int64
    share: float

    def cpu(self) -> Mixed:
        """The same in the memory of the CPU."""
        return replace(self, partner=self.partner.cpu())


@dataclass(frozen=True)
class ScoredOutput:
    """An output of class scores: logits, logarithms of probabilities, or probabilities."""

    output: str
    probabilities: bool
    labelled: bool  # labels are class numbers of it

    def logits(self, given: Given) -> Tensor:
        """(samples, classes, ...) without axes of length one."""
        value = given[self.output]
        long = [n for n in value.shape[1:] if n > 1]
        value = value.reshape(len(value), *long)
        return value.clamp_min(LEAST).log() if self.probabilities else value

    def loss(
        self,
        student: Given,
        teacher: Given,
        labels: Tensor | None,
        mixed: Mixed | None,
        temperature: float = TEMPERATURE,
    ) -> Tensor:
        own, wanted = self.logits(student), self.logits(teacher)
        own_log, wanted_log = (F.log_softmax(x / temperature, 1) for x in (own, wanted))
        terms = (wanted_log.exp() * (wanted_log - own_log)).sum(1) * temperature**2
        loss = terms.mean()
        if labels is None or not self.labelled:
            return loss
        truth = labels.reshape(own.shape[0], *own.shape[2:])
        share = 1.0 if mixed is None else mixed.share
        hard = share * F.cross_entropy(own, truth)
        if mixed is not None:
            hard = hard + (1 - share) * F.cross_entropy(own, truth[mixed.partner])
        return loss + LABELS * hard


@dataclass(frozen=True)
class Valued:
    """Any other output: the squared distance as a share of the variance that the original's has."""

    output: str
    scale: Tensor  # broadcasts to the output

    def loss(self, student: Given, teacher: Given, *_: object) -> Tensor:
        return ((student[self.output] - teacher[self.output]).square() / self.scale).mean()


@dataclass(frozen=True)
class Objective:
    """The loss of a batch: the mean over the outputs, and the inner maps beside it."""

    outputs: Sequence[ScoredOutput | Valued]
    places: Sequence[FeaturePlace]
    scales: Sequence[float]  # variance of each inner map of the original

    def __call__(
        self, student: Given, teacher: Given, labels: Tensor | None = None, mixed: Mixed | None = None
    ) -> Tensor:
        """A scalar."""
        loss = self.of_outputs(student, teacher, labels, mixed)
        if self.places:
            maps = [
                (student[p.name] - teacher[p.name]).square().mean() / s
                for p, s in zip(self.places, self.scales, strict=True)
            ]
            loss = loss + FEATURES * torch.stack(maps).mean()
        return loss

    def of_outputs(self, student: Given, teacher: Given, labels: Tensor | None, mixed: Mixed | None = None) -> Tensor:
        return torch.stack([term.loss(student, teacher, labels, mixed) for term in self.outputs]).mean()

    def judged(self, student: Given, teacher: Given, labels: Tensor | None, mixed: Mixed | None = None) -> Tensor:
        """What states are told apart by: the loss of the outputs, and that of class scores at temperature 1."""
        return torch.stack([term.loss(student, teacher, labels, mixed, 1.0) for term in self.outputs]).mean()

    def to(self, device: str) -> Objective:
        """The same loss of tensors on another device."""
        moved = [replace(t, scale=t.scale.to(device)) if isinstance(t, Valued) else t for t in self.outputs]
        return replace(self, outputs=moved)

    @property
    def words(self) -> str:
        """What is learnt, for the report."""
        said = [
            f"class scores '{t.output}'{' and labels' * t.labelled}" if isinstance(t, ScoredOutput) else f"'{t.output}'"
            for t in self.outputs
        ]
        inner = f", {len(self.places)} inner maps" if self.places else ""
        return f"{', '.join(said)}{inner}"


def objective(
    looks: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray | None]],
    names: Sequence[str],
    places: Sequence[FeaturePlace],
) -> Objective:
    """The loss that fits what the original gives.

    Args:
        looks: outputs and inner maps of the original on some samples, and their labels.
        names: values that the loss is taken of.
        places: inner maps, in the layout of the pruned network.

    Raises UsageError where no output has a gradient.
    """
    real = [n for n in names if n in looks[0][0] and looks[0][0][n].size]
    if not real:
        raise UsageError("no output of the network has a gradient: there is nothing to train it towards")
    joined = {n: _joined([given[n] for given, _ in looks]) for n in real}
    labels = None if looks[0][1] is None else np.concatenate([y for _, y in looks if y is not None])
    found = class_scores({n: a for n, a in joined.items() if a.ndim}, _classes(joined, labels))
    terms = [_term(n, joined[n], found.output if found else None, labels) for n in real]
    kept, scales = [], []
    for place in places:
        variance = float(np.var(np.concatenate([given[place.name].ravel() for given, _ in looks]), dtype=np.float64))
        if np.isfinite(variance) and variance > 0:
            kept.append(place)
            scales.append(variance)
    return Objective(terms, kept, scales)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Outputs of several batches along their first axis; those of the first where shapes differ."""
    same = arrays[0].ndim and len({a.shape[1:] for a in arrays}) == 1
    return np.concatenate(arrays) if same else arrays[0]


def _classes(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray | None:
    """The labels, where they are class numbers of an output."""
    scores = (as_scores(a) for a in outputs.values())
    fit = labels is not None and any(s is not None and label_problem(labels, s) is None for s in scores)
    return labels if fit else None


def _term(name: str, array: np.ndarray, scored: str | None, labels: np.ndarray | None) -> ScoredOutput | Valued:
    scores = as_scores(array) if name == scored or scored is None else None
    if name == scored and scores is not None:
        labelled = labels is not None and label_problem(labels, scores) is None
        return ScoredOutput(name, is_probable(scores), labelled)
    return Valued(name, torch.from_numpy(_scale(array.astype(np.float32))))


def _scale(array: np.ndarray) -> np.ndarray:
    """What the squared error of an output is measured in: its variance, along the axis where that differs most.

    A head that gives boxes in pixels and scores between 0 and 1 in one tensor learns both.
    """
    total = float(array.var(dtype=np.float64)) or float(np.square(array, dtype=np.float64).mean()) or 1.0
    best, spread = np.array(total, np.float32), 1.0
    for axis in range(1, array.ndim):
        if not 1 < array.shape[axis] <= WIDE:
            continue
        others = tuple(k for k in range(array.ndim) if k != axis)
        own = np.maximum(array.var(axis=others, keepdims=True, dtype=np.float64), LEAST * total)
        if (wide := float(np.log(own).std())) > spread:
            best, spread = own.astype(np.float32), wide
    return best
