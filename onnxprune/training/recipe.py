"""How a network is trained: what a user may set, and the rest as it measured best (docs/TRAINING.md)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from onnxprune.errors import UsageError, spelled

LONGEST = 100_000  # epochs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a user may set about training.

    epochs: passes over the samples; where these are fewer than `EPOCH`, a pass draws from them that many times.
    minutes: the most that training takes; the rate falls to zero by then.
    lr: the largest step of a weight, as a share of the root mean square of its tensor.
    batch_size: samples a step; the model's own where it fixes that.
    device: "cpu", "cuda", or a device of torch such as "cuda:1".
    seed: of the order of the samples and of their changes.
    resume: a file that the state is kept in after every epoch, and gone on from where it is there.
    """

    epochs: int = 20
    minutes: float | None = None
    lr: float = 0.01
    batch_size: int = 64
    device: str = "cpu"
    seed: int = 0
    resume: str | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("epochs", 1, LONGEST), ("batch_size", 1, LONGEST)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise UsageError(f"{spelled(name)} is a whole number from {least} to {most}, not {value!r}")
        _positive("lr", self.lr)
        if self.minutes is not None:
            _positive("minutes", self.minutes)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Recipe":
        """A recipe from options by name; None stands for the default.  Raises UsageError."""
        names = {f.name for f in fields(cls)}
        if unknown := sorted(set(given) - names):
            raise UsageError(f"training has no option {unknown[0]!r}; it has {', '.join(sorted(names))}")
        return cls(**{name: value for name, value in given.items() if value is not None})


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(f"{spelled(name)} is a number above zero, not {value!r}")
