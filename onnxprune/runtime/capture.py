"""Sessions that give inner values by name, of how many samples at once, and the shapes that a run shows of them."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from onnxprune.errors import ModelError, UsageError
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant
from onnxprune.runtime.specs import Feed

# Bytes of captured values per run; onnxruntime holds them once and numpy a second time, beside what the network
# needs for as many samples. A VGG-16 with all its 13 convolutions captured stays below 1.4 GiB so.
BUDGET = 96 << 20

AT_ONCE = 64  # values that one run gives: they are all in memory together

# onnxruntime splits sums among its threads, which shows in the last bits. What is computed from activations goes
# into the output file, so their number does not follow the machine.
THREADS = 4


def tapped(model: Source | Variant, names: Sequence[str], *, providers: str | Sequence[str] = "auto") -> Session:
    """A session that gives `names` besides the model's own outputs; inputs among them need no tap."""
    variant = Variant.of(model)
    inputs = {i.name for i in variant.graph.input}
    return make_session(variant, providers=providers, threads=THREADS, taps=[n for n in names if n not in inputs])


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


def observe(model: Source, names: Iterable[str], feed: Feed) -> dict[str, np.ndarray]:
    """An empty array of the shape and type of each value, as far as onnxruntime can give it.

    The array costs no memory: it repeats one element.

    Args:
        model: never changed.
        names: of values of the main graph.
        feed: arrays by input name.
    """
    wanted = list(names)
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        try:
            session = make_session(model, providers="cpu", taps=some)
            given = session.run(feed, some)
        except (ModelError, UsageError):  # a value that is no tensor: what it touches stays frozen
            continue
        found |= {
            n: np.broadcast_to(np.zeros((), a.dtype), a.shape) for n, a in given.items() if isinstance(a, np.ndarray)
        }
    return found


def missing_shapes(model: onnx.ModelProto, known: Iterable[str]) -> list[str]:
    """Values of the main graph that are not among the known ones."""
    have = set(known)
    return [name for node in model.graph.node for name in node.output if name and name not in have]
