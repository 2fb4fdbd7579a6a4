"""Samples that layers are solved on: the user's own, or drawn ones, as many as memory and minutes allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from onnxprune.errors import ModelError, spelled
from onnxprune.model.network import Network
from onnxprune.pipeline.even_classes import ClassSearch, even_classes
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.split import split_rows
from onnxprune.pipeline.study import Study
from onnxprune.progress import Progress, silent
from onnxprune.runtime.altered import altered
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.fit import read_options
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed, model_inputs
from onnxprune.runtime.synthetic import Layout, Scale, is_grey, synthetic_feeds
from onnxprune.surgery.recovery.runner import MEMORY, activations, affordable, analysed_with, elements
from onnxprune.surgery.recovery.under_way import HOLD, held_batches

SAMPLES = 512  # to solve on
FEWEST = 16
WORK = 1e12  # of all samples on one pass through the network, beyond which fewer are taken: two minutes on two cores
ELEMENT = 500  # multiply-accumulates that take as long as one element that is drawn, held, or summed up
BATCH = 32
TIMES = 4  # as many as the user gives, or `SAMPLES`, are solved on with altered copies; fewer would not be worth it
HELD_OUT = 32  # samples that tell whether a repair has helped
SPLIT = (15, 1)  # of the user's samples: solved on, and held out to judge by


@dataclass(frozen=True)
class Calibration:
    """Samples in batches, and what they are, for the report.

    held_out: others of the same kind, which nothing is solved on.
    count, wanted: how many are solved on, and beyond how many more would not be taken.
    kind: "data", the user's, or "drawn".
    distinct: how many of the batches are samples as they are; the others are altered copies of them in the same order.
    """

    feeds: Sequence[Feed]
    held_out: Sequence[Feed]
    what: str
    count: int
    wanted: int
    kind: str
    distinct: int

    @property
    def judging(self) -> Sequence[Feed]:
        """Those by which a repair is steered, and which no layer is solved on: figures come from other ones."""
        return [self.feeds[b] for b in held_batches(self.distinct, self.distinct)] or self.held_out


Samples = Callable[[], Calibration]  # gathered when they are first asked for


def calibrating(study: Study, data: Dataset | None, progress: Progress = silent) -> Samples:
    """The user's samples where there are some, else drawn ones in the network's own shape and normalisation."""
    return cache(partial(_drawn, study, progress) if data is None else partial(_given, study, data))


def _given(study: Study, data: Dataset) -> Calibration:
    (wanted, fewer), seed = wanted_samples(study), study.request.seed
    some = data.spread(wanted * sum(SPLIT) // SPLIT[0])
    solved, held = (some.chosen(rows) for rows in split_rows(some.samples or 0, SPLIT, seed))
    if not (solved.samples and held.samples):
        solved, held = some, some  # a handful, and the report warns of that
    count = solved.samples or 0
    feeds, held_out = ([b.feeds for b in part.batched(batch_of(count))] for part in (solved, held))
    limit = fewer if count >= wanted else ""
    times = min(max(SAMPLES, TIMES * count), *bounds(study)) // max(count, 1)
    more = with_copies(feeds, times - 1, seed) if times >= TIMES else feeds
    copies = f" and altered copies, {len(more) * count // len(feeds)} in all" if len(more) > len(feeds) else ""
    what = f"{count} samples of the data{copies}, without their labels{limit}"
    return Calibration(more, held_out, what, count, wanted, "data", len(feeds))


def batch_of(samples: int) -> int:
    """Samples in a batch: few enough that one of `HOLD` batches can be held out."""
    return max(1, min(BATCH, -(-samples // HOLD)))


def with_copies(feeds: Sequence[Feed], copies: int, seed: int) -> list[Feed]:
    """Samples and so many altered copies of each, where the only input takes images."""
    (name, *others), generator = feeds[0], np.random.default_rng(seed)
    layout, found = Layout.of(feeds[0][name].shape), list(feeds)
    if not others and layout is not None:
        found += [{name: altered(feed[name], layout, generator)} for _ in range(copies) for feed in feeds]
    return found


def _drawn(study: Study, progress: Progress) -> Calibration:
    (wanted, fewer), request = wanted_samples(study), study.request
    held_out = min(HELD_OUT, wanted)
    draw = partial(drawn_feeds, study.network, study.deps.statics.shapes, request, batch=batch_of(wanted))

    def pool(count: int) -> list[Feed]:
        found = draw(count)[0]
        grey = any(is_grey(a.shape) for a in found[0].values())
        return found + (draw(count, lines=True)[0] if grey else [])

    feeds, noisy = draw(wanted + held_out)
    search = ClassSearch.of(wanted + held_out, *passed(study))
    feeds = even_classes(study.network, feeds, pool, search, request.seed, progress)
    held = -(-len(feeds) * held_out // (wanted + held_out))
    noise = f"; noise for {', '.join(noisy)}, which takes no images" if noisy else ""
    what = f"{wanted} drawn samples{fewer}{noise}; real ones repair better ({spelled('data')})"
    return Calibration(feeds[:-held], feeds[-held:], what, wanted, wanted, "drawn", len(feeds) - held)


def passed(study: Study) -> tuple[float, float]:
    """Multiply-accumulates of one sample on its way through the network, and elements that it is passed on as."""
    unit = _unit(study)
    return study.deps.macs() / unit, elements(study.deps) / unit


def _unit(study: Study) -> int:
    """How many samples the network was analysed with."""
    return analysed_with(study.graph, study.deps.statics.shapes)


def wanted_samples(study: Study) -> tuple[int, str]:
    """How many samples to solve on, those of one run at least, and why not more where there is a reason."""
    held, quick = bounds(study)
    wanted = max(min(FEWEST, held), min(SAMPLES, held, quick))
    wanted -= wanted % HELD_OUT if wanted > HELD_OUT else 0
    wanted = max(wanted, _unit(study))
    if wanted >= SAMPLES:
        return wanted, ""
    return wanted, f" (not {SAMPLES}, to take less {'memory' if held < quick else 'time'})"


def bounds(study: Study) -> tuple[int, int]:
    """How many samples memory allows, at least one, and how many time does."""
    request, (macs, numbers) = study.request, passed(study)
    room = MEMORY if request.max_memory is None else min(MEMORY, request.max_memory // 4)
    held = affordable(activations(study.deps), _unit(study), [s.name for s in model_inputs(study.graph)], room)
    return max(1, held), int(WORK / max(macs + ELEMENT * numbers, 1))


def drawn_feeds(
    model: Network,
    shapes: Mapping[str, tuple[int, ...]],
    request: Request,
    count: int,
    batch: int | None = None,
    *,
    lines: bool = False,
) -> tuple[list[Feed], list[str]]:
    """So many drawn samples, and the inputs that are no images and got noise.

    They come in batches where the model runs with such, and else in the sizes that it was analysed with.

    Raises ModelError where the size of an input is not known.
    """
    specs = model_inputs(model.graph)
    if unknown := [s.name for s in specs if s.name not in shapes]:
        raise ModelError(f"no samples can be drawn: the size of '{unknown[0]}' is not known")
    taken = {s.name: shapes[s.name] for s in specs}
    draw = partial(synthetic_feeds, specs, taken, scale=scale_of(request), seed=request.seed, lines=lines)
    if batch and any(s.batch is None for s in specs):
        try:
            make_session(model, providers="cpu").run(draw(count=batch, batch=batch)[0][0])
        except ModelError:
            return draw(count=count, batch=None)
    return draw(count=count, batch=batch)


def scale_of(request: Request) -> Scale | None:
    """The normalisation that the user states, in units of images from 0 to 1."""
    said = read_options(request.mean, request.std, None, request.layout)
    if "raw" in said.flags:
        return Scale.of_range(0, 255)
    if not said.normalises:
        return None
    unit = 255.0 if max((*said.mean, *said.std), default=0.0) > 1 else 1.0
    mean, std = said.mean or (0.0,), said.std or (unit,)
    return Scale(tuple(m / unit for m in mean), tuple(s / unit for s in std))
