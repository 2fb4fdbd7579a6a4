"""Where in a feature map the scores of a detector are decided: places that a repair has to get right.

Most places of such a map hold nothing, and a score there is far out on the flat end of its sigmoid, where errors do not
matter.  What does is an error times the slope of the sigmoid (Gauss-Newton; Schraudolph 2002, doi
10.1162/08997660260028683), so that rows of a least squares are weighted by its square; half of all weight stays even.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.model.static import attributes_of
from onnxprune.operators.registry import Trait, has, operator_of
from onnxprune.runtime.session import make_session
from onnxprune.surgery.recovery.network import LayerGraph
from onnxprune.surgery.recovery.runner import THREADS, Feeds

SHARE = 0.5  # of all weight that goes to places where scores are decided
STEP = 1e-3  # of an input, for the slope of a function


@dataclass(frozen=True)
class Emphasis:
    """maps: for each batch, the squared slopes of the scores, (samples, height, width) for each map of scores."""

    maps: Sequence[Sequence[np.ndarray]] = ()

    @classmethod
    def of(cls, network: LayerGraph, feeds: Feeds) -> "Emphasis":
        """What the scores of the original say on samples; nothing where there are no maps of scores."""
        heads = dict(_heads(network))
        if not heads:
            return cls()
        taps = [name for name in heads if name not in network.outputs]
        session = make_session(network.model, providers="cpu", threads=THREADS, optimize=True, taps=taps)
        maps = []
        for feed in feeds:
            given = session.run(feed, list(heads))
            maps.append([_slopes(network, k, given[name]).mean(axis=1) for name, k in heads.items()])
        levels = [float(np.mean([m[j].mean() for m in maps])) for j in range(len(heads))]
        return cls([[m / max(level, 1e-30) for m, level in zip(some, levels, strict=True)] for some in maps])

    def rows(self, batch: int, shape: Sequence[int], axis: int) -> np.ndarray | None:
        """The weight of each position of a layer's output, 1 in the mean; None where it is no map."""
        if not self.maps or len(shape) != 4 or axis != 1 or any(len(m) != shape[0] for m in self.maps[batch]):
            return None
        found = np.mean([_resized(m, shape[2], shape[3]) for m in self.maps[batch]], axis=0)
        return (1 - SHARE + SHARE * found).ravel()


def _resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (samples, ...) at another size: the mean of the places that fall together."""
    for axis, size in ((1, height), (2, width)):
        have = array.shape[axis]
        if size < have:
            starts = np.arange(size) * have // size
            counts = np.diff(np.append(starts, have))
            array = np.add.reduceat(array, starts, axis) / counts.reshape([-1 if k == axis else 1 for k in range(3)])
        else:
            array = array.take(np.arange(size) * have // size, axis)
    return array


def _heads(network: LayerGraph) -> Iterator[tuple[str, int]]:
    """Maps (samples, scores, height, width) that a layer makes and a saturating function takes, and this function."""
    layered = _leads_to_layers(network)
    for k, node in enumerate(network.nodes):
        if not (has(node, Trait.SATURATES) and has(node, Trait.UNARY)) or k in layered:
            continue
        name = node.input[0]
        while (j := network.maker.get(name)) is not None and has(network.nodes[j], Trait.VIEW):
            name = network.nodes[j].input[0]
        maker = None if j is None else network.nodes[j]
        if maker is not None and has(maker, Trait.CONVOLVES):
            yield name, k


def _leads_to_layers(network: LayerGraph) -> set[int]:
    """Nodes behind which another layer comes."""
    found: set[int] = set()
    for k in reversed(range(len(network.nodes))):
        after = {j for name in network.nodes[k].output for j in network.consumers.get(name, ())}
        if any(j in found or has(network.nodes[j], Trait.LAYER) for j in after):
            found.add(k)
    return found


def _slopes(network: LayerGraph, k: int, x: np.ndarray) -> np.ndarray:
    """The squared slope of an element-wise function at each element of (samples, scores, ...)."""
    node, function = network.nodes[k], operator_of(network.nodes[k]).function
    assert function is not None
    a, x = attributes_of(node), x.astype(np.float64)
    slope = (function(x + STEP, a) - function(x - STEP, a)) / (2 * STEP)
    return np.asarray(slope**2)
