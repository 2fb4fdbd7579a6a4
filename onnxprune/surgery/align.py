"""Grouped convolutions whose faded filters trade places inside their groups, so that they can go together.

A grouped convolution keeps equally many channels of every group, but which ones may differ.  The analysis ties the
first ones of all groups, the second ones, and so on.  Where whole filters have faded (zeroed by another tool, or by
training for sparsity), channels are therefore brought into an order in which these come first in every group.  The
network computes the same in another order, and all that follows works on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.channels.dependencies import Dependencies, Group, Slot
from onnxprune.channels.grouping import groups_of
from onnxprune.channels.parameters import INTEGERS
from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.operators.labels import Kind, Labels, is_fixed
from onnxprune.operators.registry import Trait, has
from onnxprune.operators.roles import Balance, Role

FADED = 1e-3  # norm of a filter as a share of its layer's largest one


@dataclass(frozen=True)
class Alignment:
    """How tensors of the file are reordered; empty where nothing has to be.

    orders: tensor -> axis -> old positions in their new order.
    grouped: weights of a grouped convolution -> for each group the old positions on axis 1 in their new order.
    """

    orders: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    grouped: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.orders or self.grouped)

    def apply(self, array: np.ndarray, key: str) -> np.ndarray:
        """The elements of a tensor in their new order.  Raises UsageError where its shape is another one."""
        try:
            for axis, order in self.orders.get(key, {}).items():
                array = array.take(_permutation(order, array.shape[axis]), axis)
            if (rows := self.grouped.get(key)) is not None:
                parts = np.split(array, max(1, len(rows)))
                orders = [_permutation(order, array.shape[1]) for order in rows]
                array = np.concatenate([part.take(order, 1) for part, order in zip(parts, orders, strict=True)])
        except (IndexError, ValueError):
            raise UsageError(f"the plan reorders {key!r}, which has another shape here") from None
        return np.ascontiguousarray(array)

    def to_json(self) -> dict[str, Any]:
        orders = {key: {str(axis): list(o) for axis, o in axes.items()} for key, axes in self.orders.items()}
        return {"orders": orders, "grouped": {key: [list(row) for row in rows] for key, rows in self.grouped.items()}}

    @classmethod
    def from_json(cls, data: Any) -> "Alignment":
        """Read what `to_json` gave.  Raises the errors of Python where it is nothing like it."""
        orders = {
            str(key): {int(axis): tuple(map(int, o)) for axis, o in axes.items()}
            for key, axes in data["orders"].items()
        }
        return cls(orders, {str(k): tuple(tuple(map(int, r)) for r in rows) for k, rows in data["grouped"].items()})


def _permutation(order: Sequence[int], size: int) -> np.ndarray:
    """The order as an array.  Raises ValueError where it loses or doubles a position."""
    if sorted(order) != list(range(size)):
        raise ValueError(f"{size} positions in another order were wanted")
    return np.array(order, np.int64)


def aligned(network: Network, alignment: Alignment) -> Network:
    """The network with its tensors in their new order.  Raises UsageError where it does not fit."""
    keys = (key for key in {**alignment.orders, **alignment.grouped} if key in network)
    return network.with_tensors({key: alignment.apply(network.array(key), key) for key in keys})


def alignment_of(network: Network, deps: Dependencies) -> Alignment:
    """The order that brings faded filters of all groups of each grouped convolution together."""
    if deps.products or not any(not is_fixed(b.grid) for b in deps.balances):
        return Alignment()
    apart = _apart(deps)
    moves, grouped = _Trades(network, deps, apart).found()
    if not moves:
        return Alignment()
    orders: dict[str, dict[int, tuple[int, ...]]] = {}
    seen: dict[tuple[str, int], np.ndarray] = {}
    for use in deps.uses:
        if use.node < 0 or deps.sources[use.source].kind == "fill" or deps.sources[use.source].dtype in INTEGERS:
            continue
        for axis, labels in enumerate(use.axes):
            order = _order(apart[labels], moves)
            before = seen.setdefault((use.source, axis), order)
            if not np.array_equal(before, order):
                return Alignment()  # a tensor that two layers would want in two orders
            if (order != np.arange(order.size)).any():
                orders.setdefault(use.source, {})[axis] = tuple(order.tolist())
    return Alignment(orders, grouped)


def _apart(deps: Dependencies) -> Labels:
    """Component of every label when groups need not shrink alike."""
    holds = np.array([cause.kind is not Kind.BALANCES for cause in deps.ties.causes], bool)[deps.ties.cause]
    left, right, size = deps.ties.left[holds], deps.ties.right[holds], deps.ties.size
    return connected_components(coo_array((np.ones(left.size, bool), (left, right)), (size, size)), directed=False)[1]


def _order(components: np.ndarray, moves: Mapping[int, int]) -> np.ndarray:
    """Old positions in their new order: each channel is replaced by the one that it trades places with."""
    order = np.arange(components.size)
    for there in np.intersect1d(components, np.fromiter(moves, np.int64, len(moves))):
        order[components == there] = np.flatnonzero(components == moves[int(there)])
    return order


@dataclass
class _Trades:
    """Which channels trade places, found balance by balance."""

    network: Network
    deps: Dependencies
    apart: Labels
    moves: dict[int, int] = field(default_factory=dict)  # component -> the one that comes into its place

    def found(self) -> tuple[dict[int, int], dict[str, tuple[tuple[int, ...], ...]]]:
        """Moves and orders of inputs; none at all where a channel would leave its group in any convolution."""
        groups = list(groups_of(self.deps.uses, (), self.apart, self.deps.roles))
        for balance in self.deps.balances:
            self._trade(balance, groups)
        grouped: dict[str, tuple[tuple[int, ...], ...]] = {}
        for balance in self.deps.balances:
            grid = self.apart[balance.grid]
            moved = np.array([self.moves.get(int(c), int(c)) for c in grid.flat], grid.dtype).reshape(grid.shape)
            if (moved == grid).all():
                continue
            if np.unique(grid).size < grid.size or (np.sort(moved, axis=1) != np.sort(grid, axis=1)).any():
                return {}, {}
            if balance.axis is not None:
                order = np.take_along_axis(np.argsort(grid, axis=1), np.argsort(np.argsort(moved, axis=1), axis=1), 1)
                grouped[balance.weight] = tuple(tuple(row) for row in order.tolist())
        return {a: b for a, b in self.moves.items() if a != b}, grouped

    def _trade(self, balance: Balance, groups: list[Group]) -> None:
        """Bring the faded channels of a convolution to the front of each group."""
        grid = self.apart[balance.grid]  # (groups, channels)
        members = next((g for g in groups if np.isin(grid, g.components).all()), None)
        known = any(int(c) in self.moves for c in grid.flat)
        if members is None or known or np.unique(grid).size < grid.size or balance.weight not in self.deps.sources:
            return
        if not grid.size:  # a Conv without outputs
            return
        norms = dict(zip(members.components.tolist(), self._norms(members).tolist(), strict=True))
        size = np.array([norms[int(c)] for c in grid.flat]).reshape(grid.shape)
        faded = size <= FADED * size.max()
        if (faded == faded[:1]).all():
            return
        order = np.argsort(~faded, axis=1, kind="stable")
        self.moves |= dict(zip(grid.ravel().tolist(), np.take_along_axis(grid, order, 1).ravel().tolist(), strict=True))

    def _norms(self, group: Group) -> np.ndarray:
        """Norm of the filters of each channel, times the scales of BatchNormalizations behind them."""
        total, scale = np.zeros(len(group)), np.ones(len(group))
        for slot in group.slots:
            if slot.source not in self.network or not (slot.role & Role.WRITE or self._is_scale(slot)):
                continue
            energy = slot.energies(self.network.array(slot.source))
            if slot.role & Role.WRITE:
                total += energy
            else:
                scale *= np.sqrt(energy)
        return np.sqrt(total) * scale

    def _is_scale(self, slot: Slot) -> bool:
        if not has(self.deps.nodes[slot.node].proto, Trait.AFFINE):
            return False
        return any(u.input == 1 and u.source == slot.source for u in self.deps.uses_at.get(slot.node, ()))
