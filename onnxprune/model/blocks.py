"""Tensors that are made from another one a few rows at a time, so that the whole of them need not be in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 4 << 20  # bytes that are made at once


@dataclass(frozen=True)
class MadeInBlocks:
    """A tensor of the shape and type of `array`: `np.asarray` gives all of it, `blocks` some rows at a time.

    A subclass says what becomes of the rows.
    """

    array: np.ndarray  # never changed

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def part(self, rows: slice) -> np.ndarray:
        """Those rows; of a tensor without axes all of it."""
        raise NotImplementedError

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        made = np.empty(self.shape, self.dtype)
        for rows in self._rows():
            made[rows if self.array.ndim else ...] = self.part(rows)
        return made if dtype is None else made.astype(dtype)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in order, a few megabytes at a time."""
        return map(self.part, self._rows())

    def _rows(self) -> Iterator[slice]:
        if not self.array.ndim:
            yield slice(None)
            return
        step = max(1, BLOCK // max(1, self.array[:1].nbytes))
        yield from (slice(start, start + step) for start in range(0, len(self.array), step))
