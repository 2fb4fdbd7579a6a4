"""Sizes for the inputs of a model that leaves some open: found by running it, at estimated cost, always the same."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.network import Network
from onnxprune.model.static import Statics, infer_once
from onnxprune.operators.registry import Shape, Shapes, operator_of
from onnxprune.runtime.capture import observe
from onnxprune.runtime.inputs import example, listing, proposals, random_inputs
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant
from onnxprune.runtime.specs import model_inputs

TRIES = 160  # before the search asks for --input-shapes
SMALL = 1024  # elements of the inputs from which on few networks run out of a map to pool
MODEST_ELEMENTS = 1 << 28  # of all values together; 1 GiB of floats, of which a run holds a part at a time
MODEST_MACS = 1 << 36  # seconds on one core
MOST_ELEMENTS = 1 << 31  # 8 GiB, for a network that runs at no modest size
CHEAP_WORK = 1 << 37  # of all modest tries together
MOST_WORK = 1 << 40  # of all tries together


@dataclass(frozen=True)
class Effort:
    """elements: of all values of known shape; macs: of convolutions and products; unknown: values without a shape."""

    elements: int
    macs: int
    unknown: tuple[str, ...]

    @property
    def work(self) -> int:
        return self.elements + self.macs

    @property
    def modest(self) -> bool:
        """Whether a run is cheap enough for a try."""
        return self.elements <= MODEST_ELEMENTS and self.macs <= MODEST_MACS


def effort(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Effort:
    """An estimate for inputs of these shapes; of bodies, one turn."""
    statics = infer_once(model, shapes)
    values = [name for node in model.graph.node for name in node.output if name]
    elements = sum(math.prod(shape) for key, shape in statics.shapes.items() if key not in statics.tensors)
    macs = sum(_macs(node, statics) for node in model.graph.node)
    return Effort(elements + statics.huge, macs, tuple(name for name in values if name not in statics.shapes))


def _macs(node: onnx.NodeProto, statics: Statics) -> int:
    """Of a product with a filter or a matrix of known shape."""
    shapes = [statics.shapes.get(name, ()) for name in (*node.output[:1], *node.input[:2])]
    if not all(shapes) or len(shapes) < 3:
        return 0
    out, x, w = shapes
    work = operator_of(node).work
    return 0 if work is None else work(out, x, w)


def resolve_shapes(model: Source | Variant | Session, hints: Mapping[str, Shape] | None = None) -> Shapes:
    """A shape for every input under which onnxruntime really runs `model`: the same for the same file, always.

    Fixed sizes stay, a free first axis becomes 1, `hints` settle what they name, free sizes of the same name get the
    same value, and those that are named by an expression of others theirs. For what is then still open, sizes that
    networks are commonly built for are tried, as long as a run at them is estimated to be cheap, until one runs.

    Raises `UsageError` that names the inputs and shows an `--input-shapes` when nothing runs.
    """
    network = Network.of(model) if isinstance(model, (onnx.ModelProto, Network)) else None
    if network is not None and all(s.closed for s in model_inputs(network.graph)):
        return next(proposals(model_inputs(network.graph), hints or {}))
    session = model if isinstance(model, Session) else make_session(model, providers="cpu")
    hints = dict(hints or {})
    strange = hints.keys() - {s.name for s in session.inputs}
    if strange:
        raise UsageError(f"'{min(strange)}' is no input of the model; it has {listing(session.inputs)}")
    tries = list(itertools.islice(proposals(session.inputs, hints), TRIES))
    if all(s.name in hints or s.closed for s in session.inputs):
        return tries[0]
    said: list[ModelError] = []
    for shapes in SizeSearch(network, session, tries).cheap_first() if network else tries:
        if _runs(session, shapes, said):
            return shapes
    raise UsageError(
        f"found no input sizes that the model runs with ({listing(session.inputs)}); "
        f"say them, for instance {example(session.inputs)}"
    ) from next(iter(said), None)


def _runs(session: Session, shapes: Shapes, said: list[ModelError]) -> bool:
    try:
        session.run(random_inputs(session.inputs, shapes)[0])
    except ModelError as error:
        said.append(error)
        return False
    return True


@dataclass
class SizeSearch:
    """Sizes to be tried with one model, in the order in which they are likely."""

    model: Network
    session: Session
    tries: Sequence[Shapes]
    cheap: list[tuple[Shapes, Effort]] = field(default_factory=list)
    dear: list[Shapes] = field(default_factory=list)
    growth: Callable[[Shapes], int] | None = None  # of values whose shapes cannot be inferred

    def cheap_first(self) -> Iterator[Shapes]:
        """What is estimated to be cheap, until all of it together no longer is; then others, the smallest first."""
        if len({tuple(shape[1:] for shape in shapes.values()) for shapes in self.tries}) == 1:  # only the batch is open
            yield from self.tries
            return
        spent = 0
        for shapes in self.tries:
            if (work := self.work(shapes)) is not None and spent <= CHEAP_WORK:
                yield shapes
                spent += work
        for shapes in sorted(self.dear, key=_size):
            found = self.effort(shapes)
            spent += found.work
            if spent > MOST_WORK or found.elements > MOST_ELEMENTS:
                return
            yield shapes

    def work(self, shapes: Shapes) -> int | None:
        """Of a run at these sizes, where it is cheap; without an inference where larger or smaller ones tell."""
        for other, found in self.cheap:
            if _covers(other, shapes):
                return found.work * _size(shapes) // _size(other)
        if not any(_covers(shapes, other) for other in self.dear) and (found := self.effort(shapes)).modest:
            self.cheap.append((shapes, found))
            return found.work
        self.dear.append(shapes)
        return None

    def effort(self, shapes: Shapes) -> Effort:
        found = effort(self.model.graph, shapes)
        if not found.unknown:
            return found
        self.growth = self.growth or self._bound(found.unknown)
        return replace(found, elements=found.elements + self.growth(shapes))

    def _bound(self, unknown: Sequence[str]) -> Callable[[Shapes], int]:
        """What a small run shows of some values: they grow at most with the square of the inputs."""
        small = sorted(self.tries, key=lambda shapes: (_size(shapes) < SMALL, _size(shapes)))
        base = next((shapes for shapes in small if _runs(self.session, shapes, [])), None)
        if base is None:
            return lambda shapes: 0
        seen = observe(self.model, unknown, random_inputs(self.session.inputs, base)[0])
        there, most = _size(base), sum(array.size for array in seen.values())
        return lambda shapes: most * _size(shapes) ** 2 // there**2


def _covers(large: Shapes, small: Shapes) -> bool:
    """Whether no input is smaller along any axis."""
    return all(n >= k for name in large for n, k in zip(large[name], small[name], strict=True))


def _size(shapes: Shapes) -> int:
    """Elements of all inputs, at least 1."""
    return max(1, sum(math.prod(shape) for shape in shapes.values()))
