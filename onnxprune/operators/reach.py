"""Which channels of what an operator takes have a part in which of those that it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from onnxprune.operators.registry import Shape, Taken


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


def within_heads(*, bias: int = -1, mask: int = -1, packed: bool = False) -> Callable[[Taken], list[Reach]]:
    """A feature of queries or keys has a part in its head alone, one of values in itself alone.

    Args:
        bias: the input that is added to queries, keys and values, behind each other.
        mask: the input that is added to the scores, (..., heads, queries, keys).
        packed: whether input 1 holds the weights of all of these, (features, outputs), and not they themselves.
    """

    def found(taken: Taken) -> list[Reach]:
        a: Mapping[str, Any] = taken.attributes
        shapes: Mapping[int, Any] = dict(enumerate(taken.shapes))
        queries: int = a.get("q_num_heads") or a.get("num_heads") or 1
        if packed:
            total = shapes[1][1]
            parts = _parts(a.get("qkv_hidden_sizes") or (total // 3,) * 3, queries, queries)
            rows = [*_joined(1, 1, parts), *_joined(2, 0, parts)]
        elif len(shapes[0]) == 4:
            return _apart(shapes, mask)
        else:
            parts = _parts([shapes[k][2] for k in range(3)], a.get("kv_num_heads") or queries, queries)
            rows = [Reach(k, 2, own, 2, reached) for k, (own, reached) in enumerate(parts)]
            rows += _joined(bias, 0, parts) if bias >= 0 else []
        return [*rows, *_masks(shapes.get(mask), mask, 2, _blocks(queries, parts[2][1].size))]

    return found


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


def _apart(shapes: Mapping[int, Any], mask: int) -> list[Reach]:
    """Queries, keys and values (batch, heads, tokens, width)."""
    q, k, v = (shapes[place] for place in range(3))
    heads = _blocks(k[1], q[1])
    rows = [Reach(0, 1, heads, 1, heads), *(Reach(place, 1, np.arange(k[1]), 1, heads) for place in (1, 2))]
    width = Reach(2, 3, np.arange(v[3]), 3, np.arange(v[3]))
    return [*rows, width, *_masks(shapes.get(mask), mask, 1, np.arange(q[1]))]


def _masks(shape: Shape | None, place: int, onto: int, heads: np.ndarray) -> list[Reach]:
    """Added to the scores, with the heads of queries as an axis."""
    count = int(heads.max()) + 1
    if shape is None or len(shape) < 3 or shape[-3] != count:
        return []
    return [Reach(place, len(shape) - 3, np.arange(count), onto, heads)]
