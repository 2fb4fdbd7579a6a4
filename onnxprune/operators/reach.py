"""Which channels of what an operator takes have a part in which of those that it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from onnxprune.operators.registry import Attributes, HeadInputs, Taken


class Reach(NamedTuple):
    """Channels that have a part in no other channels of output 0 than those with the same number.

    place: the input, and `axis` the one of its channels.
    own: (positions,) int, the number of each; -1 where nothing is said.
    onto: the axis of output 0, and `reached` (outputs,) int, the number of each position there.
    """

    place: int
    axis: int
    own: np.ndarray
    onto: int
    reached: np.ndarray


def within_heads(heads: HeadInputs) -> Callable[[Taken], list[Reach]]:
    """A feature of queries or keys has a part in its head alone, one of values in itself alone."""

    def found(taken: Taken) -> list[Reach]:
        a: Mapping[str, Any] = taken.attributes
        shapes: Mapping[int | None, Any] = dict(enumerate(taken.shapes))
        queries: int = a.get("q_num_heads") or a.get("num_heads") or 1
        if heads.packed:
            parts = _parts(packed_sizes(shapes[1][1], a), queries, queries)
            rows = [*_joined(1, 1, parts), *_joined(2, 0, parts)]
        elif len(shapes[0]) == 4:
            return _apart(shapes, heads.mask)
        else:
            parts = _parts([shapes[k][2] for k in range(3)], a.get("kv_num_heads") or queries, queries)
            rows = [Reach(k, 2, own, 2, reached) for k, (own, reached) in enumerate(parts)]
            rows += _joined(heads.bias, 0, parts) if heads.bias is not None else []
        return [*rows, *_masks(shapes, heads.mask, 2, _blocks(queries, parts[2][1].size))]

    return found


def packed_sizes(total: int, a: Attributes) -> list[int]:
    """Features of all heads of queries, keys and values, of which there are so many together."""
    return list(a.get("qkv_hidden_sizes") or (total // 3,) * 3)


def _blocks(count: int, size: int) -> np.ndarray:
    """The numbers of `count` blocks of equal size, one for each position."""
    return np.repeat(np.arange(count), size // count)


def _parts(sizes: Sequence[int], heads: int, queries: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of queries, keys and values, and those of the outputs, where heads stand behind each other.

    Args:
        sizes: features of all heads of each.
        heads: of keys and values.
        queries: heads of queries.
    """
    values = np.arange(sizes[2]).reshape(heads, 1, -1)
    feature = np.broadcast_to(values, (heads, queries // heads, values.shape[2])).ravel()
    head = _blocks(heads, feature.size)
    return [(_blocks(heads, sizes[0]), head), (_blocks(heads, sizes[1]), head), (values.ravel(), feature)]


def _joined(place: int, axis: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Reach]:
    """Queries, keys and values behind each other on an axis."""
    for k, (_, reached) in enumerate(parts):
        own = [x if j == k else np.full(x.size, -1) for j, (x, _) in enumerate(parts)]
        yield Reach(place, axis, np.concatenate(own), 2, reached)


def _apart(shapes: Mapping[int | None, Any], mask: int | None) -> list[Reach]:
    """Queries, keys and values (batch, heads, tokens, width)."""
    q, k, v = (shapes[place] for place in range(3))
    heads = _blocks(k[1], q[1])
    rows = [Reach(0, 1, heads, 1, heads), *(Reach(place, 1, np.arange(k[1]), 1, heads) for place in (1, 2))]
    width = Reach(2, 3, np.arange(v[3]), 3, np.arange(v[3]))
    return [*rows, width, *_masks(shapes, mask, 1, np.arange(q[1]))]


def _masks(shapes: Mapping[int | None, Any], place: int | None, onto: int, heads: np.ndarray) -> list[Reach]:
    """Added to the scores, with the heads of queries as an axis."""
    count, shape = int(heads.max()) + 1, shapes.get(place)
    if place is None or shape is None or len(shape) < 3 or shape[-3] != count:
        return []
    return [Reach(place, len(shape) - 3, np.arange(count), onto, heads)]
