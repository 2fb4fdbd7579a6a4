"""Samples to train on, and others that tell which state is best: the user's own, or drawn ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.pipeline.calibration import drawn_feeds
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.split import split_rows
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.specs import model_inputs, nbytes
from onnxprune.training.samples import TrainingSamples

HELD = 1 << 30  # bytes of samples in memory; more data is gone through in parts, one an epoch
SPLIT = (15, 1)  # of the samples: trained on, and held out to tell which state is best
MOST_HELD_OUT = 512
FEWEST = 32  # samples of which some are held out; with fewer, states are told apart on those that are trained on
DRAWN_BYTES = 256 << 20  # of drawn samples at the most
BATCH = 64

Load = Callable[[int], TrainingSamples]  # from the number of an epoch to its samples


def given(data: Dataset, seed: int) -> tuple[Load, TrainingSamples, str]:
    """The user's samples: those of an epoch, those that are held out, and what they are in words.

    Raises UsageError where the data is empty.
    """
    known = data.counted()
    count = known.samples or 0
    if count < FEWEST:
        few = TrainingSamples.read(known)
        return lambda _: few, few, f"{count} samples, too few to hold some out"
    train, held = (known.chosen(rows) for rows in split_rows(count, SPLIT, seed))
    held = held.spread(MOST_HELD_OUT)
    parts = _parts(train, seed)
    labels = "with labels" if known.has_labels else "without labels"
    turns = f", in {len(parts)} parts of which each epoch has one" if len(parts) > 1 else ""
    return _loader(parts), TrainingSamples.read(held), f"{train.samples} samples of the data {labels}{turns}"


def _loader(parts: list[Dataset]) -> Load:
    """The samples of each epoch's part; one part alone is in memory."""
    read: dict[int, TrainingSamples] = {}

    def load(epoch: int) -> TrainingSamples:
        part = epoch % len(parts)
        if part not in read:
            read.clear()
            read[part] = TrainingSamples.read(parts[part])
        return read[part]

    return load


def _parts(data: Dataset, seed: int) -> list[Dataset]:
    """The data in as many parts as it takes for each to fit into memory; all of them see what it is sorted by."""
    first = next(iter(data), None)
    if first is None or not data.samples:
        raise UsageError("the data is empty")
    each = sum(a.nbytes for a in first.feeds.values()) / max(first.size, 1)
    number = -(-int(each * data.samples) // HELD)
    if number < 2:
        return [data]
    return [data.chosen(rows) for rows in split_rows(data.samples, [1] * number, seed)]


def drawn(
    model: Network, shapes: Mapping[str, tuple[int, ...]], request: Request, most: int
) -> tuple[Load, TrainingSamples, str]:
    """So many drawn samples at the most, the same in every epoch.

    Raises ModelError where the size of an input is not known.
    """
    each = sum(nbytes(shapes[s.name][1:], s.dtype) for s in model_inputs(model.graph) if s.name in shapes)
    count = max(FEWEST, min(most, DRAWN_BYTES // max(each, 1)))
    feeds, noisy = drawn_feeds(model, shapes, replace(request, seed=request.seed + 1), count, min(BATCH, count))
    all_ = TrainingSamples.drawn(feeds)
    held = max(1, len(all_) * SPLIT[1] // sum(SPLIT))
    noise = f"; noise for {', '.join(noisy)}, which takes no images" if noisy else ""
    train, rest = all_.part(slice(held, None)), all_.part(slice(held))
    return lambda _: train, rest, f"{len(train)} drawn samples{noise}"
