"""Indices (n1, n2, ..., k) of ScatterND and GatherND that are a grid: some positions of each of the first k axes."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.channels.nodes import Node
from onnxprune.model.static import Statics
from onnxprune.operators.registry import Shape, Trait, attributes_of, has
from onnxprune.operators.roles import Line


def grid_lines(indices: np.ndarray) -> list[np.ndarray] | None:
    """Positions on each axis of a grid of indices (n1, n2, ..., k) with k axes; None where it is no grid."""
    k = indices.shape[-1] if indices.ndim else 0
    if indices.ndim != k + 1 or indices.size == 0:
        return None
    lines = [np.moveaxis(indices[..., j], j, 0).reshape(indices.shape[j], -1)[:, 0] for j in range(k)]
    return lines if np.array_equal(grid_of(lines), indices) else None


def grid_of(lines: Sequence[np.ndarray]) -> np.ndarray:
    """The indices (n1, n2, ..., k) of some positions on each axis."""
    return np.stack(np.meshgrid(*lines, indexing="ij"), -1)


def lines_everywhere(statics: Statics, makers: Mapping[str, Node], data: str, indices: str) -> list[Line] | None:
    """Lines of a grid, each of which the data says, or is the same at every size, or all positions of its axis.

    Args:
        statics: of the sample; it knows those at other sizes.
        makers: the nodes that make values, by key.
        data, indices: keys of what is picked from or scattered into, and of the indices.

    Returns:
        one line for each of the k axes; None where the indices are no such grid, or not known.
    """
    columns: list[list[tuple[np.ndarray | str, int]]] = []
    for at in (statics, *statics.elsewhere):
        array, shape = at.constants.get(indices), at.shapes.get(data)
        lines = _joined_lines(at, makers, indices) if array is None else grid_lines(array)
        if lines is None or shape is None:
            return None
        columns.append([(x if isinstance(x, str) else x % max(n, 1), n) for x, n in zip(lines, shape, strict=False)])
    found = [_common(column) for column in zip(*columns, strict=True)]
    return None if None in found else [line for line in found if line is not None]


def _common(lines: Sequence[tuple[np.ndarray | str, int]]) -> Line | None:
    """One line of several, each of an axis of some size; None where they differ."""
    first = lines[0][0]
    if isinstance(first, str):
        return Line(None, source=first) if all(isinstance(line, str) for line, _ in lines) else None
    if all(np.array_equal(line, first) for line, _ in lines):
        return Line(first)
    return Line(first, whole=True) if all(np.array_equal(line, np.arange(size)) for line, size in lines) else None


def _joined_lines(at: Statics, makers: Mapping[str, Node], key: str) -> list[np.ndarray | str] | None:
    """Lines of a grid that is joined from columns, as exporters write it; for one from the data, the key of that."""
    maker, shape = makers.get(key), at.shapes.get(key)
    if maker is None or shape is None or not has(maker.proto, Trait.JOINS) or len(shape) != len(maker.inputs) + 1:
        return None
    if attributes_of(maker.proto)["axis"] % len(shape) != len(shape) - 1:
        return None
    lines: list[np.ndarray | str] = []
    for axis, part in enumerate(maker.inputs):
        column = _column(at, makers, part)
        if column is None or column[0] != tuple(n if k == axis else 1 for k, n in enumerate((*shape[:-1], 1))):
            return None
        lines.append(column[1] if isinstance(column[1], str) else column[1].ravel())
    return lines


def _column(at: Statics, makers: Mapping[str, Node], key: str) -> tuple[Shape, np.ndarray | str] | None:
    """Shape of an array before it is expanded, with as many axes as behind that, and what it holds, or its key."""
    if key in at.constants:
        array = _unexpanded(at.constants[key])
        return array.shape, array
    maker, shape = makers.get(key), at.shapes.get(key)
    if maker is None or not has(maker.proto, Trait.EXPANDS | Trait.INSERTS) or shape is None:
        return None if shape is None else (shape, key)
    inner = _column(at, makers, maker.inputs[0])
    if inner is None or has(maker.proto, Trait.EXPANDS):
        return inner and ((*[1] * (len(shape) - len(inner[0])), *inner[0]), inner[1])
    axes = attributes_of(maker.proto).get("axes")
    axes = at.constants.get(maker.inputs[1]) if axes is None else axes
    return None if axes is None else (np.expand_dims(np.empty(inner[0]), tuple(map(int, axes))).shape, inner[1])


def _unexpanded(array: np.ndarray) -> np.ndarray:
    """An array without the axes along which it only repeats."""
    for k in range(array.ndim):
        first = array.take([0], k) if array.shape[k] else array
        array = first if (array == first).all() else array
    return array
