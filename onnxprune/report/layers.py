"""Layers of a network and what they cost, as plain values."""

from collections.abc import Iterable
from dataclasses import dataclass

from onnxprune.keyed import keyed


@dataclass(frozen=True)
class LayerRow:
    """A node with weights: what it was, and what is left of it.

    name: of the node, as viewers of the network show it.
    groups: whose channels its weights make.
    channels, kept: width of its output; None where the analysis could not tell.
    macs, macs_left: multiply-accumulates at the sizes of the analysis.
    params, params_left: elements of its weights, those that several nodes share at the first one.
    """

    name: str
    operator: str
    groups: tuple[str, ...]
    channels: int | None
    kept: int | None
    macs: int
    macs_left: int
    params: int
    params_left: int


@dataclass(frozen=True)
class Total:
    """What the layers that make the channels of a group cost together."""

    layers: tuple[str, ...]
    macs: int
    macs_left: int
    params: int
    params_left: int


def totals(rows: Iterable[LayerRow]) -> dict[str, Total]:
    """By group, in the order of the network; a layer that makes channels of two groups counts in both."""
    members = keyed((group, row) for row in rows for group in row.groups)
    costs = ("macs", "macs_left", "params", "params_left")
    return {
        group: Total(tuple(r.name for r in found), *(sum(getattr(r, cost) for r in found) for cost in costs))
        for group, found in members.items()
    }
