"""What the comparison of two models has shown, what it has not, and what was run for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.errors import CheckFailed
from onnxprune.runtime.stimuli import NEVER, Trial, TrialRuns, silent
from onnxprune.runtime.taps import Taps
from onnxprune.runtime.tolerance import Check

NOT_MASKED = "the pruned model is not the masked original"


@dataclass(frozen=True)
class Proof:
    """Whether masked = pruned held in `runs` runs, and the check that came closest to failing (or failed most).

    `sizes`, `inputs` and `branches` say what was run, `skipped` what was not and why. `silent` outputs say nothing:
    they are the same whatever goes in, or never a number.
    """

    passed: bool
    output: str
    error: float
    tolerance: float
    runs: int
    checks: tuple[Check, ...] = ()
    sizes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = f"largest relative difference {self.error:.1e} at '{self.output}' ({self.tolerance:.0e} allowed)"
        return f"{'equal up to rounding' if self.passed else 'NOT equal'}: {figures}, {self.runs} runs"

    @property
    def ran(self) -> dict[str, tuple[str, ...]]:
        """What was run and what was not."""
        return {"sizes": self.sizes, "inputs": self.inputs, "branches": self.branches, "not": self.skipped}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the proof could not show."""
        said = [f"'{name}' is {what} whatever goes in" for name, what in self.silent.items()]
        return (f"the outputs say nothing: {', '.join(said)}, so that nothing is proven of them",) if said else ()

    def require(self, problem: str = NOT_MASKED, cause: str = "") -> "Proof":
        """Itself, or `CheckFailed` with these words where the models differ."""
        if self.passed:
            return self
        failed = max((c for c in self.checks if not c.passed), key=lambda c: bool(c.note), default=None)
        where = f" at {failed.where}" if failed and failed.where else ""
        note = failed.note if failed and failed.note else str(self)
        raise CheckFailed(f"{problem}{where}: {note}{cause}")


def concluded(checks: Sequence[Check], trials: TrialRuns, ways: Sequence[str], taps: Taps) -> Proof:
    """What all checks come to."""
    runs, mute = trials.runs, _mute(trials.runs, taps)
    spoken = {n for t in runs for n in t.outputs if n not in taps.names and n not in taps.fixed} - set(mute)
    if mute and not spoken and NEVER in mute.values():
        note = f"the outputs say nothing: '{next(iter(mute))}' is {NEVER} on every input that was tried"
        checks = [*checks, Check(next(iter(mute)), math.nan, 0.0, False, False, f"{note}; give real input with --data")]
    if not checks or not runs:
        checks = [Check("", math.nan, 0.0, False, False, "nothing was run")]
    closest = max(checks, key=lambda c: (not c.passed, c.error / c.tolerance if c.tolerance else c.error))
    sizes, kinds = dict.fromkeys(t.size for t in runs if t.size), dict.fromkeys(t.kind for t in runs if t.kind)
    return Proof(
        all(c.passed for c in checks), closest.name, closest.error, closest.tolerance, len(runs), tuple(checks),
        sizes=tuple(sizes), inputs=tuple(kinds), branches=tuple(ways), skipped=tuple(trials.skipped),
        silent=mute,
    )  # fmt: skip


def _mute(runs: Sequence[Trial], taps: Taps) -> dict[str, str]:
    """Outputs that depend on the input but say nothing, and in front of which no tap does either."""
    dumb = silent(runs, {name for trial in runs for name in trial.outputs})
    outputs = [n for n in dumb if n not in taps.names and n not in taps.fixed]
    return {n: dumb[n] for n in outputs if not any(tap not in dumb for tap in taps.before.get(n, ()))}
