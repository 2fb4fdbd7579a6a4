"""Which figures of merit fit a network and its data, and what speaks against the data: decided before the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from onnxprune.errors import UsageError, spelled
from onnxprune.model.network import Network
from onnxprune.pipeline.ranges import range_doubts
from onnxprune.pipeline.request import Request
from onnxprune.runtime.accuracy import Metric, find_metric
from onnxprune.runtime.batches import Batch, Dataset
from onnxprune.runtime.classes import Scores, as_scores, class_scores, label_problem, numbers
from onnxprune.runtime.scales import Scales
from onnxprune.runtime.session import Session
from onnxprune.runtime.specs import Feed

SAMPLES = 128  # that the original is looked at on
BYTES = 64 << 20  # of their inputs and outputs, beyond which fewer do
STILL = 1e-4  # outputs that differ from sample to sample by less, as a share of their size, say nothing
LUCK = 0.01  # how probable it may be that guessing does as well as the original
STATISTICS = 16  # batches that statistics are taken over
SKILL = 0.1  # of the way from guessing to all right, below which an original is no trained one
SETTLED = 0.5  # of that way, beyond which its input is right whatever else speaks against it


@dataclass(frozen=True)
class Judgement:
    """The figures of merit, the first of which a search goes by; why these; and what speaks against the data."""

    metrics: tuple[Metric, ...]
    why: str = ""
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """Some samples and what the original makes of them, samples on the first axis; labels where there are some."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    batches: list[Batch]
    given: Feed  # all outputs for the first of them

    @classmethod
    def at(cls, session: Session, data: Dataset) -> Look:
        """Run the original on some samples.  Raises UsageError for data without samples."""
        batches: list[tuple[Batch, Feed]] = []
        seen = 0
        for batch in data.spread(SAMPLES):
            batches.append((batch, numbers(session.run(batch.feeds))))
            seen += sum(a.nbytes for feed in (batch.feeds, batches[-1][1]) for a in feed.values())
            if seen > BYTES:
                break
        if not batches:
            raise UsageError("the data is empty")
        sizes = [b.size for b, _ in batches]
        found = [b.labels for b, _ in batches]
        labels = _joined({"": [x for x in found if x is not None]}, sizes).get("")
        several = [b.feeds for b, _ in batches], [given for _, given in batches]
        inputs, outputs = ({n: [f[n] for f in feeds] for n in feeds[0]} for feeds in several)
        return cls(_joined(inputs, sizes), _joined(outputs, sizes), labels, [b for b, _ in batches], batches[0][1])


def _joined(parts: Mapping[str, list[np.ndarray]], sizes: list[int]) -> dict[str, np.ndarray]:
    """The values with the samples on their first axis, put together."""
    return {
        name: np.concatenate(arrays)
        for name, arrays in parts.items()
        if len(arrays) == len(sizes)
        and all(a.ndim and len(a) == n for a, n in zip(arrays, sizes, strict=True))
        and len({a.shape[1:] for a in arrays}) == 1
    }


def judge(session: Session, request: Request, data: Dataset, model: Network) -> Judgement:
    """Look at the original on some of the data, and decide.

    By default top1 and agreement are reported where an output holds class scores that the labels fit, agreement where
    it holds class scores without labels, and cosine and signal to noise of all outputs for every other network.  The
    latter is reported, too, where a gate wants it.

    Args:
        session, model: the original.
        request: its metrics come first, and have to fit.
        data: samples that nothing is fitted on, where there are some.

    Raises:
        UsageError: metrics that are unknown or do not fit the outputs or the labels.
        ModelError: the original cannot be run on the data.
    """
    asked = [find_metric(name) for name in request.metric]
    for metric in asked:
        if metric.needs_labels and not data.has_labels:
            raise UsageError(f"{spelled('metric')} {metric.name} needs labels, which the data does not have")
    look = Look.at(session, data)
    usable = None if data.folders and not _ranks_are_classes(look, data) else look.labels
    found = class_scores(look.outputs, usable)
    scales = Scales.of([{**look.given, **look.outputs}])
    chosen, why = (asked, "") if asked else _default(look, usable, found, several=len(scales.parts(look.given)) > 1)
    if request.min_snr is not None and all(m.name != "snr" for m in chosen):
        chosen = [*chosen, find_metric("snr")]
    bound = [m.of(found.output) if m.ranks and found else m.by_scale(scales) if m.compares else m for m in chosen]
    for metric in bound:
        metric.terms(look.given, look.given, look.batches[0].labels)  # or it says what does not fit
    lines = doubts(look, data, found)
    if not lines:
        lines, likely = range_doubts(model, [b.feeds for b in look.batches[:STATISTICS]], request.providers)
        lines += [] if found and (_skill(look, found) or 0) >= SETTLED else likely
    return Judgement(tuple(bound), why, tuple(lines))


def _default(look: Look, labels: np.ndarray | None, found: Scores | None, *, several: bool) -> tuple[list[Metric], str]:
    """The figures that fit, and what shows that they do.  Raises UsageError for labels that are no classes."""
    if found is None:
        names = ", ".join(f"'{n}'" for n in look.given)
        worst = " of what is furthest off" * several
        why = f"cosine and snr{worst}: nothing shows class scores in {names}"
        return [find_metric("cosine"), find_metric("snr")], why
    scores = as_scores(look.outputs[found.output])
    problem = None if labels is None or scores is None else label_problem(labels, scores)
    if problem:
        raise UsageError(problem)
    chosen = ["agreement"] if labels is None else ["top1", "agreement"]
    words = " and ".join(chosen)
    return [find_metric(n) for n in chosen], f"{words}: '{found.output}' holds class scores, as {found.why}"


def _ranks_are_classes(look: Look, data: Dataset) -> bool:
    """Whether there are as many folders as classes, so that the rank of a folder may be the number of a class."""
    given = [s for a in look.outputs.values() if (s := as_scores(a)) is not None]
    return any(s.shape[1] == data.folders for s in given)


def doubts(look: Look, data: Dataset, found: Scores | None) -> list[str]:
    """What says that the data cannot be right, a line each."""
    lines = [_constant(look), _still(look)]
    if found and look.labels is not None:
        ranked = data.folders and data.folders != found.classes
        lines.append(_ranked(data, found) if ranked else _guessing(look, found))
    return [line for line in lines if line]


def _constant(look: Look) -> str | None:
    """Inputs that show nothing: each sample of one number only, or all samples alike."""
    wide = {n: a.reshape(len(a), -1) for n, a in look.inputs.items() if a[:1].size > 1 and np.isfinite(a).all()}
    if wide and all((a == a[:, :1]).all() for a in wide.values()):
        return "every sample of the data is constant: it shows the network nothing"
    if wide and all(len(a) > 1 and (a == a[:1]).all() for a in wide.values()):
        return "all samples of the data are the same"
    return None


def _still(look: Look) -> str | None:
    """Outputs that hardly depend on the sample."""
    real = [a.reshape(len(a), -1).astype(np.float64) for a in look.outputs.values() if a.dtype.kind == "f" and a.size]
    if not real or len(real[0]) < 2 or not all(np.isfinite(a).all() for a in real) or _constant(look):
        return None
    if any(np.sqrt(a.var(axis=0).mean()) > STILL * np.sqrt((a**2).mean()) for a in real):
        return None
    return f"the original gives the same for all samples: {_how_read()} may not be what it was trained on"


def _ranked(data: Dataset, found: Scores) -> str:
    return (
        f"labels are the ranks of {data.folders} folders, but '{found.output}' has {found.classes} classes: a rank is "
        "no class number there; give labels in an .npz"
    )


def _right(look: Look, found: Scores) -> np.ndarray | None:
    """Which labels the original gets right; None where there are none that are classes."""
    given = as_scores(look.outputs[found.output])
    if given is None or look.labels is None or label_problem(look.labels, given):
        return None
    return given.argmax(axis=1) == look.labels.reshape(given.shape[0], *given.shape[2:])


def _skill(look: Look, found: Scores) -> float | None:
    """How far the original gets from guessing (0) to all right (1)."""
    right, chance = _right(look, found), 1 / found.classes
    return None if right is None else (float(right.mean()) - chance) / (1 - chance)


def _guessing(look: Look, found: Scores) -> str | None:
    """An original that does not do better than guessing."""
    right, skill, chance = _right(look, found), _skill(look, found), 1 / found.classes
    if right is None or skill is None:
        return None
    lucky = right.ndim == 1 and binom.sf(right.sum() - 1, right.size, chance) > LUCK
    if skill >= SKILL and not lucky:
        return None
    return (
        f"the original gets {right.mean():.1%} of {right.size} labels right, and guessing {chance:.1%}: the labels or "
        f"{_how_read()} do not fit it"
    )


def _how_read() -> str:
    return f"the way the data is read ({', '.join(map(spelled, ('mean', 'std', 'layout')))})"
