"""Norms over the channels of a stream, as one node or written out: the same in any orthonormal basis.

A norm without a mean is so by itself.  One that takes the mean away first is so as soon as all that makes the stream
makes it without a mean (Ashkboos et al., ICLR 2024, arXiv 2401.15024), and then needs to take none away.
"""

from dataclasses import dataclass, field

import numpy as np

from onnxprune.keyed import keyed
from onnxprune.operators.registry import Trait, attributes_of, has, operator_of, traits_of
from onnxprune.surgery.rotation.carried import Bent, Carried, StreamPart

MEAN = Trait.PASSES | Trait.STATISTICS | Trait.RANGE


@dataclass
class Normalised(Carried):
    """What norms say of a group of channels.

    even: values of which the size is taken: their channels must not be scaled one by one.
    whole: those of them that no mean is taken from before.
    means: values that are the mean over the channels of another one.
    level: values that norms give after they have taken a mean away, and what they take it from.
    """

    even: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    means: dict[str, str] = field(default_factory=dict)
    level: dict[str, str] = field(default_factory=dict)

    def norm(self, k: int) -> None:
        """A node that divides the channels by their size, perhaps without their mean, and scales and shifts each."""
        node = self.graph.deps.nodes[k]
        taken, out = self.data(k)
        x, shape = node.inputs[0], self.graph.shape(node.inputs[0])
        last = shape is not None and attributes_of(node.proto).get("axis", -1) % len(shape) == len(shape) - 1
        if taken != [x] or not last or self.axes[x][0] != len(shape or ()) - 1 or sum(map(bool, node.outputs)) > 1:
            raise Bent
        self.even.append(x)
        if has(node.proto, Trait.CENTRES):
            self.level[out] = x
        else:
            self.whole.append(x)
        if (scale := self.own(k, 1)) is None:
            raise Bent
        array = self.graph.read(scale[0]).astype(np.float64)
        self.linked(out, x, array.ravel()[self.positions(*scale)[0]], through=True)
        self.values[scale[0]] = np.ones_like(array)
        if len(node.inputs) > 2 and node.inputs[2]:
            if (shift := self.own(k, 2)) is None:
                raise Bent
            constant = self.graph.read(shift[0]).astype(np.float64).ravel()
            self.shifts.append((shift[0], constant[self.positions(*shift)[0]], out))

    def squaring(self, k: int) -> None:
        """Squares that are summed up over the channels and go nowhere else."""
        node = self.graph.deps.nodes[k]
        taken, out = self.data(k)
        x, *others = node.inputs
        power = self.graph.known(others[0]) if len(others) == 1 and taken == [x] else None
        product = has(node.proto, Trait.MULTIPLIES) and operator_of(node.proto).divisor is None
        if not (taken == [x, x] if product else power is not None and (power == 2).all()):
            raise Bent
        takers = [self.graph.deps.nodes[j] for j, _ in self.graph.deps.takers.get(out, ())]
        if not all(has(n.proto, Trait.PASSES) and self.axis(n.outputs[0]) is None for n in takers):
            raise Bent
        self.even.append(taken[0])
        self.whole.append(taken[0])
        self.squares.add(out)

    def reducing(self, k: int) -> None:
        """A sum of squares over the channels; or the mean of the channels, where that is subtracted from them again."""
        node = self.graph.deps.nodes[k]
        x, mean = node.inputs[0], node.outputs[0]
        if x in self.squares:
            return
        before, after = self.graph.shape(x), self.graph.shape(mean)
        if MEAN not in traits_of(node.proto) or before is None or x not in self.axes:
            raise Bent
        axis = self.axes[x][0]
        takers = [self.graph.deps.nodes[j] for j, _ in self.graph.deps.takers.get(mean, ())]
        subtracted = all(operator_of(n.proto).signs == (1, -1) and list(n.inputs) == [x, mean] for n in takers)
        if after != (*before[:axis], 1, *before[axis + 1 :]) or not subtracted or mean in self.graph.outputs:
            raise Bent
        self.means[mean] = x

    def levelled(self, k: int) -> bool:
        """Whether a node takes the mean of the channels from them."""
        node = self.graph.deps.nodes[k]
        if len(node.inputs) != 2 or self.means.get(node.inputs[1]) != node.inputs[0]:
            return False
        _, out = self.data(k)
        self.links.append(StreamPart(out, node.inputs[0], through=True))
        self.even.append(node.inputs[0])
        self.level[out] = node.inputs[0]
        return True

    def without_mean(self) -> set[str]:
        """Values that have to be made without a mean: all that leads to a norm which takes it away."""
        ways = ((link.one, link.other) for link in self.links if not link.through)
        near = keyed(way for one, other in ways for way in ((one, other), (other, one)))
        found, todo = set(self.level.values()), list(self.level.values())
        while todo:
            new = set(near.get(todo.pop(), ())) - found
            found |= new
            todo += new
        return found
