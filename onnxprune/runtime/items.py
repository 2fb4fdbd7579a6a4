"""What Python hands over as samples: arrays, pairs of inputs and labels, lists of them, and loaders of any library."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.runtime.batches import LABELS, states_of
from onnxprune.runtime.inputs import listing
from onnxprune.runtime.readers import Arrays, FileReader, Header, portions, read_feeds, row_count
from onnxprune.runtime.script import blaming
from onnxprune.runtime.specs import Spec, fits


def reader_of(source: Any, specs: Sequence[Spec]) -> FileReader | None:
    """The reader for what a user has in Python; None for what is no data.

    An array holds the samples of the only input; a tuple the inputs in their order, then the labels if there are any; a
    dict is a feed by name.  Any other iterable gives such feeds, batches or single samples, one after the other.
    """
    name = type(source).__name__
    if hasattr(source, "get_next"):
        return read_feeds(named(_Replay(iter(source.get_next, None)), specs), name)
    if isinstance(source, Mapping):
        return read_feeds(named(lambda: [source], specs), "the dict")
    if _is_array(source) or (isinstance(source, tuple) and not all(map(_holds_arrays, source))):
        return read_arrays(feed_of(source, specs), name, specs)
    if callable(source):
        return read_feeds(named(source, specs), getattr(source, "__name__", "the function"))
    return read_feeds(named(_again(source, specs), specs), name) if isinstance(source, Iterable) else None


def feed_of(item: Any, specs: Sequence[Spec]) -> Any:
    """One item as a dict of arrays by name; what is none is given back as it is.

    A single sample, which lacks the axis that counts samples, gets one, and so does its label.
    Raises UsageError where there are more or fewer arrays than the model has inputs.
    """
    if isinstance(item, Mapping):
        return {str(name): as_array(value) for name, value in item.items()}
    if isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], Mapping):
        return {**feed_of(item[0], specs), _label(specs): as_array(item[1])}
    if not (_is_array(item) or _holds_arrays(item)):
        return item
    arrays = [as_array(value) for value in ([item] if _is_array(item) else item)]
    if len(arrays) not in (len(specs), len(specs) + 1):
        raise UsageError(f"{len(arrays)} arrays were given where the model takes {listing(specs)}, with labels behind")
    if all(map(_lacks_batch, arrays, specs)):
        arrays = [array[None] for array in arrays]
    return dict(zip((*(s.name for s in specs), _label(specs)), arrays, strict=False))


def as_array(value: Any) -> np.ndarray:
    """An array from whatever holds numbers; a tensor of torch is taken out of its graph and off its device.

    Raises UsageError for whatever the user's object raises.
    """
    with blaming("the data"):
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def read_arrays(arrays: Arrays, origin: str, specs: Sequence[Spec]) -> FileReader:
    """Arrays in memory, by rows; states, and what has another length, are the same for all samples.

    Raises UsageError where they are no arrays of numbers, or hold no samples.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise UsageError(f"'{name}' in the data holds Python objects; give plain arrays")
    headers = {n: Header(a.shape, a.dtype) for n, a in arrays.items()}
    states = {s.name for s in specs if s.name in states_of(specs) and fits(headers[s.name].shape, s)}
    count = row_count({n: h for n, h in headers.items() if n not in states}, origin)
    same = states | {n for n, h in headers.items() if h.shape[:1] != (count,)}

    def chunks(rows: np.ndarray | None, step: int) -> Iterator[Arrays]:
        for picks in portions(count, rows, step):
            yield {n: a if n in same else a[picks] for n, a in arrays.items()}

    return FileReader(origin, chunks, headers, count)


class _Replay:
    """An iterator that can be gone through again, because it keeps what it has given."""

    def __init__(self, source: Iterator[Any]):
        self.source = source
        self.kept: list[Any] = []

    def __call__(self) -> Iterator[Any]:
        yield from self.kept
        for item in self.source:
            self.kept.append(item)
            yield item


def _again(source: Iterable[Any], specs: Sequence[Spec]) -> Callable[[], Iterable[Any]]:
    """A function that gives the same items every time, as held-out samples have to stay held out.

    What can be gone through once, or gives other items the second time (a loader that shuffles), is kept in memory.
    """
    if isinstance(source, Sequence):
        return lambda: source
    if iter(source) is source:
        return _Replay(iter(source))
    one, two = (feed_of(next(iter(source), None), specs) for _ in range(2))
    if isinstance(one, dict) and not all(np.array_equal(a, b) for a, b in zip(one.values(), two.values(), strict=True)):
        return _Replay(iter(source))
    return lambda: source


def named(make: Callable[[], Iterable[Any]], specs: Sequence[Spec]) -> Callable[[], Iterable[Any]]:
    """A function that gives the items of another as dicts of arrays by name."""
    return lambda: (feed_of(item, specs) for item in make())


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _holds_arrays(value: Any) -> bool:
    """Whether it is a tuple or a list of arrays, with a number for a label at most."""
    return isinstance(value, (tuple, list)) and bool(value) and _is_array(value[0])


def _lacks_batch(array: np.ndarray, spec: Spec) -> bool:
    return bool(spec.shape) and array.ndim == len(spec.shape or ()) - 1 and fits((spec.batch or 1, *array.shape), spec)


def _label(specs: Sequence[Spec]) -> str:
    return next(name for name in LABELS if name not in {s.name for s in specs})
