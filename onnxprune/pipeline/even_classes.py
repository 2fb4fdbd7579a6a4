"""Drawn samples of all classes, where a network of one image gives class scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.progress import Progress, silent
from onnxprune.runtime.accuracy import numbers
from onnxprune.runtime.classes import as_scores, class_scores, is_probable
from onnxprune.runtime.evolution import of_all_classes
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.specs import Feed
from onnxprune.runtime.synthetic import Layout
from onnxprune.surgery.recovery.runner import THREADS

POOL = 4  # times as many images as are wanted, to choose from
ROUNDS = 30
WORK = 3e12  # multiply-accumulates of the whole search: half a minute to a minute on one core
ELEMENT = 60  # multiply-accumulates that take as long as one element that is passed on
TINY = 1e-12
FEW = 32  # numbers of an output that nothing but their rivalry shows to be class scores
WINNERS = 0.75  # share of them that are the largest for some image


@dataclass(frozen=True)
class ClassSearch:
    """How many images are drawn, and how often those that are chosen have offspring."""

    pool: int
    rounds: int

    @classmethod
    def of(cls, count: int, macs: float, elements: float) -> "ClassSearch":
        """What is worth its time for so many samples.

        Args:
            macs, elements: of one sample on its way through the network.
        """
        looks = int(WORK / max(macs + ELEMENT * elements, 1))
        pool = max(count, min(POOL * count, looks))
        return cls(pool, max(0, min(ROUNDS, (looks - pool) // count)))


def even_classes(
    model: Network,
    feeds: Sequence[Feed],
    draw: Callable[[int], list[Feed]],
    search: ClassSearch,
    seed: int,
    progress: Progress = silent,
) -> list[Feed]:
    """Samples of all classes as evenly as can be; these where there are no classes, or more of them than samples.

    Args:
        feeds: drawn, in batches of one size.
        draw: gives samples to choose from, at least so many, in such batches.
    """
    (name, *others), size, batches = feeds[0], max(len(next(iter(feeds[0].values()))), 1), len(feeds)
    layout = Layout.of(next(iter(feeds[0].values())).shape)
    if others or layout is None or search.pool <= batches * size:
        return list(feeds)
    try:
        session = make_session(model, providers="cpu", threads=THREADS, optimize=True)
        output = _telling(session, feeds)
    except ModelError:
        output = None
    if output is None:
        return list(feeds)

    def sure(images: np.ndarray) -> np.ndarray:
        given = [session.run({name: images[k : k + size]}, [output]) for k in range(0, len(images), size)]
        scores = as_scores(_joined(given)[output])
        assert scores is not None
        return log_odds(np.log(np.maximum(scores, TINY)) if is_probable(scores) else scores)

    pool = np.concatenate([feed[name] for feed in draw(search.pool)])

    def told(done: int) -> None:
        progress("drawing images of all classes", done, search.rounds)

    found = of_all_classes(pool, layout, sure, batches * size, search.rounds, np.random.default_rng(seed), told)
    return [{name: np.ascontiguousarray(found[k : k + size])} for k in range(0, len(found), size)]


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Of each class against all others, from logits or logarithms of probabilities, (samples, classes).

    Unlike a probability they have no end, so that an image can always become surer.
    """
    rows = scores.astype(np.float64)
    top = rows.max(axis=1, keepdims=True)
    share = np.exp(rows - top)
    rest = share.sum(axis=1, keepdims=True) - share
    own = np.arange(len(rows)), rows.argmax(axis=1)
    others = rows.copy()
    others[own] = -np.inf
    second = others.max(axis=1)
    found = rows - top - np.log(np.maximum(rest, TINY))
    found[own] = rows[own] - second - np.log(np.exp(others - second[:, None]).sum(axis=1))
    return found


def _telling(session: Session, feeds: Sequence[Feed]) -> str | None:
    """The output that holds scores of no more classes than samples, or the only one, of few numbers that compete so.

    On drawn images a classifier is often unsure.  But nearly every class wins sometimes, while of coordinates always
    the same ones are the largest, and an embedding has many numbers.
    """
    samples = sum(len(next(iter(feed.values()))) for feed in feeds)
    first = _scores(numbers(session.run(feeds[0])), len(next(iter(feeds[0].values()))))
    if all(s.shape[1] > samples for s in first.values()):
        return None
    outputs = _joined([numbers(session.run(feed)) for feed in feeds])
    given = _scores(outputs, samples)
    if (found := class_scores(given)) is not None:
        return found.output if found.classes <= samples else None
    if len(outputs) != 1 or len(given) != 1:
        return None
    name, rows = next(iter(given.items()))
    winners = len(set(rows.argmax(axis=1).tolist()))
    return name if rows.shape[1] <= FEW and winners >= WINNERS * rows.shape[1] else None


def _scores(outputs: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
    """Those outputs that may be scores of classes, (samples, classes)."""
    each = {n: as_scores(a) for n, a in outputs.items() if a.ndim and len(a) == samples}
    return {n: s for n, s in each.items() if s is not None and s.ndim == 2}


def _joined(outputs: Sequence[Mapping[str, np.ndarray]]) -> Feed:
    return {n: np.concatenate([o[n] for o in outputs]) for n in outputs[0] if outputs[0][n].ndim}
