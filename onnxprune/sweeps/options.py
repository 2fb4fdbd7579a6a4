"""What only a sweep has options for: what is tried, who does it, and what is wanted of the outcome."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxprune.pipeline.declare import option
from onnxprune.pipeline.kinds import Number, OptionKind, Share, Unfit, Whole
from onnxprune.pipeline.table import BUDGET, DATA, RUNNING, WHICH
from onnxprune.pipeline.targets import SECONDS, UNITS
from onnxprune.pipeline.texts import Word, Words

SWEEPS = frozenset({"sweep"})
BACKENDS = ("loky", "dask", "ray")
COSTS = tuple(cost for cost in UNITS if cost != "latency")  # which is measured when the work is done


@dataclass(frozen=True)
class Time(OptionKind):
    """Seconds, from a number or from a text like "5ms"."""

    accepts: ClassVar[Any] = float | str
    words = "a time, like 5ms"

    def read(self, given: Any) -> float:
        text = str(given).strip().lower()
        unit = next((u for u in SECONDS if text.endswith(u)), "")
        seconds = float(text.removesuffix(unit)) * SECONDS.get(unit, 1.0)
        if not 0 < seconds < float("inf"):
            raise Unfit
        return seconds


@dataclass(frozen=True, kw_only=True)
class Sweeping:
    """Options of a sweep besides those of its runs."""

    targets: Sequence[str] = option(
        (),
        f"What is left of a cost, each value tried: macs=0.3:0.9:0.1 (first, last, step) or size=100KB,200KB; of "
        f"{', '.join(COSTS)}.",
        Words(), BUDGET, SWEEPS, metavar="COST=RANGE",
    )  # fmt: skip
    methods: Sequence[str] = option(
        ("auto",), "How channels are compared, each one tried: ncc,obs.", Words(), WHICH, SWEEPS, metavar="NAMES"
    )
    min_accuracy: float | None = option(
        None,
        "Recommend the cut of fewest MACs with at least this top1 (or agreement) on the data; fail where none has.",
        Share(), DATA, SWEEPS, metavar="SHARE",
    )  # fmt: skip
    min_snr: float | None = option(
        None,
        "The same by the outputs' signal to noise: on the data, else on drawn samples.",
        Number(), DATA, SWEEPS, metavar="DB",
    )  # fmt: skip
    latency: float | None = option(
        None,
        "Recommend a cut that takes at most this long here, 5ms: the most accurate one, if nothing else is asked.",
        Time(), DATA, SWEEPS, metavar="TIME",
    )  # fmt: skip
    jobs: int | None = option(
        None, "Runs at once on this machine; without it one for each core.", Whole(1), RUNNING, SWEEPS, metavar="N"
    )
    backend: str = option(
        "loky",
        f"Who does the work: {', '.join(BACKENDS)}; loky is this machine.",
        Word(BACKENDS), RUNNING, SWEEPS, metavar="NAME",
    )  # fmt: skip
    scheduler: str | None = option(
        None, "Where Dask or Ray is: tcp://10.0.0.1:8786.", Word(), RUNNING, SWEEPS, metavar="ADDRESS"
    )
