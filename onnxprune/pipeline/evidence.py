"""What running the network shows of its channels, for the methods that rank by more than their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from onnxprune.budget import allocator_of
from onnxprune.channels.dependencies import Group
from onnxprune.criteria.methods import Method
from onnxprune.criteria.methods import method as find_method
from onnxprune.criteria.rules import Cshe, Obs
from onnxprune.errors import ModelError, UsageError
from onnxprune.pipeline.calibration import Samples
from onnxprune.pipeline.feature_maps import energies
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.repair import curves_of
from onnxprune.pipeline.run import Run
from onnxprune.surgery.recovery.loss_curves import LossCurve


@dataclass(frozen=True)
class Evidence:
    """What is known of the channels besides their weights, by group, and the method that ranks by it.

    shown: (channels,) importances.
    curves: of a repair, where the method goes by those.
    whole: groups that cannot be ranked, with the reason.
    remarks: how all of this came about, for the report.
    """

    method: Method
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    curves: Mapping[str, LossCurve] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def evidence_of(
    run: Run, method: Method, weights: Weights, groups: Sequence[Group], samples: Samples,
    ranked: Mapping[str, np.ndarray],
) -> Evidence:  # fmt: skip
    """What a method wants to know of the channels of some groups.

    Args:
        samples: to solve layers on, for a method that does.
        ranked: (channels,) by group, what channels are worth in the basis that they are cut in.

    Raises UsageError where it cannot be had, and ModelError where the network cannot be run on the user's samples.
    """
    if isinstance(method.rule, Obs):
        return _repair_order(run, method, weights, groups, samples, ranked)
    if "images" in method.needs:
        return _feature_maps(run, method, groups)
    return Evidence(method)


def _feature_maps(run: Run, method: Method, groups: Sequence[Group]) -> Evidence:
    """How much of the energy of each channel's feature maps lies in large eigenvalues."""
    if run.split.fit is None:
        raise UsageError(f"'{method.name}' needs calibration images (--data); 'ncc' and 'l2' need weights only")
    found, seen = energies(run.original, run.split.fit, groups, cast(Cshe, method.rule), run.log.progress)
    whole = {g.name: "its feature maps cannot be captured" for g in groups if g.name not in found}
    remarks = (f"feature maps of {seen} samples rank the channels",) if found else ()
    return Evidence(method, found, whole=whole, remarks=remarks)


def _repair_order(
    run: Run, method: Method, weights: Weights, groups: Sequence[Group], samples: Samples,
    ranked: Mapping[str, np.ndarray],
) -> Evidence:  # fmt: skip
    """The order in which channels leave best, found on the user's samples or on drawn ones."""
    request = run.request
    losses = allocator_of(request.allocation).losses == "sensitivity"
    if not groups or (request.ratio == 0 and not request.ratio_for and not losses):
        return Evidence(method)
    what, progress = list[str](), run.log.progress
    try:
        given = samples()
        what.append(f"order {'and losses ' * losses}of channels measured on {given.what}")
        ridge = cast(Obs, method.rule).ridge
        curves = curves_of(run.original, weights, groups, given.feeds, ranked, ridge, losses=losses, progress=progress)
    except ModelError as error:
        if run.split.fit is not None:
            raise
        return Evidence(
            find_method("ncc"), remarks=(*what, f"channels are ranked by their weights (ncc) instead of 'obs': {error}")
        )
    if plain := [name for name, curve in curves.items() if not curve.solved]:
        first = f"{len(plain)} of {len(curves)} groups, such as {plain[0]}"
        what.append(f"ranked by weights, as no layer that reads them can be solved again: {first}")
    order = {name: np.argsort(curve.order).astype(np.float64) for name, curve in curves.items()}  # the last has most
    return Evidence(method, order, curves, remarks=tuple(what))
