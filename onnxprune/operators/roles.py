"""What the positions of weights do for a channel, and what they cost."""

from dataclasses import dataclass
from enum import IntFlag

from onnxprune.operators.labels import Labels


class Role(IntFlag):
    """What a position of a weight's axis is to the channel that it carries."""

    FOLLOW = 0  # it merely has the channel's length: a variance, a slope
    WRITE = 1  # a filter: it makes the channel
    READ = 2  # it takes the channel in
    ADD = 4  # a bias or a scale: zero there keeps a dead channel at zero
    DEPTHWISE = 8  # a filter that also reads: one channel in, one (or a few) out


WEIGHS = int(Role.READ | Role.WRITE)  # a plain number, which arrays take ten times as fast


@dataclass(frozen=True)
class ZeroWhereDead:
    """Whether dead positions are zero in the masked network, and what masking has to make zero for that.

    by: labels of tensors of the file.
    """

    holds: bool
    by: tuple[Labels, ...] = ()

    def __and__(self, other: "ZeroWhereDead") -> "ZeroWhereDead":
        return ZeroWhereDead(self.holds and other.holds, self.by + other.by)


NOT_ZERO = ZeroWhereDead(False)


@dataclass(frozen=True)
class Multiplies:
    """Multiply-accumulates of a node: `times` for each combination of live positions of these axes."""

    times: int
    labels: tuple[Labels, ...]


@dataclass(frozen=True)
class Scaling:
    """A quantised weight's real value is `(weight − zero point) · scale`, along `axis` (None: one for all)."""

    scale: str
    zero_point: str
    axis: int | None


@dataclass(frozen=True)
class Line:
    """Positions that a grid of indices names on one axis."""

    positions: Labels | None  # (positions,); None where the data says them
    whole: bool = False  # they are all positions of an axis whose length the model leaves open
    source: str = ""  # key of the value that says them: no other axis of it has more than one position


@dataclass(frozen=True)
class Balance:
    """Groups of a convolution that keep equally many channels each."""

    weight: str  # key of the weights of all groups
    axis: int | None  # of the weights, where all groups share its positions; None where each has its own
    grid: Labels  # (groups, channels)
    node: int  # the convolution
