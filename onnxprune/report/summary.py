"""What a run found and did, as plain values: the terminal, JSON and HTML reports are drawn from these."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxprune.keyed import keyed
from onnxprune.report.sensitivities import Sensitivity
from onnxprune.report.shown import Page, renderer


@dataclass(frozen=True)
class LayerRow:
    """A node with weights: what it was, and what is left of it.

    name: of the node, as viewers of the network show it.
    groups: whose channels its weights make.
    channels, kept: width of its output; None where the analysis could not tell.
    macs, macs_left: multiply-accumulates at the sizes of the analysis.
    params, params_left: elements of its weights, those that several nodes share at the first one.
    """

    name: str
    operator: str
    groups: tuple[str, ...]
    channels: int | None
    kept: int | None
    macs: int
    macs_left: int
    params: int
    params_left: int


@dataclass(frozen=True)
class Total:
    """What the layers that make the channels of a group cost together."""

    layers: tuple[str, ...]
    macs: int
    macs_left: int
    params: int
    params_left: int


def totals(rows: Iterable[LayerRow]) -> dict[str, Total]:
    """By group, in the order of the network; a layer that makes channels of two groups counts in both."""
    members = keyed((group, row) for row in rows for group in row.groups)
    costs = ("macs", "macs_left", "params", "params_left")
    return {
        group: Total(tuple(r.name for r in found), *(sum(getattr(r, cost) for r in found) for cost in costs))
        for group, found in members.items()
    }


SCHEMA = 1  # of the JSON report
Span = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """What a model is and costs."""

    params: int
    macs: int
    bytes: int
    latency: float | None = None  # seconds per run, median of alternating runs
    activations: int | None = None  # bytes of the largest set of values that live at once
    latency_span: Span | None = None  # seconds between which the middle half of the runs lie


@dataclass(frozen=True)
class GroupRow:
    """One group: what was asked of it and what became of it."""

    name: str
    members: tuple[str, ...]  # nodes whose weights write its channels
    channels: int
    kept: int
    asked: float | None  # share of its channels that was asked to go; None under a target or threshold
    note: str = ""  # why it was left whole, where it was; in a lossless run, what went

    @property
    def removed(self) -> float:
        return 1 - self.kept / self.channels


@dataclass(frozen=True)
class FrozenRow:
    """A layer whose own channels cannot be removed, and why."""

    layer: str
    channels: int | None  # None where the analysis could not tell
    reason: str


@dataclass(frozen=True)
class MetricRow:
    """A figure of merit on the user's data, before and after."""

    name: str
    before: float
    after: float
    unit: str
    samples: int | None


@dataclass(frozen=True)
class Samples:
    """How many of the user's samples had which part in a run; no sample has two."""

    source: str  # of those that were measured on: "data" or "test data"
    fitted: int  # that the channels were chosen or repaired on
    searched: int  # that a search for the largest drop decided on
    measured: int  # that the figures come from


@dataclass(frozen=True)
class DriftRow:
    """How far an output moved on drawn samples, which say little about accuracy."""

    output: str
    relative: float  # largest difference as a share of the largest magnitude
    cosine: float
    snr: float  # dB
    problem: str = ""  # what makes the outputs incomparable, where something does


@dataclass(frozen=True)
class Probe:
    """One trial of a search: the share of the cost that was left, the figures there, and whether all limits hold."""

    share: float
    figures: tuple[float, ...]
    holds: bool


@dataclass(frozen=True)
class Search:
    """How the share of a cost was searched: the figures that it went by, their limits, and all trials in order.

    Latencies are in seconds, sizes in bytes, metrics in their own units.

    bounds: the limits as numbers.
    chosen: the share that was taken.
    """

    cost: str
    figures: tuple[str, ...]
    limits: tuple[str, ...]
    probes: tuple[Probe, ...]
    bounds: tuple[float, ...] = ()
    chosen: float | None = None


@dataclass(frozen=True)
class Assessment:
    """What is known of the accuracy, in one line.

    level: "good", "fair", "bad" or "unknown".
    basis: what it rests on: "data", "test data", "proof", "drawn samples", "nothing was removed", or nothing.
    metric, before, after: the figure that it goes by, where there is one; `before` is None where that is infinite.
    """

    level: str
    basis: str
    text: str
    metric: str | None = None
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True, repr=False)
class Report(Page):
    """All that a user may want to know of a run."""

    PAGE, TEXT = "html:html", "terminal:plain"

    source: str
    output: str | None
    options: Mapping[str, Any]
    asked: str
    got: str
    before: Figures
    after: Figures
    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenRow, ...]
    proof: str | None  # None: not verified
    proof_error: float | None = None
    proof_runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # sizes, inputs, branches; what was not run
    drift: tuple[DriftRow, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    samples: Samples | None = None
    latency_note: str = ""
    latency_gain: Span | None = None  # times faster: the interval of 95 %; None where that was not or cannot be told
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was assumed of inputs and data
    seconds: Mapping[str, float] = field(default_factory=dict)
    next_commands: tuple[str, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)  # channels by why they could go, in a lossless run
    approximated: tuple[str, ...] = ()  # nodes that take statistics over fewer channels than in the original
    sha256: Mapping[str, str] = field(default_factory=dict)
    search: Search | None = None  # of a largest drop, or of a target that cannot be planned
    assumed_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of inputs whose sizes were not given
    versions: Mapping[str, str] = field(default_factory=dict)  # of all that decides the bytes of the output
    command: str | None = None  # as it was typed; None from Python
    layers: tuple[LayerRow, ...] = ()
    sensitivity: Sensitivity | None = None  # that the budget was shared out by

    @property
    def verdict(self) -> Assessment:
        """What is known of the accuracy."""
        found: Assessment = renderer("verdict:verdict")(self)
        return found

    @property
    def changed(self) -> bool:
        """Whether any channel was removed."""
        return any(g.kept < g.channels for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; times and latencies are in seconds, sizes in bytes.

        `schema` grows by one when a field changes its meaning or goes; new ones leave it as it is.  `nothing_removed`
        is the reason where no channel went, and null where some did.
        """
        data: dict[str, Any] = {"schema": SCHEMA, "verdict": asdict(self.verdict)} | asdict(self)
        data["nothing_removed"] = None if self.changed else renderer("words:untouched")(self)
        data["proof"] = {"verified": self.proof is not None, "result": self.proof, "error": self.proof_error}
        data["proof"] |= data.pop("proof_runs")
        del data["proof_error"]
        return data

    def __repr__(self) -> str:
        return f"<Report of {self.source}: {self.got}; {self.verdict.text}>"
