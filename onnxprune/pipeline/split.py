"""Which samples are fitted on, which decide a search, and which the figures come from: none of them twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.criteria.methods import METHODS
from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.request import Request
from onnxprune.report.summary import Samples
from onnxprune.runtime.data import Dataset
from onnxprune.surgery.compensate import COMPENSATIONS

FEWEST = 8  # samples that a search or a figure needs; with fewer, one more hit is more than twelve points


@dataclass(frozen=True)
class Split:
    """The user's data by what it is for, no sample twice; None where there is none for that.

    fit: what is fitted on, where anything is.
    search: what a search for the largest drop decides on.
    test: what the figures of the report come from.
    counts: how many samples that makes, for the report.
    problem: why there are no figures although there is data.
    """

    fit: Dataset | None = None
    search: Dataset | None = None
    test: Dataset | None = None
    counts: Samples | None = None
    problem: str = ""


def split_data(request: Request, data: Dataset | None, test: Dataset | None, *, chooses: bool = True) -> Split:
    """Hold samples out of what is fitted and of what is searched, so that the figures come from others.

    Where nothing is fitted on the data (no repair, and a method that looks at weights alone), all of it is measured
    on; where there is test data, all of `data` is fitted on.  Too few samples are fitted on and give no figure.

    Args:
        chooses: whether the run chooses channels, and does not take them from a plan.

    Raises:
        UsageError: too few samples for a search.
    """
    judged, source = (data, "data") if test is None else (test, "test data")
    fitted, searched = fits(request, chooses), chooses and request.max_drop is not None
    data = data.counted() if data and fitted else data
    if judged is None:
        return Split(data)
    judged = judged.counted()
    shared = fitted and test is None  # the same samples are fitted and measured on
    shares = (3 - searched) * shared, int(searched), 1
    if sum(shares) == 1:
        return Split(data, None, judged, Samples(source, _count(data) if fitted else 0, 0, _count(judged)))
    rows = split_rows(_count(judged), shares, request.seed)
    fit, search, figures = (judged.chosen(r) for r in rows)
    if min(_count(part) for part, n in zip((fit, search, figures), shares, strict=True) if n) < FEWEST:
        few = f"{judged.samples} samples of the {source} are too few"
        if searched:
            raise UsageError(f"{few} for {spelled('max_drop')} to search on some and measure on others")
        advice = f"give more, or {spelled('test_data')}"
        return Split(data, problem=f"no figures: {few} to fit on some and measure on others; {advice}")
    data = fit if shared else data
    counts = Samples(source, _count(data) if fitted else 0, _count(search), _count(figures))
    return Split(data, search if searched else None, figures, counts)


def _count(data: Dataset | None) -> int:
    return (data.samples or 0) if data else 0


def fits(request: Request, chooses: bool = True) -> bool:
    """Whether the data has a say in which channels stay (where the run chooses them) or in what they weigh."""
    if request.data is None or request.lossless:
        return False
    if request.finetune and request.train_data is None:
        return True
    repair, method = COMPENSATIONS.get(request.compensate), METHODS.get(request.method)
    ranks = method is not None and bool({"images", "labels"} & set(method.needs))
    return bool(repair and repair.needs_samples) or (chooses and (ranks or request.allocation == "sensitivity"))


def split_rows(samples: int, shares: Sequence[int], seed: int) -> list[np.ndarray]:
    """Positions of the samples of each part, which gets its share of every `sum(shares)` neighbours, drawn anew.

    So every part sees all of what the data is sorted by, and no period in it favours one.
    """
    whole = sum(shares)
    places = np.tile(np.repeat(np.arange(len(shares)), shares), (-(-samples // whole), 1))
    owner = np.random.default_rng(seed).permuted(places, axis=1).ravel()[:samples]
    return [np.flatnonzero(owner == k) for k in range(len(shares))]
