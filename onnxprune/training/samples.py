"""Samples in memory, one by one, from which batches are put together anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.specs import Feed


@dataclass(frozen=True)
class TrainingSamples:
    """Feeds of the fewest samples that the model takes at once: one, where it leaves that open.

    feeds: arrays by input name.
    labels: of each feed, or None.
    rows: inputs that are joined along their first axis, so that several feeds make a batch; none where the model takes
        each feed alone.
    """

    feeds: Sequence[Feed]
    labels: Sequence[np.ndarray] | None
    rows: frozenset[str]

    def __len__(self) -> int:
        return len(self.feeds)

    def batches(self, places: Sequence[int]) -> list[tuple[Feed, np.ndarray | None]]:
        """These samples in one batch, or one by one where they cannot be joined: shapes that differ, a fixed batch."""
        chosen = [self.feeds[k] for k in places]
        labels = None if self.labels is None else [self.labels[k] for k in places]
        alike = all(feed[n].shape == chosen[0][n].shape for feed in chosen for n in self.rows)
        if not self.rows or not alike:
            return [(feed, None if labels is None else labels[k]) for k, feed in enumerate(chosen)]
        joined = {n: np.concatenate([f[n] for f in chosen]) if n in self.rows else chosen[0][n] for n in chosen[0]}
        return [(joined, None if labels is None else np.concatenate(labels))]

    @classmethod
    def read(cls, data: Dataset) -> TrainingSamples:
        """All samples of a data set.  Raises UsageError where it is empty."""
        feeds, labels = list[Feed](), list[np.ndarray]()
        rows = _rows(data)
        for batch in data if rows else data.batched(1):
            for part in [slice(k, k + 1) for k in range(batch.size)] if rows else [slice(None)]:
                feeds.append({n: a[part] if n in rows else a for n, a in batch.feeds.items()})
                if batch.labels is not None:
                    labels.append(batch.labels[part])
        if not feeds:
            raise UsageError("the data is empty")
        return cls(feeds, labels if len(labels) == len(feeds) else None, rows)

    @classmethod
    def drawn(cls, feeds: Sequence[Feed]) -> TrainingSamples:
        """Drawn feeds, sample by sample where the batch is open: the last feed, or a single one, may be smaller."""
        size = max(len(a) for a in feeds[0].values()) if all(a.ndim for a in feeds[0].values()) else 1
        rows = frozenset(n for n, a in feeds[0].items() if size > 1 and a.ndim and len(a) == size)
        if not rows or len(rows) < len(feeds[0]):
            return cls(feeds, None, frozenset())
        parts = ((feed, k) for feed in feeds for k in range(len(next(iter(feed.values())))))
        return cls([{n: a[k : k + 1] for n, a in feed.items()} for feed, k in parts], None, rows)

    def part(self, places: slice) -> TrainingSamples:
        """Some of the samples."""
        return replace(self, feeds=self.feeds[places], labels=None if self.labels is None else self.labels[places])


def _rows(data: Dataset) -> frozenset[str]:
    """Inputs whose first axis grows with the batch."""
    one, two = (next(iter(data.batched(n)), None) for n in (1, 2))
    if one is None or two is None or two.size < 2:
        return frozenset()
    return frozenset(n for n, a in one.feeds.items() if a.ndim and a.shape[0] == 1 and two.feeds[n].shape[0] == 2)
