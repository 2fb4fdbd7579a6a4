"""A search for the largest cut as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """One evaluation of a search: the share of the cost that was left, the figure, and whether it holds."""

    share: float
    figure: float
    holds: bool


@dataclass(frozen=True)
class Search:
    """How the largest cut that holds a limit was found.

    kind: the cost whose share was searched.
    figure, unit: what was evaluated, and its unit ("share" from 0 to 1).
    before: its value for the original.
    limit: what it had to be at least, under `least`: then the smallest share that holds was taken.  Else at most, and
        the largest was.
    chosen: the share that was taken; None where none holds.
    """

    kind: str
    figure: str
    unit: str
    before: float
    limit: float
    least: bool
    probes: tuple[Probe, ...]

    @property
    def chosen(self) -> float | None:
        held = [p.share for p in self.probes if p.holds]
        return (min(held) if self.least else max(held)) if held else None
