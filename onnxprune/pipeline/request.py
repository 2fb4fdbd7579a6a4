"""What a user asks for: the options together, those that go with each other, and names in the place of "auto"."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.declare import options_of, read_values
from onnxprune.pipeline.kinds import meant
from onnxprune.pipeline.names import SHARES
from onnxprune.pipeline.table import (
    BudgetOptions,
    ChannelOptions,
    JudgingOptions,
    ReadingOptions,
    RunningOptions,
    TrainingOptions,
    WritingOptions,
)
from onnxprune.training import require_torch
from onnxprune.training.recipe import EPOCHS

BUDGETS = {"ratio": 0.5, "target": "macs=0.5", "threshold": 0.9, "max_drop": "1%", "lossless": True}  # with examples
SETTLED = ("method", "compensate", "allocation")  # by the pipeline itself, under `lossless`


@dataclass(frozen=True, kw_only=True)
class Request(
    WritingOptions, RunningOptions, TrainingOptions, ReadingOptions, JudgingOptions, ChannelOptions, BudgetOptions
):
    """Options of a run, as `onnxprune.pipeline.table` declares them; the command line has the same in kebab case.

    These are values as they are used; `of` makes them from what the user gives.
    """

    @classmethod
    def of(cls, given: Mapping[str, Any], command: str = "prune", **defaults: Any) -> "Request":
        """The request of a command from keyword options, with other defaults where the command has them.

        Values are read as their kinds say ("50%" becomes 0.5, one pattern a tuple of one).

        Raises UsageError for a name that is no option of the command, for a value that an option cannot have, and for
        options that do not go together.
        """
        known = options_for(command)
        if unknown := sorted(given.keys() - known):
            near = get_close_matches(unknown[0], known, 1)
            raise UsageError(
                f"{command} has no option {unknown[0]!r}; "
                + (f"did you mean {spelled(near[0])}?" if near else f"it has {', '.join(sorted(known))}")
            )
        asked = read_values(cls, {**defaults, **given})
        asked._check_budgets()
        asked._check_lossless()
        request = asked._settled()
        request._check_data()
        request._check_training()
        return request

    @property
    def budget(self) -> str:
        """The name of the budget; a ratio for some layers alone counts as one for all."""
        return next(iter(given_budgets(vars(self))), "ratio")

    @property
    def variable_rate(self) -> bool:
        """Whether groups may lose other shares than one another."""
        return self.allocation != "uniform" or self.method == "msvfp"

    def part(self, kind: type) -> dict[str, Any]:
        """The options of one of the parts, as keywords."""
        return {name: getattr(self, name) for name in options_of(kind)}

    def recorded(self) -> dict[str, Any]:
        """Options that decide which channels stay, as JSON values, for the plan."""
        rows = [o for o in options_of(Request).values() if o.plan and not (self.lossless and o.name in SETTLED)]
        given = [(o, v) for o in rows if (v := getattr(self, o.name)) is not None and v is not False]
        plain = {o.name: o.kind.plain(v) for o, v in given}
        if self.heads == "auto":  # nothing was rotated that would ask for another way
            plain["heads"] = "whole"
        return {name: value for name, value in plain.items() if value not in ([], {})}

    def _check_budgets(self) -> None:
        budgets = given_budgets(vars(self))
        if len(budgets) > 1:
            raise UsageError(f"{spelled(budgets[0])} and {spelled(budgets[1])} are two budgets; give one")
        if not budgets and not self.ratio_for:
            examples = [spelled(name, value) for name, value in BUDGETS.items()]
            raise UsageError(f"say how much to remove: {', '.join(examples[:-1])} or {examples[-1]}")
        drop = self.max_drop
        if drop is not None and drop > 1 and (not self.metric or self.metric[0] in SHARES):
            other = "" if self.metric else f" (or name a metric of another unit: {spelled('metric', 'snr')})"
            raise UsageError(f"a largest drop of {drop:g} is more than all of a metric from 0 to 1{meant(drop)}{other}")

    def _check_lossless(self) -> None:
        """What is removed losslessly is chosen and made up for in one way only."""
        if not self.lossless:
            return
        if self.thaw:
            raise UsageError(
                f"{spelled('thaw')} approximates norms over channels, which {spelled('lossless')} must not; give one "
                "of them"
            )
        for name in (*SETTLED, "ratio_for", "retrain", "finetune"):
            given = getattr(self, name)
            if given not in ("auto", {}, None) and not (name == "compensate" and given == "none"):
                raise UsageError(
                    f"{spelled('lossless')} removes all that has no part in the output; {spelled(name)} has no say in "
                    "it"
                )

    def _settled(self) -> "Request":
        """The same with names in the place of "auto"; the method first, by which the others go."""
        found = replace(self, method=self._usual_method()) if self.method == "auto" else self
        if found.allocation == "auto":
            found = replace(found, allocation=found._usual_allocation())
        return replace(found, compensate=found._usual_compensation()) if found.compensate == "auto" else found

    def _usual_method(self) -> str:
        """The one that solves layers again, where that is worth running the network; else one that looks at weights."""
        solves = self.compensate in ("auto", "lstsq") and self.retrain is None and self.threshold is None
        solves = solves and not self.method_options  # they were written for a method of weights
        runs = solves or self.target is not None or self.max_drop is not None
        return "obs" if runs and not self.lossless else "ncc"

    def _usual_allocation(self) -> str:
        """By sensitivity where the method measures it, unless all groups are to lose the same share."""
        bare = self.max_drop is None and self.compensate == "none" and not self.finetune  # no layer is solved again
        even = self.ratio == 0 or (self.ratio is not None and self.steps is not None)
        return "sensitivity" if self.method == "obs" and not bare and not even else "uniform"

    def _usual_compensation(self) -> str:
        """Least squares, unless the network is trained instead, in the search or by the user."""
        trained = self.retrain is not None and self.method != "obs"
        trained |= self.method == "msvfp" and self.finetune is not None
        return "none" if self.lossless or trained else "lstsq"

    def _check_training(self) -> None:
        """What is said of a training needs one, and that needs torch.  Raises UsageError before any work."""
        if self.finetune is not None:
            require_torch()
        rows = options_of(TrainingOptions)
        given = [name for name, row in rows.items() if name != "epochs" and getattr(self, name) != row.default]
        if given and self.finetune is None:
            raise UsageError(f"{spelled(given[0])} is about training: say how long, with {spelled('finetune', EPOCHS)}")
        for name in ("minutes", "lr"):
            if getattr(self, name) == 0:
                raise UsageError(f"{spelled(name)} wants a number above 0")
        costs = {limit.cost for limit in self.target or ()}
        if self.steps and self.ratio is None and not (costs and costs <= {"macs", "params"}):
            raise UsageError(
                f"{spelled('steps')} goes with {spelled('ratio', 0.5)}, {spelled('target', 'macs=0.5')} or "
                f"{spelled('target', 'params=0.5')}"
            )

    def _check_data(self) -> None:
        """What measures on data needs some."""
        if self.data is not None or self.test_data is not None:
            return
        for name in ("max_drop", "metric", "min_accuracy"):
            if getattr(self, name) not in (None, ()):
                raise UsageError(
                    f"{spelled(name)} measures on data: give {spelled('data')} or {spelled('test_data')}"
                    ", with labels for top1"
                )
        if self.min_snr is not None and not self.measure:
            raise UsageError(
                f"{spelled('min_snr')} has to be measured: give {spelled('data')}, or leave the measuring on"
            )


def options_for(command: str) -> list[str]:
    """Names of the options that a command has, in the order of the table."""
    return [name for name, option in options_of(Request).items() if command in option.commands]


def given_budgets(options: Mapping[str, Any]) -> list[str]:
    """Names of the budgets among these options."""
    return [name for name in BUDGETS if options.get(name) is not None and options.get(name) is not False]
