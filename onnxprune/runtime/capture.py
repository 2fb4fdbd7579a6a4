"""Activations over a data set: named inner values, batch by batch, never all at once."""

from collections.abc import Callable, Iterator, Sequence

from onnxprune.errors import UsageError
from onnxprune.runtime.batches import Batch, Dataset
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant
from onnxprune.runtime.specs import Feed

# Bytes of captured values per run; onnxruntime holds them once and numpy a second time, beside what the network
# needs for as many samples. A VGG-16 with all its 13 convolutions captured stays below 1.4 GiB so.
BUDGET = 96 << 20

# onnxruntime splits sums among its threads, which shows in the last bits. What is computed from activations goes
# into the output file, so their number does not follow the machine.
THREADS = 4


def capture(
    model: Source | Variant,
    names: Sequence[str],
    dataset: Dataset,
    visit: Callable[[Feed], None],
    *,
    providers: str | Sequence[str] = "auto",
    threads: int = THREADS,
    budget: int = BUDGET,
) -> int:
    """Run `model` over `dataset` and call `visit({name: array})` for each batch; returns how many samples it saw.

    See `activations`, which does the same as a generator.
    """
    seen = 0
    for batch, found in activations(model, names, dataset, providers=providers, threads=threads, budget=budget):
        visit(found)
        seen += batch.size
    return seen


def activations(
    model: Source | Variant,
    names: Sequence[str],
    dataset: Dataset,
    *,
    providers: str | Sequence[str] = "auto",
    threads: int = THREADS,
    budget: int = BUDGET,
) -> Iterator[tuple[Batch, Feed]]:
    """Each batch of `dataset` with the values called `names` (inner values, outputs or inputs) that it gives.

    The batch is as large as `budget` bytes of captured values allow, found by a run of the first sample, or
    what the model fixes. With the same `threads` and a CPU of the same kind the values are the same to the last
    bit. Raises `UsageError` for names that the model does not have and for empty data.
    """
    session = tapped(model, names, providers=providers, threads=threads)
    for batch in dataset.batched(fitting(session, names, dataset, budget)):
        yield batch, values(session, names, batch.feeds)


def tapped(
    model: Source | Variant,
    names: Sequence[str],
    *,
    providers: str | Sequence[str] = "auto",
    threads: int = THREADS,
) -> Session:
    """A session that gives `names` besides the model's own outputs; inputs among them need no tap."""
    variant = Variant.of(model)
    inputs = {i.name for i in variant.graph.input}
    return make_session(variant, providers=providers, threads=threads, taps=[n for n in names if n not in inputs])


def values(session: Session, names: Sequence[str], feed: Feed) -> Feed:
    """The values called `names` for one feed; those that are inputs come from the feed itself."""
    missing = [n for n in dict.fromkeys(names) if n not in feed]
    return {**{n: feed[n] for n in names if n in feed}, **(session.run(feed, missing) if missing else {})}


def fitting(session: Session, names: Sequence[str], dataset: Dataset, budget: int = BUDGET) -> int:
    """How many samples give `budget` bytes of captured values, at least 1 and at most the batch of `dataset`."""
    first = next(iter(dataset.batched(1)), None)
    if first is None:
        raise UsageError("the calibration data is empty")
    needed = sum(array.nbytes for array in values(session, names, first.feeds).values())
    return int(min(dataset.batch, max(1, budget * first.size // max(needed, 1))))
