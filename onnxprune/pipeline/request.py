"""What a user asks for: one place for every option and its default."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.choices import SHARES
from onnxprune.pipeline.share import meant, share

if TYPE_CHECKING:
    from onnx import ModelProto

BUDGETS = ("ratio", "target", "threshold", "max_drop", "lossless")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options of a run; the command line has the same under the same names, in kebab case.

    Exactly one budget is given: `ratio`, `target`, `threshold`, `max_drop`, `lossless` (or none of them with
    `ratio_for`).

    ratio: share of each group's channels to remove, 0 ≤ ratio < 1; where groups lose different shares (another
        allocation than "uniform", method "msvfp"), the share of all their channels together.
    target: "macs=0.5", "params=0.5", "size=0.5" or "latency=0.5": the share to keep.  Latency is measured on this
        machine, so its outcome is not the same from run to run.
    threshold: remove only channels that are at least this similar to one that stays.
    max_drop: the most that the first metric may fall, as a share of 1 ("1%" and 0.01 are one point), or in the
        metric's own unit where it is no share; the largest cut in MACs that holds it is searched for on a part of
        test_data, or else of data, and the figures come from another part.
    lossless: remove only what cannot change the output: constants, what nobody reads, copies and multiples.
    method: how channels are compared and ranked; a name of `onnxprune.criteria`. "auto" is "obs", which measured
        best under the repair (docs/METHODS.md), and "ncc" for a threshold, and for a ratio without that repair
        or with method_options.
    method_options: hyper-parameters of the method.
    compensate: how the channels that stay take over from those that go; a name of `surgery.compensate`. "auto" is
        "lstsq", on the data or on drawn samples; "none" is the cut alone, at once.
    allocation: how a budget is shared among the groups; a name of `onnxprune.budget.ALLOCATORS`. "auto" is
        "sensitivity" where method "obs" was chosen for a budget, and "uniform" otherwise.
    round_to: multiple of which kept counts are; None chooses by width (8 from 64 channels on, 4 from 32), and is 1
        under `lossless`.
    max_ratio: no group loses more than this share.
    ratio_for: share to remove by pattern (fnmatch) of node or weight names.
    exclude, include: patterns of groups that stay whole, or of the only ones that may be cut.
    heads: "whole" removes whole attention heads, "dims" the same share of every head; where one of them would leave
        weights whole, the other is done.
    thaw: cut channels that norms over channels (LayerNormalization and its kin), softmaxes or means over channels read
        as well.  Their statistics are then taken over the channels that stay, which is not what the original computes
        with zeros there: an approximation, and the report names the nodes.  Experts go where ratio_for names them only.
    data: samples in any form that `onnxprune.runtime.data` reads; mean, std, resize, layout and limit say how it is
        read.  Where they are fitted on (by the repair, or a method or allocation that looks at data), a quarter is held
        out for the figures.
    test_data: other samples, read alike, that the figures come from instead, so that all of `data` is fitted on.
    metric: figures of merit to report on the data; by default top1 and agreement with labels, agreement for class
        scores without, cosine and snr for all other outputs.
    min_accuracy: the least that the first metric which is a share (top1, else agreement) may be on the data, as a share
        of 1 or "90%"; a pruned model below it is not written.
    min_snr: the same for the signal to noise of the outputs in dB: of all together on the data, or of the worst one on
        drawn samples.
    retrain: from a pruned model to the same with trained weights; "msvfp" calls it whenever enough has gone.
    input_shapes: concrete shapes of inputs, by name; "name:1x3x224x224" on the command line.
    providers, threads: of onnxruntime, for measuring; verification runs on the CPU.
    verify: prove masked = pruned before anything is written.
    measure: time the models in onnxruntime.
    strict: it is a failure when nothing can be cut or a target is missed.
    seed: of all that is drawn.
    force, save_as_external_data, dry_run: of the writing.
    isolate: run onnxruntime in a process of its own, where a crash is a failed check.
    max_memory: bytes, or "4GiB": a run that would need more is refused before it begins, and an isolated session ends.
    """

    ratio: float | None = None
    target: str | None = None
    threshold: float | None = None
    max_drop: float | str | None = None
    lossless: bool = False
    method: str = "auto"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    compensate: str = "auto"
    allocation: str = "auto"
    round_to: int | None = None
    max_ratio: float = 1.0
    ratio_for: Mapping[str, float] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    include: Sequence[str] = ()
    heads: str = "whole"
    thaw: bool = False
    data: Any = None
    test_data: Any = None
    mean: Any = None
    std: Any = None
    resize: Any = None
    layout: str | None = None
    limit: int | None = None
    metric: Sequence[str] = ()
    min_accuracy: float | str | None = None
    min_snr: float | None = None
    retrain: "Callable[[ModelProto], ModelProto] | None" = None
    input_shapes: Mapping[str, Sequence[int]] | Sequence[str] = field(default_factory=dict)
    providers: str | Sequence[str] = "auto"
    threads: int | None = None
    verify: bool = True
    measure: bool = True
    strict: bool = False
    seed: int = 0
    force: bool = False
    save_as_external_data: bool = False
    dry_run: bool = False
    isolate: bool = False
    max_memory: int | str | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        if isinstance(self.metric, str):
            object.__setattr__(self, "metric", (self.metric,))
        self._check_lossless()
        self._settle()
        self._read_shares()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"a seed is a whole number from 0 on, not {self.seed!r}")
        budgets = given_budgets(vars(self))
        if len(budgets) > 1:
            raise UsageError(f"{budgets[0]} and {budgets[1]} are two budgets; give one")
        if not budgets and not self.ratio_for:
            raise UsageError(
                "say how much to remove: ratio=0.5, target='macs=0.5', threshold=0.9, max_drop='1%' or lossless=True"
            )
        self._check_data()
        self.allowed_drop()
        if self.heads not in ("whole", "dims"):
            raise UsageError(f"heads are cut 'whole' or in 'dims', not {self.heads!r}")

    def _check_kinds(self) -> None:
        """Names are text and switches are on or off, whatever a plan from a stranger says."""
        for option in fields(self):
            value = getattr(self, option.name)
            if option.type is str and not isinstance(value, str):
                raise UsageError(f"{option.name} is a name, not {value!r}")
            if option.type is bool and value not in (True, False):
                raise UsageError(f"{option.name} is True or False, not {value!r}")

    def _check_data(self) -> None:
        """What measures on data needs some."""
        for name in ("max_drop", "metric", "min_accuracy"):
            if getattr(self, name) not in (None, (), []) and self.data is None and self.test_data is None:
                raise UsageError(
                    f"{spelled(name)} measures on data: give {spelled('data')} or {spelled('test_data')}"
                    ", with labels for top1"
                )
        if self.min_snr is not None and not self.measure and self.data is None and self.test_data is None:
            raise UsageError(f"{spelled('min_snr')} has to be measured: give data, or leave the measuring on")

    def _check_lossless(self) -> None:
        """What is removed losslessly is chosen and made up for in one way only."""
        if not self.lossless:
            return
        if self.thaw:
            raise UsageError("thaw approximates norms over channels, which lossless must not; give one of them")
        others: dict[str, Any] = {
            "method": "auto",
            "compensate": "auto",
            "allocation": "auto",
            "ratio_for": {},
            "retrain": None,
        }
        for name, default in others.items():
            if (given := getattr(self, name)) != default and not (name == "compensate" and given == "none"):
                raise UsageError(f"lossless removes all that has no part in the output; {name} has no say in it")

    def _settle(self) -> None:
        """Put names in the place of "auto"."""
        least = self.target is not None or self.max_drop is not None
        solved = self.compensate in ("auto", "lstsq") and self.retrain is None and self.threshold is None
        solved = solved and not self.method_options  # they were written for a method of weights
        chosen = self.method == "auto" and not self.lossless and (least or solved)
        method = "obs" if chosen else "ncc" if self.method == "auto" else self.method
        repairs = not self.lossless and (self.retrain is None or method == "obs")
        spread = method == "obs" and self.ratio is None
        settled = {
            "method": method,
            "allocation": "sensitivity" if spread else "uniform",
            "compensate": "lstsq" if repairs else "none",
        }
        for name, value in settled.items():
            if name == "method" or getattr(self, name) == "auto":
                object.__setattr__(self, name, value)

    def _read_shares(self) -> None:
        """Put numbers in the place of shares that are written as texts.  Raises UsageError for what is no share."""
        read: dict[str, Any] = {"max_ratio": share(self.max_ratio, "the largest ratio")}
        if self.min_accuracy is not None:
            read["min_accuracy"] = share(self.min_accuracy, "the least accuracy")
        if self.ratio is not None:
            read["ratio"] = share(self.ratio, "the ratio to remove")
        if self.threshold is not None:
            read["threshold"] = share(self.threshold, "the similarity to remove from", low=-1)
        read["ratio_for"] = {k: share(v, f"the ratio to remove of {k!r}") for k, v in self.ratio_for.items()}
        for name, value in read.items():
            object.__setattr__(self, name, value)
        self.target_share()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Request":
        """A request from keyword options.  Raises UsageError for a name that is no option."""
        names = {f.name for f in fields(cls)}
        if unknown := sorted(set(options) - names):
            raise UsageError(f"there is no option {unknown[0]!r}; there are {', '.join(sorted(names))}")
        return cls(**options)

    def target_share(self) -> tuple[str, float] | None:
        """(kind, share to keep).  Raises UsageError."""
        if self.target is None:
            return None
        kind, mark, left = str(self.target).partition("=")
        if not mark:
            raise UsageError(f"a target looks like macs=0.5 (keep half of the MACs), not {self.target!r}")
        return kind.strip().lower(), share(left, f"the share of {kind.strip()} to keep")

    def allowed_drop(self) -> float | None:
        """The most that the metric may fall.  Raises UsageError."""
        if self.max_drop is None:
            return None
        text = str(self.max_drop).strip()
        try:
            drop = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            drop = -1.0
        if not 0 <= drop < float("inf"):
            raise UsageError(f"max_drop looks like 0.01 or 1% (one point of the metric), not {self.max_drop!r}")
        if drop > 1 and (not self.metric or self.metric[0] in SHARES):
            other = "" if self.metric else f" (or name a metric of another unit: {spelled('metric', 'snr')})"
            raise UsageError(f"a largest drop of {drop:g} is more than all of a metric from 0 to 1{meant(drop)}{other}")
        return drop

    def told(self) -> dict[str, Any]:
        """Options that decide which channels stay, as JSON values, for the plan."""
        names: tuple[str, ...] = (
            "ratio",
            "target",
            "threshold",
            "max_drop",
            "method",
            "method_options",
            "compensate",
            "allocation",
            "round_to",
        )
        if self.lossless:
            names = ("lossless", "round_to")
        if self.thaw:
            names += ("thaw",)
        names += ("max_ratio", "ratio_for", "exclude", "include", "heads", "seed")
        values = {name: getattr(self, name) for name in names}
        plain = {
            k: dict(v) if isinstance(v, Mapping) else list(v) if isinstance(v, (tuple, list)) else v
            for k, v in values.items()
        }
        return {k: v for k, v in plain.items() if v not in (None, [], {})}


def given_budgets(options: Mapping[str, Any]) -> list[str]:
    """Names of the budgets among these options."""
    return [name for name in BUDGETS if options.get(name) is not None and options.get(name) is not False]
