"""What is to be cut: which channels stay, and the network with the weights that these are to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxprune.model.network import Network
from onnxprune.pipeline.request import options_for
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Kept, Study
from onnxprune.report.sensitivities import Sensitivity
from onnxprune.report.summary import Search
from onnxprune.runtime.specs import Feed


@dataclass(frozen=True)
class Choice:
    """Channels that stay of each group, what was asked of it, and why some stay whole.

    options: those that chose the channels, where a plan is repeated.
    trained: the whole network with the weights that a search has trained on the way; None where none were.
    removed: channels by the reason for which they could go, under a lossless budget.
    remarks, search, sensitivity: how the choice came about, for the report.
    """

    kept: Kept
    asked: Mapping[str, float | None]
    notes: Mapping[str, str]
    stopped_by: str = ""
    origin: str = ""  # where the channels come from, when not from the request
    options: Mapping[str, Any] = field(default_factory=dict)
    trained: Network | None = None
    remarks: tuple[str, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    search: Search | None = None
    sensitivity: Sensitivity | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many channels stay of each group that loses some."""
        return {name: len(channels) for name, channels in self.kept.items()}


@dataclass(frozen=True)
class Decision:
    """A choice and the networks that go with it.

    run: with the network in the bases in which it is cut.
    compensated: that network in its full layout, with the weights that the channels which stay are to have.
    held_out: drawn samples that the repair has not seen, where it has drawn some.
    """

    run: Run
    choice: Choice
    compensated: Study
    held_out: Sequence[Feed] = ()

    @property
    def kept(self) -> Kept:
        return self.choice.kept

    @property
    def cut(self) -> Network:
        """The network without the other channels."""
        return self.compensated.pruned(self.kept)

    @property
    def options(self) -> dict[str, Any]:
        """Options that decided which channels stay and what these take over, as JSON values."""
        own, before = self.run.request.recorded(), self.choice.options
        again = options_for("apply")
        return {**before, **{k: v for k, v in own.items() if k in again}} if before else own
