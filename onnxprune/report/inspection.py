"""What can be removed from a network and what cannot, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxprune.report.shown import Block
from onnxprune.report.summary import Figures, FrozenRow, LayerRow


@dataclass(frozen=True)
class GroupShare:
    """Channels that are removed together, and what the layers that make them cost."""

    name: str
    channels: int
    members: tuple[str, ...]  # nodes whose weights write the channels
    macs: float  # share of the network's multiply-accumulates that these nodes do for these channels
    params: int = 0  # that these nodes hold for these channels
    rotated: bool = False  # whether they are cut in another basis, where the repair runs


@dataclass(frozen=True)
class UnknownRow:
    """Nodes of one operator that freeze all that they touch, for one reason."""

    operator: str
    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, repr=False)
class Inspection(Block):
    """One network as the analysis sees it; nothing was changed or written."""

    TABLE = "lists:inspection"

    source: str
    sha256: str
    opset: int
    ir_version: int
    nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    figures: Figures
    groups: tuple[GroupShare, ...]
    frozen: tuple[FrozenRow, ...]
    unknown: tuple[UnknownRow, ...]
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: tuple[LayerRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; sizes in bytes."""
        return asdict(self)

    def __repr__(self) -> str:
        return f"<Inspection of {self.source}: {len(self.groups)} groups that can be cut, {len(self.frozen)} frozen>"
