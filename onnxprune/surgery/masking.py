"""The weights of the masked original, each made when it is asked for, so that the model is not copied to mask it.

`onnxprune.surgery.rewrite.mask` says what they are; this gives the same numbers without the model around them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.blocks import MadeInBlocks
from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.rewrite import zero_points
from onnxprune.surgery.versions import Live, Version, masked_array, read_tensor, versions


@dataclass(frozen=True)
class MaskedTensor(MadeInBlocks):
    """A weight with dead positions set to `zero`."""

    live: Live
    zero: np.ndarray | int

    def part(self, rows: slice) -> np.ndarray:
        if not self.array.ndim:
            return masked_array(self.array, self.live, self.zero)
        zero = self.zero
        if isinstance(zero, np.ndarray) and zero.ndim == self.array.ndim and zero.shape[0] > 1:
            zero = zero[rows]
        return masked_array(self.array[rows], (self.live[0][rows], *self.live[1:]), zero)


class MaskedWeights(Mapping[str, MaskedTensor]):
    """Tensors that masking changes, by name."""

    def __init__(self, model: onnx.ModelProto, deps: Dependencies, plans: Mapping[str, Version]) -> None:
        self._plans = plans
        self._zeros = zero_points(model, deps)
        self._tensors = {t.name: t for t in model.graph.initializer if t.name in plans}
        for node in model.graph.node:
            if (node.op_type == "Constant" or has(node, Trait.FILLS)) and node.output and node.output[0] in plans:
                self._tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")

    def __getitem__(self, name: str) -> MaskedTensor:
        version = self._plans[name]
        if version.source.kind == "fill":
            tensor = self._tensors.get(name)
            value = np.float32(0) if tensor is None else read_tensor(tensor).ravel()[0]
            array = np.broadcast_to(value, version.source.shape)
        else:
            array = read_tensor(self._tensors[name])
        return MaskedTensor(array, version.live, self._zeros.get(version.source.key, 0))

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)


def masked_weights(model: onnx.ModelProto, deps: Dependencies, dead: np.ndarray) -> MaskedWeights | None:
    """The tensors of the model that masking changes.

    None where that is not enough: a tensor has to be there twice, masked in two ways, or belongs to a body.

    Args:
        model: the model that `deps` was made from; never changed, and kept for as long as the result is.
        deps: its analysis.
        dead: (components,) bool, from `Dependencies.dead`.
    """
    plans = list(versions(deps, dead, masked=True))
    if any(version.copied or version.source.path for version in plans):
        return None
    return MaskedWeights(model, deps, {version.name: version for version in plans})
