"""Many cuts of several networks as plain values: what each costs and loses, and which of them are worth a look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxprune.errors import CheckFailed, FileError, ModelError, OnnxPruneError, UsageError
from onnxprune.keyed import keyed
from onnxprune.report.shown import Page

COSTS = ("macs", "bytes", "latency")  # that a front is drawn over
EXACT = 999.0  # dB, of outputs that are the same bit for bit


@dataclass(frozen=True)
class Timing:
    """Seconds per run of the original and of the pruned network, timed in turns: medians, and the middle half."""

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One cut of one network.

    key: digest of all that decides it.
    network, target, method: what was tried.
    error, exit_code: why there is no result, and the exit code of the single run.
    model, plan: files in the folder of the sweep; sha256 is that of the model, data_sha256 those of the files beside it
        that hold its weights, by name.
    params, macs, bytes, activations: of the pruned network, and before.
    figure, unit: the figure of merit; `before` and `after` are its values, on so many `samples` (None: drawn ones).
        Signal to noise has no value before.
    verdict, level, proof, warnings: as in the report of a single run.
    latency: None where it was not measured.
    fronts: costs by which no other cut of the network is better and no dearer.
    """

    key: str
    network: str
    target: str
    method: str
    error: str | None = None
    exit_code: int = 0
    model: str | None = None
    plan: str | None = None
    sha256: str | None = None
    data_sha256: Mapping[str, str] | None = None
    params: int = 0
    params_before: int = 0
    macs: int = 0
    macs_before: int = 0
    bytes: int = 0
    bytes_before: int = 0
    activations: int | None = None
    activations_before: int | None = None
    figure: str | None = None
    unit: str = ""
    before: float | None = None
    after: float | None = None
    samples: int | None = None
    verdict: str = ""
    level: str = ""
    proof: str | None = None
    warnings: tuple[str, ...] = ()
    input_shapes: Mapping[str, Sequence[int]] | None = None
    latency: Timing | None = None
    fronts: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Row":
        """A row from what was stored of it.  Raises TypeError for what is no row."""
        timing = stored.get("latency")
        return cls(
            **{
                **stored,
                "warnings": tuple(stored.get("warnings", ())),
                "fronts": tuple(stored.get("fronts", ())),
                "latency": None if timing is None else Timing(**timing),
            }
        )

    def cost(self, kind: str) -> float | None:
        """One of `COSTS`; seconds for latency."""
        if kind == "latency":
            return None if self.latency is None else self.latency.after
        return float(getattr(self, kind))

    def cost_before(self, kind: str) -> float | None:
        """The same of the original."""
        if kind == "latency":
            return None if self.latency is None else self.latency.before
        return float(getattr(self, f"{kind}_before"))


@dataclass(frozen=True)
class Wanted:
    """What a cut has to be to be recommended: at least so good, and at most so slow (seconds)."""

    min_accuracy: float | None = None
    min_snr: float | None = None
    latency: float | None = None

    def __bool__(self) -> bool:
        return any(v is not None for v in (self.min_accuracy, self.min_snr, self.latency))

    def holds(self, row: Row) -> bool:
        """Whether a cut is all of it."""
        figure = -math.inf if row.after is None else row.after
        good = self.min_accuracy is None or (row.unit == "share" and figure >= self.min_accuracy)
        clear = self.min_snr is None or (row.unit == "dB" and figure >= self.min_snr)
        fast = self.latency is None or (row.latency is not None and row.latency.after <= self.latency)
        return row.error is None and good and clear and fast

    def best(self, rows: Sequence[Row]) -> Row | None:
        """Of the cuts that are all of it the one of fewest MACs; with nothing but a latency asked, the best one."""
        held = [row for row in rows if self.holds(row)]
        if not held:
            return None
        if self.min_accuracy is None and self.min_snr is None:
            return min(held, key=lambda r: (-(r.after if r.after is not None else -math.inf), r.macs, r.bytes))
        return min(held, key=lambda r: (r.macs, r.bytes, -(r.after or 0.0)))

    def __str__(self) -> str:
        parts = [
            "" if self.min_accuracy is None else f"accuracy of at least {self.min_accuracy:.2%}",
            "" if self.min_snr is None else f"signal to noise of at least {self.min_snr:g} dB",
            "" if self.latency is None else f"at most {1e3 * self.latency:.3g} ms",
        ]
        return " and ".join(filter(None, parts))


@dataclass(frozen=True, repr=False)
class Sweep(Page):
    """All cuts, network by network, in the order of targets and methods; and what was wanted of them.

    folder: holds the models, `results.jsonl` and `index.html`.
    reused: how many results an earlier run had left there.
    """

    PAGE, TEXT = "tradeoff_page:tradeoff_html", "comparison:comparison_text"

    folder: str
    rows: tuple[Row, ...]
    wanted: Wanted = Wanted()
    reused: int = 0

    @property
    def networks(self) -> dict[str, tuple[Row, ...]]:
        """The cuts of each network."""
        return {name: tuple(rows) for name, rows in keyed((row.network, row) for row in self.rows).items()}

    def pareto(self, network: str, cost: str = "macs") -> tuple[Row, ...]:
        """Cuts that no other one of the network beats in figure and cost, the cheapest first."""
        found = [row for row in self.networks[network] if cost in row.fronts]
        return tuple(sorted(found, key=lambda r: r.cost(cost) or 0.0))

    @property
    def recommended(self) -> dict[str, Row | None]:
        """For each network the cut that is all that was wanted; empty where nothing was."""
        return {name: self.wanted.best(rows) for name, rows in self.networks.items()} if self.wanted else {}

    def require(self) -> None:
        """Raise an error where nothing came out, or nothing for a network that is all that was wanted."""
        failed = [row for row in self.rows if row.error]
        if failed and len(failed) == len(self.rows):
            kinds: dict[int, type[OnnxPruneError]] = {2: UsageError, 3: ModelError, 4: FileError}
            raise kinds.get(failed[0].exit_code, CheckFailed)(f"no combination has a result: {failed[0].error}")
        if missing := [name for name, row in self.recommended.items() if row is None]:
            raise CheckFailed(f"no cut of {missing[0]} has {self.wanted}; all results are in {self.folder}")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; seconds, bytes."""
        chosen = {name: row and row.key for name, row in self.recommended.items()}
        return {"folder": self.folder, "rows": [asdict(row) for row in self.rows], "recommended": chosen}

    def __repr__(self) -> str:
        return f"<Sweep of {len(self.networks)} networks: {len(self.rows)} combinations in {self.folder}>"


def with_fronts(rows: Sequence[Row]) -> list[Row]:
    """Rows of one network that know by which costs they are on a front, the original being there too."""
    return [replace(row, fronts=tuple(c for c in COSTS if _on_front(row, rows, c))) for row in rows]


def _on_front(row: Row, rows: Sequence[Row], kind: str) -> bool:
    """Whether nothing is better and no dearer, or as good and cheaper."""
    place = _place(row, kind)
    if place is None:
        return False
    others = [p for other in rows if other is not row and (p := _place(other, kind)) is not None]
    others += [(before, row.cost_before(kind) or math.inf)] if (before := _original(row)) is not None else []
    return not any(
        good >= place[0] and cost <= place[1] and (good > place[0] or cost < place[1]) for good, cost in others
    )


def _place(row: Row, kind: str) -> tuple[float, float] | None:
    cost = row.cost(kind)
    return None if row.error or row.after is None or cost is None else (row.after, cost)


def _original(row: Row) -> float | None:
    """The figure of the original; a signal to noise has none that says something."""
    return row.before if row.unit != "dB" else None
