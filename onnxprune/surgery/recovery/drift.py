"""How far the outputs of a network move when something is tried on it."""

from collections.abc import Sequence

import numpy as np

from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.classes import numbers
from onnxprune.runtime.scales import Scales
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Spec, model_inputs, shortened
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.runner import THREADS, Feeds

MULTIPLICATIONS = 2e12  # of all trial runs together
ENOUGH = 1 << 17  # numbers of the outputs that tell their drift; more, of other samples, tell the same
FEW, FEWEST = 16, 4  # samples that are taken all the same, and where there are too many multiplications


class Drift:
    """How far the outputs of other weights are from the original ones: mean squared error per unit of variance.

    Numbers of two scales in one output count as two outputs.
    """

    def __init__(self, network: LayerGraph, feeds: Feeds, multiplications: float) -> None:
        self.network = network
        names = [v.name for v in network.model.graph.output]
        self.names = [self._before(n) for n in names]
        inputs = model_inputs(network.model)
        self.feeds = _some(feeds, inputs, MULTIPLICATIONS / max(multiplications, 1))
        self.scales = Scales({})
        self.wanted = self._run(network.source)
        if (some := _some(self.feeds, inputs, self._telling())) is not self.feeds:
            self.feeds = some
            self.wanted = self._run(network.source)
        self.scales = Scales.of(self.wanted)
        self.wanted = [self.scales.parts(run) for run in self.wanted]

    def _telling(self) -> float:
        """How many samples have enough numbers in all outputs together, at least a few."""
        samples = sum(max((len(a) for a in feed.values() if a.ndim), default=1) for feed in self.feeds)
        found = sum(array.size for run in self.wanted for array in run.values())
        return max(FEW, ENOUGH * samples / max(found, 1))

    def _before(self, name: str) -> str:
        """An output, or what a saturating function at the end makes it of."""
        k = self.network.maker.get(name)
        node = self.network.nodes[k] if k is not None else None
        return node.input[0] if node is not None and has(node, Trait.SATURATES) else name

    def _run(self, model: Network) -> list[dict[str, np.ndarray]]:
        outputs = {v.name for v in model.graph.graph.output}
        taps = [n for n in self.names if n not in outputs]
        session = make_session(model, providers="cpu", threads=THREADS, optimize=True, taps=taps)
        runs = (numbers(session.run(feed, self.names)) for feed in self.feeds)
        return [self.scales.parts({n: array.astype(np.float64) for n, array in run.items()}) for run in runs]

    def __call__(self, model: Network) -> float:
        total = 0.0
        found = self._run(model)
        for name in self.wanted[0]:
            both = ((w, f) for w, f in zip(self.wanted, found, strict=True) if name in w and name in f)
            pairs = [(w[name].ravel(), f[name].ravel()) for w, f in both]
            if len(pairs) < len(found) or any(w.shape != f.shape for w, f in pairs):
                continue  # as many rows, or elements of a sequence, as a threshold lets through
            wanted, got = (np.concatenate(side) for side in zip(*pairs, strict=True))
            with np.errstate(over="ignore", invalid="ignore"):  # of outputs that are not finite nothing follows
                total += float(np.mean((wanted - got) ** 2) / max(float(wanted.var()), 1e-12))
        return total


def _some(feeds: Feeds, inputs: Sequence[Spec], samples: float) -> Feeds:
    """The first feeds, or a part of the first one, that hold about so many samples (at least 4, at most 128).

    Of a feed that the model does not take in parts all samples.
    """
    wanted = int(min(128, max(FEWEST, samples)))
    size = max((len(a) for a in feeds[0].values() if a.ndim), default=1)
    if size <= wanted:
        return feeds if (count := max(1, wanted // max(size, 1))) >= len(feeds) else feeds[:count]
    some = shortened(feeds[0], inputs, wanted)
    return feeds if len(feeds) == 1 and some is feeds[0] else [some]
