"""The choice whose file, with all that is written into it, has at most the share of the bytes that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.pipeline.choose import Choice, Chooser

ROUNDS = 8  # one or two are enough: names and metadata, which the costs do not know, hardly depend on the choice


def sized_choice(chooser: Chooser, share: float, weigh: Callable[[Choice], int]) -> Choice:
    """Choose for a share of the file's size, and for less by what was too much, until the bytes of the file hold it.

    Args:
        share: of the bytes of the original's file, to keep.
        weigh: from a choice to the bytes of its file.
    """
    limit, asked = share * chooser.size, share
    for _ in range(ROUNDS):
        choice = chooser.choose(("size", asked))
        size = weigh(choice)
        if size <= limit or choice.stopped_by:
            return choice
        left = [len(choice.kept.get(name, range(channels))) for name, channels in chooser.costs.groups.items()]
        asked = min(asked, chooser.costs.share("size", left)) - (size - limit) / chooser.size
        if asked <= 0:
            break
    return replace(choice, stopped_by=f"size can only go down to {size / chooser.size:.1%}: the rest is no weights")
