"""Compensations by name: what those channels that stay take over from those that go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.progress import Progress, silent
from onnxprune.surgery.recovery.closed import closed
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.lstsq import Lstsq, lstsq
from onnxprune.surgery.recovery.replaced import with_biases
from onnxprune.surgery.recovery.runner import Feeds
from onnxprune.surgery.recovery.stored import encoded
from onnxprune.surgery.recovery.unfused import written_out

Values = tuple[dict[str, np.ndarray], dict[str, str]]


# From (network, analysis, kept channels, samples, options, progress) to values and what was left alone, by key.
Solve = Callable[[Network, Dependencies, Mapping[str, np.ndarray], Feeds, Lstsq, Progress], Values]


@dataclass(frozen=True)
class Compensation:
    """A way to compensate."""

    solve: Solve
    needs_samples: bool = False


@dataclass(frozen=True)
class Compensated:
    """The user's network in its full layout with compensated weights, and its analysis.

    Cut it and mask it in place of the original: the proof that both agree stays what it is, and how far it is from
    the user's own network is the drift.
    """

    model: Network
    deps: Dependencies
    changed: tuple[str, ...] = ()  # keys of tensors with new values
    alone: Mapping[str, str] = None  # type: ignore[assignment]  # layers or groups that were left alone, and why


def compensate(
    name: str,
    network: Network,
    deps: Dependencies,
    kept: Mapping[str, np.ndarray],
    *,
    analyse: Callable[[Network], Dependencies],
    feeds: Feeds | None = None,
    options: Lstsq = Lstsq(),  # noqa: B008  (a frozen value)
    progress: Progress = silent,
) -> Compensated:
    """Give those channels that stay the work of those that go.

    Args:
        name: one of `COMPENSATIONS`.
        network: what is to be cut.
        deps: its analysis.
        kept: channels that stay, by group; groups that are not named stay whole.
        analyse: how `deps` was made: layers without a bias get one, and the outcome is analysed again.
        feeds: calibration samples in batches, real or synthetic, for those that need them.
        options: of `lstsq`.
        progress: told of every layer (what, how far, of how many), by those that take samples.

    Raises:
        UsageError: the name is unknown, or samples are missing.
    """
    row, dead = _row(name, feeds), deps.dead(kept)
    if name == "none" or not dead.any():
        return Compensated(network, deps, (), {})
    prepared = with_biases(network, deps, dead)
    again = analyse(prepared)
    solvable, seen = written_out(prepared, again, analyse, feeds[0] if feeds else None)
    values, alone = row.solve(solvable, seen, kept, feeds or (), options, progress)
    numbers = _encoded(solvable, values, alone)
    own = {key: array for key, array in numbers.items() if key in again.sources}  # scales of biases may be implied
    return Compensated(prepared.with_tensors(own), again, tuple(values), alone)


def _row(name: str, feeds: Feeds | None) -> Compensation:
    row = COMPENSATIONS.get(name)
    if row is None:
        raise UsageError(f"no compensation is called {name!r}; there are {', '.join(COMPENSATIONS)}")
    if row.needs_samples and not feeds:
        raise UsageError(f"compensation {name!r} needs samples; give --data, or let it draw synthetic ones")
    return row


def _encoded(network: Network, values: dict[str, np.ndarray], alone: dict[str, str]) -> dict[str, np.ndarray]:
    """New values as the file holds them; what is not finite is left out of them, and is among what is left alone."""
    bad = [key for key, array in values.items() if not np.isfinite(array).all()]
    for key in bad:
        alone[key] = "its solution is not finite; the weights stay as they were"
        del values[key]
    return encoded(LayerGraph(network, unpacked=True), values)


def _by_weights(rule: str) -> Solve:
    return lambda network, deps, kept, *_: closed(network, deps, kept, rule)


COMPENSATIONS: dict[str, Compensation] = {
    # removed channels are not made up for
    "none": Compensation(lambda *_: ({}, {})),
    # each removed filter as a scaled copy of the most parallel one: Kim et al., NeurIPS 2020
    "merge": Compensation(_by_weights("merge")),
    # the mean of what is lost, known from BatchNormalization, goes into the readers' biases: mean of a rectified normal
    # variable; after Nagel et al., ICCV 2019, arXiv 1906.04721
    "mean": Compensation(_by_weights("mean")),
    # each removed filter as a ridge combination of all kept ones: arXiv 2502.08474
    "ridge": Compensation(_by_weights("ridge")),
    # kept filters become the mean of their cluster, readers the sum: Wang et al., ICLR 2025, arXiv 2502.10216
    "fold": Compensation(_by_weights("fold")),
    # layer after layer solved for the original network's values, on real or synthetic samples: after He et al., ICCV
    # 2017, arXiv 1707.06168; on the pruned network's own inputs and residual sums
    "lstsq": Compensation(lstsq, needs_samples=True),
}
