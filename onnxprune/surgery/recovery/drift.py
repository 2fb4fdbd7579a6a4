"""How far the outputs of a network move when something is tried on it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from types import MappingProxyType

import numpy as np

from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.classes import numbers
from onnxprune.runtime.scales import Scales
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.specs import Feed, Spec, model_inputs, shortened
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.runner import THREADS, Feeds, piece

MULTIPLICATIONS = 2e12  # of all trial runs together
HELD = 1 << 29  # bytes of values that trial runs go on from
ENOUGH = 1 << 17  # numbers of the outputs that tell their drift; more, of other samples, tell the same
NOTHING: Mapping[str, float] = MappingProxyType({})
ROUNDING = 1e-6  # drift that may come of rounding alone, where a run that begins inside is fused in another way
FEW, FEWEST = 16, 4  # samples that are taken all the same, and where there are too many multiplications

Runs = Sequence[Mapping[str, np.ndarray]]  # the numbers of each output, for each feed


@dataclass(frozen=True)
class _Part:
    """What runs again in a trial run: it takes values of the original network, and the weights that are others there.

    model: that it is a part of, where it serves others that differ in those weights alone.
    """

    session: Session
    entering: Collection[str]
    keep: Sequence[str]
    weights: Sequence[str]
    model: Network | None

    def serves(self, model: Network, others: Collection[str]) -> bool:
        """Whether a model, in which these tensors are not the original ones, has the same part but for its weights."""
        if self.model is None or not set(others) <= set(self.weights):
            return False
        return bool(self.model.graph.graph.node == model.graph.graph.node)


class Drift:
    """How far the outputs of other weights are from the original ones: mean squared error per unit of variance.

    Numbers of two scales in one output count as two outputs.
    """

    def __init__(
        self, network: LayerGraph, feeds: Feeds, multiplications: float, entering: Mapping[str, float] = NOTHING
    ) -> None:
        """
        Args:
            multiplications: of all trial runs with one sample.
            entering: values that trial runs may go on from, the last ones first, and bytes of each for one sample.
        """
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
        self.held = self._holding(entering)
        self.changed = frozenset[str]()  # in the last trial run
        self.part: _Part | None = None  # that ran
        self.original: Runs | None = None  # what the original network gives where it is interrupted there

    def _holding(self, entering: Mapping[str, float]) -> list[Feed]:
        """Values of the original network for each feed, as many of the last ones as fit.

        Short numbers are rounded where a run is interrupted and not elsewhere, which is no drift.
        """
        room = np.cumsum([*entering.values()]) * max(_samples(self.feeds), 1) <= HELD
        inside = [n for n in compress(entering, room) if n in self.network.maker]
        model = self.network.source
        taps = [n for n in inside if n not in self.network.outputs]
        session = make_session(model, providers="cpu", threads=THREADS, optimize=True, taps=taps) if inside else None
        runs = [{**feed, **(session.run(feed, inside) if session else {})} for feed in self.feeds]
        return [{n: a for n, a in run.items() if not _is_short(a)} for run in runs]

    def _telling(self) -> float:
        """How many samples have enough numbers in all outputs together, at least a few."""
        samples = _samples(self.feeds)
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
        return self._numbers(session.run(feed, self.names) for feed in self.feeds)

    def _later(self, model: Network) -> Runs | None:
        """Outputs that move where the changed values are a model's, from what is held on; None where one lacks."""
        others = _differing(model, self.network.source)
        if self.part is None or not self.part.serves(model, others):
            self.part = None  # two sessions would take twice the memory
            self.part = self._part(model, others)
        if (part := self.part) is None:
            return None
        weights = {name: model.array(name) for name in part.weights}
        runs = ({name: feed[name] for name in part.entering} | weights for feed in self.held)
        return self._numbers(part.session.run(feed, part.keep) for feed in runs)

    def _part(self, model: Network, others: frozenset[str]) -> "_Part | None":
        """What runs again where the changed values differ; None where it does not begin with values that are held."""
        graph = LayerGraph(model)
        new = [n not in self.network.maker or n in self.changed for n in graph.maker]
        own = set(compress(graph.maker.values(), new)) - graph.constant
        made = {n for k in own for n in graph.nodes[k].output}
        entering = {n for k in own for n in graph.inputs[k] if n not in made and not graph.is_constant(n)}
        keep = [n for n in self.names if n in made]
        if not keep or not entering or not entering <= self.held[0].keys():
            return None
        part = piece(graph, own, {n: [self.held[0][n]] for n in sorted(entering)}, keep)
        standard = not any(node.domain for node in graph.nodes)  # others' kernels may want their weights fixed
        weights = sorted(others & {t.name for t in part.graph.graph.initializer}) if standard else []
        session = make_session(part.with_inputs(weights), providers="cpu", threads=THREADS, optimize=True)
        return _Part(session, entering, keep, weights, model if others <= graph.tensors.keys() and standard else None)

    def _numbers(self, runs: Iterable[Feed]) -> list[dict[str, np.ndarray]]:
        return [self.scales.parts({n: a.astype(np.float64) for n, a in numbers(run).items()}) for run in runs]

    def __call__(self, model: Network, changed: Collection[str] = ()) -> float:
        """The drift of a model.

        Args:
            changed: the values of the original network that may differ, where that is known.
        """
        if (now := frozenset(changed)) != self.changed:
            self.changed, self.part, self.original = now, None, None
        later = self._later(model) if changed else None
        if later is not None and (moved := self._moved(later, self.wanted)) >= ROUNDING:
            return moved
        original = self._interrupted() if later is not None else None
        if later is None or original is None:
            return self._moved(self._run(model), self.wanted)
        return self._moved(later, original)

    def _interrupted(self) -> Runs | None:
        """Outputs of the original network where it is interrupted as the last trial run was."""
        if self.original is None:
            self.original = self._later(self.network.source)
        return self.original

    def _moved(self, found: Runs, original: Runs) -> float:
        """The drift of the outputs of all feeds."""
        total = 0.0
        for name in self.wanted[0]:
            both = ((w, f) for w, f in zip(original, found, strict=True) if name in w and name in f)
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


def _differing(model: Network, original: Network) -> frozenset[str]:
    """Keys of tensors that are not the original ones."""
    return frozenset(
        key
        for key, head in model.headers.items()
        if model.tensors.get(key) is not original.tensors.get(key) or head != original.headers.get(key)
    )


def _samples(feeds: Feeds) -> int:
    return sum(max((len(a) for a in feed.values() if a.ndim), default=1) for feed in feeds)


def _is_short(array: np.ndarray) -> bool:
    return "float" in array.dtype.name and array.dtype.itemsize < 4
