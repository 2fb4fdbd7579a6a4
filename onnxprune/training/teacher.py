"""The original network, which is asked what it makes of each batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed
from onnxprune.training.module import TorchModule
from onnxprune.training.places import FeaturePlace
from onnxprune.training.precision import fits, products

Teacher = Callable[[Feed], Mapping[str, Tensor]]


def teacher_of(
    model: Network, ends: Sequence[str], places: Sequence[FeaturePlace], device: str, threads: int | None
) -> Teacher:
    """The outputs for a feed, other values, and the inner maps as the pruned network has them, on the device.

    onnxruntime computes them for the CPU, in less time than torch takes there in float32; torch where the data lies on
    a GPU anyhow.
    """
    names = [*ends, *(p.name for p in places)]
    if device != "cpu":
        return _by_torch(TorchModule.of(model, device), names, places, mixed=False)
    session = make_session(model, providers="cpu", threads=threads, optimize=True, taps=names)

    def by_onnxruntime(feed: Feed) -> dict[str, Tensor]:
        given = session.run(feed)
        kept = {p.name: p.kept(given[p.name]) for p in places}
        return {n: real(a) for n, a in (given | kept).items() if a.dtype.kind in "fiub"}

    return by_onnxruntime


def rounded(
    model: Network, feeds: Sequence[Feed], ends: Sequence[str], places: Sequence[FeaturePlace]
) -> Teacher | None:
    """The same with products in bfloat16, which the CPU takes in less time; None where that is not as good."""
    network, names = TorchModule.of(model), [*ends, *(p.name for p in places)]
    if not fits(network, (tensors(feed, "cpu") for feed in feeds), [*network.ends, *names]):
        return None
    return _by_torch(network, names, places, mixed=True)


def _by_torch(network: TorchModule, names: Sequence[str], places: Sequence[FeaturePlace], mixed: bool) -> Teacher:
    def teacher(feed: Feed) -> dict[str, Tensor]:
        with torch.no_grad(), products(mixed):
            given = network(tensors(feed, str(network.device)), names)
        given |= {p.name: _kept(given[p.name], p) for p in places}
        return {n: x.float() if x.dtype == torch.bfloat16 else x for n, x in given.items()}

    return teacher


def _kept(value: Tensor, place: FeaturePlace) -> Tensor:
    """What `FeaturePlace.kept` gives, of a tensor where it lies."""
    for axis, mask in enumerate(place.live):
        if axis and not mask.all():
            value = value.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(value.device))
    return value


def tensors(feed: Feed, device: str) -> dict[str, Tensor]:
    """A feed for torch; images with their channels last in memory, which its kernels on a CPU like."""
    found = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in feed.items()}
    return {
        n: (t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t).to(device) for n, t in found.items()
    }


def real(array: np.ndarray) -> Tensor:
    """An array as a tensor of real numbers; half precision and whole numbers in float32."""
    kept = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(kept))
