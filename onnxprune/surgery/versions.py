"""What becomes of each tensor of the file: one version for every way in which its uses are cut."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Source, Use
from onnxprune.model.elements import MadeInBlocks, Tensor
from onnxprune.operators.labels import is_fixed

AT_ONCE = 16 << 20  # bytes of an array from which on no copy of it is made that is cut along one axis only

Live = tuple[np.ndarray, ...]  # of each axis, (positions,) bool


@dataclass(frozen=True)
class Version:
    """A tensor of the file as some of its uses need it."""

    source: Source
    name: str  # in its graph; the source's own name for the version that takes its place
    live: Live  # positions that stay (cut) or that keep their values (mask)
    uses: tuple[Use, ...]

    @property
    def copied(self) -> bool:
        return self.name != self.source.key.removeprefix(self.source.path)


def versions(deps: Dependencies, dead: np.ndarray, *, masked: bool = False) -> Iterator[Version]:
    """All tensors that change or have to be copied, in the order of their first use.

    Args:
        deps: the analysis of the model.
        dead: (components,) bool, what goes.
        masked: count only positions as dead that masking sets to zero.
    """
    for key, uses in deps.uses_of.items():
        patterns: dict[tuple[bytes, ...], tuple[Live, list[Use]]] = {}
        for use in uses:
            live = tuple(_live(deps, labels, dead, masked) for labels in use.axes)
            patterns.setdefault(tuple(b"" if m.all() else m.tobytes() for m in live), (live, []))[1].append(use)
        source = deps.sources[key]
        name = key.removeprefix(source.path)
        bound = [p for p, (_, members) in patterns.items() if any(u.input < 0 for u in members)]
        stays = bound[0] if bound else max(patterns, key=lambda p: len(patterns[p][1]))
        copies = 0
        for pattern, (live, members) in patterns.items():
            copies += pattern != stays
            version = Version(source, name if pattern == stays else f"{name}.copy{copies}", live, tuple(members))
            if any(pattern) or version.copied:
                yield version


def _live(deps: Dependencies, labels: np.ndarray, dead: np.ndarray, masked: bool) -> np.ndarray:
    live = deps.live(labels, dead)
    return live if not masked or is_fixed(labels) else live | ~deps.zeroed[labels]


@dataclass(frozen=True, eq=False)
class CutTensor(Tensor):
    """The live box of a tensor."""

    whole: Tensor
    live: Live

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(np.count_nonzero, self.live))

    @property
    def dtype(self) -> np.dtype:
        return self.whole.dtype

    def array(self) -> np.ndarray:
        return cut_array(self.whole.array(), self.live)


@dataclass(frozen=True, eq=False)
class MaskedTensor(MadeInBlocks):
    """A tensor with dead positions set to `zero`."""

    live: Live
    zero: np.ndarray | int = 0

    def part(self, array: np.ndarray, rows: slice) -> np.ndarray:
        if not array.ndim:
            return masked_array(array, self.live, self.zero)
        zero = self.zero
        if isinstance(zero, np.ndarray) and zero.ndim == array.ndim and zero.shape[0] > 1:
            zero = zero[rows]
        return masked_array(array[rows], (self.live[0][rows], *self.live[1:]), zero)


def cut_array(array: np.ndarray, live: Live) -> np.ndarray:
    """The live box of an array."""
    axes = [axis for axis, mask in enumerate(live) if not mask.all()]
    if len(axes) > 1 and array.nbytes > AT_ONCE:
        return array[np.ix_(*map(np.flatnonzero, live))]
    for axis in axes:
        array = array.compress(live[axis], axis)
    return np.asarray(array, order="C")


def masked_array(array: np.ndarray, live: Live, zero: np.ndarray | int = 0) -> np.ndarray:
    """The array with `zero` wherever a position is dead."""
    array = array.copy()
    for axis, mask in enumerate(live):
        if not mask.all():
            index = (slice(None),) * axis + (~mask,)
            array[index] = np.broadcast_to(zero, array.shape)[index].astype(array.dtype)
    return array
