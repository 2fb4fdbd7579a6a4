"""Which tensors of a file are parameters of the network, and which are numbers that it merely computes with."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from onnx import TensorProto

from onnxprune.channels.nodes import Node, Source
from onnxprune.operators.registry import Trait, has

SHIFTING = Trait.SCALES | Trait.SHIFTS
DRAWN = Trait.RANDOM | Trait.BODIES
INTEGERS = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


def parameters(nodes: Sequence[Node], sources: Mapping[str, Source], layers: Collection[int]) -> frozenset[str]:
    """Keys of the tensors that hold parameters: weights, biases, scales and tables.

    What a layer, a norm or a table look-up takes is one, perhaps behind nodes that compute from constants alone.  So is
    what changes a value, by a sum or a product, say, if a layer follows (the scale of a norm that is written out,
    learned positions), or if it has one element per channel of the layer right before it: a bias.  Grids of anchors,
    with which boxes are computed behind the last layer, are none, nor are single numbers, sizes and bounds.

    Args:
        nodes: in the order of the analysis.
        sources: tensors of the file by key.
        layers: nodes that multiply by weights, by position.
    """
    constant, behind, ahead = computed_once(nodes, sources), _behind(nodes, layers), _ahead(nodes, layers)
    found: set[str] = set()  # keys of constants that are parameters, or that parameters are made into
    for k, node in reversed(list(enumerate(nodes))):
        fixed = [key for key in node.inputs if key in constant]
        if all(key in constant for key in node.outputs if key):
            made = found & set(node.outputs)
            found.update(key for key in fixed if made and (key not in sources or _wide(sources[key])))
        elif k in layers or has(node.proto, Trait.SCALES):
            found.update(fixed)
        elif has(node.proto, Trait.LOOKS_UP):
            found.update(set(fixed) & {node.inputs[0]})
        elif not has(node.proto, Trait.NUMBERS):
            own = bool(behind & set(node.inputs))
            found.update(key for key in fixed if key not in sources or _weighs(sources[key], own, k in ahead))
    return frozenset(key for key in found if key in sources and sources[key].dtype not in INTEGERS)


def _weighs(source: Source, behind: bool, ahead: bool) -> bool:
    """Whether a tensor that no layer takes is a bias or scale right behind one, or changes what a layer ahead sees."""
    return _wide(source) == 1 if behind and not ahead else _wide(source) > 0 and ahead


def _wide(source: Source) -> int:
    """How many axes have more than one position."""
    return sum(size > 1 for size in source.shape)


def computed_once(nodes: Sequence[Node], tensors: Iterable[str]) -> set[str]:
    """Keys of these tensors, and of the values that are computed from them alone, which runtimes do when they load."""
    found = set(tensors)
    for node in nodes:
        if node.inputs and all(key in found for key in node.inputs if key) and not has(node.proto, DRAWN):
            found.update(filter(None, node.outputs))
    return found


def _behind(nodes: Sequence[Node], layers: Collection[int]) -> set[str]:
    """Keys of what layers give, up to the first node that moves elements."""
    found = set[str]()
    for k, node in enumerate(nodes):
        if k in layers or (has(node.proto, SHIFTING) and found & set(node.inputs)):
            found.update(filter(None, node.outputs))
    return found


def _ahead(nodes: Sequence[Node], layers: Collection[int]) -> set[int]:
    """Nodes behind which a layer follows; those of a body are taken for such."""
    wanted, found = set[str](), set[int]()
    for k, node in reversed(list(enumerate(nodes))):
        if node.path or wanted & set(node.outputs):
            found.add(k)
        if k in found or k in layers:
            wanted.update(filter(None, node.inputs))
    return found
