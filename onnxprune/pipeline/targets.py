"""What of a cost may be left: a share of what there was, or an amount in the user's units."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
BYTES = {"": 1.0, "b": 1.0} | {
    prefix + b: float(factor)
    for prefix, factor in (
        ("k", 10**3), ("m", 10**6), ("g", 10**9), ("t", 10**12),
        ("ki", 2**10), ("mi", 2**20), ("gi", 2**30), ("ti", 2**40),
    )
    for b in ("", "b")
}  # fmt: skip
SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}

UNITS: Mapping[str, Mapping[str, float]] = {
    "macs": COUNT,
    "params": COUNT,
    "size": BYTES,
    "activations": BYTES,
    "latency": SECONDS,
}
FEWEST = 100  # from here on a number without a unit is an amount; below it, a percentage without its sign
_LIMIT = re.compile(r"(\d+\.?\d*|\.\d+)\s*(\D*)")


@dataclass(frozen=True)
class Limit:
    """The most that may be left of a cost.

    cost: a name of `UNITS`.
    share: of what there was, or None for an amount.
    amount: multiply-accumulates, elements, bytes or seconds.
    text: as the user has it.
    """

    cost: str
    share: float | None
    amount: float | None
    text: str

    def most(self, before: float) -> float:
        """The most that may be left where there was so much."""
        return self.share * before if self.share is not None else self.amount or 0.0

    def __str__(self) -> str:
        return self.text


def amount_of(cost: str, text: str) -> float | None:
    """The amount that a text such as "250KB", "5ms" or "1000000" means for a cost; None where it is none."""
    found = _LIMIT.fullmatch(text.strip())
    factor = UNITS[cost].get(found[2].strip().lower()) if found else None
    if found is None or factor is None or (not found[2].strip() and float(found[1]) < FEWEST):
        return None
    return float(found[1]) * factor
