"""Shape arithmetic that is computed once more from the sizes of the original.

Sizes that follow the cut by themselves may go through a division by a number of heads that is baked into the graph:
`(batch · heads) // 8` no longer gives the batch when half of the heads are gone.  There the sizes are brought back to
those of the original, whatever the symbolic ones are, and the same nodes compute on from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Node
from onnxprune.errors import ModelError
from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.draft import Draft


def went_through_division(draft: Draft, key: str) -> bool:
    """Whether a computed integer went through a division on its way from sizes that are other ones now."""
    makers = (maker for _, maker in draft.deps.arithmetic.behind(key) if has(maker.proto, Trait.UNEVEN))
    return any(_moves(draft, k) for maker in makers for k in maker.inputs)


def _moves(draft: Draft, key: str) -> bool:
    """Whether a value hangs on sizes that are other ones now."""
    behind = draft.deps.arithmetic.behind(key)
    return any(current in draft.restated and has(maker.proto, Trait.SIZES) for current, maker in behind)


@dataclass
class Retrace:
    """New nodes in front of one node that compute what the original computed."""

    draft: Draft
    index: int
    path: str
    label: str

    def name(self, key: str) -> str:
        """The name of a value as the original has it.  Raises KeyError where a graph around this one computes it."""
        if not _moves(self.draft, key):
            return key.removeprefix(self.path)
        maker, done = self.draft.deps.maker(key), self.draft.retraced
        if maker is None or maker.path != self.path:
            raise KeyError(key)
        if key not in done:  # else a node before this one has it already
            whole = has(maker.proto, Trait.SIZES) and maker.inputs[0] not in self.draft.restated
            done[key] = self._sizes(key) if whole else self._anew(maker, key)
        return done[key]

    def _sizes(self, key: str) -> str:
        """What Shape gives, times what it was, over what it is: right for symbolic sizes that are factors of both.

        Raises ModelError where nothing is left to tell a symbolic size by.
        """
        was, now = self.draft.deps.statics.constants[key], self.draft.restated[key]
        differs, gone = was != now, (now == 0) & (was != 0)
        if (gone & ~self.draft.deps.arithmetic.static(key)).any():
            raise ModelError(f"{self.label} needs a size of the input that no value tells any more once all is cut")
        times, over = np.where(differs, np.where(gone, 0, was), 1), np.where(differs & ~gone, now, 1)
        product = self._node("Mul", [key.removeprefix(self.path), self._constant(times)])
        quotient = self._node("Div", [product, self._constant(over)])
        return self._node("Add", [quotient, self._constant(np.where(gone, was, 0))]) if gone.any() else quotient

    def _anew(self, maker: Node, key: str) -> str:
        inputs = [self.name(k) if k else "" for k in maker.inputs]
        copy = onnx.NodeProto()
        copy.CopyFrom(maker.proto)
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        new = [self.draft.fresh_name(f"{self.label}.{name}") for name in maker.proto.output]
        copy.output.extend(new)
        copy.name = self.draft.fresh_name(f"{self.label}.{copy.name}") if copy.name else ""
        self.draft.before[self.index].append(copy)
        return new[list(maker.outputs).index(key)]

    def _node(self, kind: str, inputs: list[str]) -> str:
        out = self.draft.fresh_name(f"{self.label}.{kind.lower()}.before")
        self.draft.before[self.index].append(helper.make_node(kind, inputs, [out]))
        return out

    def _constant(self, array: np.ndarray) -> str:
        return self.draft.add_initializer(self.path, f"{self.label}.sizes", np.asarray(array, np.int64))


def retraced(draft: Draft, index: int, node: Node, k: int) -> str | None:
    """The name of new numbers that are what input k was in the original; None where other graphs compute them too."""
    key = node.inputs[k]
    before, done = list(draft.before.get(index, ())), dict(draft.retraced)
    try:
        return Retrace(draft, index, node.path, f"{node.label}.{k}").name(key)
    except KeyError:
        draft.before[index], draft.retraced = before, done
        return None


def wanted_from(was: np.ndarray, now: np.ndarray, changes: Mapping[int, int]) -> dict[int, int]:
    """Changes to what `now` holds as changes to what `was` there."""
    wanted = {j: changes.get(j, int(v)) for j, v in enumerate(now.flat)}
    return {j: v for j, v in wanted.items() if v != int(was.flat[j])}
