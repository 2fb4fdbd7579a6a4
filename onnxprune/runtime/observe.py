"""Shapes of inner values as a run shows them, where shape inference cannot know them."""

from collections.abc import Iterable

import numpy as np
import onnx

from onnxprune.errors import ModelError, UsageError
from onnxprune.runtime.session import make_session
from onnxprune.runtime.source import Source
from onnxprune.runtime.specs import Feed

AT_ONCE = 64  # values that one run gives: they are all in memory together


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
